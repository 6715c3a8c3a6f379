//! The writer thread: groups of savepoints in one transaction, and sessions that have it to themselves.

use super::{
    BUSY_MS_MAX, Error,
    flusher::Flusher,
    member::{Member, Write},
    session::{ENDED, EXPIRED, LOST, OPEN, STEPS_MAX, Session, Step},
};
use rusqlite::{Connection, Statement};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// Closures in one transaction at most.
const GROUP_MAX: usize = 256;
/// After this time a transaction takes no further closures, so that the first need not wait long for the last.
const GROUP_TIME_MAX: Duration = Duration::from_millis(20);

/// How often the log's length is looked at.
const LOG_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A log beyond this is written back with readers held off: readers that overlap without end keep it growing.
const LOG_BYTES_MAX: u64 = 256 << 20;
/// How long that waits for readers.
const LOG_WAIT_MAX: Duration = Duration::from_millis(200);

/// What the writer has done, for metrics and tests.
#[derive(Debug, Default)]
pub struct Statistics {
    commits: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
}

impl Statistics {
    /// Transactions committed.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Closures and sessions whose effects are durable.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Times the log was written to disk; commits share them.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    pub(super) fn flushed(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }

    fn committed(&self, writes: usize) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(writes as u64, Ordering::Relaxed);
    }
}

pub(super) enum Request {
    Write(Box<dyn Member>),
    Session {
        idle_max: Duration,
        total_max: Duration,
        reply: oneshot::Sender<Result<Session, Error>>,
    },
    Close(oneshot::Sender<()>),
}

impl Request {
    pub(super) fn write<T, E, F>(f: F, reply: oneshot::Sender<Result<T, E>>) -> Self
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnMut(&Connection) -> Result<T, E> + Send + 'static,
    {
        Self::Write(Box::new(Write::new(f, reply)))
    }
}

/// Starts the thread, which ends when the last sender of `requests` drops.
pub(super) fn spawn(
    connection: Connection,
    requests: mpsc::Receiver<Request>,
    statistics: Arc<Statistics>,
    (flusher, flushing): (Flusher, JoinHandle<()>),
    name: &str,
) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name(format!("w-{name}"));
    thread.spawn(move || {
        let closing = match Control::prepare(&connection) {
            Ok(control) => Writer {
                connection: &connection,
                control,
                requests: &requests,
                statistics: &statistics,
                flusher: &flusher,
                log_looked: Instant::now(),
            }
            .serve(),
            Err(error) => {
                tracing::error!(%error, "cannot prepare the database writer");
                None
            }
        };
        // Requests that come from now on fail as closed, and the answer tells that the file is complete.
        drop(requests);
        flusher.end();
        let _ = flushing.join();
        if let Err(error) = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "cannot write the database's log back; it is kept and read at the next start");
        }
        drop(connection);
        if let Some(reply) = closing {
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(());
        }
    })?;
    Ok(())
}

/// The statements around everybody else's, prepared once and apart from the cache that guests' statements share.
struct Control<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    savepoint: Statement<'c>,
    release: Statement<'c>,
    undo: Statement<'c>,
}

impl<'c> Control<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            rollback: connection.prepare("ROLLBACK")?,
            savepoint: connection.prepare("SAVEPOINT member")?,
            release: connection.prepare("RELEASE member")?,
            undo: connection.prepare("ROLLBACK TO member")?,
        })
    }
}

struct Writer<'c> {
    connection: &'c Connection,
    control: Control<'c>,
    requests: &'c mpsc::Receiver<Request>,
    statistics: &'c Statistics,
    flusher: &'c Flusher,
    log_looked: Instant,
}

type Members = Vec<Box<dyn Member>>;

