//! What a backup says of itself, and the digests that it is checked by.

use super::files::{self, about};
use crate::cli::output::{CliError, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path},
};

/// The data directory, in a backup.
pub const DATA: &str = "data";
/// Archives of pg_dump, in a backup.
pub const POSTGRES: &str = "postgres";
pub const MANIFEST_FILE: &str = "backup.json";
const DIGESTS_FILE: &str = "SHA256SUMS";
/// The layout described here. A later one that this version cannot read has another number.
const FORMAT: u32 = 1;
/// Hexadecimal digits of SHA-256.
const DIGEST_DIGITS: usize = 64;

/// What a backup is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    format: u32,
    /// The version of the host that wrote it.
    pub version: String,
    /// When the data directory was copied.
    pub taken_at_ms: i64,
    /// Folders of the data directory, with their modes.
    pub folders: BTreeMap<String, u32>,
    /// Its files.
    pub files: BTreeMap<String, u32>,
    /// Those which are SQLite files.
    pub databases: Vec<String>,
    pub postgres: Dumps,
}

/// What was on a PostgreSQL server.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dumps {
    pub databases: Vec<String>,
    /// Roles that own what is in them.
    pub roles: Vec<String>,
}

impl Manifest {
    pub fn new(taken_at_ms: i64, postgres: Dumps) -> Self {
        Self {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at_ms,
            folders: BTreeMap::new(),
            files: BTreeMap::new(),
            databases: Vec::new(),
            postgres,
        }
    }

    /// Writes it into a backup. Answers its digest.
    pub fn write(&self, backup: &Path) -> Result<String> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| CliError::failed(format!("cannot write JSON: {error}")))?;
        let path = backup.join(MANIFEST_FILE);
        write_private(&path, &format!("{text}\n"))?;
        let (_, digest) = files::digest(&path).map_err(about("cannot read", &path))?;
        Ok(digest)
    }

    /// Reads a backup's, whose digest has been checked.
    pub fn read(backup: &Path) -> Result<Self> {
        let path = backup.join(MANIFEST_FILE);
        let text = fs::read_to_string(&path).map_err(about("cannot read", &path))?;
        let format = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|value| value["format"].as_u64());
        if format != Some(u64::from(FORMAT)) {
            return Err(CliError::failed(format!(
                "`{}` is of format {format:?}; this version reads {FORMAT}",
                path.display()
            ))
            .remedy("use the version of exprsn that wrote it"));
        }
        serde_json::from_str(&text)
            .map_err(|error| CliError::failed(format!("cannot read `{}`: {error}", path.display())))
    }
}

/// Digests of a backup's files, by path.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Digests(BTreeMap<String, String>);

impl Digests {
    pub fn add(&mut self, path: String, digest: String) {
        self.0.insert(path, digest);
    }

    /// The digest of a file of the data directory.
    pub fn of_data(&self, path: &str) -> Option<&str> {
        self.0.get(&format!("{DATA}/{path}")).map(String::as_str)
    }

    /// As `sha256sum` writes them.
    pub fn write(&self, backup: &Path) -> Result {
        let lines = self
            .0
            .iter()
            .map(|(path, digest)| format!("{digest}  {path}\n"));
        write_private(&backup.join(DIGESTS_FILE), &lines.collect::<String>())
    }

    /// Reads a backup's digests and checks every file against its own, and that there is no other file.
    pub fn check(backup: &Path, mut say: impl FnMut(&str)) -> Result<Self> {
        let path = backup.join(DIGESTS_FILE);
        let text = fs::read_to_string(&path).map_err(|error| {
            about("cannot read", &path)(error).remedy("name the folder that `exprsn backup` made")
        })?;
        let digests = parse(&text)
            .ok_or_else(|| changed(backup, DIGESTS_FILE, "is not as it was written"))?;
        let mut present = BTreeSet::new();
        list(backup, "", &mut present)?;
        present.remove(DIGESTS_FILE);
        for (path, digest) in &digests.0 {
            say(path);
            let full = backup.join(path);
            let (_, found) = files::digest(&full).map_err(about("cannot read", &full))?;
            if found != *digest {
                return Err(changed(backup, path, "has changed since it was written"));
            }
            present.remove(path);
        }
        match present.first() {
            Some(stranger) => Err(changed(
                backup,
                stranger,
                "was not there when it was written",
            )),
            None => Ok(digests),
        }
    }
}

