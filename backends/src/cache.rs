//! Short-lived values and token buckets of services.

pub mod backend;
pub mod bucket;
#[cfg(test)]
mod conformance;
pub mod memory;
pub mod redis;
