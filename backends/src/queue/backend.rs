//! What keeps jobs and events: the trait, shaped after BullMQ's scripts so that Redis can stand behind it too.

use super::job::{Claim, Counts, Job, NewJob, Outcome, Settings, State};
use crate::{events::Event, name::ServiceName, sqlite};
use futures::future::BoxFuture;
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Why the broker did not do what it was asked to. Nothing of it has taken effect.
#[derive(Debug)]
pub enum Error {
    NotFound,
    /// A value out of range or a job in the wrong state; says which.
    Invalid(String),
    LimitExceeded(String),
    /// The host's fault: its cause is for the log, not for a guest.
    Database(sqlite::Error),
    /// What keeps the jobs cannot be reached now; the same can be asked again. Its cause is for the log.
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such job"),
            Self::Invalid(text) | Self::LimitExceeded(text) => f.write_str(text),
            Self::Database(_) => f.write_str("the broker's database failed"),
            Self::Unavailable(_) => f.write_str("the broker cannot be reached"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Database(source) => Some(source),
            Self::Unavailable(source) => Some(source.as_ref()),
            _ => None,
        }
    }
}

impl From<sqlite::Error> for Error {
    fn from(error: sqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.into())
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Queues that a broker keeps.
pub(super) const QUEUES_MAX: u64 = 10_000;

/// There is no room for another queue.
pub(super) fn too_many_queues() -> Error {
    Error::LimitExceeded(format!(
        "there are {QUEUES_MAX} queues, which is as many as may be"
    ))
}

/// The queue takes no more jobs.
pub(super) fn full_queue(queue: &str, pending: u64, pending_max: u64) -> Error {
    Error::LimitExceeded(format!(
        "queue `{queue}` holds {pending} jobs to be done, and pending_max is {pending_max}"
    ))
}

/// Something to be delivered exactly once per id, such as a row of an outbox.
#[derive(Clone, Debug)]
pub enum Message {
    Job { queue: String, job: NewJob },
    Event(Event),
}

/// What became of a batch of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Queues that got jobs.
    pub queues: Vec<String>,
    /// Events that subscribers missed because their queues are full.
    pub missed: BTreeMap<ServiceName, u64>,
}

/// A request for jobs.
#[derive(Clone, Copy, Debug)]
pub struct Take {
    /// Jobs at most.
    pub count: usize,
    /// Names the claims made by this request; differs from that of every other one.
    pub lease: i64,
    /// How long the claims last without renewal, in milliseconds.
    pub lease_ms: u64,
}

/// What a request for jobs got.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// In the order in which they are to be begun.
    pub jobs: Vec<Job>,
    /// Whether there may be more to take now.
    pub more: bool,
    /// When the next delayed job is due, in milliseconds since the Unix epoch.
    pub next_due_ms: Option<i64>,
}

/// A cron expression that adds jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recurrence {
    pub queue: String,
    pub name: String,
    pub cron: String,
    /// JSON.
    pub data: String,
}

/// A service's wish for events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub service: ServiceName,
    /// A topic, or a prefix that ends in `*`.
    pub topic: String,
    /// Deliveries tried before the event becomes a dead letter.
    pub attempts: u32,
}

/// Computes when `cron` is due next, strictly after an instant in milliseconds since the Unix epoch.
pub type NextDue = fn(cron: &str, after_ms: i64) -> Option<i64>;

