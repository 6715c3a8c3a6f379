//! The embedded backend: one SQLite file per service.

mod fault;
mod guard;
mod migrations;
mod outbox;
mod run;
#[cfg(test)]
mod tests;
#[doc(hidden)]
pub mod value;

use super::{
    Call, Database, Error, Failure, Limits, Result, RowStream, Statistics, Transaction,
    migrate::{MigrationFile, Status},
    outbox::{Content, Outbox},
    value::{RowSet, Statement},
};
use crate::{
    name::ServiceName,
    sqlite::{self, Access, Database as File, Options, Session},
    trace::TraceContext,
};
use fault::Fault;
use futures::{FutureExt as _, future::BoxFuture};
use outbox::SqliteOutbox;
use run::Run;
use rusqlite::Connection;
use std::{
    ops::RangeInclusive,
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

/// Opens a service's file, creating it where absent, with the host's tables in it. Blocks for some disk accesses.
pub fn open(
    path: &Path,
    service: &ServiceName,
    limits: Limits,
) -> Result<SqliteDatabase, sqlite::Error> {
    Ok(SqliteDatabase::new(
        service.clone(),
        open_file(path, &limits)?,
        limits,
    ))
}

fn open_file(path: &Path, limits: &Limits) -> Result<File, sqlite::Error> {
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
            migrations::create(connection)?;
            outbox::create(connection)?;
            Ok(())
        })
    };
    File::open(path, options)
}

/// The database of one service. Clones share it.
#[derive(Clone, Debug)]
pub struct SqliteDatabase {
    service: ServiceName,
    file: File,
    limits: Limits,
    /// Notified when a commit added to the outbox.
    wake: Arc<Notify>,
    /// Transactions open or waiting.
    transactions: Arc<Semaphore>,
}

impl SqliteDatabase {
    fn new(service: ServiceName, file: File, limits: Limits) -> Self {
        Self {
            service,
            file,
            limits,
            wake: Arc::default(),
            transactions: Arc::new(Semaphore::new(limits.transactions_max)),
        }
    }

    async fn run_query(&self, call: Call, statement: Statement) -> Result<RowSet> {
        let mut sets = self.run_batch(call, vec![statement]).await?;
        Ok(sets.pop().expect("each statement has its rows"))
    }

    async fn run_execute(&self, call: Call, mut statement: Statement) -> Result<u64> {
        mark(&mut statement);
        let limits = self.limits;
        let run = move |connection: &Connection| {
            let run = Run::enter(call, limits);
            run.explain(run.execute(connection, &statement))
        };
        self.file
            .write_again(run)
            .await
            .map_err(|fault| self.told(fault))
    }

