//! Parameters: a value becomes what the statement's own type demands, or is refused in words.

use crate::sql::{Error, Result, value::Value};
use std::{borrow::Cow, error::Error as StdError};
use tokio_postgres::{
    Statement,
    types::{Format, IsNull, Kind, ToSql, Type, private::BytesMut, to_sql_checked},
};

/// A parameter on its way: in the type's binary form, or as text that the server reads with the type's own rules.
#[derive(Debug, PartialEq)]
pub enum Encoded<'a> {
    Null,
    Binary(Cow<'a, [u8]>),
    Text(Cow<'a, str>),
}

/// Encodes `$1`, `$2`, … for a prepared statement. Neither a parameter without a value nor a value without one is accepted.
pub fn encode<'a>(
    statement: &Statement,
    values: &'a [Value],
    value_bytes_max: usize,
) -> Result<Vec<Encoded<'a>>> {
    let types = statement.params();
    if values.len() < types.len() {
        return Err(Error::invalid(format!(
            "${} has no value: {} were given",
            values.len() + 1,
            values.len()
        )));
    }
    if values.len() > types.len() {
        return Err(Error::invalid(format!(
            "{} values were given, but the last parameter is ${}",
            values.len(),
            types.len()
        )));
    }
    if values
        .iter()
        .any(|value| value.held_bytes() > value_bytes_max)
    {
        return Err(Error::limit(
            "a value or row is larger than sql_value_bytes_max",
        ));
    }
    let pairs = values.iter().zip(types).zip(1..);
    pairs
        .map(|((value, kind), number)| {
            value
                .check()
                .map_err(str::to_owned)
                .and_then(|()| one(value, base(kind)))
                .map_err(|what| Error::invalid(format!("${number} {what}")))
        })
        .collect()
}

/// The type below a domain.
fn base(kind: &Type) -> &Type {
    match kind.kind() {
        Kind::Domain(inner) => base(inner),
        _ => kind,
    }
}

fn one<'a>(value: &'a Value, kind: &Type) -> Result<Encoded<'a>, String> {
    match value {
        Value::Null => Ok(Encoded::Null),
        Value::Boolean(yes) => boolean(*yes, kind),
        Value::Integer(number) => integer(*number, kind),
        Value::Real(number) => real(*number, kind),
        Value::Text(text) | Value::Json(text) | Value::Uuid(text) if *kind != Type::BYTEA => {
            Ok(Encoded::Text(Cow::Borrowed(text)))
        }
        Value::Blob(bytes) if *kind == Type::BYTEA => Ok(Encoded::Binary(Cow::Borrowed(bytes))),
        Value::Timestamp(ms) => timestamp(*ms, kind),
        Value::Text(_) | Value::Json(_) | Value::Uuid(_) => Err(mismatch("a text", kind)),
        Value::Blob(_) => Err(mismatch("a blob", kind)),
    }
}

fn mismatch(what: &str, kind: &Type) -> String {
    format!("is {what}, where the statement takes {kind}")
}

fn binary<'a, const N: usize>(bytes: [u8; N]) -> Result<Encoded<'a>, String> {
    Ok(Encoded::Binary(Cow::Owned(bytes.to_vec())))
}

fn words<'a>(text: impl ToString) -> Result<Encoded<'a>, String> {
    Ok(Encoded::Text(Cow::Owned(text.to_string())))
}

/// As 0 and 1 where the column is a number, which is what portable schemas have.
fn boolean<'a>(yes: bool, kind: &Type) -> Result<Encoded<'a>, String> {
    match *kind {
        Type::BOOL => binary([u8::from(yes)]),
        Type::JSON | Type::JSONB => words(yes),
        _ => integer(i64::from(yes), kind),
    }
}

