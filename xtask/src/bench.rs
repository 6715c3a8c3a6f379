//! `cargo xtask bench`: measures what the README's benchmark section quotes.

use crate::build_components::{Kind, Request, build_components, build_host};
use crate::shell::{Result, Steps, cargo, run, target_dir};
use std::path::Path;

/// Builds what is measured, then hands all arguments to `host/benches`; its results go to stdout.
pub fn bench(root: &Path, arguments: &[String]) -> Result<()> {
    let mut steps = Steps::new(4);
    let all = |kind| Request {
        kind,
        names: Vec::new(),
        json: false,
    };
    steps.step("components", || {
        build_components(root, &all(Kind::Services))
    })?;
    steps.step("guests", || build_components(root, &all(Kind::Guests)))?;
    steps.step("host in release", || build_host(root))?;
    steps.step("benchmarks", || {
        let mut command = cargo();
        command
            .current_dir(root)
            .env("CARGO_TARGET_DIR", target_dir(root));
        command.args(["bench", "--package", "exprsn", "--bench", "platform"]);
        run(command.args(["--profile", "release", "--"]).args(arguments))
    })
}
