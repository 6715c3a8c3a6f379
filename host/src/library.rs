//! The library: component files that the host was given, each under the digest of its bytes.
//!
//! **Invariant:** what is read from here is hashed again; a file that differs from its name by one byte is refused.
//! Lying here permits nothing: what may run is what the authority has admitted.

use crate::component::{COMPONENT_BYTES_MAX, ComponentFile, hex, write_atomically};
use aws_lc_rs::digest;
use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use wasmtime::{Result, bail, ensure, error::Context as _, format_err};

/// Files that nobody has admitted and that are kept all the same; those received longest ago leave.
pub const UNADMITTED_MAX: usize = 64;

const EXTENSION: &str = "wasm";
const PARTIAL: &str = "partial";
/// Hexadecimal digits of SHA-256.
const DIGEST_DIGITS: usize = 64;

/// The folder of component files, `<data>/components`.
#[derive(Debug)]
pub struct Library {
    folder: PathBuf,
}

impl Library {
    /// Opens or makes the folder, and removes what an interrupted upload has left. Blocks.
    pub fn open(data: &Path) -> Result<Self> {
        let folder = data.join("components");
        let opened = || -> std::io::Result<()> {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)?;
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path
                    .extension()
                    .is_none_or(|extension| extension != EXTENSION)
                {
                    fs::remove_file(path)?;
                }
            }
            Ok(())
        };
        opened().with_context(|| {
            format!(
                "cannot use the folder `{}`; is the data directory writable?",
                folder.display()
            )
        })?;
        Ok(Self { folder })
    }

    /// Takes a component in: checked, then stored whole or not at all. Blocks.
    pub fn put(&self, bytes: Vec<u8>) -> Result<ComponentFile> {
        ensure!(bytes.len() as u64 <= COMPONENT_BYTES_MAX, "{}", too_large());
        let digest = hex(digest::digest(&digest::SHA256, &bytes).as_ref());
        let path = self.path(&digest);
        let file = ComponentFile::parse(&path, bytes)?;
        if !self.holds(&digest, &file.bytes) {
            write_atomically(&path, &file.bytes)?;
        }
        Ok(file)
    }

    /// Begins to take a component in whose bytes come one after the other.
    pub fn receive(&self) -> Result<Incoming> {
        let path = self
            .folder
            .join(format!("{}.{PARTIAL}", uuid::Uuid::new_v4().simple()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| {
                format!(
                    "cannot write `{}`; is the data directory writable?",
                    path.display()
                )
            })?;
        Ok(Incoming {
            file,
            path,
            bytes: 0,
        })
    }

    /// Checks what has come and stores it under its digest. Blocks.
    pub fn keep(&self, incoming: Incoming) -> Result<ComponentFile> {
        let bytes = fs::read(&incoming.path)
            .with_context(|| format!("cannot read `{}`", incoming.path.display()))?;
        let file = ComponentFile::parse(&incoming.path, bytes)?;
        let path = self.path(&file.digest);
        incoming
            .file
            .sync_all()
            .and_then(|()| fs::rename(&incoming.path, &path))
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(ComponentFile { path, ..file })
    }

    /// The component with this digest, its bytes hashed anew. Blocks.
    pub fn get(&self, digest: &str) -> Result<ComponentFile> {
        ensure!(
            is_digest(digest),
            "`{digest}` is no digest: {DIGEST_DIGITS} lower-case hexadecimal digits are"
        );
        let path = self.path(digest);
        let bytes = fs::read(&path).map_err(|error| {
            format_err!(
                "the component sha256:{digest} is not in the library (`{}`: {error}); send it with `exprsn component install`",
                path.display()
            )
        })?;
        let found = hex(digest::digest(&digest::SHA256, &bytes).as_ref());
        if found != digest {
            bail!(
                "`{}` was changed after it was taken in: its digest is {found}, and it was admitted as {digest}; remove the file and \
                 install the component anew",
                path.display()
            );
        }
        ComponentFile::parse(&path, bytes)
            .with_context(|| format!("component `{}` cannot be used", path.display()))
    }

    /// Removes what was taken in longest ago and is not among `admitted`, but for `UNADMITTED_MAX`. Blocks.
    pub fn prune(&self, admitted: &HashSet<String>) -> Result<()> {
        let mut others = Vec::new();
        for entry in fs::read_dir(&self.folder).context("reading the library")? {
            let path = entry.context("reading the library")?.path();
            let digest = path.file_stem().and_then(|stem| stem.to_str());
            let complete = path
                .extension()
                .is_some_and(|extension| extension == EXTENSION);
            if complete && digest.is_some_and(|digest| !admitted.contains(digest)) {
                let taken_in = fs::metadata(&path).and_then(|meta| meta.modified());
                others.push((taken_in.context("reading the library")?, path));
            }
        }
        others.sort();
        let surplus = others.len().saturating_sub(UNADMITTED_MAX);
        for (_, path) in &others[..surplus] {
            fs::remove_file(path).with_context(|| format!("cannot remove `{}`", path.display()))?;
        }
        Ok(())
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.{EXTENSION}"))
    }

    /// Whether the file is there as it should be.
    fn holds(&self, digest: &str, bytes: &[u8]) -> bool {
        fs::read(self.path(digest)).is_ok_and(|there| there == bytes)
    }
}

/// A component on its way in. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Incoming {
    file: File,
    path: PathBuf,
    bytes: u64,
}

impl Incoming {
    /// Adds the bytes that follow; refuses what would be more than a component may have. Blocks.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes += bytes.len() as u64;
        ensure!(self.bytes <= COMPONENT_BYTES_MAX, "{}", too_large());
        self.file
            .write_all(bytes)
            .with_context(|| format!("cannot write `{}`", self.path.display()))
    }

    /// Whether more has come than a component may have.
    pub fn is_too_large(&self) -> bool {
        self.bytes > COMPONENT_BYTES_MAX
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Renamed where it was kept.
        let _ = fs::remove_file(&self.path);
    }
}

fn too_large() -> String {
    format!("a component has at most {COMPONENT_BYTES_MAX} bytes")
}

fn is_digest(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == DIGEST_DIGITS && text.bytes().all(digit)
}