fn integer<'a>(number: i64, kind: &Type) -> Result<Encoded<'a>, String> {
    let beyond = |_| format!("is {number}, which is out of the range of {kind}");
    match *kind {
        Type::INT8 => binary(number.to_be_bytes()),
        Type::INT4 => binary(i32::try_from(number).map_err(beyond)?.to_be_bytes()),
        Type::INT2 => binary(i16::try_from(number).map_err(beyond)?.to_be_bytes()),
        Type::OID => binary(u32::try_from(number).map_err(beyond)?.to_be_bytes()),
        Type::BOOL if number == 0 || number == 1 => binary([u8::from(number == 1)]),
        Type::FLOAT8 => binary((number as f64).to_be_bytes()),
        Type::FLOAT4
        | Type::NUMERIC
        | Type::TEXT
        | Type::VARCHAR
        | Type::BPCHAR
        | Type::JSON
        | Type::JSONB => words(number),
        _ => Err(mismatch("an integer", kind)),
    }
}

fn real<'a>(number: f64, kind: &Type) -> Result<Encoded<'a>, String> {
    // Between -2^63 and 2^63 - 1024 every whole number of this type is one of s64.
    let whole = number.fract() == 0.0 && (-9.3e18..=9.2e18).contains(&number);
    match *kind {
        Type::FLOAT8 => binary(number.to_be_bytes()),
        Type::FLOAT4 | Type::NUMERIC | Type::TEXT | Type::VARCHAR | Type::BPCHAR => words(number),
        Type::JSON | Type::JSONB if number.is_finite() => words(number),
        Type::INT8 | Type::INT4 | Type::INT2 if whole => integer(number as i64, kind),
        _ => Err(mismatch("a real number", kind)),
    }
}

/// Milliseconds where the column is a number, which is what portable schemas have.
fn timestamp<'a>(ms: i64, kind: &Type) -> Result<Encoded<'a>, String> {
    /// PostgreSQL counts from here.
    const MS_TO_2000: i64 = 946_684_800_000;
    match *kind {
        Type::TIMESTAMPTZ | Type::TIMESTAMP => {
            let micros = ms
                .checked_sub(MS_TO_2000)
                .and_then(|ms| ms.checked_mul(1_000));
            let micros =
                micros.ok_or_else(|| format!("is {ms} ms, which is out of the range of {kind}"))?;
            binary(micros.to_be_bytes())
        }
        Type::INT4 | Type::INT2 | Type::BOOL | Type::OID => Err(mismatch("a timestamp", kind)),
        _ => integer(ms, kind),
    }
}

impl ToSql for Encoded<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Self::Null => return Ok(IsNull::Yes),
            Self::Binary(bytes) => out.extend_from_slice(bytes),
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        match self {
            Self::Text(_) => Format::Text,
            Self::Null | Self::Binary(_) => Format::Binary,
        }
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_checked_against_the_column() {
        for (value, kind, refused) in [
            (Value::Integer(i64::from(i32::MAX)), Type::INT4, None),
            (
                Value::Integer(i64::from(i32::MAX) + 1),
                Type::INT4,
                Some("is 2147483648, which is out of the range of int4"),
            ),
            (
                Value::Integer(40_000),
                Type::INT2,
                Some("out of the range of int2"),
            ),
            (
                Value::Integer(2),
                Type::BOOL,
                Some("is an integer, where the statement takes bool"),
            ),
            (Value::Integer(1), Type::BOOL, None),
            (Value::Integer(7), Type::NUMERIC, None),
            (
                Value::Integer(7),
                Type::UUID,
                Some("where the statement takes uuid"),
            ),
            (Value::Real(0.5), Type::INT8, Some("is a real number")),
            (Value::Real(3.0), Type::INT8, None),
            (Value::Timestamp(1), Type::TIMESTAMPTZ, None),
            (
                Value::Timestamp(i64::MAX),
                Type::TIMESTAMPTZ,
                Some("out of the range"),
            ),
            (Value::Timestamp(1), Type::INT4, Some("is a timestamp")),
            (Value::Blob(vec![1]), Type::TEXT, Some("is a blob")),
            (Value::Text(String::new()), Type::BYTEA, Some("is a text")),
            (Value::Text("x".to_owned()), Type::UUID, None),
        ] {
            match (one(&value, &kind), refused) {
                (Ok(_), None) => {}
                (Err(text), Some(expected)) => {
                    assert!(text.contains(expected), "{value:?}: {text}")
                }
                (other, _) => panic!("{value:?} as {kind}: {other:?}"),
            }
        }
    }
}
