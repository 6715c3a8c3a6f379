//! What a transaction may announce: jobs and events within the service's other grants, as the broker would take them.
//!
//! Checked when they are announced: what is in the outbox must be deliverable.

use super::{
    outbox::Content,
    types::{Error, OutboxBackoff, OutboxEvent, OutboxJob},
};
use crate::{
    capability::{
        Grants, events,
        queue::{self, Broker, NewJob, check_queue_name},
    },
    manifest::Backoff,
};
use std::{fmt, sync::Arc};

/// Turns a guest's wishes into what the outbox holds.
pub(super) struct Announcer {
    queue: Option<queue::Grant>,
    events: Option<events::Grant>,
    broker: Arc<Broker>,
}

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcer")
            .field("queue", &self.queue)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

impl Announcer {
    pub fn new(grants: &Grants, broker: Arc<Broker>) -> Self {
        Self {
            queue: grants.queue.clone(),
            events: grants.events.clone(),
            broker,
        }
    }

    /// Whether `queue` takes another job that is promised now.
    pub async fn check_room(&self, queue: &str) -> Result<(), Error> {
        self.broker.check_room(queue).await.map_err(refused)
    }

    /// A job for a queue that the grants name.
    pub fn job(&self, wish: OutboxJob) -> Result<Content, Error> {
        check_queue_name(&wish.queue).map_err(refused)?;
        let grant = self.queue.clone().unwrap_or_default();
        grant
            .allow_produce(&wish.queue)
            .map_err(Error::AccessDenied)?;
        let mut job = NewJob::new(wish.id.unwrap_or_else(new_id), wish.name, wish.data);
        job.attempts = wish.attempts;
        job.backoff = wish.backoff.map(|backoff| match backoff {
            OutboxBackoff::Fixed(delay_ms) => Backoff::Fixed { delay_ms },
            OutboxBackoff::Exponential(delay_ms) => Backoff::Exponential { delay_ms },
        });
        (job.delay_ms, job.priority) = (wish.delay_ms, wish.priority);
        self.broker.check(&job).map_err(refused)?;
        Ok(Content::Job {
            queue: wish.queue,
            id: job.id,
            name: job.name,
            data: job.data,
            attempts: job.attempts,
            backoff: job.backoff,
            delay_ms: job.delay_ms,
            priority: job.priority,
        })
    }

    /// An event of a topic that the grants name.
    pub fn event(&self, wish: OutboxEvent) -> Result<Content, Error> {
        let grant = self.events.clone().unwrap_or_default();
        grant
            .allow_publish(&wish.topic)
            .map_err(Error::AccessDenied)?;
        let id = wish.id.unwrap_or_else(new_id);
        self.broker
            .check_event(&id, &wish.topic, wish.subject.as_deref(), &wish.data)
            .map_err(refused)?;
        Ok(Content::Event {
            id,
            topic: wish.topic,
            subject: wish.subject,
            data: wish.data,
        })
    }
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn refused(error: queue::Error) -> Error {
    match error {
        queue::Error::LimitExceeded(text) => Error::LimitExceeded(text),
        queue::Error::Database(_) | queue::Error::Unavailable(_) => {
            tracing::error!(error = crate::telemetry::chain(&error.into()), "the broker failed");
            Error::Unavailable("queues cannot be reached now".to_owned())
        }
        error => Error::Invalid(error.to_string()),
    }
}
