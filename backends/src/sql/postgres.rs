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
mod pool;
mod provision;
mod roles;
mod run;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod transaction;
mod words;

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
use pool::{Connector, Counters, Lease, Pool};
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
/// How long a relay may hold its rows: then another host's takes over.
const RELAY_MAX: Duration = Duration::from_secs(15);
/// How long a statement waits for another's locks, in parts of what it may take in all.
const LOCK_PART: u32 = 2;
/// What the server allows beyond the host's own limits, so that the host's is what a guest is told.
const BEYOND: Duration = Duration::from_millis(500);

/// A PostgreSQL server on which services have databases.
#[derive(Clone)]
pub struct Server {
    settings: Settings,
    admin: Connector,
    secrets: Secrets,
}

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
    begin: String,
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

impl Server {
    /// Connects as the administrator once, to say early what is wrong, and closes what every role could enter.
    ///
    /// Passwords of roles are derived from the administrator's, or from `key` where the address has none: hosts that share
    /// a server must have the same.
    pub async fn connect(
        settings: Settings,
        key: &[u8],
        background: Handle,
    ) -> Result<Self, Failure> {
        let config = settings.admin()?;
        let secrets = Secrets::new(config.get_password().unwrap_or(key));
        let admin = Connector {
            config,
            tls: settings.tls()?,
            background,
            counters: Arc::default(),
        };
        let connected = admin.connect().await;
        let connection = connected.map_err(Failure::doing(
            "connecting to the PostgreSQL server of [backends.postgres] url",
        ))?;
        provision::close_common_databases(&connection.client)
            .await
            .map_err(Failure::doing(
                "keeping services out of the server's own databases",
            ))?;
        Ok(Self {
            settings,
            admin,
            secrets,
        })
    }

    /// Whether the service has a database. Changes nothing.
    pub async fn has(&self, service: &ServiceName) -> Result<bool, Failure> {
        let connected = self.admin.connect().await;
        let connection = connected.map_err(Failure::doing(
            "connecting to the PostgreSQL server of [backends.postgres] url",
        ))?;
        let found = provision::exists(&connection.client, &Roles::of(service)).await;
        found.map_err(Failure::doing("looking for the service's database"))
    }

    /// The service's database, created with its roles where absent.
    pub async fn open(
        &self,
        service: &ServiceName,
        limits: Limits,
    ) -> Result<PostgresDatabase, Failure> {
        provision::provision(&self.admin, &Roles::of(service), &self.secrets).await?;
        Ok(self.open_existing(service, limits))
    }

    /// The service's database as it is; it is not looked at before the first call.
    pub fn open_existing(&self, service: &ServiceName, limits: Limits) -> PostgresDatabase {
        let (roles, secrets) = (Roles::of(service), self.secrets.clone());
        let mut inside = self.admin.clone();
        inside.config.dbname(&roles.database);
        inside.counters = Arc::new(Counters::default());
        let pool = |role: &str, options: String, limits: &PoolLimits| {
            let mut connector = provision::as_role(&inside, role, &secrets);
            connector.config.options(options);
            connector.pool(limits)
        };
        let of_guests = session_of_guests(&limits, self.settings.isolation);
        let host_pool = PoolLimits {
            max: 2,
            min: 1,
            ..self.settings.pool
        };
        let inner = Inner {
            rows: pool(&roles.rows, of_guests.clone(), &self.settings.pool),
            schema: pool(
                &roles.owner,
                of_guests,
                &PoolLimits {
                    min: 0,
                    ..self.settings.pool
                },
            ),
            host: pool(&roles.host, session_of_host(), &host_pool),
            key: secrets.host_key(&roles.database),
            begin: format!("BEGIN ISOLATION LEVEL {}", self.settings.isolation.as_sql()),
            service: service.clone(),
            roles,
            secrets,
            background: inside.background.clone(),
            inside,
            limits,
            transactions: Arc::new(Semaphore::new(limits.transactions_max)),
            streams: Arc::new(Semaphore::new(limits.streams_max)),
            wake: Arc::default(),
            commits: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        };
        PostgresDatabase {
            inner: Arc::new(inner),
        }
    }
}

/// What holds for every statement of a guest.
fn session_of_guests(limits: &Limits, isolation: Isolation) -> String {
    let statement = limits.statement_max + BEYOND;
    let isolation = isolation.as_sql().replace(' ', "\\ ");
    format!(
        "-c search_path=public -c timezone=UTC -c statement_timeout={} -c lock_timeout={} \
         -c idle_in_transaction_session_timeout={} -c default_transaction_isolation={isolation}",
        statement.as_millis(),
        (statement / LOCK_PART).as_millis(),
        (limits.transaction_idle_max + BEYOND).as_millis(),
    )
}

fn session_of_host() -> String {
    let relay = RELAY_MAX.as_millis();
    format!(
        "-c search_path=pg_catalog -c statement_timeout={relay} -c idle_in_transaction_session_timeout={relay}"
    )
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
            inner.begin.as_str()
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
        let count = run
            .execute(&mut lease, "", statement)
            .await
            .map_err(|(error, _)| error)?;
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
                    &self.inner.begin
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

    async fn answers(&self) -> Result<()> {
        let call = Call {
            rights: Rights::Rows,
            deadline: Instant::now() + PING_MAX,
        };
        let mut lease = self.lend(call).await?;
        let run = Run::new(&self.inner.service, &self.inner.limits, call);
        run.say(&mut lease, "SELECT 1")
            .await
            .map_err(|(error, _)| error)
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

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
