//! `exprsn component keygen` and `sign`: a publisher's half.

use crate::{
    cli::output::{CliError, Result, print, print_json},
    component::{ComponentFile, SigningKey},
};
use clap::Args;
use serde_json::json;
use std::{
    fs,
    io::{ErrorKind, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Mode bits that let anybody but the owner in.
const OTHERS: u32 = 0o077;

/// Makes a key pair to sign components with.
///
/// The private key goes into FILE (PKCS#8, Ed25519, mode 0600) and nowhere else; the public key is printed alone on stdout.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn component keygen publisher.pem
  exprsn publisher trust acme $(exprsn component keygen acme.pem)")]
pub struct KeygenArgs {
    /// The file to make; one that is there is never overwritten.
    file: PathBuf,
}

/// Signs a component file, which says who vouches for it. A signature that it has is replaced.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn component sign notes.wasm --key publisher.pem
  exprsn component sign notes.wasm --key publisher.pem --output notes-signed.wasm --json")]
pub struct SignArgs {
    /// The component file.
    file: PathBuf,
    /// The private key, as `exprsn component keygen` makes it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the signed component goes; FILE itself by default.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Prints digest and public key as JSON.
    #[arg(long)]
    json: bool,
}

impl KeygenArgs {
    pub(super) fn run(self) -> Result {
        let key = SigningKey::generate()?;
        let pem = key.to_pem()?;
        let made = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.file)
            .and_then(|mut file| {
                file.write_all(pem.as_bytes())?;
                file.sync_all()
            });
        made.map_err(|error| {
            let remedy = match error.kind() {
                ErrorKind::AlreadyExists => {
                    "name another file: a key that is lost cannot be made again"
                }
                _ => "name a file in a folder that you can write to",
            };
            CliError::failed(format!("cannot make `{}`: {error}", self.file.display()))
                .remedy(remedy)
        })?;
        print(&key.public());
        Ok(())
    }
}

impl SignArgs {
    pub(super) fn run(self) -> Result {
        let key = read_key(&self.key)?;
        let file = ComponentFile::read(&self.file)?;
        let bytes = file.signed(&key)?;
        let output = self.output.as_ref().unwrap_or(&self.file);
        replace(output, &bytes)?;
        let signed = ComponentFile::read(output)?;
        if self.json {
            return print_json(&json!({
                "name": signed.manifest.name,
                "version": signed.manifest.version,
                "digest": signed.digest,
                "key": key.public(),
                "file": output,
            }));
        }
        print(&format!(
            "signed {} {} by the key {}\n{}  sha256:{}",
            signed.manifest.name,
            signed.manifest.version,
            key.public(),
            output.display(),
            signed.digest
        ));
        Ok(())
    }
}

/// Reads a private key that nobody else can read.
fn read_key(path: &Path) -> Result<SigningKey> {
    let unreadable = |error: std::io::Error| {
        CliError::failed(format!("cannot read the key `{}`: {error}", path.display()))
            .remedy("`exprsn component keygen FILE` makes one")
    };
    let mode = fs::metadata(path).map_err(unreadable)?.mode();
    if mode & OTHERS != 0 {
        return Err(CliError::failed(format!(
            "the key `{}` is open to others (mode {:o})",
            path.display(),
            mode & 0o777
        ))
        .remedy(format!("close it: chmod 600 {}", path.display())));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    SigningKey::from_pem(&text).map_err(|error| {
        CliError::failed(format!(
            "the key `{}` cannot be used: {error}",
            path.display()
        ))
    })
}

/// Writes a file in one step, so that a failure leaves the former one whole.
fn replace(path: &Path, bytes: &[u8]) -> Result {
    let temporary = path.with_extension("wasm-signing");
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|error| {
        // It may not have been made.
        let _ = fs::remove_file(&temporary);
        CliError::failed(format!("cannot write `{}`: {error}", path.display()))
            .remedy("name another file with --output")
    })
}
