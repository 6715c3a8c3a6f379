//! What went wrong on a connection, and what the guest may know of it.

use super::guard::Entered;
use crate::{
    name::ServiceName,
    sql::error::{ConstraintKind, Error, Violation},
    sqlite,
};
use rusqlite::{ErrorCode, ffi};

/// Why a call failed, on its way from the database's thread to the guest.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A case of the interface.
    Guest(Error),
    /// The engine's error, not yet judged.
    Engine(sqlite::Error),
    /// The statement writes, and this is a reader.
    Writes,
}

impl From<sqlite::Error> for Fault {
    fn from(error: sqlite::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Guest(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Engine(error.into())
    }
}

impl Fault {
    pub(super) fn limit(text: impl Into<String>) -> Self {
        Self::Guest(Error::limit(text))
    }

    /// The same, with the guard's words where it was a denial.
    pub(super) fn explained(self, entered: &Entered) -> Self {
        match (&self, entered.denied()) {
            (Self::Engine(sqlite::Error::Sqlite(_)), Some(reason)) => {
                Self::Guest(Error::Denied(reason))
            }
            _ => self,
        }
    }

    /// The case of the interface; a host fault is logged with its chain and told as `unavailable`.
    pub(super) fn into_error(self, service: &ServiceName) -> Error {
        match self {
            Self::Guest(error) => error,
            Self::Writes => {
                Error::Invalid("the statement writes where only reading is possible".to_owned())
            }
            Self::Engine(sqlite::Error::Sqlite(error)) => {
                of_sqlite(error).unwrap_or_else(|error| Error::away(service, &error))
            }
            Self::Engine(sqlite::Error::Overloaded) => {
                Error::Unavailable("too many requests wait for the database".to_owned())
            }
            Self::Engine(sqlite::Error::Expired) => Error::expired(),
            Self::Engine(sqlite::Error::Lost) => Error::lost(),
            Self::Engine(sqlite::Error::Ended) => Error::ended(),
            Self::Engine(error) => Error::away(service, &error),
        }
    }
}

/// The statement or its parameters are wrong.
pub(super) fn invalid(text: impl Into<String>) -> Fault {
    Fault::Guest(Error::Invalid(text.into()))
}

/// The interface's case for an error of SQLite's; a fault of the host is given back.
fn of_sqlite(error: rusqlite::Error) -> Result<Error, rusqlite::Error> {
    let (code, message) = match &error {
        rusqlite::Error::SqliteFailure(code, message) => (*code, message.clone()),
        rusqlite::Error::SqlInputError {
            error: code, msg, ..
        } => (*code, Some(msg.clone())),
        rusqlite::Error::MultipleStatement => {
            return Ok(Error::Invalid(
                "one statement at a time: use `batch` for several".to_owned(),
            ));
        }
        rusqlite::Error::NulError(_) => {
            return Ok(Error::Invalid(
                "the statement contains a NUL character".to_owned(),
            ));
        }
        _ => return Err(error),
    };
    let message = message.unwrap_or_else(|| ffi::code_to_str(code.extended_code).to_owned());
    Ok(match code.code {
        ErrorCode::ConstraintViolation => {
            Error::Constraint(violation(code.extended_code, &message))
        }
        ErrorCode::AuthorizationForStatementDenied => Error::Denied(message),
        ErrorCode::OperationInterrupted => Error::timeout(),
        ErrorCode::TooBig => {
            Error::Limit("a value or row is larger than sql_value_bytes_max".to_owned())
        }
        ErrorCode::DiskFull => {
            Error::Limit("the database is full: sql_database_bytes_max or the disk".to_owned())
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            Error::Unavailable("the database is busy".to_owned())
        }
        ErrorCode::SchemaChanged => {
            Error::Conflict("the schema has changed; run the statement again".to_owned())
        }
        ErrorCode::Unknown
        | ErrorCode::TypeMismatch
        | ErrorCode::ApiMisuse
        | ErrorCode::ParameterOutOfRange
        | ErrorCode::NotFound => Error::Invalid(message),
        _ => return Err(error),
    })
}

fn violation(extended_code: i32, message: &str) -> Violation {
    let kind = match extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE
        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID => ConstraintKind::Unique,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => ConstraintKind::ForeignKey,
        ffi::SQLITE_CONSTRAINT_NOTNULL => ConstraintKind::NotNull,
        ffi::SQLITE_CONSTRAINT_CHECK => ConstraintKind::Check,
        _ => ConstraintKind::Other,
    };
    // `UNIQUE constraint failed: posts.id`: the kind is told already.
    let message = message
        .split_once("constraint failed: ")
        .map_or(message, |(_, what)| what)
        .to_owned();
    Violation { kind, message }
}
