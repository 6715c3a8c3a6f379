//! The outbox: jobs and events that are rows of the transaction that decided on them.
//!
//! A row is written in the guest's transaction and removed only after the sink has it durably. Killed anywhere between,
//! the row is delivered again under the same id, which the sink takes once. So nothing is announced that did not happen,
//! and nothing that happened goes unannounced.

use super::{Failure, error::BoxError};
use crate::{name::ServiceName, queue::Backoff, trace::TraceContext};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::{fmt, future::Future, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// Rows handed to the sink at once.
pub(super) const BATCH_ROWS_MAX: usize = 128;
/// Payload handed to the sink at once, in bytes, unless a single row is larger.
const BATCH_BYTES_MAX: usize = 4 << 20;

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
    /// The job's queue or the event's topic.
    pub fn destination(&self) -> &str {
        match self {
            Self::Job { queue, .. } => queue,
            Self::Event { topic, .. } => topic,
        }
    }

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
    fn deliver(&self, batch: Vec<OutboxItem>) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// The outbox of one database, as its relay reads it.
pub trait Outbox: Send + Sync + fmt::Debug {
    /// Takes the oldest rows, to be delivered by nobody else until the claim is settled or dropped.
    fn claim(&self) -> BoxFuture<'_, Result<Claim, Failure>>;

    /// Notified after each commit of this process that added rows.
    fn wake(&self) -> &Arc<Notify>;

    /// How often to look for rows that other processes left; none where there are no others.
    fn poll(&self) -> Option<Duration>;
}

/// Rows to deliver, in their order, and how much waits in all.
pub struct Claim {
    pub rows: Vec<OutboxRow>,
    /// Rows that wait, these among them.
    pub waiting: i64,
    /// When the oldest was announced; 0 where none waits.
    pub oldest_at: i64,
    pub settle: Settle,
}

/// Removes the rows of a claim, after the sink has them.
pub type Settle = Box<dyn FnOnce() -> BoxFuture<'static, Result<(), Failure>> + Send>;

/// One announcement as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxRow {
    pub seq: i64,
    pub payload: String,
    pub created_at: i64,
}

impl OutboxRow {
    /// What it announces, for the sink.
    pub(super) fn item(self, service: &ServiceName) -> Result<OutboxItem, Failure> {
        let Self {
            seq,
            payload,
            created_at,
        } = self;
        let payload: Payload<Content> = serde_json::from_str(&payload).map_err(Failure::doing(
            format!("row {seq} of the outbox cannot be read; was it written by a newer host?"),
        ))?;
        Ok(OutboxItem {
            service: service.clone(),
            created_at,
            trace: payload.traceparent.as_deref().and_then(TraceContext::parse),
            content: payload.content,
        })
    }
}

/// Counts the bytes of a batch.
#[derive(Debug, Default)]
pub(super) struct BatchSize {
    bytes: usize,
    rows: usize,
}

impl BatchSize {
    /// Whether a payload still fits; the first always does.
    pub fn takes(&mut self, payload: &str) -> bool {
        self.bytes += payload.len();
        self.rows += 1;
        self.rows == 1 || (self.bytes <= BATCH_BYTES_MAX && self.rows <= BATCH_ROWS_MAX)
    }
}

/// A row to be written: kind, unique id, payload.
pub(super) struct NewRow {
    pub kind: &'static str,
    pub id: String,
    pub payload: String,
}

impl NewRow {
    pub fn new(content: &Content, trace: TraceContext) -> Self {
        let (kind, id) = match content {
            Content::Job { queue, id, .. } => ("job", format!("job:{queue}:{id}")),
            Content::Event { id, .. } => ("event", format!("event:{id}")),
        };
        let payload = Payload {
            traceparent: Some(trace.to_header()),
            content,
        };
        let payload =
            serde_json::to_string(&payload).expect("strings and numbers can be written as JSON");
        Self { kind, id, payload }
    }
}

/// The payload column.
#[derive(Serialize, Deserialize)]
struct Payload<C> {
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    content: C,
}
