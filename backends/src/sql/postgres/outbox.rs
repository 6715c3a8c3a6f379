//! The outbox on PostgreSQL: each host has a relay, and one of them at a time delivers, so that the order is kept.
//!
//! A relay claims rows in a transaction that holds the database's relay lock until they are delivered and removed. A host
//! that dies or freezes in between loses the lock with its connection, and the rows are delivered again by another.

use super::{PostgresDatabase, pool::Lease};
use crate::sql::{
    Failure,
    outbox::{BATCH_ROWS_MAX, BatchSize, Claim, Outbox, OutboxRow},
};
use futures::{FutureExt as _, future::BoxFuture};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How often a host looks for what another has left.
const POLL: Duration = Duration::from_secs(1);
/// How long a connection is waited for.
const LEND_MAX: Duration = Duration::from_secs(5);
/// The advisory lock of whoever relays; its database is part of it.
const TRY_LOCK: &str = "SELECT pg_try_advisory_xact_lock(7012025)";
const WAITING: &str = "SELECT count(*), coalesce(min(created_at), 0) FROM exprsn_host.outbox";
const OLDEST: &str = "SELECT seq, payload, created_at FROM exprsn_host.outbox ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED";
const REMOVE: &str = "DELETE FROM exprsn_host.outbox WHERE seq = ANY ($1)";

/// The table, as a relay reads it.
#[derive(Debug)]
pub struct PostgresOutbox(pub PostgresDatabase);

impl Outbox for PostgresOutbox {
    fn claim(&self) -> BoxFuture<'_, Result<Claim, Failure>> {
        self.take().boxed()
    }

    fn wake(&self) -> &Arc<Notify> {
        &self.0.inner.wake
    }

    fn poll(&self) -> Option<Duration> {
        Some(POLL)
    }
}

impl PostgresOutbox {
    async fn take(&self) -> Result<Claim, Failure> {
        let lent = self.0.inner.host.lend(Instant::now() + LEND_MAX).await;
        let mut lease = lent.map_err(Failure::doing("reading the outbox"))?;
        lease.unfinished = true;
        let read = read(&mut lease).await;
        let (waiting, oldest_at, rows) = read.map_err(Failure::doing("reading the outbox"))?;
        lease.unfinished = false;
        let seqs = rows.iter().map(|row| row.seq).collect();
        Ok(Claim {
            rows,
            waiting,
            oldest_at,
            settle: Box::new(move || remove(lease, seqs).boxed()),
        })
    }
}

/// How much waits since when, and the rows that are now this relay's: none while another relays.
async fn read(lease: &mut Lease) -> Result<(i64, i64, Vec<OutboxRow>), tokio_postgres::Error> {
    let connection = lease.connection();
    let statement = prepared(connection, WAITING).await?;
    let counted = connection.client.query_one(&statement, &[]).await?;
    let (waiting, oldest_at) = (counted.get(0), counted.get(1));
    if waiting == 0 {
        return Ok((0, 0, Vec::new()));
    }
    lease.in_transaction = true;
    let connection = lease.connection();
    connection.client.batch_execute("BEGIN").await?;
    let statement = prepared(connection, TRY_LOCK).await?;
    if !connection
        .client
        .query_one(&statement, &[])
        .await?
        .get::<_, bool>(0)
    {
        return Ok((waiting, oldest_at, Vec::new()));
    }
    let statement = prepared(connection, OLDEST).await?;
    let stored = connection
        .client
        .query(&statement, &[&(BATCH_ROWS_MAX as i64)])
        .await?;
    let mut size = BatchSize::default();
    let rows = stored.iter().map(|row| OutboxRow {
        seq: row.get(0),
        payload: row.get(1),
        created_at: row.get(2),
    });
    let rows = rows.take_while(|row| size.takes(&row.payload)).collect();
    Ok((waiting, oldest_at, rows))
}

async fn prepared(
    connection: &mut super::pool::Connection,
    text: &str,
) -> Result<tokio_postgres::Statement, tokio_postgres::Error> {
    match connection.prepared(text) {
        Some(statement) => Ok(statement),
        None => connection.prepare(text).await,
    }
}

async fn remove(mut lease: Lease, seqs: Vec<i64>) -> Result<(), Failure> {
    lease.unfinished = true;
    let connection = lease.connection();
    let removed = async {
        let statement = prepared(connection, REMOVE).await?;
        connection.client.execute(&statement, &[&seqs]).await?;
        connection.client.batch_execute("COMMIT").await
    };
    removed
        .await
        .map_err(Failure::doing("emptying the outbox"))?;
    lease.unfinished = false;
    lease.in_transaction = false;
    Ok(())
}