impl Writer<'_> {
    /// Serves requests in their order until the last handle drops or one asks to close; answers whom to tell.
    fn serve(mut self) -> Option<oneshot::Sender<()>> {
        let mut waiting = None;
        loop {
            let request = waiting.take().or_else(|| self.requests.recv().ok())?;
            match request {
                Request::Write(first) => waiting = self.group(first),
                Request::Session {
                    idle_max,
                    total_max,
                    reply,
                } => self.session(idle_max, total_max, reply),
                Request::Close(reply) => return Some(reply),
            }
            self.tame_log();
        }
    }

    /// Writes a log that only grows back into the file.
    fn tame_log(&mut self) {
        if self.log_looked.elapsed() < LOG_LOOK_INTERVAL {
            return;
        }
        self.log_looked = Instant::now();
        if self.flusher.log_bytes() <= LOG_BYTES_MAX {
            return;
        }
        let written = self.connection.busy_timeout(LOG_WAIT_MAX).and_then(|()| {
            self.connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            self.connection
                .busy_timeout(Duration::from_millis(BUSY_MS_MAX))
        });
        if let Err(error) = written {
            tracing::warn!(%error, "cannot write the database's log back yet");
        }
    }

    /// Runs `first` and what else waits in one transaction; answers the request that ended the group.
    fn group(&mut self, first: Box<dyn Member>) -> Option<Request> {
        if first.is_abandoned() {
            return None;
        }
        if let Err(error) = self.begin() {
            first.finish(Err(error));
            return None;
        }
        let started = Instant::now();
        let mut ran = Members::new();
        let mut next = None;
        self.run(first, &mut ran);
        while next.is_none() && ran.len() < GROUP_MAX && started.elapsed() < GROUP_TIME_MAX {
            match self.requests.try_recv() {
                Ok(Request::Write(member)) if member.is_abandoned() => {}
                Ok(Request::Write(member)) => self.run(member, &mut ran),
                Ok(other) => next = Some(other),
                Err(_) => break,
            }
        }
        self.commit(ran);
        next
    }

    /// Runs one member in its savepoint and, if it succeeded, puts it among those that wait for the commit.
    fn run(&mut self, mut member: Box<dyn Member>, ran: &mut Members) {
        if self.connection.is_autocommit()
            && let Err(error) = self.begin()
        {
            return member.finish(Err(error));
        }
        if let Err(error) = execute(&mut self.control.savepoint) {
            return member.finish(Err(error));
        }
        let succeeded = member.run(self.connection);
        if self.connection.is_autocommit() {
            // An interrupt or a full disk ends the whole transaction, not the statement alone.
            member.finish(Err(Error::Lost));
            for innocent in std::mem::take(ran) {
                self.run(innocent, ran);
            }
        } else if succeeded && execute(&mut self.control.release).is_ok() {
            ran.push(member);
        } else {
            let undone =
                execute(&mut self.control.undo).and_then(|()| execute(&mut self.control.release));
            member.finish(Err(undone.err().unwrap_or(Error::Lost)));
        }
    }

    /// Commits and answers all. If it fails, each has a transaction of its own, so that one harms no other.
    fn commit(&mut self, ran: Members) {
        if self.connection.is_autocommit() {
            return ran
                .into_iter()
                .for_each(|member| member.finish(Err(Error::Lost)));
        }
        let committed = execute(&mut self.control.commit);
        match committed {
            Ok(()) => {
                self.statistics.committed(ran.len());
                self.flusher.flush(Box::new(move |flushed| match flushed {
                    Ok(()) => ran.into_iter().for_each(|member| member.finish(Ok(()))),
                    Err(_) => ran
                        .into_iter()
                        .for_each(|member| member.finish(Err(Error::Undurable))),
                }));
            }
            Err(error) => {
                self.roll_back();
                let alone = ran.len() == 1;
                let mut error = Some(error);
                for member in ran {
                    match error.take_if(|_| alone) {
                        Some(error) => member.finish(Err(error)),
                        None => self.alone(member),
                    }
                }
            }
        }
    }

    fn alone(&mut self, member: Box<dyn Member>) {
        let mut ran = Members::with_capacity(1);
        self.run(member, &mut ran);
        if !ran.is_empty() {
            self.commit(ran);
        }
    }

    fn begin(&mut self) -> Result<(), Error> {
        if self.flusher.has_failed() {
            return Err(Error::Undurable);
        }
        execute(&mut self.control.begin)
    }

    fn roll_back(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = execute(&mut self.control.rollback)
        {
            tracing::error!(%error, "cannot roll back");
        }
    }

    /// Lends the connection to one session until that ends.
    fn session(
        &mut self,
        idle_max: Duration,
        total_max: Duration,
        reply: oneshot::Sender<Result<Session, Error>>,
    ) {
        if reply.is_closed() {
            return;
        }
        if let Err(error) = self.begin() {
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(Err(error));
            return;
        }
        // Of the standard library, whose receiver takes what waits along when it drops; flume's leaves the askers waiting.
        let (steps, inbox) = mpsc::sync_channel(STEPS_MAX);
        let fate = Arc::new(AtomicU8::new(OPEN));
        let end = Instant::now() + total_max;
        if reply.send(Ok(Session::new(steps, fate.clone()))).is_ok() {
            self.steps(&inbox, &fate, idle_max, end);
        }
        self.roll_back();
    }

    fn steps(
        &mut self,
        inbox: &mpsc::Receiver<Step>,
        fate: &AtomicU8,
        idle_max: Duration,
        end: Instant,
    ) {
        loop {
            match inbox.recv_timeout(idle_max.min(end.saturating_duration_since(Instant::now()))) {
                Ok(Step::Run(f)) => {
                    f(self.connection);
                    if self.connection.is_autocommit() {
                        // An interrupt or a full disk ended the transaction; what follows must not run without one.
                        return fate.store(LOST, Ordering::SeqCst);
                    }
                }
                Ok(Step::Commit { then, reply }) => {
                    fate.store(ENDED, Ordering::SeqCst);
                    return self.end(then, reply);
                }
                Ok(Step::Rollback(reply)) => {
                    fate.store(ENDED, Ordering::SeqCst);
                    self.roll_back();
                    // Whoever asked may have gone meanwhile.
                    let _ = reply.send(Ok(()));
                    return;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return fate.store(EXPIRED, Ordering::SeqCst);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn end(
        &mut self,
        then: Option<Box<dyn FnOnce() + Send>>,
        reply: oneshot::Sender<Result<(), Error>>,
    ) {
        if let Err(error) = execute(&mut self.control.commit) {
            self.roll_back();
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(Err(error));
            return;
        }
        self.statistics.committed(1);
        self.flusher.flush(Box::new(move |flushed| {
            if let (Ok(()), Some(then)) = (&flushed, then) {
                then();
            }
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(flushed);
        }));
    }
}

fn execute(statement: &mut Statement<'_>) -> Result<(), Error> {
    Ok(statement.raw_execute().map(drop)?)
}
