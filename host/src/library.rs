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
        let mut file = ComponentFile::parse(&incoming.path, bytes)?;
        let path = self.path(&file.digest);
        incoming
            .file
            .sync_all()
            .and_then(|()| fs::rename(&incoming.path, &path))
            .and_then(|()| File::open(&self.folder)?.sync_all())
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        file.path = path;
        Ok(file)
    }

    /// Whether there is a file for this digest; [`Library::get`] looks into it.
    pub fn lists(&self, digest: &str) -> bool {
        is_digest(digest) && self.path(digest).is_file()
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

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "name = \"exprsn-a\"\nversion = \"1.0.0\"\nport = 1\n";

    fn component(padding: &str) -> Vec<u8> {
        crate::component::tests::component(&format!("{MANIFEST}# {padding}\n"))
    }

    fn library() -> (tempfile::TempDir, Library) {
        let data = tempfile::tempdir().unwrap();
        let library = Library::open(data.path()).unwrap();
        (data, library)
    }

    #[test]
    fn what_is_taken_in_is_found_by_its_digest() {
        let (data, library) = library();
        let file = library.put(component("")).unwrap();
        assert_eq!(file.manifest.name.as_str(), "exprsn-a");
        assert_eq!(library.get(&file.digest).unwrap().bytes, file.bytes);
        let mut incoming = library.receive().unwrap();
        for byte in component("b") {
            incoming.write(&[byte]).unwrap();
        }
        let other = library.keep(incoming).unwrap();
        assert_eq!(library.get(&other.digest).unwrap().bytes, component("b"));
        drop(library.receive().unwrap());
        let names: Vec<_> = fs::read_dir(data.path().join("components"))
            .unwrap()
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn one_changed_byte_is_refused_by_name() {
        let (_data, library) = library();
        let file = library.put(component("")).unwrap();
        let mut changed = file.bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        fs::write(&file.path, &changed).unwrap();
        let error = library.get(&file.digest).unwrap_err().to_string();
        assert!(
            error.contains(&file.digest) && error.contains("was changed"),
            "{error}"
        );
        assert_eq!(library.put(component("")).unwrap().bytes, file.bytes);
        assert!(
            library.get(&file.digest).is_ok(),
            "taking it in again mends it"
        );
    }

    #[test]
    fn what_is_no_component_leaves_nothing() {
        let (data, library) = library();
        assert!(library.put(b"garbage".to_vec()).is_err());
        let mut incoming = library.receive().unwrap();
        incoming.write(b"garbage").unwrap();
        assert!(library.keep(incoming).is_err());
        let mut incoming = library.receive().unwrap();
        incoming.bytes = COMPONENT_BYTES_MAX;
        assert!(incoming.write(b"x").is_err() && incoming.is_too_large());
        drop(incoming);
        for bad in ["", "../../etc/passwd", &"A".repeat(64)] {
            assert!(library.get(bad).is_err(), "{bad}");
        }
        assert_eq!(
            fs::read_dir(data.path().join("components"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn the_library_is_bounded_and_keeps_what_is_admitted() {
        let (_data, library) = library();
        let first = library.put(component("")).unwrap().digest;
        let old = fs::File::options()
            .write(true)
            .open(library.path(&first))
            .unwrap();
        old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        for n in 0..UNADMITTED_MAX {
            library.put(component(&n.to_string())).unwrap();
        }
        library.prune(&HashSet::from([first.clone()])).unwrap();
        assert!(library.get(&first).is_ok());
        library.prune(&HashSet::new()).unwrap();
        assert!(library.get(&first).is_err());
    }

    #[test]
    fn a_signature_covers_the_whole_file() {
        let key = crate::component::SigningKey::generate().unwrap();
        let (_data, library) = library();
        let unsigned = library.put(component("")).unwrap();
        assert_eq!(unsigned.signer, None);
        let signed = unsigned.signed(&key).unwrap();
        let file = library.put(signed.clone()).unwrap();
        assert_eq!(file.signer.as_ref().unwrap().key, key.public());
        assert_eq!(file.signed(&key).unwrap(), signed, "signed anew, not twice");
        let refused = |bytes: Vec<u8>, expected: &str| {
            let error = format!("{:?}", library.put(bytes).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        let mut changed = signed.clone();
        changed[40] ^= 1;
        refused(changed, "bad");
        let section = &signed[unsigned.bytes.len()..];
        refused([&signed, section].concat(), "not the last one");
        refused([&signed[..], &[0, 2, 1, b'x']].concat(), "not the last one");
    }
}
