//! The `sql` capability: a relational database of its own for each service, and the outbox in it.
//!
//! **Invariant:** a guest has no way to name another database, another service's rows, or the host's tables.

mod announce;
mod config;
mod host;
mod metrics;
mod store;
mod twin;
mod value;

pub use config::{Backend, Config, PostgresServer};
pub use exprsn_backends::sql::{migrate, outbox};
pub use store::{Store, path, patiently, server};

use super::{Boot, Borrower, Capability, queue::Broker};
use crate::{name::ServiceName, store::StoreState};
use announce::Announcer;
use exprsn_backends::sql::{Database, Rights, relay::Relay};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc};
use tokio::{runtime::Handle, sync::Mutex};
use wasmtime::{
    Result,
    component::{HasSelf, Linker},
};

wasmtime::component::bindgen!({
    path: "../wit/deps/exprsn-sql",
    world: "exprsn:sql/imports",
    imports: { default: trappable },
    with: { "exprsn:sql/database.transaction": host::OpenTransaction },
    require_store_data_send: true,
});

use exprsn::sql::{database, types};

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
    store: Store,
    background: Handle,
    broker: Arc<Broker>,
    open: Mutex<HashMap<ServiceName, Open>>,
    gauges: metrics::Gauges,
}

/// The database of a service, open until the host ends: versions of the service come and go.
#[derive(Clone)]
struct Open {
    database: Arc<dyn Database>,
    _relay: Arc<Relay>,
}

/// What a service version holds.
#[derive(Debug)]
pub struct Lent {
    database: Arc<dyn Database>,
    rights: Rights,
    announcer: Announcer,
}

impl Lent {
    /// Whether the database can be read now.
    pub async fn is_healthy(&self) -> bool {
        self.database.ping().await.is_ok()
    }
}

impl Sql {
    /// The service's database, opened once.
    async fn database(&self, service: &ServiceName) -> Result<Arc<dyn Database>> {
        let mut open = self.open.lock().await;
        if let Some(open) = open.get(service) {
            return Ok(open.database.clone());
        }
        let database = self.store.open(service).await?;
        let relay = Relay::start(
            &self.background,
            service.clone(),
            database.outbox(),
            self.broker.clone(),
        );
        self.gauges.add(service, relay.lag(), &database);
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
        let open = std::mem::take(&mut *self.open.lock().await);
        futures::future::join_all(open.values().map(|open| open.database.close())).await;
    }
}

impl Capability for Sql {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(boot: &Boot, config: Config) -> Result<Self> {
        let gauges = metrics::Gauges::default();
        boot.metrics
            .register(|registry| registry.register_collector(Box::new(gauges.clone())));
        Ok(Self {
            store: patiently(|| {
                Store::connect(
                    &boot.data,
                    &config,
                    &boot.backends.postgres,
                    &boot.background,
                )
            })
            .await?,
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
        let database = self.database(borrower.name).await?;
        let migrations = borrower.migrations;
        database
            .migrate(&migrations.files, migrations.range())
            .await?;
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
