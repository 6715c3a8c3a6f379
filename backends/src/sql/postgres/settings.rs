//! How the server is reached, and the connections that one service may hold.

use crate::{
    sql::{Failure, Limits},
    tls,
};
use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};
use tokio_postgres::Config;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What the server allows beyond the host's own limits, so that the host's is what a guest is told.
pub(super) const BEYOND: Duration = Duration::from_millis(500);

/// When the server ends a statement.
pub(super) fn statement_timeout(limits: &Limits) -> Duration {
    limits.statement_max + BEYOND
}

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What an operator says of the server.
#[derive(Clone)]
pub struct Settings {
    /// The administrator's connection: `postgres://user:password@host:port/database?sslmode=require`. Never logged.
    pub url: String,
    /// Certificates (PEM) to trust instead of the public authorities.
    pub ca_file: Option<PathBuf>,
    pub pool: PoolLimits,
    /// Of transactions and batches.
    pub isolation: Isolation,
}

/// One service's connections, in the names of Sequelize's pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Connections open at once.
    pub max: usize,
    /// Connections kept open when idle.
    pub min: usize,
    /// How long a call waits for a connection.
    pub acquire: Duration,
    /// How long a connection beyond `min` stays open unused.
    pub idle: Duration,
}

/// What concurrent transactions see of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// One comes after the other, on all hosts, as on SQLite: whoever writes waits for the transaction under way. None
    /// conflicts, and none is faster than its turn.
    #[default]
    Exclusive,
    /// As if one came after the other. One that cannot be so fails with `conflict`, and is to be run again.
    Serializable,
    /// One snapshot; two that change the same row conflict.
    RepeatableRead,
    /// Each statement sees what is committed.
    ReadCommitted,
}

impl Isolation {
    pub(super) fn as_sql(self) -> &'static str {
        match self {
            Self::Serializable => "SERIALIZABLE",
            Self::RepeatableRead => "REPEATABLE READ",
            // Each statement sees what those before it, in whatever transaction, have done.
            Self::Exclusive | Self::ReadCommitted => "READ COMMITTED",
        }
    }
}

impl Isolation {
    /// The words that begin a transaction, which is `alone` or one of several single statements.
    ///
    /// Waiting for a turn is no part of a statement's time: it is bounded as the whole transaction is.
    pub(super) fn begin(self, alone: bool, limits: &Limits) -> String {
        let begin = format!("BEGIN ISOLATION LEVEL {}", self.as_sql());
        match self {
            Self::Exclusive => format!(
                "{begin}; SET LOCAL statement_timeout = {}; SELECT exprsn_host.enter({alone}); SET LOCAL statement_timeout = {}",
                limits.transaction_total_max.as_millis(),
                statement_timeout(limits).as_millis(),
            ),
            _ => begin,
        }
    }
}

impl Settings {
    /// The defaults for a server.
    pub fn new(url: String) -> Self {
        Self {
            url,
            ca_file: None,
            pool: PoolLimits {
                max: 20,
                min: 5,
                acquire: Duration::from_secs(30),
                idle: Duration::from_secs(10),
            },
            isolation: Isolation::default(),
        }
    }

    /// The administrator's connection.
    pub(super) fn admin(&self) -> Result<Config, Failure> {
        let parsed = Config::from_str(&self.url);
        let mut config = parsed.map_err(Failure::doing(
            "[backends.postgres] url is not a PostgreSQL address; write postgres://user:password@host:5432/postgres",
        ))?;
        config.connect_timeout(CONNECT_MAX);
        config.application_name("exprsn");
        Ok(config)
    }

    /// TLS, used as the address's `sslmode` says. A certificate that is not trusted ends the connection.
    pub(super) fn tls(&self) -> Result<MakeRustlsConnect, Failure> {
        let roots = tls::roots(self.ca_file.as_deref()).map_err(|error| {
            let path = self.ca_file.as_deref().unwrap_or(Path::new(""));
            let what = format!("reading [backends.postgres] ca_file = `{}`", path.display());
            Failure::doing(what)(error)
        })?;
        let config = tls::client(roots).map_err(Failure::doing("preparing TLS"))?;
        Ok(MakeRustlsConnect::new(config))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("pool", &self.pool)
            .field("isolation", &self.isolation)
            .finish_non_exhaustive()
    }
}
