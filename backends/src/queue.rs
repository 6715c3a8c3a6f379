//! Durable job queues in Bull's model, and the events that share them.
//!
//! **Invariant:** what was acknowledged is durable, and an id is added to a queue once.
//! **Invariant:** a job is leased to one attempt at a time; a worker that dies leaves a lease that expires.

pub mod backend;
pub mod check;
pub mod job;
pub mod limits;
pub mod redis;
pub mod schedule;
pub mod sqlite;

#[cfg(test)]
mod conformance;

pub use job::{Backoff, EVENTS_PREFIX, ID_BYTES_MAX, Job, NewJob};
