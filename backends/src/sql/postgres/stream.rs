//! Streams of rows: read from the server as fast as the guest takes them, on a connection of their own.

use super::{
    PostgresDatabase,
    pool::Lease,
    run::{self, Run, Stop},
};
use crate::sql::{
    Call, Error, Result, RowStream,
    value::{Row, Statement},
};
use futures::FutureExt as _;
use std::{pin::pin, time::Instant};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{timeout, timeout_at},
};

/// Rows of a stream that are handed over at once.
const STREAM_ROWS: usize = 64;
/// Handovers of a stream that may wait for the guest.
const STREAM_WAITING_MAX: usize = 2;

/// What a stream keeps while it runs.
struct Pump {
    database: PostgresDatabase,
    lease: Lease,
    call: Call,
    sender: flume::Sender<Vec<Row>>,
    _permit: OwnedSemaphorePermit,
}

/// Starts a stream. It goes on in the background, until its rows or its receiver end.
pub async fn open(
    database: &PostgresDatabase,
    call: Call,
    statement: Statement,
) -> Result<RowStream> {
    let waiting = database.inner.streams.clone().acquire_owned();
    let permit = timeout_at(call.deadline.into(), waiting).await;
    let permit = permit
        .map_err(|_| Error::limit("as many streams are being read as sql_streams_max allows"))?;
    let (sender, rows) = flume::bounded(STREAM_WAITING_MAX);
    let pump = Pump {
        lease: database.lend(call).await?,
        database: database.clone(),
        call,
        sender,
        _permit: permit.expect("the semaphore is never closed"),
    };
    let (head, columns) = oneshot::channel();
    let pumping = database.inner.background.spawn(pump.run(statement, head));
    let mut end = async move { pumping.await.unwrap_or_else(|_| Err(Error::lost())) }.boxed();
    match columns.await {
        Ok(columns) => Ok(RowStream { columns, rows, end }),
        Err(_) => Err((&mut end).await.err().unwrap_or_else(Error::lost)),
    }
}

impl Pump {
    async fn run(mut self, statement: Statement, head: oneshot::Sender<Vec<String>>) -> Result<()> {
        let database = self.database.clone();
        let run = Run::new(&database.inner.service, &database.inner.limits, self.call);
        self.lease.unfinished = true;
        self.lease.in_transaction = true;
        // The whole may take longer than one statement; each batch of rows may not.
        let left = run
            .deadline
            .saturating_duration_since(Instant::now())
            .as_millis()
            .max(1);
        let begin = format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {left}");
        let pumped = self.pump(&run, &begin, &statement, head).await;
        let goes_on = run
            .settle(&mut self.lease, &statement.text, pumped)
            .map_err(|(error, _)| error)?;
        if goes_on {
            run.say(&mut self.lease, "COMMIT")
                .await
                .map_err(|(error, _)| error)?;
            self.lease.in_transaction = false;
        } else {
            self.lease.unfinished = true;
        }
        Ok(())
    }

    /// Hands over all rows; false when the receiver had enough before.
    async fn pump(
        &mut self,
        run: &Run<'_>,
        begin: &str,
        statement: &Statement,
        head: oneshot::Sender<Vec<String>>,
    ) -> Result<bool, Stop> {
        let limits = run.limits;
        let late = |_| Stop::Cancel(Error::timeout());
        let until =
            || tokio::time::Instant::from(run.deadline.min(Instant::now() + limits.statement_max));
        let sending = run.send(self.lease.connection(), begin, statement);
        let (prepared, rows) = timeout_at(until(), sending).await.map_err(late)??;
        let mut rows = pin!(rows);
        if head.send(run::columns(&prepared)).is_err() {
            return Ok(false);
        }
        loop {
            let next = run::next_rows(rows.as_mut(), STREAM_ROWS, limits.result_bytes_max);
            let (batch, more) = timeout_at(until(), next).await.map_err(late)??;
            match timeout(limits.stream_idle_max, self.sender.send_async(batch)).await {
                Ok(Ok(())) if more => {}
                Ok(Ok(())) => return Ok(true),
                Ok(Err(_)) => return Ok(!more),
                Err(_) => {
                    return Err(Stop::Cancel(Error::limit(
                        "the stream was not read for longer than sql_stream_idle_ms_max",
                    )));
                }
            }
        }
    }
}
