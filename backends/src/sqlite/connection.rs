//! Opening connections: how durable, how strict, how large.

use super::{BUSY_MS_MAX, Error};
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use std::{fs, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc, time::Duration};

/// Which connection an [`Options::prepare`] function is looking at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Write,
    Read,
}

type Source = Box<dyn std::error::Error + Send + Sync>;
type Prepare = dyn Fn(&Connection, Access) -> rusqlite::Result<()> + Send + Sync;
type Schema = dyn Fn(&Connection) -> Result<(), Error> + Send + Sync;

/// How a database is opened.
#[derive(Clone)]
pub struct Options {
    /// Threads for short reads; at least one.
    pub readers: usize,
    /// Threads for long reads; at least one.
    pub scanners: usize,
    /// Requests that may wait for the writer, and again for the readers.
    pub waiting_max: usize,
    /// Page cache of one connection, in bytes.
    pub cache_bytes_max: u64,
    /// Part of the file that is mapped into memory, in bytes. None by default: a failing disk under a mapping ends the
    /// process, under a read call only the statement.
    pub mmap_bytes_max: u64,
    /// Prepared statements kept by one connection.
    pub statements_max: usize,
    /// Called for each connection before anything else uses it: installs hooks and limits.
    pub prepare: Option<Arc<Prepare>>,
    /// Called once on the writer, in a transaction, when the database is opened: creates the tables.
    pub schema: Option<Arc<Schema>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers: 2,
            scanners: 2,
            waiting_max: 1_024,
            cache_bytes_max: 8 << 20,
            mmap_bytes_max: 0,
            statements_max: 128,
            prepare: None,
            schema: None,
        }
    }
}

impl Options {
    /// The defaults, with `schema` called once in a transaction at opening.
    pub fn with_schema(
        schema: impl Fn(&Connection) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Self {
        Self {
            schema: Some(Arc::new(schema)),
            ..Self::default()
        }
    }
}

/// Opens the writer's connection, creating file and folder where absent.
pub(super) fn open_writer(path: &Path, options: &Options) -> Result<Connection, Error> {
    let fault = |source: Source| Error::Open {
        path: path.to_owned(),
        source,
    };
    create(path).map_err(|error| fault(error.into()))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| fault(error.into()))?;
    configure(&connection, options, Access::Write).map_err(fault)?;
    if let Some(prepare) = &options.prepare {
        prepare(&connection, Access::Write)?;
    }
    if let Some(schema) = &options.schema {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        schema(&connection)?;
        connection.execute_batch("COMMIT")?;
    }
    Ok(connection)
}

/// Opens a reader's connection to an existing file.
pub(super) fn open_reader(path: &Path, options: &Options) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    configure(&connection, options, Access::Read).map_err(|source| Error::Open {
        path: path.to_owned(),
        source,
    })?;
    if let Some(prepare) = &options.prepare {
        prepare(&connection, Access::Read)?;
    }
    Ok(connection)
}

/// Creates the folder and an empty file that only the host's user may open; SQLite gives its log the same mode.
///
/// A file that exists is left alone: closing it would give up the locks that another handle of this process holds on it.
fn create(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
        if let Some(above) = folder.parent() {
            fs::File::open(above)?.sync_all()?;
        }
    }
    match fs::OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn configure(connection: &Connection, options: &Options, access: Access) -> Result<(), Source> {
    connection.busy_timeout(Duration::from_millis(BUSY_MS_MAX))?;
    connection.set_prepared_statement_cache_capacity(options.statements_max);
    if access == Access::Write {
        journal(connection)?;
    }
    let cache_kib = i64::try_from(options.cache_bytes_max / 1024).unwrap_or(i64::MAX);
    connection.execute_batch(&format!(
        "PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA cache_size = -{cache_kib};"
    ))?;
    connection.pragma_update_and_check(
        None,
        "mmap_size",
        options.mmap_bytes_max.min(1 << 40) as i64,
        |_| Ok(()),
    )?;
    for (setting, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        // A misspelt column in double quotes is an error, as in PostgreSQL, not a text.
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
        (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE, false),
    ] {
        connection.set_db_config(setting, value)?;
    }
    Ok(())
}

/// A commit is in the log when it returns, on disk when the flusher says so; the log is written back every 16 MiB.
fn journal(connection: &Connection) -> Result<(), Source> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(
            format!("journal mode is `{mode}` where `wal` is needed; is the folder on a network file system?").into()
        );
    }
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 4_000, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", 64 << 20, |_| Ok(()))?;
    Ok(())
}
