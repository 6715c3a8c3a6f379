//! The server: reached as its administrator, to make what each service connects to as itself.

use super::{
    Inner, Isolation, PoolLimits, PostgresDatabase, Settings,
    pool::{Connector, Counters},
    provision,
    roles::{Roles, Secrets},
    settings::{BEYOND, statement_timeout},
};
use crate::{
    name::ServiceName,
    sql::{Failure, Limits},
};
use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{runtime::Handle, sync::Semaphore};

/// How long a relay may hold its rows: then another host's takes over.
const RELAY_MAX: Duration = Duration::from_secs(15);
/// How long a statement waits for another's locks, in parts of what it may take in all.
const LOCK_PART: u32 = 2;

/// A PostgreSQL server on which services have databases.
#[derive(Clone)]
pub struct Server {
    settings: Settings,
    pub(crate) admin: Connector,
    secrets: Secrets,
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
        let found = provision::exists(&connection.client, &Roles::of(service).database).await;
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
            alone: self.settings.isolation.begin(true, &limits),
            beside: self.settings.isolation.begin(false, &limits),
            enters: self.settings.isolation == Isolation::Exclusive,
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
    let statement = statement_timeout(limits);
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

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
