//! The `sql` capability: a relational database of its own for each service, and the outbox in it.
//!
//! **Invariant:** a guest has no way to name another database, another service's rows, or the host's tables.

mod announce;
mod error;
mod guard;
mod host;
mod metrics;
pub mod migrate;
pub mod outbox;
mod run;
mod sqlite;
mod twin;
pub(crate) mod value;

#[cfg(test)]
mod tests;

use super::{Boot, Borrower, Capability, queue::Broker};
use crate::{name::ServiceName, sqlite::Database, store::StoreState};
use announce::Announcer;
use guard::Rights;
use outbox::Relay;
use serde::{Deserialize, Serialize};
use sqlite::ServiceDatabase;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::runtime::Handle;
use wasmtime::{
    Result,
    component::{HasSelf, Linker},
    ensure,
    error::Context as _,
    format_err,
};

wasmtime::component::bindgen!({
    path: "../wit/deps/exprsn-sql",
    world: "exprsn:sql/imports",
    imports: { default: trappable },
    with: { "exprsn:sql/database.transaction": host::OpenTransaction },
    require_store_data_send: true,
});

use exprsn::sql::{database, types};

/// `[capability.sql]`: where services keep their data, and how much one call may do.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub backend: Backend,
    /// Rows of one result.
    pub rows_max: usize,
    /// One result, in bytes.
    pub result_bytes_max: usize,
    /// One value or row, in bytes.
    pub value_bytes_max: usize,
    /// One service's database, in bytes.
    pub database_bytes_max: u64,
    /// How long one statement may compute.
    pub statement_ms_max: u64,
    /// How long a transaction may wait for its next call.
    pub transaction_ms_max: u64,
    /// How long a transaction may last in all.
    pub transaction_total_ms_max: u64,
    /// Transactions of one service that are open or waiting.
    pub transactions_max: usize,
    /// Threads for one service's reads.
    pub readers: usize,
    /// Streams of rows that one service reads at once; further ones wait.
    pub streams_max: usize,
    /// How long a stream waits for its reader.
    pub stream_idle_ms_max: u64,
}

/// What keeps the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// One SQLite file per service in the data directory.
    Sqlite,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Backend::Sqlite,
            rows_max: 10_000,
            result_bytes_max: 8 << 20,
            value_bytes_max: 4 << 20,
            database_bytes_max: 64 << 30,
            statement_ms_max: 5_000,
            transaction_ms_max: 5_000,
            transaction_total_ms_max: 30_000,
            transactions_max: 64,
            readers: 2,
            streams_max: 4,
            stream_idle_ms_max: 30_000,
        }
    }
}

impl Config {
    /// Names the first limit that would let nothing through.
    fn check(&self) -> Result<()> {
        let limits = [
            ("rows_max", self.rows_max as u64),
            ("result_bytes_max", self.result_bytes_max as u64),
            ("value_bytes_max", self.value_bytes_max as u64),
            ("database_bytes_max", self.database_bytes_max),
            ("statement_ms_max", self.statement_ms_max),
            ("transaction_ms_max", self.transaction_ms_max),
            ("transaction_total_ms_max", self.transaction_total_ms_max),
            ("transactions_max", self.transactions_max as u64),
            ("readers", self.readers as u64),
            ("streams_max", self.streams_max as u64),
            ("stream_idle_ms_max", self.stream_idle_ms_max),
        ];
        let zero = limits.into_iter().find(|(_, value)| *value == 0);
        ensure!(
            zero.is_none(),
            "[capability.sql] {} is 0; it must be at least 1",
            zero.unwrap_or_default().0
        );
        Ok(())
    }
}

/// The limits as the backend uses them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    rows_max: usize,
    result_bytes_max: usize,
    value_bytes_max: usize,
    database_bytes_max: u64,
    statement_max: Duration,
    transaction_idle_max: Duration,
    transaction_total_max: Duration,
    transactions_max: usize,
    readers: usize,
    streams_max: usize,
    stream_idle_max: Duration,
}

