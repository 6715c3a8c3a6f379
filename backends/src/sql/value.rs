//! Typed values, as parameters and as columns.

/// A value. An engine without the type stores its nearest.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
    /// A JSON document as text.
    Json(String),
    /// Milliseconds since the Unix epoch.
    Timestamp(i64),
    /// A UUID in its hyphenated lower-case form.
    Uuid(String),
}

/// The values of one row, in the order of the statement's columns.
pub type Row = Vec<Value>;

/// Rows that fit in memory, with the names of their columns.
#[derive(Clone, Debug, PartialEq)]
pub struct RowSet {
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
}

/// A statement with the values of `$1`, `$2`, … in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub text: String,
    pub parameters: Vec<Value>,
}

impl Value {
    /// Bytes that it keeps beside its own.
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Json(text) | Self::Uuid(text) => text.len(),
            Self::Blob(bytes) => bytes.len(),
            Self::Null
            | Self::Boolean(_)
            | Self::Integer(_)
            | Self::Real(_)
            | Self::Timestamp(_) => 0,
        }
    }

    /// Refuses what no engine stores, in words that go on after the parameter's number.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Real(number) if number.is_nan() => Err("is not a number, which cannot be stored"),
            Self::Json(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() => {
                Err("is not a JSON document")
            }
            Self::Uuid(text) if !is_canonical_uuid(text) => {
                Err("is not a UUID in its hyphenated lower-case form")
            }
            _ => Ok(()),
        }
    }
}

fn is_canonical_uuid(text: &str) -> bool {
    let mut buffer = uuid::Uuid::encode_buffer();
    uuid::Uuid::try_parse(text)
        .is_ok_and(|uuid| uuid.hyphenated().encode_lower(&mut buffer) == text)
}
