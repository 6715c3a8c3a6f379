//! The production backend: a PostgreSQL server with a database and roles for each service.
//!
//! What the server enforces: a role enters its own database only, changes rows but no tables, creates nothing temporary, and
//! reads no file, no other session and nothing of the host's. What the host enforces besides: the kinds of statements, one
//! at a time, their time, and the size of what they answer.

mod decode;
mod encode;
mod fault;
mod migrations;
mod outbox;
pub(crate) mod pool;
pub(crate) mod provision;
mod roles;
mod run;
mod server;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod transaction;
mod words;

pub(crate) use roles::PLATFORM;
pub use server::Server;
pub use settings::{Isolation, PoolLimits, Settings};

use super::{
    Call, Database, Error, Failure, Limits, Result, Rights, RowStream, Statistics, Transaction,
    backend::PoolStatistics,
    limits::Budget,
    migrate::{MigrationFile, Status},
    outbox::Outbox,
    value::{RowSet, Statement},
};
use crate::name::ServiceName;
use futures::{FutureExt as _, future::BoxFuture};
use outbox::PostgresOutbox;
use pool::{Connector, Lease, Pool};
use roles::{Roles, Secrets};
use run::Run;
use std::{
    fmt,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
};
use words::Kind;

/// Times that a statement or batch runs again after it lost against another.
const CONFLICTS_MAX: u32 = 8;
/// The longest first wait before it does; it doubles.
const CONFLICT_WAIT_MS: u64 = 4;
/// How long a database has to answer that it is well.
const PING_MAX: Duration = Duration::from_secs(2);

/// The database of one service. Clones share it.
#[derive(Clone)]
pub struct PostgresDatabase {
    inner: Arc<Inner>,
}

struct Inner {
    service: ServiceName,
    roles: Roles,
    secrets: Secrets,
    /// How the service's database is entered.
    inside: Connector,
    /// Shown to write into the outbox.
    key: String,
    limits: Limits,
    /// Begins a transaction of several statements.
    alone: String,
    /// Begins that of a single one.
    beside: String,
    /// Whether a single statement that writes must wait for its turn.
    enters: bool,
    background: Handle,
    /// Guests that change rows.
    rows: Pool,
    /// Guests that change tables.
    schema: Pool,
    /// The host's own.
    host: Pool,
    transactions: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Notified when a commit of this host added to the outbox.
    wake: Arc<Notify>,
    commits: AtomicU64,
    writes: AtomicU64,
}

impl Inner {
    fn committed(&self, writes: u64) {
        self.commits.fetch_add(1, Relaxed);
        self.writes.fetch_add(writes, Relaxed);
    }

    fn pool(&self, rights: Rights) -> &Pool {
        match rights {
            Rights::Rows => &self.rows,
            Rights::Schema => &self.schema,
        }
    }
}

impl PostgresDatabase {
    async fn lend(&self, call: Call) -> Result<Lease> {
        let pool = self.inner.pool(call.rights);
        let lent = pool.lend(call.deadline).await;
        lent.map_err(|error| fault::of_pool(&self.inner.service, error, pool.limits.max))
    }

    async fn run_query(&self, call: Call, kind: Kind, statement: &Statement) -> Result<RowSet> {
        let mut retries = Retries::of(call);
        loop {
            let done = self.query_once(call, kind, statement).await;
            if !retries.again(&done).await {
                return done;
            }
        }
    }

    async fn query_once(&self, call: Call, kind: Kind, statement: &Statement) -> Result<RowSet> {
        let inner = &self.inner;
        let mut lease = self.lend(call).await?;
        let run = Run::new(&inner.service, &inner.limits, call);
        let mut budget = Budget::of(&inner.limits);
        // A result that is too large must undo what was written.
        lease.in_transaction = kind != Kind::Reads;
        let begin = if lease.in_transaction {
            inner.beside.as_str()
        } else {
            ""
        };
        let set = run
            .query(&mut lease, begin, statement, &mut budget)
            .await
            .map_err(|(error, _)| error)?;
        if lease.in_transaction {
            run.say(&mut lease, "COMMIT")
                .await
                .map_err(|(error, _)| error)?;
            lease.in_transaction = false;
            inner.committed(1);
        }
        Ok(set)
    }

