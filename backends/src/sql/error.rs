//! Errors: what the guest may know of them, and what is for the log alone.

use crate::name::ServiceName;
use std::{error::Error as StdError, fmt};

/// Any error, to be told with what was being done.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a statement did not succeed, in words for the guest. Nothing of it has taken effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The grant does not cover this.
    Denied(String),
    /// The database is away or too busy; trying later may succeed.
    Unavailable(String),
    /// A limit of the service: rows, bytes, time, connections or open transactions.
    Limit(String),
    /// A rule of the schema refused it.
    Constraint(Violation),
    /// It lost against a concurrent transaction.
    Conflict(String),
    /// The statement or its parameters are wrong.
    Invalid(String),
}

/// Which rule of the schema a statement broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub kind: ConstraintKind,
    /// The table and columns (`posts.id`) or the constraint's name.
    pub message: String,
}

/// The kinds of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstraintKind {
    Unique,
    ForeignKey,
    NotNull,
    Check,
    Other,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is said of a database that cannot be reached; the cause is for the log.
const AWAY: &str = "the database is away";

impl Error {
    /// The statement or its parameters are wrong.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    /// A limit of the service is reached.
    pub fn limit(text: impl Into<String>) -> Self {
        Self::Limit(text.into())
    }

    /// The transaction was rolled back by somebody else.
    pub fn lost() -> Self {
        Self::Conflict("the transaction was rolled back; run it again".to_owned())
    }

    /// The transaction was rolled back for its slowness.
    pub fn expired() -> Self {
        Self::limit(
            "the transaction idled or lasted longer than sql_transaction_ms_max and was rolled back",
        )
    }

    /// The transaction was committed or rolled back before.
    pub fn ended() -> Self {
        Self::invalid("the transaction has ended")
    }

    /// The statement took too long.
    pub fn timeout() -> Self {
        Self::limit("the statement took longer than sql_statement_ms_max or its invocation")
    }

    /// A fault of the host: logged with its chain, told without it.
    pub fn away(service: &ServiceName, error: &(dyn StdError + 'static)) -> Self {
        tracing::error!(%service, error = chain(error), "the database failed");
        Self::Unavailable(AWAY.to_owned())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(text)
            | Self::Unavailable(text)
            | Self::Limit(text)
            | Self::Conflict(text)
            | Self::Invalid(text) => f.write_str(text),
            Self::Constraint(Violation { kind, message }) => write!(f, "{kind:?}: {message}"),
        }
    }
}

impl StdError for Error {}

/// Why the host could not do something with a database, for its operator: opening, migrating, relaying.
#[derive(Debug)]
pub struct Failure {
    what: String,
    source: Option<BoxError>,
}

impl Failure {
    /// A failure that is its own cause.
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
        }
    }

    /// Says what was being done when an error came.
    pub fn doing<E: Into<BoxError>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |error| Self {
            what,
            source: Some(error.into()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

/// An error with all its causes, for the log.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some libraries repeat their cause in their own words.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
