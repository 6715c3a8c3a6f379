//! Relational databases: one for each service, and the outbox in it.
//!
//! **Invariant:** a guest's statement reaches the rows of its own service and nothing else, whatever it says.

pub mod backend;
#[cfg(test)]
pub(crate) mod conformance;
pub mod error;
pub mod limits;
pub mod migrate;
pub mod outbox;
pub mod postgres;
pub mod relay;
pub mod sqlite;
pub mod value;

pub use backend::{Call, Database, Rights, RowStream, Statistics, Transaction};
pub use error::{Error, Failure, Result};
pub use limits::Limits;
