//! The toolchain that builds for `wasm32-wasip2`: rustup's where it has the target, Debian's otherwise.
//!
//! Looked for in this order; the first that works is taken, and one line says which.
//! 1. the default toolchain has the target's standard library;
//! 2. `rustup target add` fetches it;
//! 3. Debian's newer `rustc-web` builds the standard library from source, with wasi-libc of a later Debian release;
//! 4. otherwise the commands that a person could run are printed.
//!
//! **Invariant:** the system's package sources are never changed; wasi-libc comes signed through private package
//! lists and lies in the cache folder.

mod debian;

pub use debian::{install_with, privileged_apt, update_lists};

use crate::shell::{Failure, Result, cargo, command, entries, file_name, on_path, output, say};
use std::path::PathBuf;
use std::process::Command;

pub const TARGET: &str = "wasm32-wasip2";

/// The program that links components.
const LINKER_CRATE: &str = "wasm-component-ld";

/// Set to `debian` to pass over rustup's target: for trying the way that CI machines without it take.
const CHOICE_VARIABLE: &str = "EXPRSN_WASM_TOOLCHAIN";

/// A way to build components.
pub struct Toolchain {
    /// One line for a person: which way was taken.
    pub description: String,
    way: Way,
}

enum Way {
    Rustup,
    Debian {
        wasi_libc: PathBuf,
        linker_folders: Vec<PathBuf>,
    },
}

impl Toolchain {
    /// `cargo build` for the target, in release; the caller adds manifest, packages and target directory.
    pub fn cargo_build(&self) -> Command {
        let mut command = match &self.way {
            Way::Rustup => {
                let mut command = cargo();
                command.arg("build");
                command
            }
            Way::Debian {
                wasi_libc,
                linker_folders,
            } => debian::cargo_build(wasi_libc, linker_folders),
        };
        command.args(["--release", "--target", TARGET]);
        command
    }

    /// A folder with a `cargo` that builds for the target when it stands first on PATH, as projects elsewhere call it; none
    /// where the default cargo does.
    pub fn cargo_folder(&self) -> Result<Option<PathBuf>> {
        match &self.way {
            Way::Rustup => Ok(None),
            Way::Debian {
                wasi_libc,
                linker_folders,
            } => debian::cargo_folder(wasi_libc, linker_folders).map(Some),
        }
    }
}

/// Finds the toolchain, installing what is missing; takes well under a tenth of a second when nothing is.
pub fn provision() -> Result<Toolchain> {
    let default = DefaultToolchain::find();
    let skip_rustup = std::env::var_os(CHOICE_VARIABLE).is_some_and(|choice| choice == "debian");
    if !skip_rustup {
        if default.as_ref().is_some_and(DefaultToolchain::has_target) {
            return Ok(rustup(format!("rustup's toolchain, which has {TARGET}")));
        }
        // wasi-libc in the cache means that an earlier run found no network for rustup: do not try again each time.
        if !debian::wasi_libc_folder().is_dir() && rustup_adds_target() {
            return Ok(rustup(format!(
                "rustup's toolchain; {TARGET} was fetched just now"
            )));
        }
    }
    debian::provision(default.as_ref())
}

fn rustup(description: String) -> Toolchain {
    Toolchain {
        description,
        way: Way::Rustup,
    }
}

fn rustup_adds_target() -> bool {
    if !on_path("rustup") {
        return false;
    }
    say(&format!(
        "{TARGET} is missing: trying `rustup target add {TARGET}`"
    ));
    output(command("rustup").args(["target", "add", TARGET])).is_ok()
        && DefaultToolchain::find().is_some_and(|default| default.has_target())
}

/// What the `rustc` on PATH says about itself.
struct DefaultToolchain {
    sysroot: PathBuf,
    target_libdir: PathBuf,
}

impl DefaultToolchain {
    fn find() -> Option<Self> {
        let asked = [
            "--print=sysroot",
            "--print=target-libdir",
            "--target",
            TARGET,
        ];
        let said = output(command("rustc").args(asked)).ok()?;
        let mut lines = said.lines();
        Some(DefaultToolchain {
            sysroot: lines.next()?.into(),
            target_libdir: lines.next()?.into(),
        })
    }

    /// The folder is named even when it does not exist, so look for what must be in it.
    fn has_target(&self) -> bool {
        let library = |path: &PathBuf| file_name(path).starts_with("libstd-");
        entries(&self.target_libdir).is_ok_and(|paths| paths.iter().any(library))
    }

    /// The folder of this toolchain's own linkers, if it has the one for components.
    fn linker_folder(&self) -> Option<PathBuf> {
        let targets = entries(&self.sysroot.join("lib/rustlib")).ok()?;
        let folders = targets.into_iter().map(|target| target.join("bin"));
        folders
            .into_iter()
            .find(|folder| folder.join(LINKER_CRATE).is_file() && folder.join("rust-lld").is_file())
    }
}

fn no_way(cause: &str) -> Failure {
    Failure::new(format!("no way to build components: {cause}")).remedy(format!(
        "with the network, and rustup from https://rustup.rs:\n  rustup target add {TARGET}\n\
         or on Debian:\n  sudo apt-get update\n  sudo apt-get install --no-install-recommends {}\nthen run this again",
        debian::PACKAGES.join(" ")
    ))
}
