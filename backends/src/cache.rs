//! Short-lived values and token buckets of services.

pub mod bucket;
pub mod memory;
