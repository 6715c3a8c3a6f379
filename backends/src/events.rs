//! Events: what is published, and how a delivery travels as a job.

pub mod live;

use crate::{
    name::{SERVICE_NAME_BYTES_MAX, ServiceName},
    queue::{EVENTS_PREFIX, ID_BYTES_MAX, Job, NewJob},
    trace::TraceContext,
};

/// Longest topic, in bytes: it is also the delivery's job name.
pub const TOPIC_BYTES_MAX: usize = 128;
/// Longest subject, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 1_024;
/// Longest id that a publisher may choose, in bytes: with its source it becomes a job id.
pub const EVENT_ID_BYTES_MAX: usize = ID_BYTES_MAX - SERVICE_NAME_BYTES_MAX - 1;

/// A published event, with CloudEvents' attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Unique with `source`.
    pub id: String,
    /// The service that published it.
    pub source: ServiceName,
    /// CloudEvents' `type`.
    pub topic: String,
    pub subject: Option<String>,
    /// When it was published, in milliseconds since the Unix epoch.
    pub time: i64,
    /// JSON.
    pub data: String,
    pub trace: Option<TraceContext>,
}

/// The queue of a service's deliveries.
pub fn delivery_queue(service: &ServiceName) -> String {
    format!("{EVENTS_PREFIX}{service}")
}

impl Event {
    /// The job that delivers this event to one service. Its id is the event's, unique with its source.
    pub(crate) fn delivery(&self, attempts: u32) -> NewJob {
        let mut job = NewJob::new(
            format!("{}/{}", self.source, self.id),
            self.topic.clone(),
            self.data.clone(),
        );
        job.attempts = Some(attempts);
        job.subject = self.subject.clone();
        job.origin = Some(self.source.clone());
        job.trace = self.trace;
        job
    }

    /// The event that `job` delivers; none where it is not a delivery.
    pub fn from_delivery(job: &Job) -> Option<Self> {
        let source = job.origin.clone()?;
        let id = job
            .id
            .strip_prefix(source.as_str())?
            .strip_prefix('/')?
            .to_owned();
        Some(Self {
            id,
            source,
            topic: job.name.clone(),
            subject: job.subject.clone(),
            time: job.created_at,
            data: job.data.clone(),
            trace: job.trace,
        })
    }

    /// CloudEvents' `source`: the SPIFFE id of the publishing service.
    pub fn source_uri(&self, trust_domain: &str) -> String {
        format!("spiffe://{trust_domain}/service/{}", self.source)
    }
}
