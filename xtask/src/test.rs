//! `cargo xtask test`: everything that CI runs, in order, stopping at the first failure.
//!
//! **Invariant:** the host is compiled in the release profile here as everywhere, so wasmtime is compiled once.

use crate::build_components::{Kind, Request, build_components, build_host};
use crate::shell::{Result, Steps, bold, cargo, green, run, say, target_dir};
use crate::{check_deploy, ci_cache, services, tidy, toolchain};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lints on top of rustc's and clippy's own: all are errors. The threshold stands in `.cargo/clippy.toml`.
const LINTS: [&str; 5] = ["--", "-D", "warnings", "-D", "clippy::too_many_lines"];

/// Modules of host/tests/all that run on PostgreSQL and Redis too.
const ON_PRODUCTION_BACKENDS: [&str; 11] = [
    "auth::",
    "ca::",
    "cache::",
    "events::",
    "fanout::nothing_acknowledged",
    "herald::",
    "pulse::",
    "queue::",
    "setup::",
    "specification::",
    "timeline::",
];

/// Runs all checks, or with a filter only the builds and the tests whose names contain it.
pub fn test(root: &Path, filter: Option<&str>) -> Result<()> {
    let _alone = ci_cache::prepare(root)?;
    let guests = Kind::Guests.workspace(root).join("Cargo.toml").is_file();
    let mut steps = Steps::new(if filter.is_some() { 4 } else { 11 } + usize::from(guests));
    if filter.is_none() {
        steps.step("format", || format(root))?;
        steps.step("tidy", || tidy::tidy(root))?;
        steps.step("deployment", || check_deploy::check_deploy(root))?;
    }
    steps.step("components", || build(root, Kind::Services))?;
    if guests {
        steps.step("test guests", || build(root, Kind::Guests))?;
    }
    if filter.is_none() {
        steps.step("clippy: components", || {
            components_native(root, &["clippy", "--workspace", "--all-targets"], &LINTS)
        })?;
        steps.step("unit tests: components", || {
            components_native(root, &["test", "--workspace"], &[])
        })?;
        steps.step("clippy: host", || run(clippy_host(root).args(LINTS)))?;
    }
    steps.step("host", || build_host(root))?;
    steps.step("services for tests", services::provision)?;
    steps.step("tests: backends, policies, host and xtask", || {
        let mut tests = host_tests(root, filter);
        // The tests build an extension as a stranger would: with the `cargo` on PATH.
        if let Some(folder) = toolchain::provision()?.cargo_folder()? {
            tests.env("EXPRSN_WASM_CARGO", folder);
        }
        run(&mut tests)
    })?;
    if filter.is_none() {
        steps.step("tests: services on PostgreSQL and Redis", || {
            run(&mut on_production_backends(root))
        })?;
    }
    say("");
    steps.summary();
    say(&green(&bold("all passed")));
    Ok(())
}

fn build(root: &Path, kind: Kind) -> Result<()> {
    build_components(
        root,
        &Request {
            kind,
            names: Vec::new(),
            json: false,
        },
    )
}

/// The manifests of all workspaces that exist.
fn workspaces(root: &Path) -> Vec<PathBuf> {
    let folders = [
        root.to_path_buf(),
        Kind::Services.workspace(root),
        Kind::Guests.workspace(root),
    ];
    folders
        .into_iter()
        .map(|folder| folder.join("Cargo.toml"))
        .filter(|path| path.is_file())
        .collect()
}

fn format(root: &Path) -> Result<()> {
    for manifest in workspaces(root) {
        let mut command = cargo();
        command
            .args(["fmt", "--all", "--check", "--manifest-path"])
            .arg(manifest);
        run(&mut command).map_err(|failure| {
            failure.remedy("cargo fmt --all, in each workspace: ., components, host/tests/guests")
        })?;
    }
    Ok(())
}

fn in_workspace(folder: &Path, target: &Path) -> Command {
    let mut command = cargo();
    command.current_dir(folder).env("CARGO_TARGET_DIR", target);
    command
}

/// The services' code is pure enough to be checked and tested as native code, with the ordinary toolchain.
fn components_native(root: &Path, words: &[&str], more: &[&str]) -> Result<()> {
    let folder = Kind::Services.workspace(root);
    if !folder.join("Cargo.toml").is_file() {
        return Ok(());
    }
    let mut command = in_workspace(&folder, &target_dir(root).join("components-native"));
    run(command
        .env("CLIPPY_CONF_DIR", root.join(".cargo"))
        .args(words)
        .args(more))
}

fn clippy_host(root: &Path) -> Command {
    let mut command = in_workspace(root, &target_dir(root));
    command.env("CLIPPY_CONF_DIR", root.join(".cargo"));
    command.args(["clippy", "--release", "--workspace", "--all-targets"]);
    command
}

/// The tests of services and of what they build on, once more on the backends of production.
fn on_production_backends(root: &Path) -> Command {
    let mut command = tests(root);
    command
        .env("EXPRSN_TEST_BACKENDS", "production")
        .args(["-p", "exprsn", "--test", "all", "--"])
        .args(ON_PRODUCTION_BACKENDS);
    command
}

fn host_tests(root: &Path, filter: Option<&str>) -> Command {
    let mut command = tests(root);
    command
        .args([
            "-p",
            "exprsn-backends",
            "-p",
            "exprsn-policies",
            "-p",
            "exprsn",
            "-p",
            "xtask",
        ])
        .args(filter);
    command
}

/// `cargo test`, which finds the components and guests through the variables set here.
fn tests(root: &Path) -> Command {
    let mut command = in_workspace(root, &target_dir(root));
    command
        .env("EXPRSN_COMPONENTS", Kind::Services.output(root))
        .env("EXPRSN_GUESTS", Kind::Guests.output(root))
        .args(["test", "--release"]);
    command
}