    async fn execute_once(&self, call: Call, kind: Kind, statement: &Statement) -> Result<u64> {
        let inner = &self.inner;
        let mut lease = self.lend(call).await?;
        let run = Run::new(&inner.service, &inner.limits, call);
        lease.in_transaction = inner.enters && kind != Kind::Reads;
        let begin = if lease.in_transaction {
            inner.beside.as_str()
        } else {
            ""
        };
        let count = run.execute(&mut lease, begin, statement).await;
        let count = count.map_err(|(error, _)| error)?;
        if lease.in_transaction {
            run.say(&mut lease, "COMMIT")
                .await
                .map_err(|(error, _)| error)?;
            lease.in_transaction = false;
        }
        if kind != Kind::Reads {
            inner.committed(1);
        }
        Ok(if kind.counts() { count } else { 0 })
    }

    async fn batch_once(
        &self,
        call: Call,
        begin: &str,
        statements: &[Statement],
    ) -> Result<Vec<RowSet>> {
        let inner = &self.inner;
        let mut lease = self.lend(call).await?;
        let run = Run::new(&inner.service, &inner.limits, call);
        let mut budget = Budget::of(&inner.limits);
        let mut sets = Vec::with_capacity(statements.len());
        lease.in_transaction = true;
        for (index, statement) in statements.iter().enumerate() {
            let prelude = if index == 0 { begin } else { "" };
            let set = run.query(&mut lease, prelude, statement, &mut budget).await;
            sets.push(set.map_err(|(error, _)| error)?);
        }
        run.say(&mut lease, "COMMIT")
            .await
            .map_err(|(error, _)| error)?;
        lease.in_transaction = false;
        Ok(sets)
    }

    async fn run_batch(&self, call: Call, statements: &[Statement]) -> Result<Vec<RowSet>> {
        let kinds = statements
            .iter()
            .map(|statement| words::judge(&statement.text, call.rights));
        let kinds: Vec<Kind> = kinds.collect::<Result<_>>()?;
        let reads = kinds.iter().all(|kind| *kind == Kind::Reads);
        match (statements, kinds.as_slice()) {
            ([], _) => Ok(Vec::new()),
            ([statement], [kind]) => Ok(vec![self.run_query(call, *kind, statement).await?]),
            _ => {
                let begin = if reads {
                    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
                } else {
                    &self.inner.alone
                };
                let mut retries = Retries::of(call);
                let sets = loop {
                    let done = self.batch_once(call, begin, statements).await;
                    if !retries.again(&done).await {
                        break done?;
                    }
                };
                self.inner.committed(u64::from(!reads));
                Ok(sets)
            }
        }
    }

    /// On a connection of the host's: guests that use up theirs do not make the database unwell.
    async fn answers(&self) -> Result<()> {
        let inner = &self.inner;
        let call = Call {
            rights: Rights::Rows,
            deadline: Instant::now() + PING_MAX,
        };
        let lent = inner.host.lend(call.deadline).await;
        let mut lease =
            lent.map_err(|error| fault::of_pool(&inner.service, error, inner.host.limits.max))?;
        let run = Run::new(&inner.service, &inner.limits, call);
        let said = run.say(&mut lease, "SELECT 1").await;
        said.map_err(|(error, _)| error)
    }
}

/// Tries what lost against others again; nothing of it was done.
struct Retries {
    lost: u32,
    deadline: Instant,
}

impl Retries {
    fn of(call: Call) -> Self {
        Self {
            lost: 0,
            deadline: call.deadline,
        }
    }

