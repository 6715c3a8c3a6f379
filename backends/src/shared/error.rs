//! What became of a call.

use crate::sql::error::chain;
use std::fmt;
use tokio_postgres::Error as Failed;

/// Why a call did not answer.
#[derive(Debug)]
pub enum Error {
    /// The server could not be asked, or not in time; nothing is known of what became of it.
    Unavailable(String),
    /// The host's own fault.
    Fault(String),
}

/// Classes of what a server says that says nothing of the statement: the connection, a transaction that cannot write or lost
/// against another, a lock, a server that is full, stopping or at odds with its disk.
const PASSING: [&str; 7] = ["08", "25", "40", "53", "55", "57", "58"];

impl Error {
    pub(super) fn of(error: &Failed) -> Self {
        let told = chain(error);
        match error.code() {
            Some(code) if !PASSING.contains(&&code.code()[..2]) => Self::Fault(told),
            _ => Self::Unavailable(told),
        }
    }

    pub(super) fn late() -> Self {
        Self::Unavailable("it did not answer in time".to_owned())
    }

    pub(super) fn closed() -> Self {
        Self::Unavailable("this host has closed it".to_owned())
    }

    pub(super) fn too_large(what: &str, size: usize, max: usize) -> Self {
        Self::Fault(format!("{what} has {size} where {max} are the most"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(text) => write!(f, "the platform's database is away: {text}"),
            Self::Fault(text) => write!(f, "the platform's database refused: {text}"),
        }
    }
}

impl std::error::Error for Error {}
