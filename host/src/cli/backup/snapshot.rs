//! All SQLite files of a data directory as they were at one moment, while the platform writes to them.
//!
//! One moment for all, because they know of each other: what a service's outbox has handed over is in the broker's file, and
//! a job that is done there has left its traces in a service's. Copied one after the other, a promise could be in neither, or
//! a job done whose work is missing.

use super::files::{self, Entry, about};
use crate::cli::output::{CliError, Result};
use rusqlite::{Connection, ErrorCode, OpenFlags, backup::Backup};
use std::{
    fs,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long the writers of all files are held while one file's is waited for. The platform's writers wait longer.
const HOLD_MAX: Duration = Duration::from_millis(250);
/// How long a moment is looked for in all: a transaction of a service may hold its file for half of it.
const SEARCH_MAX: Duration = Duration::from_secs(60);
/// How long the writers have their way before the next attempt.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a connection that only reads waits.
const READ_MAX: Duration = Duration::from_secs(5);
/// Pages that are copied at once.
const PAGES: i32 = 1024;

/// A file as it was at the moment.
pub struct Snapshot {
    path: PathBuf,
    /// In a transaction that reads, which keeps the state of its beginning.
    reader: Connection,
}

/// A file that is about to be held.
struct Candidate {
    path: PathBuf,
    writer: Connection,
    reader: Connection,
}

/// Holds the writers of all files for an instant, in which a reader begins on each.
pub fn freeze(data: &Path, databases: &[&Entry]) -> Result<Vec<Snapshot>> {
    let paths = databases.iter().map(|entry| data.join(&entry.path));
    let candidates: Vec<Candidate> = paths.map(open).collect::<Result<_>>()?;
    let deadline = Instant::now() + SEARCH_MAX;
    loop {
        match begin(&candidates) {
            Ok(()) => break,
            Err((_, error)) if is_busy(&error) && Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
            }
            Err((path, error)) => return Err(refused(&path, &error)),
        }
    }
    // With the other connections go the writers' locks.
    Ok(candidates
        .into_iter()
        .map(|candidate| Snapshot {
            path: candidate.path,
            reader: candidate.reader,
        })
        .collect())
}

fn open(path: PathBuf) -> Result<Candidate> {
    let connect = |access: OpenFlags, patience: Duration| {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags)?;
        connection.busy_timeout(patience)?;
        Ok(connection)
    };
    let writer = connect(OpenFlags::SQLITE_OPEN_READ_WRITE, HOLD_MAX);
    let reader = connect(OpenFlags::SQLITE_OPEN_READ_ONLY, READ_MAX);
    match (writer, reader) {
        (Ok(writer), Ok(reader)) => Ok(Candidate {
            path,
            writer,
            reader,
        }),
        (Err(error), _) | (_, Err(error)) => Err(refused(&path, &error)),
    }
}

/// One attempt. When it fails, nothing is held.
fn begin(candidates: &[Candidate]) -> std::result::Result<(), (PathBuf, rusqlite::Error)> {
    let all = |what: &dyn Fn(&Candidate) -> rusqlite::Result<()>| {
        candidates
            .iter()
            .try_for_each(|one| what(one).map_err(|error| (one.path.clone(), error)))
    };
    let held = all(&|one| one.writer.execute_batch("BEGIN IMMEDIATE")).and_then(|()| {
        all(&|one| {
            one.reader
                .execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema")
        })
    });
    let failed = held.is_err();
    for one in candidates {
        let _ = one.writer.execute_batch("ROLLBACK");
        if failed {
            let _ = one.reader.execute_batch("ROLLBACK");
        }
    }
    held
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

impl Snapshot {
    /// Writes it as one whole file and checks that. Answers its length and digest.
    pub fn write(self, to: &Path) -> Result<(u64, String)> {
        let made = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to);
        made.map_err(about("cannot make", to))?;
        let found = self.copy(to).map_err(|error| refused(&self.path, &error))?;
        if found != "ok" {
            return Err(
                CliError::failed(format!("`{}` is damaged: {found}", self.path.display())).remedy(
                    "restore an older backup, or look at the disk and at the file with sqlite3",
                ),
            );
        }
        files::digest(to).map_err(about("cannot read", to))
    }

    fn copy(&self, to: &Path) -> rusqlite::Result<String> {
        let mut copy = Connection::open(to)?;
        copy.execute_batch("PRAGMA synchronous = OFF")?;
        Backup::new(&self.reader, &mut copy)?.run_to_completion(PAGES, Duration::ZERO, None)?;
        // One file, without a log beside it; the host gives it one again.
        copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
        copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
    }
}

fn refused(path: &Path, error: &rusqlite::Error) -> CliError {
    let remedy = if is_busy(error) {
        "a service's transaction holds it for long, or another program has it open: try again"
    } else {
        "run this as the user that the platform runs as"
    };
    CliError::failed(format!("cannot copy `{}`: {error}", path.display())).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicBool, Ordering::Relaxed},
        thread,
    };

    fn entry(path: &str) -> Entry {
        Entry {
            path: path.to_owned(),
            mode: 0o600,
            folder: false,
        }
    }

    fn create(path: &Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection.busy_timeout(READ_MAX).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE n (n TEXT)")
            .unwrap();
        connection
    }

    fn numbers(path: &Path) -> i64 {
        let connection = Connection::open(path).unwrap();
        connection
            .query_row("SELECT count(*) FROM n", [], |row| row.get(0))
            .unwrap()
    }

    /// A number is written to the first file before it is to the second, and to the second only with it in the first.
    #[test]
    fn files_are_of_one_moment_while_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a.db", "b.db"].map(|name| folder.path().join(name));
        let [first, second] = [0, 1].map(|at| create(&paths[at]));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let (first, second) = (first, second);
                let mut written = 0_i64;
                while !stop.load(Relaxed) {
                    for file in [&first, &second] {
                        file.execute("INSERT INTO n VALUES (?1)", [written])
                            .unwrap();
                    }
                    written += 1;
                }
                written
            });
            for round in 0..20 {
                let entries = [entry("a.db"), entry("b.db")];
                let entries: Vec<&Entry> = entries.iter().collect();
                let snapshots = freeze(folder.path(), &entries).unwrap();
                // What is written now is in neither copy.
                thread::sleep(Duration::from_millis(5));
                let copies = ["a", "b"].map(|name| folder.path().join(format!("{name}{round}")));
                for (snapshot, copy) in snapshots.into_iter().zip(&copies) {
                    snapshot.write(copy).unwrap();
                }
                let [a, b] = [0, 1].map(|at| numbers(&copies[at]));
                assert!(a == b || a == b + 1, "{a} and {b}");
            }
            stop.store(true, Relaxed);
            assert!(writer.join().unwrap() > 0);
        });
    }

    #[test]
    fn damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let connection = create(&path);
        connection
            .execute_batch(
                "CREATE INDEX i ON n (n);
                 WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2000)
                 INSERT INTO n SELECT printf('%0100d', x) FROM c",
            )
            .unwrap();
        drop(connection);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2 / 4096 * 4096;
        bytes[middle..middle + 64].fill(0xff);
        fs::write(&path, bytes).unwrap();
        let entry = entry("a.db");
        let snapshot = freeze(folder.path(), &[&entry]).unwrap().remove(0);
        let error = snapshot.write(&folder.path().join("copy")).unwrap_err();
        assert!(error.to_string().contains("a.db"), "{error}");
    }
}
