//! Rows as Rust values, through serde.

use std::cell::RefCell;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer, StringDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer,
    MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Value as Json;

use super::{Error, Result, Value, types};
use crate::extract::same_name;

/// Rows with the names of their columns.
pub struct Rows {
    columns: Columns,
    /// The rows, each with its values in the order of the columns.
    pub rows: Vec<Vec<Value>>,
}

/// The columns of a statement, and which struct fields they fill.
pub(super) struct Columns {
    names: Vec<String>,
    /// For the struct seen last: per column the field that it fills. One statement nearly always fills one struct.
    fields: RefCell<(Option<&'static [&'static str]>, Vec<Option<&'static str>>)>,
}

impl From<types::RowSet> for Rows {
    fn from(set: types::RowSet) -> Self {
        Self {
            columns: Columns::new(set.columns),
            rows: set.rows,
        }
    }
}

impl Rows {
    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns.names
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// A `T` of every row.
    pub fn into_typed<T: DeserializeOwned>(self) -> Result<Vec<T>> {
        let Self { columns, rows } = self;
        rows.into_iter().map(|row| columns.typed(row)).collect()
    }

    /// A `T` of the first row.
    pub fn into_one<T: DeserializeOwned>(self) -> Result<Option<T>> {
        let Self { columns, rows } = self;
        rows.into_iter()
            .next()
            .map(|row| columns.typed(row))
            .transpose()
    }

    /// The first value of the first row; NULL where there is none.
    pub fn into_scalar<T: DeserializeOwned>(self) -> Result<T> {
        let value = self
            .rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next());
        T::deserialize(Cell(value.unwrap_or(Value::Null)))
    }
}

impl Columns {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self {
            names,
            fields: RefCell::default(),
        }
    }

    pub(super) fn typed<T: DeserializeOwned>(&self, row: Vec<Value>) -> Result<T> {
        T::deserialize(Row {
            columns: self,
            values: row,
        })
    }

    fn field(&self, column: usize, fields: &'static [&'static str]) -> Option<&'static str> {
        let mut known = self.fields.borrow_mut();
        if known.0 != Some(fields) {
            let find = |name: &String| fields.iter().copied().find(|field| same_name(field, name));
            *known = (Some(fields), self.names.iter().map(find).collect());
        }
        known.1[column]
    }
}

struct Row<'a> {
    columns: &'a Columns,
    values: Vec<Value>,
}

impl<'de> Deserializer<'de> for Row<'_> {
    type Error = Error;

    /// One column is its value; several are a map.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.values.len() == 1 {
            self.cell()?.deserialize_any(visitor)
        } else {
            self.deserialize_map(visitor)
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_map(Fields {
            columns: self.columns,
            values: self.values.into_iter().enumerate(),
            fields: None,
            next: None,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let values = self.values.into_iter().enumerate();
        visitor.visit_map(Fields {
            columns: self.columns,
            values,
            fields: Some(fields),
            next: None,
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        visitor.visit_seq(Cells(self.values.into_iter()))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        n: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_tuple(n, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.cell()?.deserialize_option(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.cell()?.deserialize_bool(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.cell()?.deserialize_f64(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.cell()?.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 char str string bytes byte_buf
        unit unit_struct seq identifier ignored_any
    }
}

impl Row<'_> {
    fn cell(self) -> Result<Cell> {
        self.values
            .into_iter()
            .next()
            .map(Cell)
            .ok_or_else(|| Error::Decode("the row has no column".to_owned()))
    }
}

struct Fields<'a> {
    columns: &'a Columns,
    values: std::iter::Enumerate<std::vec::IntoIter<Value>>,
    fields: Option<&'static [&'static str]>,
    next: Option<(usize, Value)>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some((column, value)) = self.values.next() else {
            return Ok(None);
        };
        self.next = Some((column, value));
        match self
            .fields
            .and_then(|fields| self.columns.field(column, fields))
        {
            Some(field) => seed
                .deserialize(BorrowedStrDeserializer::new(field))
                .map(Some),
            None => seed
                .deserialize(StrDeserializer::new(&self.columns.names[column]))
                .map(Some),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        let (column, value) = self.next.take().expect("serde asks for the key first");
        seed.deserialize(Cell(value)).map_err(|error| match error {
            Error::Decode(text) => {
                Error::Decode(format!("column {}: {text}", self.columns.names[column]))
            }
            other => other,
        })
    }
}

struct Cells(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for Cells {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        self.0
            .next()
            .map(|value| seed.deserialize(Cell(value)))
            .transpose()
    }
}

/// One value. SQLite has integers for booleans and instants, and text for JSON and UUIDs.
struct Cell(Value);

impl Cell {
    /// Compound types are kept as JSON, in text where the engine has no type for it.
    fn json(self) -> Result<Json> {
        match self.0 {
            Value::Json(text) | Value::Text(text) => {
                serde_json::from_str(&text).map_err(Error::custom)
            }
            Value::Null => Ok(Json::Null),
            other => Err(Error::Decode(format!("{other:?} is no JSON"))),
        }
    }
}

impl<'de> Deserializer<'de> for Cell {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Boolean(value) => visitor.visit_bool(value),
            Value::Integer(value) | Value::Timestamp(value) => visitor.visit_i64(value),
            Value::Real(value) => visitor.visit_f64(value),
            Value::Text(value) | Value::Uuid(value) => visitor.visit_string(value),
            Value::Blob(value) => visitor.visit_byte_buf(value),
            Value::Json(_) => self.json()?.deserialize_any(visitor).map_err(Error::custom),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0 {
            Value::Integer(value @ (0 | 1)) => visitor.visit_bool(value == 1),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0 {
            #[allow(
                clippy::cast_precision_loss,
                reason = "SQLite has integers where a real column holds whole numbers"
            )]
            Value::Integer(value) => visitor.visit_f64(value as f64),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0 {
            // A String field of a JSON column is its text.
            Value::Json(text) => visitor.visit_string(text),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.0 {
            Value::Blob(bytes) => {
                visitor.visit_seq(serde::de::value::SeqDeserializer::new(bytes.into_iter()))
            }
            _ => self.json()?.deserialize_seq(visitor).map_err(Error::custom),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.json()?.deserialize_map(visitor).map_err(Error::custom)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.json()?
            .deserialize_struct(name, fields, visitor)
            .map_err(Error::custom)
    }

    /// A text is the name of a variant; JSON is a variant with content.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match self.0 {
            Value::Text(text) if !text.starts_with(['{', '"']) => visitor.visit_enum(Variant(text)),
            _ => self
                .json()?
                .deserialize_enum(name, variants, visitor)
                .map_err(Error::custom),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 char str bytes byte_buf unit unit_struct identifier ignored_any
    }
}

struct Variant(String);

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self)> {
        let name: StringDeserializer<Error> = self.0.clone().into_deserializer();
        seed.deserialize(name).map(|value| (value, self))
    }
}

impl<'de> VariantAccess<'de> for Variant {
    type Error = Error;

    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value> {
        Err(Error::Decode(
            "the variant has content and the column is a name".to_owned(),
        ))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value> {
        Err(Error::Decode(
            "the variant has content and the column is a name".to_owned(),
        ))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value> {
        Err(Error::Decode(
            "the variant has content and the column is a name".to_owned(),
        ))
    }
}

/// For `#[serde(deserialize_with = "sql::json")]` on a `serde_json::Value`: on SQLite, JSON columns come back as text.
pub fn json<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Json, D::Error> {
    match Json::deserialize(deserializer)? {
        Json::String(text) => serde_json::from_str(&text).map_err(D::Error::custom),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests;
