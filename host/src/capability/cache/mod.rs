//! The `cache` capability: short-lived values shared by all instances of one service, in memory or in Redis.
//!
//! **Invariant:** a service reaches its own values only, and no service can use more than `bytes_max` of this host's memory.

mod host;
mod twin;

pub use host::{Cache, Config, Grant, Kind, Lent};
