//! The `queue` capability: durable job queues in Bull's model, and the broker that events share with them.
//!
//! The broker (`broker.rs`) keeps jobs and events in a backend (`backend.rs`, `sqlite.rs`); a consumer (`dispatch.rs`)
//! hands jobs to a service; `relay.rs` takes what transactions announce; `host.rs` is what guests see.
//!
//! **Invariant:** what was acknowledged is durable, and an id is added to a queue once.
//! **Invariant:** a job is leased to one attempt at a time; a worker that dies leaves a lease that expires.

mod backend;
mod broker;
pub(crate) mod check;
mod dispatch;
mod host;
mod job;
mod limits;
mod relay;
mod schedule;
mod sqlite;
mod twin;
mod upkeep;

pub use backend::{Backend, Error, Message, NextDue, Recurrence, Subscription, Take, Taken};
pub use broker::{BROKER_FILE, Broker, LIST_MAX, QueueOverview};
pub use check::check_queue_name;
pub use dispatch::{Consumer, JobHandler, QueueSpec};
pub use host::{Grant, Lent, Queue};
pub use job::{
    Backoff, Claim, Counts, EVENTS_PREFIX, Failure, ID_BYTES_MAX, Job, NewJob, Outcome, Settings,
    State, backoff_ms,
};
pub use limits::Config;
pub use schedule::{check as check_cron, next_due};
pub use sqlite::SqliteBackend;
