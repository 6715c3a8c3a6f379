//! What an operator says of services' databases.

use crate::config::or_environment;
use exprsn_backends::sql::{
    Limits,
    postgres::{self, PoolLimits, Settings},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use wasmtime::{Result, ensure};

/// `[capability.sql]`: where services keep their data, and how much one call may do.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub backend: Backend,
    /// PostgreSQL's connections of one service.
    pub pool_max: usize,
    /// Connections that stay open when idle.
    pub pool_min: usize,
    /// How long a call waits for a connection.
    pub pool_acquire_ms_max: u64,
    /// How long a connection beyond `pool_min` stays open unused.
    pub pool_idle_ms_max: u64,
    /// What concurrent transactions see of each other on PostgreSQL.
    pub isolation: Isolation,
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
    /// One database and one role per service on the server of `[backends.postgres]`.
    Postgres,
}

/// How concurrent transactions are kept apart; `exclusive` is what SQLite gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    Exclusive,
    Serializable,
    RepeatableRead,
    ReadCommitted,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Backend::Sqlite,
            pool_max: 20,
            pool_min: 5,
            pool_acquire_ms_max: 30_000,
            pool_idle_ms_max: 10_000,
            isolation: Isolation::Exclusive,
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
    /// Whether several hosts can use the same databases.
    pub fn is_shared(&self) -> bool {
        self.backend == Backend::Postgres
    }

    /// Names the first limit that would let nothing through.
    pub(super) fn check(&self) -> Result<()> {
        let limits = [
            ("pool_max", self.pool_max as u64),
            ("pool_acquire_ms_max", self.pool_acquire_ms_max),
            ("pool_idle_ms_max", self.pool_idle_ms_max),
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

/// `[backends.postgres]`. Not printable, because its URL holds a password.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresServer {
    /// `postgres://admin:password@host:5432/postgres?sslmode=require`, or `$NAME`: what the environment's variable of
    /// that name holds. The administrator creates databases and roles.
    pub url: String,
    /// A PEM file of certificates that the server is trusted by; empty is the public ones.
    pub ca_file: String,
}

impl PostgresServer {
    /// How the server is reached, with the pools of `config`.
    pub(super) fn settings(&self, config: &Config) -> Result<Settings> {
        ensure!(
            !self.url.is_empty(),
            "[capability.sql] backend is \"postgres\", and there is no server: write its url into [backends.postgres] in \
             platform.toml"
        );
        let url = or_environment("backends.postgres", "url", &self.url)?;
        let mut settings = Settings::new(url);
        settings.ca_file = (!self.ca_file.is_empty()).then(|| self.ca_file.clone().into());
        settings.pool = PoolLimits {
            max: config.pool_max,
            min: config.pool_min,
            acquire: Duration::from_millis(config.pool_acquire_ms_max),
            idle: Duration::from_millis(config.pool_idle_ms_max),
        };
        settings.isolation = match config.isolation {
            Isolation::Exclusive => postgres::Isolation::Exclusive,
            Isolation::Serializable => postgres::Isolation::Serializable,
            Isolation::RepeatableRead => postgres::Isolation::RepeatableRead,
            Isolation::ReadCommitted => postgres::Isolation::ReadCommitted,
        };
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_not_there_is_named_with_the_remedy() {
        let error = |url: &str| {
            let server = PostgresServer {
                url: url.to_owned(),
                ..PostgresServer::default()
            };
            let settings = server.settings(&Config::default());
            settings.map_or_else(|error| error.to_string(), |_| String::new())
        };
        assert!(error("").contains("[backends.postgres]"));
        assert!(
            error("$EXPRSN_NO_SUCH_VARIABLE").contains("EXPRSN_NO_SUCH_VARIABLE, which is not set")
        );
        assert_eq!(error("postgres://admin@localhost/postgres"), "");
    }
}
