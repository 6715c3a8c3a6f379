//! The interface's types and the backends': the same cases, so that each becomes the other by a move.

use super::types;
use exprsn_backends::sql::{
    Error,
    error::{ConstraintKind, Violation},
    value::{Row, RowSet, Statement, Value},
};

/// A statement for the backend.
pub(super) fn statement(text: String, parameters: Vec<types::Value>) -> Statement {
    Statement {
        text,
        parameters: parameters.into_iter().map(value).collect(),
    }
}

fn value(value: types::Value) -> Value {
    match value {
        types::Value::Null => Value::Null,
        types::Value::Boolean(yes) => Value::Boolean(yes),
        types::Value::Integer(number) => Value::Integer(number),
        types::Value::Real(number) => Value::Real(number),
        types::Value::Text(text) => Value::Text(text),
        types::Value::Blob(bytes) => Value::Blob(bytes),
        types::Value::Json(text) => Value::Json(text),
        types::Value::Timestamp(ms) => Value::Timestamp(ms),
        types::Value::Uuid(text) => Value::Uuid(text),
    }
}

/// A row for the guest.
pub(super) fn row(row: Row) -> types::Row {
    let column = |value| match value {
        Value::Null => types::Value::Null,
        Value::Boolean(yes) => types::Value::Boolean(yes),
        Value::Integer(number) => types::Value::Integer(number),
        Value::Real(number) => types::Value::Real(number),
        Value::Text(text) => types::Value::Text(text),
        Value::Blob(bytes) => types::Value::Blob(bytes),
        Value::Json(text) => types::Value::Json(text),
        Value::Timestamp(ms) => types::Value::Timestamp(ms),
        Value::Uuid(text) => types::Value::Uuid(text),
    };
    row.into_iter().map(column).collect()
}

/// Rows for the guest.
pub(super) fn row_set(set: RowSet) -> types::RowSet {
    types::RowSet {
        columns: set.columns,
        rows: set.rows.into_iter().map(row).collect(),
    }
}

impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Denied(text) => Self::AccessDenied(text),
            Error::Unavailable(text) => Self::Unavailable(text),
            Error::Limit(text) => Self::LimitExceeded(text),
            Error::Constraint(Violation { kind, message }) => {
                let kind = match kind {
                    ConstraintKind::Unique => types::ConstraintKind::Unique,
                    ConstraintKind::ForeignKey => types::ConstraintKind::ForeignKey,
                    ConstraintKind::NotNull => types::ConstraintKind::NotNull,
                    ConstraintKind::Check => types::ConstraintKind::Check,
                    ConstraintKind::Other => types::ConstraintKind::Other,
                };
                Self::Constraint(types::ConstraintViolation { kind, message })
            }
            Error::Conflict(text) => Self::Conflict(text),
            Error::Invalid(text) => Self::Invalid(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_there_and_back() {
        let given = vec![
            types::Value::Null,
            types::Value::Boolean(true),
            types::Value::Integer(-1),
            types::Value::Real(0.5),
            types::Value::Text("a".to_owned()),
            types::Value::Blob(vec![1]),
            types::Value::Json("{}".to_owned()),
            types::Value::Timestamp(7),
            types::Value::Uuid("u".to_owned()),
        ];
        let told = format!("{given:?}");
        assert_eq!(
            format!("{:?}", row(statement(String::new(), given).parameters)),
            told
        );
    }
}