    /// On a reader if none of them writes.
    async fn run_batch(&self, call: Call, mut statements: Vec<Statement>) -> Result<Vec<RowSet>> {
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
            done = self.file.read(run).await;
        }
        if matches!(done, Err(Fault::Writes)) {
            let run = move |connection: &Connection| {
                Run::enter(call, limits).batch(connection, &statements, false)
            };
            done = self.file.write_again(run).await;
        }
        done.map_err(|fault| self.told(fault))
    }

    async fn open_stream(&self, call: Call, mut statement: Statement) -> Result<RowStream> {
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
                .file
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

    async fn open_transaction(&self, call: Call) -> Result<SqliteTransaction> {
        let permit = self.transactions.clone().try_acquire_owned().map_err(|_| {
            Error::limit(format!(
                "{} transactions are open or waiting",
                self.limits.transactions_max
            ))
        })?;
        let remaining = call.deadline.saturating_duration_since(Instant::now());
        let total = self.limits.transaction_total_max.min(remaining);
        let session = self
            .file
            .begin(self.limits.transaction_idle_max, total)
            .await;
        let session = session.map_err(|error| self.told(error.into()))?;
        Ok(SqliteTransaction {
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

impl Database for SqliteDatabase {
    fn query(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<RowSet>> {
        self.run_query(call, statement).boxed()
    }

    fn execute(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<u64>> {
        self.run_execute(call, statement).boxed()
    }

    fn batch(&self, call: Call, statements: Vec<Statement>) -> BoxFuture<'_, Result<Vec<RowSet>>> {
        self.run_batch(call, statements).boxed()
    }

    fn stream(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<RowStream>> {
        self.open_stream(call, statement).boxed()
    }

    /// It waits for those before it: the file has one writer.
    fn begin(&self, call: Call) -> BoxFuture<'_, Result<Box<dyn Transaction>>> {
        async move {
            let transaction = self.open_transaction(call).await?;
            Ok(Box::new(transaction) as Box<dyn Transaction>)
        }
        .boxed()
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        Arc::new(SqliteOutbox {
            database: self.file.clone(),
            wake: self.wake.clone(),
        })
    }

    fn status<'a>(
        &'a self,
        files: &'a [MigrationFile],
        bears: RangeInclusive<u32>,
    ) -> BoxFuture<'a, Result<Status, Failure>> {
        async move { migrations::status(&self.file, files, &bears).await }.boxed()
    }

    fn migrate<'a>(
        &'a self,
        files: &'a [MigrationFile],
        bears: RangeInclusive<u32>,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        async move { migrations::migrate(&self.file, &self.service, files, &bears).await }.boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let pinged = self.file.ping().await;
            pinged.map_err(|error| self.told(error.into()))
        }
        .boxed()
    }

    /// Writes the log back into the file and ends its threads.
    fn close(&self) -> BoxFuture<'_, ()> {
        self.file.close().boxed()
    }

    fn statistics(&self) -> Statistics {
        let done = self.file.statistics();
        Statistics {
            commits: done.commits(),
            writes: done.writes(),
            pool: None,
        }
    }
}

/// A session of the writer. Dropped, it rolls back.
#[derive(Debug)]
struct SqliteTransaction {
    session: Session,
    database: SqliteDatabase,
    /// Whether the commit is news for the relay.
    announces: AtomicBool,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl SqliteTransaction {
    async fn run<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let done = self.session.run(f).await;
        done.map_err(|fault| self.database.told(fault))
    }

    async fn make_durable(&self) -> Result<()> {
        let committed = if self.announces.load(Relaxed) {
            let wake = self.database.wake.clone();
            self.session.commit_then(move || wake.notify_one()).await
        } else {
            self.session.commit().await
        };
        self.release();
        committed.map_err(|error| self.database.told(error.into()))
    }

    async fn undo(&self) -> Result<()> {
        let rolled_back = self.session.roll_back().await;
        self.release();
        rolled_back.map_err(|error| self.database.told(error.into()))
    }

    fn release(&self) {
        self.permit
            .lock()
            .expect("no holder of this lock panics")
            .take();
    }
}

impl Transaction for SqliteTransaction {
    fn query(&self, call: Call, mut statement: Statement) -> BoxFuture<'_, Result<RowSet>> {
        mark(&mut statement);
        let limits = self.database.limits;
        self.run(move |connection| {
            let run = Run::enter(call, limits);
            run.explain(run.query(connection, &statement, &mut run.budget(), false))
        })
        .boxed()
    }

    fn execute(&self, call: Call, mut statement: Statement) -> BoxFuture<'_, Result<u64>> {
        mark(&mut statement);
        let limits = self.database.limits;
        self.run(move |connection| {
            let run = Run::enter(call, limits);
            run.explain(run.execute(connection, &statement))
        })
        .boxed()
    }

    fn announce(
        &self,
        content: Content,
        trace: TraceContext,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<()>> {
        self.announces.store(true, Relaxed);
        self.run(move |connection| Ok(outbox::add(connection, &content, trace, now_ms)?))
            .boxed()
    }

    fn commit(&self) -> BoxFuture<'_, Result<()>> {
        self.make_durable().boxed()
    }

    fn roll_back(&self) -> BoxFuture<'_, Result<()>> {
        self.undo().boxed()
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
