//! Creating the platform's database, and how it is entered.

use super::Limits;
use crate::sql::{
    Failure,
    error::BoxError,
    postgres::{PLATFORM, Server, pool::Connector, provision},
};
use std::{sync::Arc, time::Duration};

/// Hosts that start at once create the tables one after the other.
const BEGIN: &str =
    "SET client_min_messages = warning; BEGIN; SELECT pg_advisory_xact_lock(7012025);";
const TABLES: &str = include_str!("tables.sql");
/// What the server allows beyond the host's own limits, so that it ends what nobody waits for any more.
const BEYOND: Duration = Duration::from_millis(500);
/// How long creating may take: other hosts may be about it.
const CREATE_MAX: Duration = Duration::from_secs(30);

/// Creates the database and its tables where they are absent.
pub async fn create(server: &Server) -> Result<(), Failure> {
    let doing =
        || format!("creating the database `{PLATFORM}` of the hosts on the PostgreSQL server");
    let done = tokio::time::timeout(CREATE_MAX, create_now(server)).await;
    done.map_err(Failure::doing(doing()))?
        .map_err(Failure::doing(doing()))
}

async fn create_now(server: &Server) -> Result<(), BoxError> {
    let admin = server.admin.connect().await?;
    // The session's end gives the lock back.
    admin.client.batch_execute(provision::LOCK).await?;
    provision::create_absent(&admin.client, PLATFORM).await?;
    drop(admin);
    let mut inside = server.admin.clone();
    inside.config.dbname(PLATFORM);
    let inside = inside.connect().await?;
    let tables = format!("{BEGIN}{TABLES}COMMIT");
    Ok(inside.client.batch_execute(&tables).await?)
}

/// How a host connects to ask what may take `call_max`.
pub fn connector(server: &Server, limits: &Limits, call_max: Duration) -> Connector {
    let mut connector = server.admin.clone();
    let timeout_ms = (call_max + BEYOND).as_millis();
    connector
        .config
        .dbname(PLATFORM)
        .connect_timeout(limits.call_max)
        .application_name("exprsn host")
        .options(format!(
            "-c search_path=public -c timezone=UTC -c statement_timeout={timeout_ms} -c lock_timeout={timeout_ms}"
        ));
    connector.counters = Arc::default();
    connector
}
