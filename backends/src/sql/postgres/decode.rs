//! Columns: what the server answers becomes a value of the interface, or is refused in words.

use crate::sql::{
    Error, Result,
    limits::Budget,
    value::{Row, Value},
};
use std::error::Error as StdError;
use tokio_postgres::{
    Row as Answered,
    types::{FromSql, Kind, Type},
};

/// PostgreSQL counts instants from 2000, in microseconds.
const MS_TO_2000: i64 = 946_684_800_000;

/// Copies a row out of the answer.
pub fn row(answered: &Answered, budget: &mut Budget) -> Result<Row> {
    let columns = answered.columns();
    budget.take(answered.raw_size_bytes() + columns.len() * size_of::<Value>())?;
    let mut values = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        let raw: Raw<'_> = answered.get(index);
        let value = raw
            .0
            .map_or(Ok(Value::Null), |bytes| value(column.type_(), bytes));
        values.push(
            value.map_err(|what| Error::invalid(format!("column `{}` {what}", column.name())))?,
        );
    }
    Ok(values)
}

/// A column's bytes, whatever its type.
struct Raw<'a>(Option<&'a [u8]>);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(Some(raw)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn value(kind: &Type, bytes: &[u8]) -> Result<Value, String> {
    let broken = || format!("has no whole {kind}");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| broken());
    Ok(match *kind {
        Type::BOOL => Value::Boolean(fixed::<1>(bytes).ok_or_else(broken)?[0] != 0),
        Type::INT2 => Value::Integer(i16::from_be_bytes(fixed(bytes).ok_or_else(broken)?).into()),
        Type::INT4 => Value::Integer(i32::from_be_bytes(fixed(bytes).ok_or_else(broken)?).into()),
        Type::INT8 => Value::Integer(i64::from_be_bytes(fixed(bytes).ok_or_else(broken)?)),
        Type::OID => Value::Integer(u32::from_be_bytes(fixed(bytes).ok_or_else(broken)?).into()),
        Type::FLOAT4 => Value::Real(f32::from_be_bytes(fixed(bytes).ok_or_else(broken)?).into()),
        Type::FLOAT8 => Value::Real(f64::from_be_bytes(fixed(bytes).ok_or_else(broken)?)),
        Type::NUMERIC => numeric(bytes).ok_or_else(|| {
            "is a number beyond the range of s64: cast it to text or to double precision".to_owned()
        })?,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::XML => {
            Value::Text(text(bytes)?)
        }
        Type::CHAR => Value::Text(text(bytes)?),
        Type::BYTEA => Value::Blob(bytes.to_vec()),
        Type::JSON => Value::Json(text(bytes)?),
        // The first byte is the version of the format.
        Type::JSONB => Value::Json(text(bytes.get(1..).ok_or_else(broken)?)?),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => {
            let micros = i64::from_be_bytes(fixed(bytes).ok_or_else(broken)?);
            Value::Timestamp(micros.div_euclid(1_000) + MS_TO_2000)
        }
        Type::UUID => Value::Uuid(
            uuid::Uuid::from_bytes(fixed(bytes).ok_or_else(broken)?)
                .hyphenated()
                .to_string(),
        ),
        Type::VOID => Value::Null,
        _ => match kind.kind() {
            Kind::Enum(_) => Value::Text(text(bytes)?),
            Kind::Domain(inner) => value(inner, bytes)?,
            _ => {
                return Err(format!(
                    "has the type {kind}, which services cannot read: cast it, as in `CAST(x AS TEXT)`"
                ));
            }
        },
    })
}

fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

/// A whole number where the type says so (`sum` of integers), the nearest real number otherwise; none out of range.
fn numeric(bytes: &[u8]) -> Option<Value> {
    let part = |index: usize| {
        Some(u16::from_be_bytes(fixed(
            bytes.get(index * 2..index * 2 + 2)?,
        )?))
    };
    let (digits, sign, scale) = (part(0)?, part(2)?, part(3)?);
    let weight = i32::from(part(1)? as i16);
    match sign {
        0xc000 => return Some(Value::Real(f64::NAN)),
        0xd000 => return Some(Value::Real(f64::INFINITY)),
        0xf000 => return Some(Value::Real(f64::NEG_INFINITY)),
        _ => {}
    }
    let digit = |position: i32| {
        let index = weight - position;
        let stored = (0..i32::from(digits)).contains(&index);
        if stored {
            part(4 + usize::try_from(index).ok()?)
        } else {
            Some(0)
        }
    };
    let mut whole: i128 = 0;
    for position in (0..=weight.max(-1)).rev() {
        whole = whole
            .checked_mul(10_000)?
            .checked_add(digit(position)?.into())?;
    }
    let negative = sign == 0x4000;
    if scale == 0 {
        let whole = if negative { -whole } else { whole };
        return i64::try_from(whole).ok().map(Value::Integer);
    }
    // By way of the decimal notation, so that the nearest number comes out.
    let mut text = format!("{}{whole}.", if negative { "-" } else { "" });
    let last = weight.min(0) - i32::from(digits);
    for position in (last..=-1).rev() {
        text.push_str(&format!("{:04}", digit(position)?));
    }
    text.push('0');
    text.parse().ok().map(Value::Real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_are_whole_or_real() {
        let words = |words: &[u16]| {
            words
                .iter()
                .flat_map(|word| word.to_be_bytes())
                .collect::<Vec<u8>>()
        };
        for (stored, expected) in [
            (vec![0, 0, 0, 0], Some(Value::Integer(0))),
            (vec![1, 0, 0, 0, 7], Some(Value::Integer(7))),
            (vec![1, 1, 0x4000, 0, 3], Some(Value::Integer(-30_000))),
            (vec![2, 0, 0, 2, 12, 3_400], Some(Value::Real(12.34))),
            (vec![1, u16::MAX, 0x4000, 4, 25], Some(Value::Real(-0.0025))),
            (
                vec![1, u16::MAX - 1, 0, 8, 1],
                Some(Value::Real(0.000_000_01)),
            ),
            (vec![1, 5, 0, 0, 1], None),
        ] {
            assert_eq!(numeric(&words(&stored)), expected, "{stored:?}");
        }
        assert!(
            matches!(numeric(&words(&[0, 0, 0xc000, 0])), Some(Value::Real(nan)) if nan.is_nan())
        );
    }
}
