//! What lies in a data directory, and how a file is copied and digested.

use crate::{
    cli::output::{CliError, Result},
    component::hex,
};
use aws_lc_rs::digest::{Context, SHA256};
use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

/// What the host makes anew, or what belongs to the file system: in the data directory itself.
const LEFT_OUT: [&str; 5] = ["cache", "lock", "lost+found", "operator.token", RESTORING];
/// The folder in which a restored data directory is put together.
pub const RESTORING: &str = "restoring";
/// Objects' and components' folders, which hold what services wrote: no rule about names applies there.
const BLOB: &str = "blob";
const COMPONENTS: &str = "components";
/// What an unfinished upload of an object is written to, in a service's folder.
const PARTIAL_OBJECTS: &str = "_partial";
/// Bytes that are copied at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Folders within folders; the host makes far fewer.
const DEPTH_MAX: usize = 32;
/// The bits of a mode that are kept.
pub const MODE_BITS: u32 = 0o777;

/// A file or folder of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Below the data directory, with `/`.
    pub path: String,
    pub mode: u32,
    pub folder: bool,
}

impl Entry {
    /// Whether it is an SQLite file of the host's or of a service's. What services store as objects never counts as one.
    pub fn is_database(&self) -> bool {
        let within = self.path.split_once('/').map(|(folder, _)| folder);
        !self.folder && self.path.ends_with(".db") && matches!(within, None | Some("sql"))
    }
}

/// Everything that a backup of `data` holds, folders before what is in them.
pub fn walk(data: &Path) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    walk_into(data, "", 0, &mut found)?;
    Ok(found)
}

fn walk_into(data: &Path, below: &str, depth: usize, found: &mut Vec<Entry>) -> Result {
    let folder = data.join(below);
    if depth > DEPTH_MAX {
        return Err(CliError::failed(format!(
            "`{}` lies more than {DEPTH_MAX} folders deep",
            folder.display()
        ))
        .remedy("take what is not the platform's out of the data directory"));
    }
    let listed = match fs::read_dir(&folder) {
        // A service's folder may go while the platform runs.
        Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => return Ok(()),
        listed => listed.map_err(about("cannot read", &folder))?,
    };
    let mut names = Vec::new();
    for entry in listed {
        let name = entry.map_err(about("cannot read", &folder))?.file_name();
        names.push(name.into_string().map_err(|name| {
            CliError::failed(format!("{name:?} in `{}` is no text", folder.display()))
                .remedy("take what is not the platform's out of the data directory")
        })?);
    }
    names.sort();
    for name in names.iter().filter(|name| is_kept(below, name)) {
        let path = if below.is_empty() {
            name.clone()
        } else {
            format!("{below}/{name}")
        };
        let Some(entry) = look(data, path, depth)? else {
            continue;
        };
        let (path, folder) = (entry.path.clone(), entry.folder);
        found.push(entry);
        if folder {
            walk_into(data, &path, depth + 1, found)?;
        }
    }
    Ok(())
}

/// What is at this path; none if it has gone meanwhile.
fn look(data: &Path, path: String, depth: usize) -> Result<Option<Entry>> {
    let full = data.join(&path);
    // An operator may have put a whole folder, or a database, on another disk.
    let looked = if depth == 0 {
        fs::metadata(&full)
    } else {
        fs::symlink_metadata(&full)
    };
    let metadata = match looked {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        looked => looked.map_err(about("cannot read", &full))?,
    };
    if !metadata.is_file() && !metadata.is_dir() || path.contains('\n') {
        return Err(CliError::failed(format!(
            "{full:?} is neither a file nor a folder of the platform's"
        ))
        .remedy("take what is not the platform's out of the data directory"));
    }
    Ok(Some(Entry {
        path,
        mode: metadata.mode() & MODE_BITS,
        folder: metadata.is_dir(),
    }))
}

