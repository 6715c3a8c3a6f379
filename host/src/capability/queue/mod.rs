//! The `queue` capability: durable job queues in Bull's model, and the broker that events share with them.
//!
//! The broker (`broker.rs`) keeps jobs and events in a backend (`exprsn_backends::queue`); a consumer (`dispatch.rs`)
//! hands jobs to a service; `relay.rs` takes what transactions announce; `host.rs` is what guests see.
//!
//! **Invariant:** what was acknowledged is durable, and an id is added to a queue once.
//! **Invariant:** a job is leased to one attempt at a time; a worker that dies leaves a lease that expires.

mod broker;
mod dispatch;
mod host;
mod relay;
mod twin;
mod upkeep;
mod wake;

use exprsn_backends::queue::{backend, check, job, limits, redis, schedule, sqlite};

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

#[cfg(test)]
mod tests {
    use crate::capability::{cache, events, queue};

    #[test]
    fn platform_toml_documents_every_limit_with_its_default() {
        let text = include_str!("../../../../platform.toml");
        let tables = [
            toml::Table::try_from(queue::Config::default()).unwrap(),
            toml::Table::try_from(events::Config::default()).unwrap(),
            toml::Table::try_from(cache::Config::default()).unwrap(),
        ];
        for (key, value) in tables.iter().flatten() {
            let line = format!("\n# {key} = {value} ");
            assert!(
                text.contains(&line),
                "add `{}` to platform.toml",
                line.trim()
            );
        }
    }
}
