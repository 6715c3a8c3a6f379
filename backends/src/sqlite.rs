//! The embedded database engine: SQLite with one writer thread that groups commits, and a few reader threads.
//!
//! What capabilities keep on an embedded backend goes through here. Each closure given to [`Database::write`] runs in a
//! savepoint of its own; those that wait at the same time share one transaction, transactions share writes to disk, and
//! everybody is answered when what they wrote is durable. Reads run on read-only connections, each on a snapshot of its own.
//!
//! **Invariant:** a connection belongs to one thread for its whole life, so thread-locals may hold what concerns it.
//! **Invariant:** no thread outlives the last [`Database`] handle by more than the closure it is running.

mod connection;
mod flusher;
mod member;
mod readers;
mod session;
mod writer;

pub use connection::{Access, Options};
pub use session::Session;
pub use writer::Statistics;

use flusher::Flusher;
use readers::Readers;
use rusqlite::Connection;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::sync::oneshot;

/// How long a connection waits for another process's lock, in milliseconds.
const BUSY_MS_MAX: u64 = 5_000;

/// An open database. Clones share it; it closes when the last one drops.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    writer: mpsc::SyncSender<writer::Request>,
    readers: Readers,
    /// Readers apart, for what takes its time: streams must not keep short reads waiting.
    scanners: Readers,
    flusher: Flusher,
    statistics: Arc<Statistics>,
}

/// Why the engine did not do what it was asked to. Nothing of it has taken effect.
#[derive(Debug)]
pub enum Error {
    /// SQLite's own.
    Sqlite(rusqlite::Error),
    /// The file cannot be opened, created or written.
    Open {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// As many requests are waiting as may.
    Overloaded,
    /// The database is closed.
    Closed,
    /// The closure panicked.
    Panicked,
    /// The shared transaction was rolled back because of a neighbour, and the closure cannot run twice.
    Lost,
    /// The session idled or lasted longer than it may and was rolled back.
    Expired,
    /// The session has been committed or rolled back before.
    Ended,
    /// The disk refused what was written; the database takes no more until it is opened anew.
    Undurable,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(_) => f.write_str("the database refused it"),
            Self::Open { path, .. } => write!(
                f,
                "cannot open the database `{0}` for writing; give the host's user write access to the file and its \
                 folder, and check that the disk is neither full nor mounted read-only",
                path.display()
            ),
            Self::Overloaded => f.write_str("too many requests wait for the database"),
            Self::Closed => f.write_str("the database is closed"),
            Self::Panicked => f.write_str("the database closure panicked"),
            Self::Lost => f.write_str("the transaction was rolled back by a concurrent one"),
            Self::Expired => {
                f.write_str("the transaction idled or lasted too long and was rolled back")
            }
            Self::Undurable => f.write_str("the disk refused what was written"),
            Self::Ended => f.write_str("the transaction has ended"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Sqlite(source) => Some(source),
            Self::Open { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl Error {
    /// SQLite's result code, where it is SQLite's error.
    pub fn code(&self) -> Option<rusqlite::ErrorCode> {
        match self {
            Self::Sqlite(error) => error.sqlite_error_code(),
            _ => None,
        }
    }
}

impl Database {
    /// Opens the file at `path`, creating it and its folder where absent, and starts its writer.
    ///
    /// Blocks for the time of some disk accesses. The error names the path and the remedy.
    pub fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let options = Arc::new(options);
        // A relative path's folder may have no name, and a later change of directory must not move the file.
        let absolute = std::path::absolute(path);
        let path: &Path = absolute.as_deref().unwrap_or(path);
        let connection = connection::open_writer(path, &options)?;
        let statistics = Arc::new(Statistics::default());
        let (sender, receiver) = mpsc::sync_channel(options.waiting_max);
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let fault = |source: std::io::Error| Error::Open {
            path: path.to_owned(),
            source: source.into(),
        };
        let flushing = Flusher::start(path, &stem, statistics.clone()).map_err(fault)?;
        let flusher = flushing.0.clone();
        writer::spawn(connection, receiver, statistics.clone(), flushing, &stem).map_err(fault)?;
        let readers = Readers::new(path, &format!("r-{stem}"), options.readers, options.clone());
        let scanners = Readers::new(path, &format!("s-{stem}"), options.scanners, options);
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                writer: sender,
                readers,
                scanners,
                flusher,
                statistics,
            }),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// What the writer has done since the database was opened.
    pub fn statistics(&self) -> &Statistics {
        &self.shared.statistics
    }

    /// Runs `f` on the writer, in a savepoint of its own, and answers when its effects are durable.
    ///
    /// An `Err` or a panic undoes `f` alone. `f` must neither commit nor roll back the transaction it finds. Dropping the
    /// future before the writer reaches `f` cancels it; afterwards `f` takes effect unobserved.
    /// Where a neighbour's fault takes the shared transaction down, this fails with [`Error::Lost`], which
    /// [`Database::write_again`] spares its caller.
    pub async fn write<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let mut once = Some(f);
        self.write_again(move |connection| match once.take() {
            Some(f) => f(connection),
            None => Err(E::from(Error::Lost)),
        })
        .await
    }

    /// As [`Database::write`], for a closure that runs again when a neighbour's fault rolled back the shared transaction.
    pub async fn write_again<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnMut(&Connection) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.request(writer::Request::write(f, reply))?;
        answer.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Runs `f` on a reader, on one snapshot of the data.
    pub async fn read<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        self.shared.readers.run(f).await
    }

    /// As [`Database::read`], on the readers for what takes its time, such as streams of rows.
    pub async fn scan<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        self.shared.scanners.run(f).await
    }

    /// Begins an interactive transaction: the writer serves nobody else until it ends.
    ///
    /// It is rolled back when dropped, when no step comes for `idle_max`, and `total_max` after its beginning.
    pub async fn begin(&self, idle_max: Duration, total_max: Duration) -> Result<Session, Error> {
        let (reply, answer) = oneshot::channel();
        self.request(writer::Request::Session {
            idle_max,
            total_max,
            reply,
        })?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Answers when all that a read may have seen before is on disk. For whoever passes on what was read.
    pub async fn flushed(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let flusher = self.shared.flusher.clone();
        let answered = Box::new(move |flushed| {
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(flushed);
        });
        // The queue is as long as there are commits under way, so this waits for the disk at most.
        tokio::task::spawn_blocking(move || flusher.flush(answered))
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Whether the file can be read now.
    pub async fn ping(&self) -> Result<(), Error> {
        if !self.shared.path.exists() {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(Error::Open {
                path: self.shared.path.clone(),
                source: source.into(),
            });
        }
        self.read(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?)
        })
        .await
    }

    /// Writes the log back into the file and ends the threads; whatever is asked of a clone afterwards fails as closed.
    pub async fn close(&self) {
        self.shared.readers.close();
        self.shared.scanners.close();
        let (reply, answer) = oneshot::channel();
        let writer = self.shared.writer.clone();
        // Waits where the queue is full. A writer that is gone already has nothing left to close.
        let _ =
            tokio::task::spawn_blocking(move || writer.send(writer::Request::Close(reply))).await;
        let _ = answer.await;
    }

    fn request(&self, request: writer::Request) -> Result<(), Error> {
        self.shared
            .writer
            .try_send(request)
            .map_err(|error| match error {
                mpsc::TrySendError::Full(_) => Error::Overloaded,
                mpsc::TrySendError::Disconnected(_) => Error::Closed,
            })
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.shared.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
