//! The outbox: jobs and events that are rows of the transaction that decided on them, and the relay that passes them on.
//!
//! A row is written in the guest's transaction and removed only after the sink has it durably. Killed anywhere between,
//! the next start delivers the row again under the same id, which the sink takes once. So nothing is announced that did
//! not happen, and nothing that happened goes unannounced.

use crate::{
    invocation::TraceContext,
    manifest::Backoff,
    name::ServiceName,
    sqlite::{self, Database},
};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle};
use wasmtime::{Result, error::Context as _};

/// Rows handed to the sink at once.
const BATCH_ROWS_MAX: usize = 128;
/// Payload handed to the sink at once, in bytes, unless a single row is larger.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// The first wait after the sink failed; it doubles with every further failure.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// The host's table in each service's database.
const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS _exprsn_outbox (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('job', 'event')),
    payload TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT";

/// What a committed transaction announces. The sink takes it once, however often it is delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxItem {
    /// The service that announces it.
    pub service: ServiceName,
    /// When it was announced, in milliseconds since the Unix epoch; a job's delay counts from here.
    pub created_at: i64,
    /// The trace in which it was announced.
    pub trace: Option<TraceContext>,
    pub content: Content,
}

/// A job, identified by queue and id, or an event, identified by service and id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Content {
    Job {
        queue: String,
        id: String,
        name: String,
        /// JSON.
        data: String,
        attempts: Option<u32>,
        backoff: Option<Backoff>,
        delay_ms: u64,
        priority: u32,
    },
    Event {
        id: String,
        topic: String,
        subject: Option<String>,
        /// JSON.
        data: String,
    },
}

impl Content {
    /// The job's or event's id.
    pub fn id(&self) -> &str {
        match self {
            Self::Job { id, .. } | Self::Event { id, .. } => id,
        }
    }
}

/// Where the relay delivers to: the broker.
pub trait Sink: Send + Sync + 'static {
    /// Takes all of the batch, or nothing and fails. It is durable when this returns; an id held already is skipped.
    fn deliver(&self, batch: Vec<OutboxItem>) -> impl Future<Output = Result<()>> + Send;
}

/// The payload column.
#[derive(Serialize, Deserialize)]
struct Payload<C> {
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    content: C,
}

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
    let (kind, id) = match content {
        Content::Job { queue, id, .. } => ("job", format!("job:{queue}:{id}")),
        Content::Event { id, .. } => ("event", format!("event:{id}")),
    };
    let payload = serde_json::to_string(&Payload {
        traceparent: Some(trace.to_header()),
        content,
    })
    .expect("strings and numbers can be written as JSON");
    let mut statement = connection.prepare_cached(
        "INSERT INTO _exprsn_outbox (id, kind, payload, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )?;
    statement.execute((id, kind, payload, now_ms))?;
    Ok(())
}

/// How far the relay is behind.
#[derive(Debug, Default)]
pub struct Lag {
    rows: AtomicI64,
    oldest_at: AtomicI64,
}

impl Lag {
    /// Rows that wait.
    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed).unsigned_abs()
    }

    /// How long the oldest of them has been waiting, in milliseconds.
    pub fn age_ms(&self, now_ms: i64) -> u64 {
        if self.rows() == 0 {
            0
        } else {
            u64::try_from(now_ms - self.oldest_at.load(Relaxed)).unwrap_or(0)
        }
    }

    fn set(&self, rows: i64, oldest_at: i64) {
        self.oldest_at.store(oldest_at, Relaxed);
        self.rows.store(rows, Relaxed);
    }
}

/// The task that empties one service's outbox. It ends when this drops; what it has not delivered stays for the next.
#[derive(Debug)]
pub struct Relay {
    wake: Arc<Notify>,
    lag: Arc<Lag>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts it with what an earlier process left.
    pub fn start<S: Sink>(
        background: &Handle,
        service: ServiceName,
        database: Database,
        sink: Arc<S>,
    ) -> Self {
        let (wake, lag) = (Arc::new(Notify::new()), Arc::new(Lag::default()));
        let worker = Worker {
            service,
            database,
            sink,
            lag: lag.clone(),
        };
        let task = background.spawn(worker.run(wake.clone()));
        Self { wake, lag, task }
    }

