//! Values between guest and SQLite: parameters by number, columns by what is stored.

use super::fault::{Fault, invalid};
use crate::sql::{
    limits::Budget,
    value::{Row, Value},
};
use rusqlite::{
    Statement,
    types::{ToSqlOutput, Value as Stored, ValueRef},
};

/// Binds `$1`, `$2`, … wherever they occur. Neither a parameter without a value nor a value without one is accepted.
pub(super) fn bind(statement: &mut Statement<'_>, values: &[Value]) -> Result<(), Fault> {
    let mut highest = 0;
    for index in 1..=statement.parameter_count() {
        let name = statement.parameter_name(index);
        let number = name.and_then(position).ok_or_else(|| {
            invalid(format!(
                "parameters are written $1, $2 and so on, not `{}`",
                name.unwrap_or("?")
            ))
        })?;
        let value = values.get(number - 1).ok_or_else(|| {
            invalid(format!(
                "${number} has no value: {} were given",
                values.len()
            ))
        })?;
        let value = to_stored(value).map_err(|what| invalid(format!("${number} {what}")))?;
        statement.raw_bind_parameter(index, value)?;
        highest = highest.max(number);
    }
    if highest < values.len() {
        return Err(invalid(format!(
            "{} values were given, but the last parameter is ${highest}",
            values.len()
        )));
    }
    Ok(())
}

/// The number in `$12`.
pub fn position(name: &str) -> Option<usize> {
    let digits = name.strip_prefix('$')?;
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}

/// SQLite's nearest to a value; PostgreSQL refuses the same.
fn to_stored(value: &Value) -> Result<ToSqlOutput<'_>, &'static str> {
    value.check()?;
    Ok(match value {
        Value::Null => ToSqlOutput::Owned(Stored::Null),
        Value::Boolean(yes) => ToSqlOutput::Owned(Stored::Integer(i64::from(*yes))),
        Value::Integer(number) | Value::Timestamp(number) => {
            ToSqlOutput::Owned(Stored::Integer(*number))
        }
        Value::Real(number) => ToSqlOutput::Owned(Stored::Real(*number)),
        Value::Text(text) | Value::Json(text) | Value::Uuid(text) => {
            ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
        }
        Value::Blob(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
    })
}

/// What becomes of a value that is stored and read; none where it is refused. For the fuzz targets.
pub fn read_back(value: &Value) -> Option<Value> {
    let stored = to_stored(value).ok()?;
    let stored = match &stored {
        ToSqlOutput::Borrowed(stored) => *stored,
        ToSqlOutput::Owned(stored) => ValueRef::from(stored),
        _ => panic!("a value is stored as it is"),
    };
    let read = from_stored(stored);
    Some(read.unwrap_or_else(|_| panic!("what was stored is read")))
}

/// Copies a row out of SQLite.
pub(super) fn row(
    row: &rusqlite::Row<'_>,
    width: usize,
    budget: &mut Budget,
) -> Result<Row, Fault> {
    let mut values = Vec::with_capacity(width);
    for index in 0..width {
        let stored = row.get_ref(index)?;
        budget.take(size(stored))?;
        values.push(from_stored(stored)?);
    }
    Ok(values)
}

/// About what the value takes in memory.
fn size(stored: ValueRef<'_>) -> usize {
    size_of::<Value>()
        + match stored {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
            _ => 0,
        }
}

fn from_stored(stored: ValueRef<'_>) -> Result<Value, Fault> {
    Ok(match stored {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => {
                return Err(invalid(
                    "a text in the result is not UTF-8: select it as a blob",
                ));
            }
        },
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_owned()),
    })
}