/// Lines of `sha256sum`. None where one is no such line, or names a place outside.
fn parse(text: &str) -> Option<Digests> {
    let line = |line: &str| {
        let (digest, path) = line.split_once("  ")?;
        let is_digest =
            digest.len() == DIGEST_DIGITS && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_digest && is_inside(path)).then(|| (path.to_owned(), digest.to_owned()))
    };
    let lines: Option<BTreeMap<_, _>> = text.lines().map(line).collect();
    lines
        .filter(|lines| lines.contains_key(MANIFEST_FILE))
        .map(Digests)
}

/// Whether a path is one below the folder that it is joined to.
pub fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

fn list(backup: &Path, below: &str, present: &mut BTreeSet<String>) -> Result {
    let folder = backup.join(below);
    let failed = about("cannot read", &folder);
    for entry in fs::read_dir(&folder).map_err(&failed)? {
        let entry = entry.map_err(&failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        if entry.file_type().map_err(&failed)?.is_dir() {
            list(backup, &path, present)?;
        } else {
            present.insert(path);
        }
    }
    Ok(())
}

fn changed(backup: &Path, path: &str, how: &str) -> CliError {
    CliError::failed(format!("`{}` {how}", backup.join(path).display()))
        .remedy("nothing was restored; use another backup")
}

fn write_private(path: &Path, text: &str) -> Result {
    let open = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    open.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(about("cannot write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(DATA)).unwrap();
        fs::write(folder.path().join("data/a"), "abc").unwrap();
        let mut manifest = Manifest::new(7, Dumps::default());
        manifest.files.insert("a".to_owned(), 0o600);
        let mut digests = Digests::default();
        let (_, digest) = files::digest(&folder.path().join("data/a")).unwrap();
        digests.add("data/a".to_owned(), digest);
        let digest = manifest.write(folder.path()).unwrap();
        digests.add(MANIFEST_FILE.to_owned(), digest);
        digests.write(folder.path()).unwrap();
        folder
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = backup();
        let digests = Digests::check(folder.path(), |_| {}).unwrap();
        assert!(digests.of_data("a").is_some());
        let manifest = Manifest::read(folder.path()).unwrap();
        assert_eq!((manifest.taken_at_ms, manifest.files["a"]), (7, 0o600));
    }

    #[test]
    fn whatever_is_changed_is_refused() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("has changed", |folder| {
                fs::write(folder.join("data/a"), "abd").unwrap();
            }),
            ("cannot read", |folder| {
                fs::remove_file(folder.join("data/a")).unwrap();
            }),
            ("was not there", |folder| {
                fs::write(folder.join("data/b"), "").unwrap();
            }),
            ("has changed", |folder| {
                let path = folder.join(MANIFEST_FILE);
                let text = fs::read_to_string(&path).unwrap();
                fs::write(path, text.replace("384", "511")).unwrap();
            }),
            ("not as it was written", |folder| {
                let path = folder.join(DIGESTS_FILE);
                let text = fs::read_to_string(&path).unwrap();
                fs::write(path, text.replace("data/a", "data/../a")).unwrap();
            }),
            ("cannot read", |folder| {
                fs::remove_file(folder.join(DIGESTS_FILE)).unwrap();
            }),
        ];
        for (wanted, change) in changes {
            let folder = backup();
            change(folder.path());
            let error = Digests::check(folder.path(), |_| {}).unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    #[test]
    fn formats_of_the_future_are_named() {
        let folder = backup();
        let path = folder.path().join(MANIFEST_FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
        let error = Manifest::read(folder.path()).unwrap_err();
        assert!(
            error.to_string().contains("this version reads 1"),
            "{error}"
        );
    }

    #[test]
    fn paths_stay_inside() {
        assert!(is_inside("data/ca/root.pem"));
        for path in ["", "/etc/passwd", "../x", "data/../../x"] {
            assert!(!is_inside(path), "{path}");
        }
    }
}
