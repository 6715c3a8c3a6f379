//! The embedded backend: one SQLite file per service.

use super::{
    Limits,
    error::Fault,
    guard::{self, Rights},
    migrate, outbox,
    run::Run,
    types::{Error, Row, RowSet, Statement},
};
use crate::{
    invocation::TraceContext,
    name::ServiceName,
    sqlite::{self, Access, Database, Options, Session},
};
use futures::{FutureExt as _, future::BoxFuture};
use rusqlite::Connection;
use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// Put before every statement of a guest, so that none of the host's is found in the cache under the guest's words:
/// what a cached statement may do was decided when it was prepared.
const GUEST_MARK: &str = "/*guest*/";
/// Page size of SQLite's files.
const PAGE_BYTES: u64 = 4_096;
/// Handovers of a stream that may wait for the guest.
const STREAM_WAITING_MAX: usize = 2;

/// Opens the database of a service, with the host's tables in it.
pub fn open(path: &Path, limits: &Limits) -> Result<Database, sqlite::Error> {
    let (value_bytes_max, pages_max) = (
        limits.value_bytes_max,
        limits.database_bytes_max.div_ceil(PAGE_BYTES),
    );
    let prepare = move |connection: &Connection, access| {
        guard::install(connection, value_bytes_max)?;
        if access == Access::Write {
            let pages_max = i64::try_from(pages_max)
                .unwrap_or(i64::MAX)
                .min(i64::from(u32::MAX - 1));
            connection.pragma_update_and_check(None, "max_page_count", pages_max, |_| Ok(()))?;
        }
        Ok(())
    };
    let options = Options {
        readers: limits.readers,
        scanners: limits.streams_max,
        prepare: Some(Arc::new(prepare)),
        ..Options::with_schema(|connection| {
            migrate::create(connection)?;
            outbox::create(connection)?;
            Ok(())
        })
    };
    Database::open(path, options)
}

/// A call of a guest: what it may do and until when.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub rights: Rights,
    /// When its invocation's time is over.
    pub deadline: Instant,
}

/// The database of one service, as its guests reach it.
#[derive(Debug)]
pub struct ServiceDatabase {
    service: ServiceName,
    database: Database,
    limits: Limits,
    /// Notified when a commit added to the outbox.
    relay: Arc<Notify>,
    /// Transactions open or waiting.
    transactions: Arc<Semaphore>,
}

/// The rows of a stream, and how they ended.
pub struct RowStream {
    pub columns: Vec<String>,
    pub rows: flume::Receiver<Vec<Row>>,
    /// Resolves after the last row.
    pub end: BoxFuture<'static, Result<(), Error>>,
}

impl ServiceDatabase {
    pub fn new(
        service: ServiceName,
        database: Database,
        limits: Limits,
        relay: Arc<Notify>,
    ) -> Self {
        let transactions = Arc::new(Semaphore::new(limits.transactions_max));
        Self {
            service,
            database,
            limits,
            relay,
            transactions,
        }
    }

    /// The engine's handle.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Runs a statement that returns rows.
    pub async fn query(&self, call: Call, statement: Statement) -> Result<RowSet, Error> {
        let mut sets = self.batch(call, vec![statement]).await?;
        Ok(sets.pop().expect("each statement has its rows"))
    }

    /// Runs a statement and counts the rows that it changed.
    pub async fn execute(&self, call: Call, mut statement: Statement) -> Result<u64, Error> {
        mark(&mut statement);
        let limits = self.limits;
        let run = move |connection: &Connection| {
            let run = Run::enter(call, limits);
            run.explain(run.execute(connection, &statement))
        };
        self.database
            .write_again(run)
            .await
            .map_err(|fault| self.told(fault))
    }

    /// Runs statements in one transaction; on a reader if none of them writes.
    pub async fn batch(
        &self,
        call: Call,
        mut statements: Vec<Statement>,
    ) -> Result<Vec<RowSet>, Error> {
        let reads = statements
            .iter()
            .all(|statement| may_read_only(&statement.text));
        statements.iter_mut().for_each(mark);
        let (statements, limits) = (Arc::new(statements), self.limits);
        let mut done = Err(Fault::Writes);
        if reads {
            let statements = statements.clone();
            let run = move |connection: &Connection| {
                Run::enter(call, limits).batch(connection, &statements, true)
            };
            done = self.database.read(run).await;
        }
        if matches!(done, Err(Fault::Writes)) {
            let run = move |connection: &Connection| {
                Run::enter(call, limits).batch(connection, &statements, false)
            };
            done = self.database.write_again(run).await;
        }
        done.map_err(|fault| self.told(fault))
    }

