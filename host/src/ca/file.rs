//! Files that hold secrets: readable by their owner alone, created whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};
use wasmtime::{Result, bail, error::Context as _, format_err};

/// Mode bits that let anybody but the owner in.
const OTHERS: u32 = 0o077;

/// Creates a folder that only its owner can enter, with its parents; refuses one that others can enter.
pub fn private_folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create the folder `{}`", path.display()))?;
    refuse_others(path, "700")
}

/// Reads a secret; none if there is no such file. Refuses a file that others could read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => refuse_others(path, "600").map(|()| Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format_err!("cannot read `{}`: {error}", path.display())),
    }
}

/// The file's content; if there is none, the file is made of what `make` returns.
///
/// Two processes that start at once end with the same content: the first to finish wins.
pub fn read_or_create(path: &Path, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    if let Some(bytes) = read(path)? {
        return Ok(bytes);
    }
    let bytes = make()?;
    match with_temporary(path, &bytes, |temporary| fs::hard_link(temporary, path)) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => read(path)?
            .ok_or_else(|| format_err!("`{}` vanished while it was read", path.display())),
        Err(error) => Err(format_err!("cannot create `{}`: {error}", path.display())),
    }
}

/// Writes a secret, replacing a file of that name in one step.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    with_temporary(path, bytes, |temporary| fs::rename(temporary, path))
        .map_err(|error| format_err!("cannot write `{}`: {error}", path.display()))
}

/// Writes `bytes` beside `path`, publishes them by `publish`, and leaves nothing behind.
fn with_temporary(
    path: &Path,
    bytes: &[u8],
    publish: impl FnOnce(&Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("{:016x}.new", rand::random::<u64>()));
    let outcome = write_synced(&temporary, bytes).and_then(|()| publish(&temporary));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound && outcome.is_ok() => return Err(error),
        _ => {}
    }
    outcome?;
    // The name is durable only when its folder is.
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn refuse_others(path: &Path, mode: &str) -> Result<()> {
    let found = fs::metadata(path)
        .with_context(|| format!("cannot read `{}`", path.display()))?
        .mode();
    if found & OTHERS != 0 {
        bail!(
            "`{}` holds secrets and is open to others (mode {:o}); close it with `chmod {mode} {0}`",
            path.display(),
            found & 0o777
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn secrets_are_created_once_and_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("a/b");
        private_folder(&inner).expect("created");
        assert_eq!(fs::metadata(&inner).expect("there").mode() & 0o777, 0o700);
        let path = inner.join("key");
        assert_eq!(read(&path).expect("readable"), None);
        assert_eq!(
            read_or_create(&path, || Ok(b"one".to_vec())).expect("created"),
            b"one"
        );
        assert_eq!(
            read_or_create(&path, || panic!("made twice")).expect("read"),
            b"one"
        );
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        replace(&path, b"two").expect("replaced");
        assert_eq!(read(&path).expect("readable").as_deref(), Some(&b"two"[..]));
        assert_eq!(
            fs::read_dir(&inner).expect("listed").count(),
            1,
            "a temporary file was left"
        );
    }

    #[test]
    fn the_first_of_two_creators_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let mine = read_or_create(&path, || {
            fs::write(&path, b"theirs")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            Ok(b"mine".to_vec())
        });
        assert_eq!(mine.expect("read"), b"theirs");
    }

    #[test]
    fn open_files_are_refused_with_the_remedy() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        fs::write(&path, b"x").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("opened");
        let error = read(&path).expect_err("refused").to_string();
        assert!(
            error.contains("chmod 600") && error.contains("644"),
            "{error}"
        );
    }
}
