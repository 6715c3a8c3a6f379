//! Why a statement did not succeed, and what the client is told.

use std::fmt;

use crate::bindings::exprsn::sql::types;
use crate::problem::Problem;

pub use types::ConstraintKind;

/// Why a statement did not succeed; nothing of it has taken effect.
#[derive(Clone, Debug)]
pub enum Error {
    /// The grant does not cover it.
    AccessDenied(String),
    /// The database is away or too busy.
    Unavailable(String),
    /// A limit of this service: rows, bytes, time, connections or open transactions.
    LimitExceeded(String),
    /// A rule of the schema refused it; the message is the engine's.
    Constraint(ConstraintKind, String),
    /// It lost against a concurrent transaction; run the transaction again.
    Conflict(String),
    /// The statement or its parameters are wrong.
    Invalid(String),
    /// A row is not what the Rust type expects.
    Decode(String),
}

impl Error {
    /// Whether a UNIQUE constraint refused it.
    pub fn is_unique(&self) -> bool {
        matches!(self, Self::Constraint(ConstraintKind::Unique, _))
    }

    /// Whether a FOREIGN KEY constraint refused it.
    pub fn is_foreign_key(&self) -> bool {
        matches!(self, Self::Constraint(ConstraintKind::ForeignKey, _))
    }

    /// Whether running the transaction again may succeed.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }
}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Self {
        match error {
            types::Error::AccessDenied(text) => Self::AccessDenied(text),
            types::Error::Unavailable(text) => Self::Unavailable(text),
            types::Error::LimitExceeded(text) => Self::LimitExceeded(text),
            types::Error::Constraint(c) => Self::Constraint(c.kind, c.message),
            types::Error::Conflict(text) => Self::Conflict(text),
            types::Error::Invalid(text) => Self::Invalid(text),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccessDenied(text) => write!(f, "access denied: {text}"),
            Self::Unavailable(text) => write!(f, "the database is unavailable: {text}"),
            Self::LimitExceeded(text) => write!(f, "limit exceeded: {text}"),
            Self::Constraint(kind, text) => write!(f, "{kind:?} constraint: {text}"),
            Self::Conflict(text) => write!(f, "conflict: {text}"),
            Self::Invalid(text) => write!(f, "invalid statement: {text}"),
            Self::Decode(text) => write!(f, "unexpected row: {text}"),
        }
    }
}

impl std::error::Error for Error {}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Decode(message.to_string())
    }
}

/// What went wrong inside is logged and never shown.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::Unavailable(_) | Error::LimitExceeded(_) | Error::Conflict(_) => {
                crate::log::warn!("the database could not do it now", error = error);
                Problem::unavailable(1)
            }
            Error::Constraint(ConstraintKind::Unique, _) => Problem::conflict("it exists already"),
            Error::Constraint(ConstraintKind::ForeignKey, _) => {
                Problem::conflict("what it refers to does not exist")
            }
            Error::Constraint(..)
            | Error::AccessDenied(_)
            | Error::Invalid(_)
            | Error::Decode(_) => Problem::fault("a statement failed", error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_words_stay_inside() {
        let secret = || "no such column: password".to_owned();
        for (error, status) in [
            (Error::Constraint(ConstraintKind::Unique, secret()), 409),
            (Error::Unavailable(secret()), 503),
            (Error::LimitExceeded(secret()), 503),
            (Error::Conflict(secret()), 503),
            (Error::Invalid(secret()), 500),
            (Error::AccessDenied(secret()), 500),
            (Error::Constraint(ConstraintKind::Check, secret()), 500),
        ] {
            let problem = Problem::from(error);
            assert_eq!(problem.status, status);
            assert!(!format!("{problem:?}").contains("password"));
        }
    }
}
