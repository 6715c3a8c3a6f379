//! The `cache` capability: short-lived values shared by all instances of one service, in memory.
//!
//! **Invariant:** a service reaches its own values only, and no service can use more than `bytes_max` of memory.

mod host;
mod twin;

use exprsn_backends::cache::memory;

pub use exprsn_backends::cache::bucket;
pub use host::{Cache, Config, Grant, Lent};
pub use memory::{Error, Memory};