    /// Runs a statement whose rows are taken one after the other.
    pub async fn stream(
        self: &Arc<Self>,
        call: Call,
        mut statement: Statement,
    ) -> Result<RowStream, Error> {
        mark(&mut statement);
        let (head, columns) = oneshot::channel();
        let (sender, rows) = flume::bounded(STREAM_WAITING_MAX);
        let limits = self.limits;
        let database = self.clone();
        // Boxed, so that it can be polled here for its start and by the guest for its end.
        let mut end = async move {
            let run = move |connection: &Connection| {
                Run::enter(call, limits).stream(connection, &statement, head, &sender)
            };
            database
                .database
                .scan(run)
                .await
                .map_err(|fault| database.told(fault))
        }
        .boxed();
        let columns = tokio::select! {
            biased;
            columns = columns => columns.ok(),
            failed = &mut end => return Err(failed.err().unwrap_or_else(|| self.told(sqlite::Error::Closed.into()))),
        };
        match columns {
            Some(columns) => Ok(RowStream { columns, rows, end }),
            None => Err(end
                .await
                .err()
                .unwrap_or_else(|| self.told(sqlite::Error::Closed.into()))),
        }
    }

    /// Begins a transaction. It may wait for those before it.
    pub async fn begin(self: &Arc<Self>, call: Call) -> Result<Transaction, Error> {
        let permit = self.transactions.clone().try_acquire_owned().map_err(|_| {
            Error::LimitExceeded(format!(
                "{} transactions are open or waiting",
                self.limits.transactions_max
            ))
        })?;
        let remaining = call.deadline.saturating_duration_since(Instant::now());
        let total = self.limits.transaction_total_max.min(remaining);
        let session = self
            .database
            .begin(self.limits.transaction_idle_max, total)
            .await;
        let session = session.map_err(|error| self.told(error.into()))?;
        Ok(Transaction {
            session,
            database: self.clone(),
            announces: AtomicBool::new(false),
            permit: Mutex::new(Some(permit)),
        })
    }

    fn told(&self, fault: Fault) -> Error {
        fault.into_error(&self.service)
    }
}

/// An open transaction. Dropped, it rolls back.
#[derive(Debug)]
pub struct Transaction {
    session: Session,
    database: Arc<ServiceDatabase>,
    /// Whether the commit is news for the relay.
    announces: AtomicBool,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Transaction {
    pub async fn query(&self, call: Call, mut statement: Statement) -> Result<RowSet, Error> {
        mark(&mut statement);
        let limits = self.database.limits;
        self.run(move |connection| {
            let run = Run::enter(call, limits);
            run.explain(run.query(connection, &statement, &mut run.budget(), false))
        })
        .await
    }

    pub async fn execute(&self, call: Call, mut statement: Statement) -> Result<u64, Error> {
        mark(&mut statement);
        let limits = self.database.limits;
        self.run(move |connection| {
            let run = Run::enter(call, limits);
            run.explain(run.execute(connection, &statement))
        })
        .await
    }

    /// Announces a job or an event, if and when this commits.
    pub async fn announce(
        &self,
        content: outbox::Content,
        trace: TraceContext,
        now_ms: i64,
    ) -> Result<(), Error> {
        self.announces.store(true, Relaxed);
        self.run(move |connection| Ok(outbox::add(connection, &content, trace, now_ms)?))
            .await
    }

    pub async fn commit(&self) -> Result<(), Error> {
        let committed = if self.announces.load(Relaxed) {
            let relay = self.database.relay.clone();
            self.session.commit_then(move || relay.notify_one()).await
        } else {
            self.session.commit().await
        };
        self.release();
        committed.map_err(|error| self.database.told(error.into()))
    }

    pub async fn roll_back(&self) -> Result<(), Error> {
        let rolled_back = self.session.roll_back().await;
        self.release();
        rolled_back.map_err(|error| self.database.told(error.into()))
    }

    async fn run<T, F>(&self, f: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        self.session
            .run(f)
            .await
            .map_err(|fault| self.database.told(fault))
    }

    fn release(&self) {
        self.permit
            .lock()
            .expect("no holder of this lock panics")
            .take();
    }
}

fn mark(statement: &mut Statement) {
    statement.text.insert_str(0, GUEST_MARK);
}

/// Whether a statement is worth trying on a reader, by its first word. The reader decides.
fn may_read_only(text: &str) -> bool {
    let word: String = text
        .trim_start()
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .take(8)
        .collect();
    !["insert", "update", "delete", "replace"].contains(&word.to_ascii_lowercase().as_str())
}
