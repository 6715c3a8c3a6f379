//! `cargo xtask deny`: licences, sources, bans and known vulnerabilities of all dependencies.
//!
//! Not a part of `test`: compiling cargo-deny takes minutes, and the list of vulnerabilities needs the network.

use crate::build_components::Kind;
use crate::shell::{Failure, Result, cargo, on_path, output, run, say};
use std::path::Path;

pub fn deny(root: &Path) -> Result<()> {
    if !on_path("cargo-deny") && output(cargo().args(["deny", "--version"])).is_err() {
        say("installing cargo-deny, once (5 to 10 minutes)");
        let install = run(cargo().args(["install", "cargo-deny", "--locked"]));
        install.map_err(|failure| Failure::new(format!("cannot install cargo-deny: {failure}")))?;
    }
    let mut checks = vec!["licenses", "bans", "sources"];
    if output(
        cargo()
            .args(["deny", "fetch", "db"])
            .arg("--config")
            .arg(root.join(".cargo/deny.toml"))
            .current_dir(root),
    )
    .is_ok()
    {
        checks.push("advisories");
    } else {
        say(
            "known vulnerabilities are not checked: their list cannot be fetched without the network",
        );
    }
    for workspace in [root.to_path_buf(), Kind::Services.workspace(root)] {
        let mut command = cargo();
        command
            .args(["deny", "--manifest-path"])
            .arg(workspace.join("Cargo.toml"));
        command
            .args(["check", "--config"])
            .arg(root.join(".cargo/deny.toml"))
            .args(&checks);
        run(&mut command)?;
    }
    Ok(())
}