/// Whether a name in the folder `below` is part of a backup.
fn is_kept(below: &str, name: &str) -> bool {
    let beside_database = ["-wal", "-shm", "-journal"].iter().any(|end| {
        name.strip_suffix(end)
            .is_some_and(|name| name.ends_with(".db"))
    });
    match below.split('/').next().unwrap_or_default() {
        "" => !LEFT_OUT.contains(&name) && !beside_database && !is_temporary(name),
        BLOB => below.split('/').count() != 2 || name != PARTIAL_OBJECTS,
        COMPONENTS => !name.ends_with(".partial") && !name.ends_with(".tmp"),
        "sql" => !beside_database,
        _ => !is_temporary(name),
    }
}

/// Whether the host is just writing a secret to it, to rename it then.
fn is_temporary(name: &str) -> bool {
    name.ends_with(".new") || name.ends_with(".tmp")
}

/// Copies a file that nobody changes in place. Answers its length and digest.
pub fn copy(from: &Path, to: &Path, mode: u32) -> io::Result<(u64, String)> {
    let mut source = File::open(from)?;
    let mut target = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(to)?;
    let copied = pass(&mut source, |chunk| target.write_all(chunk))?;
    // What the umask has taken.
    target.set_permissions(fs::Permissions::from_mode(mode))?;
    Ok(copied)
}

/// The length and the digest of a file.
pub fn digest(path: &Path) -> io::Result<(u64, String)> {
    pass(&mut File::open(path)?, |_| Ok(()))
}

fn pass(
    source: &mut File,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(u64, String)> {
    let (mut context, mut bytes) = (Context::new(&SHA256), 0);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = source.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, hex(context.finish().as_ref())));
        }
        context.update(&buffer[..read]);
        bytes += read as u64;
        each(&buffer[..read])?;
    }
}

/// What could not be done with which file.
pub fn about(doing: &str, path: &Path) -> impl Fn(io::Error) -> CliError {
    move |error| CliError::failed(format!("{doing} `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_makes_anew_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        let kept = [
            "blob/exprsn-x/avatars/notes.db-wal",
            "blob/exprsn-x/avatars/x.new",
            "broker.db",
            "ca/keys/exprsn-x.pem",
            "components/ab.wasm",
            "sql/exprsn-x.db",
        ];
        let left_out = [
            "blob/exprsn-x/_partial/1",
            "broker.db-shm",
            "broker.db-wal",
            "ca/0123.new",
            "cache/x",
            "components/ab.partial",
            "lock",
            "operator.token",
            "restoring/x",
            "sql/exprsn-x.db-wal",
        ];
        kept.into_iter().chain(left_out).for_each(put);
        let found = walk(folder.path()).unwrap();
        let files: Vec<&str> = found
            .iter()
            .filter(|entry| !entry.folder)
            .map(|entry| entry.path.as_str())
            .collect();
        assert_eq!(files, kept);
        let databases: Vec<&str> = found
            .iter()
            .filter(|entry| entry.is_database())
            .map(|entry| entry.path.as_str())
            .collect();
        assert_eq!(databases, ["broker.db", "sql/exprsn-x.db"]);
    }

    #[test]
    fn links_within_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("ca")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("ca/key")).unwrap();
        let error = walk(folder.path()).unwrap_err();
        assert!(error.to_string().contains("ca/key"), "{error}");
    }

    #[test]
    fn copies_keep_bytes_and_modes() {
        let folder = tempfile::tempdir().unwrap();
        let [from, to] = ["a", "b"].map(|name| folder.path().join(name));
        fs::write(&from, b"abc").unwrap();
        let (bytes, copied) = copy(&from, &to, 0o640).unwrap();
        assert_eq!((bytes, copied.clone()), digest(&to).unwrap());
        assert!(copied.starts_with("ba7816bf"), "{copied}");
        assert_eq!(fs::metadata(&to).unwrap().mode() & MODE_BITS, 0o640);
        assert!(copy(&from, &to, 0o640).is_err(), "nothing is overwritten");
    }
}