/// A store of jobs and events. Every method is atomic, and durable when it returns.
pub trait Backend: Send + Sync + fmt::Debug + 'static {
    /// Adds all or none. A job whose id the queue holds is not added again.
    ///
    /// Fails with [`Error::LimitExceeded`] where more than `pending_max` would wait.
    fn add_many(
        &self,
        queue: &str,
        jobs: Vec<NewJob>,
        pending_max: u64,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<()>>;

    /// Delivers messages; one whose id is held or was held recently is skipped.
    ///
    /// Jobs are delivered whatever their queue holds: they were promised. An event is missed by a subscriber whose queue
    /// holds `pending_max`, so that one that does not keep up harms neither publishers nor other subscribers.
    fn deliver(
        &self,
        batch: Vec<Message>,
        pending_max: u64,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<Delivered>>;

    /// Sets the defaults of a queue, creating it where absent.
    fn declare(&self, queue: &str, settings: Settings) -> BoxFuture<'_, Result<()>>;

    /// Records what became of leased jobs and hands out the next ones, in one transaction (BullMQ's `moveToFinished`).
    ///
    /// An outcome whose claim is void is ignored: somebody else has the job.
    fn settle(
        &self,
        queue: &str,
        outcomes: Arc<Vec<(Claim, Outcome)>>,
        take: Option<Take>,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<Taken>>;

    /// Renews leases for `lease_ms` from now on; answers the claims that are void.
    fn extend(
        &self,
        claims: Vec<Claim>,
        lease_ms: u64,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<Vec<Claim>>>;

    /// Returns jobs whose lease has expired to their queues; one that stalled more than `stalled_max` times fails.
    ///
    /// Answers the queues concerned.
    fn rescue(&self, stalled_max: u32, now_ms: i64) -> BoxFuture<'_, Result<Vec<String>>>;

    fn get(&self, queue: &str, id: &str) -> BoxFuture<'_, Result<Job>>;

    /// Jobs in `state`, newest first; waiting ones of a paused queue count as waiting and as paused.
    fn list(
        &self,
        queue: &str,
        state: State,
        offset: u64,
        limit: u64,
    ) -> BoxFuture<'_, Result<Vec<Job>>>;

    /// Zeros for a queue that never was.
    fn counts(&self, queue: &str) -> BoxFuture<'_, Result<Counts>>;

    /// All queues, sorted by name.
    fn overview(&self) -> BoxFuture<'_, Result<Vec<(String, Counts)>>>;

    /// Removes a job that is not active.
    fn remove(&self, queue: &str, id: &str) -> BoxFuture<'_, Result<()>>;

    /// Puts a failed job back to wait, with its attempts counted anew.
    fn retry(&self, queue: &str, id: &str) -> BoxFuture<'_, Result<()>>;

    /// Stops or restarts handing out jobs.
    fn pause(&self, queue: &str, paused: bool) -> BoxFuture<'_, Result<()>>;

    /// Makes `wanted` the recurrences of `queues`; those that stay keep their next occurrence.
    fn schedule(
        &self,
        queues: Vec<String>,
        wanted: Vec<Recurrence>,
        next_due: NextDue,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<()>>;

    /// Adds a job for each recurrence of `queues` that is due, once however many occurrences were missed.
    ///
    /// Answers the queues that got jobs, and when the next occurrence is due.
    fn recur(
        &self,
        queues: Vec<String>,
        next_due: NextDue,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<(Vec<String>, Option<i64>)>>;

    /// Makes `wanted` the subscriptions of `service`.
    fn subscribe(
        &self,
        service: &ServiceName,
        wanted: Vec<Subscription>,
    ) -> BoxFuture<'_, Result<()>>;

    fn subscriptions(&self) -> BoxFuture<'_, Result<Vec<Subscription>>>;

    /// The newest events whose topic matches `pattern`, newest first.
    fn events(&self, pattern: &str, limit: u64) -> BoxFuture<'_, Result<Vec<Event>>>;

    /// Removes what is kept beyond its time: events and remembered ids. Answers whether there is more to remove.
    fn tidy(&self, now_ms: i64) -> BoxFuture<'_, Result<bool>>;

    /// Waits until another host or program may have given one of `queues` something to take; answers which.
    ///
    /// Never returns for no queues, nor where nobody else has the jobs. May be dropped at any time.
    fn wake(&self, queues: Vec<String>) -> BoxFuture<'_, Result<Vec<String>>>;

    /// Writes everything back and closes.
    fn close(&self) -> BoxFuture<'_, ()>;
}
