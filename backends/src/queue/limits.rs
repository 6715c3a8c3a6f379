//! The broker's limits: `[capability.queue]` in `platform.toml`.

use serde::{Deserialize, Serialize};

/// Limits of jobs and queues. Each field's name carries its unit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub backend: Kind,
    /// A job's data, and a worker's answer.
    pub data_bytes_max: usize,
    /// An event's data.
    pub event_bytes_max: usize,
    /// Jobs added by one call.
    pub batch_max: usize,
    /// Jobs of one queue that wait, with those delayed; one more is refused, and so is a transaction's promise of one. A
    /// subscriber that is so many deliveries behind misses further events.
    pub pending_max: u64,
    /// Times that a job's lease may expire before the job fails: it may be what kills its worker.
    pub stalled_max: u32,
    /// How often expired leases are looked for, in milliseconds.
    pub stalled_check_ms: u64,
    /// How often what is kept too long is removed, in milliseconds.
    pub tidy_ms: u64,
    /// Events kept to be looked at.
    pub events_max: u64,
    /// How long they are kept at most, in milliseconds.
    pub events_ms_max: u64,
    /// Ids of delivered jobs and events remembered after these have gone.
    pub seen_max: u64,
    /// How long they are remembered at least, in milliseconds, while there are fewer than `seen_max`.
    pub seen_ms_min: u64,
    /// Writes that wait for the broker's file; one more is answered `unavailable`.
    pub writes_waiting_max: usize,
}

/// What keeps jobs and events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A file in the data directory.
    Sqlite,
    /// The server of `[backends.redis]`, for all hosts together.
    Redis,
}

impl Config {
    /// Whether several hosts can use the same queues.
    pub fn is_shared(&self) -> bool {
        self.backend == Kind::Redis
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Kind::Sqlite,
            data_bytes_max: 1 << 20,
            event_bytes_max: 1 << 20,
            batch_max: 1_000,
            pending_max: 1_000_000,
            stalled_max: 3,
            stalled_check_ms: 5_000,
            tidy_ms: 60_000,
            events_max: 100_000,
            events_ms_max: 7 * 24 * 3_600_000,
            seen_max: 1_000_000,
            seen_ms_min: 24 * 3_600_000,
            writes_waiting_max: 8_192,
        }
    }
}
