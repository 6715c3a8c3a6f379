//! What the server said, and what the guest may know of it.

use crate::{
    name::ServiceName,
    sql::{
        Error,
        error::{ConstraintKind, Violation},
    },
};
use deadpool::managed::{PoolError, TimeoutType};
use tokio_postgres::{Error as Fault, error::DbError};

/// The interface's case for an error of a statement; a fault of the host is logged with its chain and told as `unavailable`.
pub fn of_statement(service: &ServiceName, error: &Fault) -> Error {
    match error.as_db_error() {
        Some(told) => of_server(told).unwrap_or_else(|| Error::away(service, error)),
        None => Error::away(service, error),
    }
}

/// Whether the transaction is lost with it, and not only the statement.
pub fn ends_transaction(error: &Error) -> bool {
    matches!(error, Error::Conflict(_) | Error::Unavailable(_))
        || *error == Error::timeout()
        || *error == Error::expired()
}

/// No connection for a call.
pub fn of_pool(service: &ServiceName, error: PoolError<Fault>, max: usize) -> Error {
    match error {
        PoolError::Timeout(TimeoutType::Wait) => Error::limit(format!(
            "all {max} database connections of the service are in use (sql pool_max): hold transactions and streams for \
             less time, or try again"
        )),
        PoolError::Backend(error) => match error.as_db_error() {
            // The role or the server has no connection left; it passes.
            Some(told) if told.code().code() == "53300" => {
                Error::Unavailable("the database server takes no more connections now".to_owned())
            }
            _ => Error::away(service, &error),
        },
        error => Error::away(service, &error),
    }
}

/// A stream's statement writes.
pub fn only_reads() -> Error {
    Error::invalid("query-stream only reads: use query for a statement that writes")
}

/// None for what is the host's fault or the server's.
fn of_server(told: &DbError) -> Option<Error> {
    let (code, message) = (told.code().code(), told.message());
    Some(match (&code[..2], code) {
        ("23", _) => Error::Constraint(violation(code, told)),
        (_, "42501") => Error::Denied(message.to_owned()),
        (_, "57014") => Error::timeout(),
        (_, "25P03") => Error::expired(),
        (_, "25P02") => Error::lost(),
        (_, "25006") => only_reads(),
        ("40", _) => Error::lost(),
        (_, "55P03") => Error::Conflict(
            "another transaction holds what the statement needs; run it again".to_owned(),
        ),
        (_, "53100") => Error::limit("the database is full: the server's disk has no room"),
        (_, "42601") if message.contains("multiple commands") => {
            Error::invalid("one statement at a time: use `batch` for several")
        }
        (_, "0A000") if message.contains("cached plan") => {
            Error::Conflict("the schema has changed; run the statement again".to_owned())
        }
        ("54", _) => Error::limit(message),
        ("0A" | "20" | "21" | "22" | "2F" | "34" | "38" | "39" | "42" | "44" | "55" | "P0", _) => {
            Error::invalid(message)
        }
        _ => return None,
    })
}

fn violation(code: &str, told: &DbError) -> Violation {
    let kind = match code {
        "23505" => ConstraintKind::Unique,
        "23503" => ConstraintKind::ForeignKey,
        "23502" => ConstraintKind::NotNull,
        "23514" => ConstraintKind::Check,
        _ => ConstraintKind::Other,
    };
    let columns = match kind {
        ConstraintKind::Unique => told.detail().and_then(columns_of),
        ConstraintKind::NotNull => told.column().map(str::to_owned),
        _ => None,
    };
    let message = match (told.table(), columns) {
        (Some(table), Some(columns)) => {
            let named: Vec<_> = columns
                .split(", ")
                .map(|column| format!("{table}.{column}"))
                .collect();
            named.join(", ")
        }
        _ => told
            .constraint()
            .unwrap_or_else(|| told.message())
            .to_owned(),
    };
    Violation { kind, message }
}

/// The columns in `Key (id, n)=(a, 1) already exists.`, in whatever language; not their values.
fn columns_of(detail: &str) -> Option<String> {
    let (before, _) = detail.split_once(")=(")?;
    let (_, columns) = before.split_once('(')?;
    Some(columns.to_owned())
}