    /// To be notified after each commit that added rows.
    pub fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    /// How far it is behind.
    pub fn lag(&self) -> &Arc<Lag> {
        &self.lag
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker<S> {
    service: ServiceName,
    database: Database,
    sink: Arc<S>,
    lag: Arc<Lag>,
}

/// Rows to deliver, and what else waits.
struct Batch {
    items: Vec<OutboxItem>,
    last_seq: i64,
}

impl<S: Sink> Worker<S> {
    async fn run(self, wake: Arc<Notify>) {
        let mut failures = 0;
        loop {
            match self.round().await {
                Ok(true) => failures = 0,
                Ok(false) => {
                    failures = 0;
                    wake.notified().await;
                }
                Err(error) => {
                    let wait = backoff(failures);
                    failures += 1;
                    let error = crate::telemetry::chain(&error);
                    tracing::warn!(service = %self.service, error, wait_ms = wait.as_millis() as u64, "cannot relay the outbox; trying again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Delivers one batch. False when there was nothing to deliver.
    async fn round(&self) -> Result<bool> {
        let batch = self.next().await.context("reading the outbox")?;
        if batch.items.is_empty() {
            return Ok(false);
        }
        let last_seq = batch.last_seq;
        // What was read may not be on disk yet; what the sink is told must not vanish with the power.
        self.database
            .flushed()
            .await
            .context("making the outbox durable")?;
        self.sink
            .deliver(batch.items)
            .await
            .context("delivering the outbox")?;
        let remove = move |connection: &Connection| {
            // Rows come in the order of their numbers and numbers only grow while rows exist: these are the delivered ones.
            let mut statement =
                connection.prepare_cached("DELETE FROM _exprsn_outbox WHERE seq <= $1")?;
            Ok::<_, sqlite::Error>(statement.execute([last_seq]).map(drop)?)
        };
        self.database
            .write_again(remove)
            .await
            .context("emptying the outbox")?;
        Ok(true)
    }

    async fn next(&self) -> Result<Batch> {
        let (service, lag) = (self.service.clone(), self.lag.clone());
        self.database
            .read(move |connection| {
                let mut waiting = connection.prepare_cached(
                    "SELECT count(*), coalesce(min(created_at), 0) FROM _exprsn_outbox",
                )?;
                let (rows, oldest_at) =
                    waiting.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                lag.set(rows, oldest_at);
                read_batch(connection, &service)
            })
            .await
            .map_err(|Fault(error)| error)
    }
}

/// Any error, to pass through the engine.
struct Fault(wasmtime::Error);

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

fn read_batch(connection: &Connection, service: &ServiceName) -> Result<Batch, Fault> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, payload, created_at FROM _exprsn_outbox ORDER BY seq LIMIT $1",
    )?;
    let mut rows = statement.query([BATCH_ROWS_MAX as i64])?;
    let mut batch = Batch {
        items: Vec::new(),
        last_seq: 0,
    };
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let seq = row.get(0)?;
        let payload = row.get_ref(1)?.as_str()?;
        bytes += payload.len();
        if bytes > BATCH_BYTES_MAX && !batch.items.is_empty() {
            break;
        }
        let payload: Payload<Content> = serde_json::from_str(payload)
            .with_context(|| {
                format!(
                    "row {seq} of _exprsn_outbox cannot be read; was it written by a newer host?"
                )
            })
            .map_err(Fault)?;
        let trace = payload.traceparent.as_deref().and_then(TraceContext::parse);
        batch.items.push(OutboxItem {
            service: service.clone(),
            created_at: row.get(2)?,
            trace,
            content: payload.content,
        });
        batch.last_seq = seq;
    }
    Ok(batch)
}

/// The wait after as many failures before, without jitter: one relay per service does not stampede.
fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN
        .saturating_mul(1 << failures.min(16))
        .min(BACKOFF_MAX)
}