    /// Whether to try again, after a wait.
    async fn again<T>(&mut self, done: &Result<T>) -> bool {
        let again = matches!(done, Err(Error::Conflict(_)))
            && self.lost < CONFLICTS_MAX
            && Instant::now() < self.deadline;
        if again {
            let wait_ms = rand::random_range(0..=CONFLICT_WAIT_MS << self.lost);
            self.lost += 1;
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
        again
    }
}

impl Database for PostgresDatabase {
    fn query(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<RowSet>> {
        async move {
            let kind = words::judge(&statement.text, call.rights)?;
            self.run_query(call, kind, &statement).await
        }
        .boxed()
    }

    fn execute(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<u64>> {
        async move {
            let kind = words::judge(&statement.text, call.rights)?;
            let mut retries = Retries::of(call);
            loop {
                let done = self.execute_once(call, kind, &statement).await;
                if !retries.again(&done).await {
                    return done;
                }
            }
        }
        .boxed()
    }

    fn batch(&self, call: Call, statements: Vec<Statement>) -> BoxFuture<'_, Result<Vec<RowSet>>> {
        async move { self.run_batch(call, &statements).await }.boxed()
    }

    fn stream(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<RowStream>> {
        async move {
            if matches!(
                words::judge(&statement.text, call.rights)?,
                Kind::Writes | Kind::Defines
            ) {
                return Err(fault::only_reads());
            }
            stream::open(self, call, statement).await
        }
        .boxed()
    }

    /// It waits for a connection of the pool.
    fn begin(&self, call: Call) -> BoxFuture<'_, Result<Box<dyn Transaction>>> {
        async move {
            let transaction = transaction::begin(self, call).await?;
            Ok(Box::new(transaction) as Box<dyn Transaction>)
        }
        .boxed()
    }

    fn outbox(&self) -> Arc<dyn Outbox> {
        Arc::new(PostgresOutbox(self.clone()))
    }

    fn status<'a>(
        &'a self,
        files: &'a [MigrationFile],
        bears: RangeInclusive<u32>,
    ) -> BoxFuture<'a, Result<Status, Failure>> {
        async move { migrations::status(self, files, &bears).await }.boxed()
    }

    fn migrate<'a>(
        &'a self,
        files: &'a [MigrationFile],
        bears: RangeInclusive<u32>,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>> {
        async move { migrations::migrate(self, files, &bears).await }.boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        self.answers().boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        for pool in [&self.inner.rows, &self.inner.schema, &self.inner.host] {
            pool.close();
        }
        futures::future::ready(()).boxed()
    }

    fn statistics(&self) -> Statistics {
        let inner = &self.inner;
        let (rows, schema) = (inner.rows.status(), inner.schema.status());
        let counters = &inner.inside.counters;
        Statistics {
            commits: inner.commits.load(Relaxed),
            writes: inner.writes.load(Relaxed),
            pool: Some(PoolStatistics {
                max: rows.max_size as u64,
                size: (rows.size + schema.size) as u64,
                available: (rows.available + schema.available) as u64,
                waiting: (rows.waiting + schema.waiting) as u64,
                opened: counters.opened.load(Relaxed),
                timeouts: counters.timeouts.load(Relaxed),
                cancelled: counters.cancelled.load(Relaxed),
            }),
        }
    }
}

impl fmt::Debug for PostgresDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresDatabase")
            .field("service", &self.inner.service)
            .finish_non_exhaustive()
    }
}

/// Whether this one of an error's causes says that no server is there yet: nobody listens, or it is about to begin or to end.
pub fn is_absence(cause: &(dyn std::error::Error + 'static)) -> bool {
    use tokio_postgres::error::SqlState;
    let coming =
        |error: &tokio_postgres::Error| error.code() == Some(&SqlState::CANNOT_CONNECT_NOW);
    cause.is::<std::io::Error>()
        || cause
            .downcast_ref::<tokio_postgres::Error>()
            .is_some_and(coming)
}
