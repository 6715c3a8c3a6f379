//! `cargo xtask up`: from a fresh checkout to a running platform.

use crate::build_components::{Kind, Request, build_components, build_host};
use crate::shell::{Failure, Result, Steps, bold, command, dim, line, say, target_dir};
use crate::toolchain;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Provisions, builds and then becomes the host, so that signals and the exit code are the host's own.
pub fn up(root: &Path, arguments: &[String]) -> Result<()> {
    prepare(root)?;
    become_host(root, arguments)
}

/// Provisions and builds all that runs.
pub fn prepare(root: &Path) -> Result<()> {
    let mut steps = Steps::new(3);
    steps.step("toolchain for components", || {
        let toolchain = toolchain::provision()?;
        say(&dim(&format!("using {}", toolchain.description)));
        Ok(())
    })?;
    let all = Request {
        kind: Kind::Services,
        names: Vec::new(),
        json: false,
    };
    steps.step("components", || build_components(root, &all))?;
    steps.step(
        "host in release (the first time takes minutes, wasmtime is large)",
        || build_host(root),
    )
}

/// Replaces this process by the host; answers only if that fails.
pub fn become_host(root: &Path, arguments: &[String]) -> Result<()> {
    let mut host = host_command(root, arguments);
    say(&bold(&line(&host)));
    let error = host.exec();
    Err(Failure::new(format!(
        "cannot start {}: {error}",
        line(&host)
    )))
}

fn host_command(root: &Path, arguments: &[String]) -> Command {
    let target = target_dir(root);
    let mut host = command(target.join("release/exprsn"));
    host.arg("up");
    if !has_option(arguments, "--components") {
        host.arg("--components").arg(target.join("components"));
    }
    if !has_option(arguments, "--config") {
        host.arg("--config").arg(root.join("platform.toml"));
    }
    host.args(arguments);
    host
}

fn has_option(arguments: &[String], option: &str) -> bool {
    arguments
        .iter()
        .any(|argument| argument == option || argument.starts_with(&format!("{option}=")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_person_gives_is_not_given_twice() {
        let arguments = [
            "--config=mine.toml".to_string(),
            "--services".to_string(),
            "ca".to_string(),
        ];
        let host = host_command(Path::new("/r"), &arguments);
        let given: Vec<_> = host
            .get_args()
            .map(|argument| argument.to_string_lossy())
            .collect();
        assert!(!given.contains(&"--config".into()), "{given:?}");
        assert!(
            given.contains(&"--components".into())
                && given.ends_with(&["--services".into(), "ca".into()])
        );
    }
}
