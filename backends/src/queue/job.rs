//! Jobs in Bull's model: what is added, what a worker is handed, and what becomes of an attempt.

use crate::{name::ServiceName, trace::TraceContext};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Longest wait before an attempt, in milliseconds: a year. Backoff that grows beyond it stays at it.
pub const DELAY_MS_MAX: u64 = 366 * 24 * 3_600_000;
/// Attempts that a job may ask for.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// Least urgent priority, as in BullMQ.
pub const PRIORITY_MAX: u32 = 2_097_152;
/// Longest time that a job may ask for one attempt, in milliseconds: a day.
pub const TIMEOUT_MS_MAX: u64 = 24 * 3_600_000;
/// Longest job id, in bytes.
pub const ID_BYTES_MAX: usize = 256;
/// Longest job name, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest queue name, in bytes.
pub const QUEUE_NAME_BYTES_MAX: usize = 96;
/// What is kept of a failed attempt's reason, in bytes.
pub const REASON_BYTES_MAX: usize = 4_096;
/// The prefix of a queue that holds a service's deliveries of events. Guests cannot add to such a queue.
pub const EVENTS_PREFIX: &str = "events:";

/// The wait between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Backoff {
    /// Always the same wait.
    Fixed { delay_ms: u64 },
    /// `delay_ms * 2^(attempt - 1)`.
    Exponential { delay_ms: u64 },
}

impl Default for Backoff {
    fn default() -> Self {
        Self::Exponential { delay_ms: 1_000 }
    }
}

/// The wait before the next attempt in milliseconds, once `attempts_made` have failed: BullMQ's figures.
pub fn backoff_ms(backoff: Backoff, attempts_made: u32) -> u64 {
    let wait = match backoff {
        Backoff::Fixed { delay_ms } => delay_ms,
        Backoff::Exponential { delay_ms } => {
            let doublings = attempts_made.saturating_sub(1).min(63);
            delay_ms.saturating_mul(1 << doublings)
        }
    };
    wait.min(DELAY_MS_MAX)
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Waiting,
    Delayed,
    /// Waiting with a priority.
    Prioritized,
    /// Leased to a worker.
    Active,
    Completed,
    /// Failed for good: a dead letter.
    Failed,
    /// Waiting in a queue that is paused.
    Paused,
}

impl State {
    /// The name on the command line and in JSON; BullMQ's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Delayed => "delayed",
            Self::Prioritized => "prioritized",
            Self::Active => "active",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Paused => "paused",
        }
    }
}

/// A job to be added. What is absent is the queue's default.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    pub id: String,
    pub name: String,
    /// JSON.
    pub data: String,
    pub attempts: Option<u32>,
    pub backoff: Option<Backoff>,
    pub delay_ms: u64,
    pub priority: u32,
    pub timeout_ms: Option<u64>,
    /// What the job is about: an event's subject.
    pub subject: Option<String>,
    /// The service that added it.
    pub origin: Option<ServiceName>,
    /// The trace in which it was added.
    pub trace: Option<TraceContext>,
}

impl NewJob {
    /// A job with the queue's defaults, to be done at once.
    pub fn new(id: impl Into<String>, name: impl Into<String>, data: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            data: data.into(),
            attempts: None,
            backoff: None,
            delay_ms: 0,
            priority: 0,
            timeout_ms: None,
            subject: None,
            origin: None,
            trace: None,
        }
    }
}

/// A job as its queue holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub id: String,
    pub queue: String,
    pub name: String,
    /// JSON.
    pub data: String,
    /// The attempt under way or last made; the first is 1, and 0 means that none was made.
    pub attempt: u32,
    /// Attempts allowed.
    pub attempts: u32,
    pub priority: u32,
    pub state: State,
    /// How long one attempt may take, in milliseconds.
    pub timeout_ms: u64,
    /// Milliseconds since the Unix epoch, as the following ones.
    pub created_at: i64,
    /// When the last attempt began.
    pub processed_at: Option<i64>,
    /// When it completed or failed for good.
    pub finished_at: Option<i64>,
    pub failed_reason: Option<String>,
    /// JSON.
    pub return_value: Option<String>,
    pub subject: Option<String>,
    pub origin: Option<ServiceName>,
    pub trace: Option<TraceContext>,
    /// The claim of the attempt under way.
    pub claim: Claim,
}

/// A worker's claim on a job: void once the lease has expired and the job was handed out again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    pub(super) job: Claimed,
    pub(super) lease: i64,
}

/// How a backend finds a leased job again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Claimed {
    Row(i64),
    Named { queue: Arc<str>, id: Arc<str> },
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    /// False: no further attempt is made (BullMQ's `UnrecoverableError`).
    pub retry: bool,
}

impl Failure {
    /// A failure after which the job is tried again, if attempts are left.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            retry: true,
        }
    }

    /// A failure that makes the job a dead letter at once.
    pub fn fatal(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            retry: false,
        }
    }
}

/// What became of a leased job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, with the worker's answer as JSON.
    Completed(Option<String>),
    Failed(Failure),
    /// Not begun or broken off by a drain: waits again, nothing counted.
    Released,
}

/// The jobs of a queue by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub waiting: u64,
    pub delayed: u64,
    pub prioritized: u64,
    pub active: u64,
    pub completed: u64,
    pub failed: u64,
    pub paused: bool,
}

impl Counts {
    /// Jobs that are still to be done and not under way.
    pub fn pending(&self) -> u64 {
        self.waiting + self.delayed + self.prioritized
    }
}

/// What a queue does with its jobs where they do not say it themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub attempts: u32,
    pub backoff: Backoff,
    pub timeout_ms: u64,
    /// Completed jobs kept.
    pub keep_completed: u64,
    /// Failed jobs (dead letters) kept.
    pub keep_failed: u64,
}

impl Default for Settings {
    /// As `component.toml`'s defaults.
    fn default() -> Self {
        Self {
            attempts: 3,
            backoff: Backoff::default(),
            timeout_ms: 30_000,
            keep_completed: 1_000,
            keep_failed: 10_000,
        }
    }
}

/// Cuts `text` to at most `bytes_max` bytes at a character's boundary.
pub(super) fn truncate(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_is_bullmqs() {
        // bullmq/src/classes/backoffs.ts: Math.pow(2, attemptsMade - 1) * delay.
        let exponential = Backoff::Exponential { delay_ms: 1_000 };
        let waits: Vec<u64> = (1..=5).map(|made| backoff_ms(exponential, made)).collect();
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000]);
        assert_eq!(backoff_ms(Backoff::Fixed { delay_ms: 500 }, 7), 500);
        assert_eq!(backoff_ms(Backoff::Exponential { delay_ms: 0 }, 7), 0);
        assert_eq!(backoff_ms(exponential, 900), DELAY_MS_MAX);
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        assert_eq!(truncate("aüb".to_owned(), 2), "a");
        assert_eq!(truncate("aüb".to_owned(), 9), "aüb");
    }
}
