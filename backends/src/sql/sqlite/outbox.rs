//! The outbox on SQLite: one relay, in the process that has the file open.

use crate::{
    sql::{
        Failure,
        outbox::{BATCH_ROWS_MAX, BatchSize, Claim, Content, NewRow, Outbox, OutboxRow},
    },
    sqlite::{self, Database},
    trace::TraceContext,
};
use futures::{FutureExt as _, future::BoxFuture};
use rusqlite::Connection;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// The host's table in each service's database.
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS _exprsn_outbox (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('job', 'event')),
    payload TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT";

/// Creates the table in a service's database.
pub fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(SCHEMA)
}

/// Adds a row to the transaction under way. One whose id waits already is not added again.
pub fn add(
    connection: &Connection,
    content: &Content,
    trace: TraceContext,
    now_ms: i64,
) -> Result<(), sqlite::Error> {
    let NewRow { kind, id, payload } = NewRow::new(content, trace);
    let mut statement = connection.prepare_cached(
        "INSERT INTO _exprsn_outbox (id, kind, payload, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )?;
    statement.execute((id, kind, payload, now_ms))?;
    Ok(())
}

/// The table, as the relay reads it.
#[derive(Debug)]
pub struct SqliteOutbox {
    pub database: Database,
    pub wake: Arc<Notify>,
}

impl Outbox for SqliteOutbox {
    fn claim(&self) -> BoxFuture<'_, Result<Claim, Failure>> {
        async move {
            let read = self.database.read(|connection| {
                Ok::<_, sqlite::Error>((waiting(connection)?, oldest(connection)?))
            });
            let ((waiting, oldest_at), rows) =
                read.await.map_err(Failure::doing("reading the outbox"))?;
            if !rows.is_empty() {
                // What was read may not be on disk yet; what the sink is told must not vanish with the power.
                let flushed = self.database.flushed().await;
                flushed.map_err(Failure::doing("making the outbox durable"))?;
            }
            let last_seq = rows.last().map_or(0, |row| row.seq);
            let database = self.database.clone();
            let settle = Box::new(move || remove(database, last_seq).boxed());
            Ok(Claim {
                rows,
                waiting,
                oldest_at,
                settle,
            })
        }
        .boxed()
    }

    fn wake(&self) -> &Arc<Notify> {
        &self.wake
    }

    fn poll(&self) -> Option<Duration> {
        None
    }
}

fn waiting(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    connection
        .prepare_cached("SELECT count(*), coalesce(min(created_at), 0) FROM _exprsn_outbox")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

fn oldest(connection: &Connection) -> rusqlite::Result<Vec<OutboxRow>> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, payload, created_at FROM _exprsn_outbox ORDER BY seq LIMIT $1",
    )?;
    let mut stored = statement.query([BATCH_ROWS_MAX as i64])?;
    let (mut rows, mut size) = (Vec::new(), BatchSize::default());
    while let Some(row) = stored.next()? {
        let row = OutboxRow {
            seq: row.get(0)?,
            payload: row.get(1)?,
            created_at: row.get(2)?,
        };
        if !size.takes(&row.payload) {
            break;
        }
        rows.push(row);
    }
    Ok(rows)
}

async fn remove(database: Database, last_seq: i64) -> Result<(), Failure> {
    let remove = move |connection: &Connection| {
        // Rows come in the order of their numbers and numbers only grow while rows exist: these are the delivered ones.
        let mut statement =
            connection.prepare_cached("DELETE FROM _exprsn_outbox WHERE seq <= $1")?;
        Ok::<_, sqlite::Error>(statement.execute([last_seq]).map(drop)?)
    };
    let removed = database.write_again(remove).await;
    removed.map_err(Failure::doing("emptying the outbox"))
}
