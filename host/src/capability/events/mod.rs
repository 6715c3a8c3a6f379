//! The `events` capability: CloudEvents between services, at least once to each subscriber, and live channels.
//!
//! The broker (`capability::queue`) keeps events; a delivery is a job of the internal queue `events:<service>`.
//!
//! **Invariant:** an event's id is fanned out once for its source, however often it is published.

mod host;
pub mod live;
mod twin;

pub use exprsn_backends::events::{EVENT_ID_BYTES_MAX, Event, SUBJECT_BYTES_MAX, TOPIC_BYTES_MAX, delivery_queue};
pub use host::{Config, Events, Grant, Lent};