impl From<&Config> for Limits {
    fn from(config: &Config) -> Self {
        Self {
            rows_max: config.rows_max,
            result_bytes_max: config.result_bytes_max,
            value_bytes_max: config.value_bytes_max,
            database_bytes_max: config.database_bytes_max,
            statement_max: Duration::from_millis(config.statement_ms_max),
            transaction_idle_max: Duration::from_millis(config.transaction_ms_max),
            transaction_total_max: Duration::from_millis(config.transaction_total_ms_max),
            transactions_max: config.transactions_max,
            readers: config.readers,
            streams_max: config.streams_max,
            stream_idle_max: Duration::from_millis(config.stream_idle_ms_max),
        }
    }
}

/// `[grants.sql]`: its own database; nothing else can be asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// May change the schema while it runs, not in migrations alone.
    #[serde(default)]
    pub ddl: bool,
}

/// The capability.
pub struct Sql {
    data: PathBuf,
    limits: Limits,
    background: Handle,
    broker: Arc<Broker>,
    open: Mutex<HashMap<ServiceName, Open>>,
    gauges: metrics::Gauges,
}

/// The database of a service, open until the host ends: versions of the service come and go.
#[derive(Clone)]
struct Open {
    database: Arc<ServiceDatabase>,
    _relay: Arc<Relay>,
}

/// What a service version holds.
#[derive(Debug)]
pub struct Lent {
    database: Arc<ServiceDatabase>,
    rights: Rights,
    announcer: Announcer,
}

impl Lent {
    /// Whether the database can be read now.
    pub async fn is_healthy(&self) -> bool {
        self.database.database().ping().await.is_ok()
    }
}

/// The file of a service's database.
pub fn path(data: &Path, service: &ServiceName) -> PathBuf {
    data.join("sql").join(format!("{service}.db"))
}

/// Opens a service's database outside of the platform, creating it where absent: `exprsn db`.
pub fn open(data: &Path, service: &ServiceName, config: &Config) -> Result<Database> {
    config.check()?;
    sqlite::open(&path(data, service), &config.into())
        .with_context(|| format!("opening the database of {service}"))
}

impl Sql {
    /// The service's database, opened once. Blocks for some disk accesses.
    fn database(&self, service: &ServiceName) -> Result<Arc<ServiceDatabase>> {
        let mut open = self.open.lock().expect("no holder of this lock panics");
        if let Some(open) = open.get(service) {
            return Ok(open.database.clone());
        }
        let database = sqlite::open(&path(&self.data, service), &self.limits)?;
        let relay = Relay::start(
            &self.background,
            service.clone(),
            database.clone(),
            self.broker.clone(),
        );
        self.gauges.add(service, relay.lag(), &database);
        let database = Arc::new(ServiceDatabase::new(
            service.clone(),
            database,
            self.limits,
            relay.wake(),
        ));
        open.insert(
            service.clone(),
            Open {
                database: database.clone(),
                _relay: Arc::new(relay),
            },
        );
        Ok(database)
    }

    /// Writes everything back and closes all databases; calls fail as unavailable from then on.
    pub async fn close(&self) {
        let open = std::mem::take(&mut *self.open.lock().expect("no holder of this lock panics"));
        futures::future::join_all(open.values().map(|open| open.database.database().close())).await;
    }
}

impl Capability for Sql {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(boot: &Boot, config: Config) -> Result<Self> {
        config.check()?;
        let gauges = metrics::Gauges::default();
        boot.metrics
            .register(|registry| registry.register_collector(Box::new(gauges.clone())));
        Ok(Self {
            data: boot.data.clone(),
            limits: (&config).into(),
            background: boot.background.clone(),
            broker: boot.broker.clone(),
            open: Mutex::default(),
            gauges,
        })
    }

    fn link(linker: &mut Linker<StoreState>, _grant: &Grant) -> Result<()> {
        types::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        database::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        twin::link(linker)
    }

    /// Opens the service's database and brings its schema up to the version's migrations.
    async fn lend(&self, borrower: &Borrower<'_>, grant: &Grant) -> Result<Lent> {
        let service = borrower.name;
        let database = tokio::task::block_in_place(|| self.database(service)).map_err(|error| {
            format_err!(error).context(format!("opening the database of {service}"))
        })?;
        migrate::migrate(database.database(), service, borrower.migrations).await?;
        Ok(Lent {
            database,
            rights: if grant.ddl {
                Rights::Schema
            } else {
                Rights::Rows
            },
            announcer: Announcer::new(borrower.grants, self.broker.clone()),
        })
    }
}
