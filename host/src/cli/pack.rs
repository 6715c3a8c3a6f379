//! `exprsn component pack`: a component, its manifest and its migrations in one file.

use super::output::{CliError, Result, Style, print, print_json};
use crate::{component::ComponentFile, pack};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Puts manifest and migrations into a component, so that one file can be shipped.
///
/// Checks what a host checks before it loads the file: that the manifest is valid, that migrations are named as the
/// migrator reads names, and that the component imports what the manifest asks for, neither more nor less. What the file
/// had of these is replaced; its signature, which would no longer be good, is taken away.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  cargo build --release --target wasm32-wasip2
  exprsn component pack target/wasm32-wasip2/release/guestbook.wasm --migrations migrations -o guestbook.wasm
  exprsn component pack bookmarks.wasm --manifest component.toml --json")]
pub struct PackArgs {
    /// The component, as its language's tools made it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The manifest.
    #[arg(long, value_name = "FILE", default_value = "component.toml")]
    manifest: PathBuf,
    /// The folder of migrations, `NNNN_name.sql`.
    #[arg(long, value_name = "DIR")]
    migrations: Option<PathBuf>,
    /// Where the packed component is written; by default it replaces FILE.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Prints what was written as JSON.
    #[arg(long)]
    json: bool,
}

/// A packed component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Packed {
    pub name: String,
    pub version: String,
    pub file: PathBuf,
    pub bytes: usize,
    pub migrations: usize,
    pub digest: String,
}

impl PackArgs {
    /// Runs the command.
    pub fn run(self) -> Result {
        let output = self.output.as_ref().unwrap_or(&self.file);
        let packed = pack_file(
            &self.file,
            &self.manifest,
            self.migrations.as_deref(),
            output,
        )?;
        if self.json {
            return print_json(&packed);
        }
        print(&packed.line(Style::stdout()));
        Ok(())
    }
}

/// Packs `component` into `output`, after the checks that a host makes before it loads one.
pub fn pack_file(
    component: &Path,
    manifest: &Path,
    migrations: Option<&Path>,
    output: &Path,
) -> Result<Packed> {
    let bytes = std::fs::read(component).map_err(|error| {
        CliError::failed(format!("cannot read `{}`: {error}", component.display()))
            .remedy("build the component first")
    })?;
    let manifest = pack::read_manifest(manifest)?;
    let migrations = match migrations {
        Some(folder) if !folder.is_dir() => {
            return Err(CliError::failed(format!(
                "`{}` is no folder of migrations",
                folder.display()
            ))
            .remedy("name it with --migrations, or leave that away where there are none"));
        }
        Some(folder) => pack::read_migrations(folder)?,
        None => Default::default(),
    };
    let unusable = |error: wasmtime::Error| {
        CliError::failed(format!(
            "`{}` cannot be packed: {}",
            component.display(),
            crate::telemetry::chain(&error)
        ))
    };
    let packed = pack::pack(&bytes, &manifest, &migrations).map_err(unusable)?;
    let file = ComponentFile::parse(output, packed).map_err(unusable)?;
    file.check_requests().map_err(unusable)?;
    write(output, &file.bytes)?;
    Ok(Packed {
        name: file.manifest.name.to_string(),
        version: file.manifest.version,
        file: output.to_owned(),
        bytes: file.bytes.len(),
        migrations: migrations.files.len(),
        digest: file.digest,
    })
}

/// Replaces the file in one step: a host that reads it never sees half of it.
fn write(path: &Path, bytes: &[u8]) -> Result {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|error| CliError::failed(format!("cannot write `{}`: {error}", path.display())))
}

impl Packed {
    fn line(&self, style: Style) -> String {
        let migrations = match self.migrations {
            0 => String::new(),
            1 => ", 1 migration".to_owned(),
            many => format!(", {many} migrations"),
        };
        format!(
            "{} {} → {} ({} kB{migrations}) {}",
            style.bold(&self.name),
            self.version,
            self.file.display(),
            self.bytes.div_ceil(1000),
            style.dim(&self.digest)
        )
    }
}
