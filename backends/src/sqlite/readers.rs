//! Reader threads: started when work waits for them, ended when none comes.

use super::{Error, Options, connection};
use rusqlite::Connection;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::oneshot;

/// How long a reader without work keeps its thread and connection.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Work for a reader: told the connection, or why there is none.
type Job = Box<dyn FnOnce(Result<&Connection, Error>) + Send>;

/// A pool of readers of one file.
pub(super) struct Readers {
    jobs: flume::Sender<Job>,
    pool: Arc<Pool>,
}

struct Pool {
    path: PathBuf,
    name: String,
    threads_max: usize,
    options: Arc<Options>,
    /// The threads' end of the queue; they share it.
    queue: flume::Receiver<Job>,
    threads: AtomicUsize,
    /// Jobs that wait or are being done.
    jobs: AtomicUsize,
    closed: AtomicBool,
}

impl Readers {
    pub(super) fn new(path: &Path, name: &str, threads_max: usize, options: Arc<Options>) -> Self {
        let (jobs, queue) = flume::bounded(options.waiting_max);
        let pool = Pool {
            path: path.to_owned(),
            name: name.to_owned(),
            threads_max: threads_max.max(1),
            options,
            queue,
            threads: AtomicUsize::new(0),
            jobs: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        };
        Self {
            jobs,
            pool: Arc::new(pool),
        }
    }

    /// Runs `f` in a read transaction.
    pub(super) async fn run<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.submit(Box::new(move |connection| {
            if reply.is_closed() {
                return;
            }
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(
                connection
                    .map_err(E::from)
                    .and_then(|connection| snapshot(connection, f)),
            );
        }))?;
        answer.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Refuses further work and ends the threads.
    pub(super) fn close(&self) {
        self.pool.closed.store(true, Ordering::SeqCst);
        for _ in 0..self.pool.threads_max {
            // Wakes a thread that waits; one that is busy looks at the flag itself.
            let _ = self.jobs.try_send(Box::new(|_| ()));
        }
    }

    fn submit(&self, job: Job) -> Result<(), Error> {
        if self.pool.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed);
        }
        let jobs = self.pool.jobs.fetch_add(1, Ordering::SeqCst) + 1;
        if let Err(error) = self.jobs.try_send(job) {
            self.pool.jobs.fetch_sub(1, Ordering::SeqCst);
            return Err(match error {
                flume::TrySendError::Full(_) => Error::Overloaded,
                flume::TrySendError::Disconnected(_) => Error::Closed,
            });
        }
        if self.pool.threads.load(Ordering::SeqCst) < jobs {
            Pool::start(&self.pool);
        }
        Ok(())
    }
}

impl Pool {
    /// Starts one more thread, if one more may be.
    fn start(pool: &Arc<Self>) {
        if !pool.enlist() {
            return;
        }
        // A thread holds no sending end of the queue, so that it sees the last handle drop.
        let shared = pool.clone();
        let started = std::thread::Builder::new()
            .name(pool.name.clone())
            .spawn(move || shared.serve());
        if let Err(error) = started
            && pool.threads.fetch_sub(1, Ordering::SeqCst) == 1
        {
            tracing::error!(%error, path = %pool.path.display(), "cannot start a database reader");
            pool.refuse(|| Error::Overloaded);
        }
    }

    /// Counts one more thread, if one more may be.
    fn enlist(&self) -> bool {
        let more = |threads| (threads < self.threads_max).then_some(threads + 1);
        self.threads
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .is_ok()
    }

    /// A thread's life.
    fn serve(&self) {
        let mut connection = None;
        loop {
            match self.queue.recv_timeout(IDLE_MAX) {
                Ok(job) => self.work(&mut connection, job),
                Err(flume::RecvTimeoutError::Disconnected) => break,
                Err(flume::RecvTimeoutError::Timeout) => {
                    self.threads.fetch_sub(1, Ordering::SeqCst);
                    // Work that came in this moment counted on this thread.
                    if self.queue.is_empty() || !self.enlist() {
                        return;
                    }
                }
            }
            if self.closed.load(Ordering::SeqCst) {
                self.refuse(|| Error::Closed);
                break;
            }
        }
        self.threads.fetch_sub(1, Ordering::SeqCst);
    }

    fn work(&self, connection: &mut Option<Connection>, job: Job) {
        let opened = match connection {
            Some(opened) => Ok(&*opened),
            None => connection::open_reader(&self.path, &self.options)
                .map(|opened| &*connection.insert(opened)),
        };
        job(opened);
        self.jobs.fetch_sub(1, Ordering::SeqCst);
    }

    fn refuse(&self, error: impl Fn() -> Error) {
        for job in self.queue.drain() {
            self.jobs.fetch_sub(1, Ordering::SeqCst);
            job(Err(error()));
        }
    }
}

/// Runs `f` in a transaction that writes nothing, so that all its statements see one state of the data.
fn snapshot<T, E: From<Error>>(
    connection: &Connection,
    f: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    let control = |sql| {
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.raw_execute())
            .map_err(Error::from)
    };
    control("BEGIN")?;
    let outcome = catch_unwind(AssertUnwindSafe(|| f(connection)))
        .unwrap_or_else(|_| Err(Error::Panicked.into()));
    // An interrupt may have ended the transaction already.
    if !connection.is_autocommit() {
        control("ROLLBACK")?;
    }
    outcome
}
