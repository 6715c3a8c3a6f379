//! Rows as Rust values, through serde.

use std::cell::RefCell;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::cell::Cell;
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
    /// One statement nearly always fills one struct: the one seen last.
    filled: RefCell<Filled>,
}

/// A struct's fields, and per column the field that it fills.
#[derive(Default)]
struct Filled {
    fields: Option<&'static [&'static str]>,
    by_column: Vec<Option<&'static str>>,
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
            filled: RefCell::default(),
        }
    }

    pub(super) fn typed<T: DeserializeOwned>(&self, row: Vec<Value>) -> Result<T> {
        T::deserialize(Row {
            columns: self,
            values: row,
        })
    }

    fn field(&self, column: usize, fields: &'static [&'static str]) -> Option<&'static str> {
        let mut filled = self.filled.borrow_mut();
        if filled.fields != Some(fields) {
            let find = |name: &String| fields.iter().copied().find(|field| same_name(field, name));
            *filled = Filled {
                fields: Some(fields),
                by_column: self.names.iter().map(find).collect(),
            };
        }
        filled.by_column[column]
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

#[cfg(test)]
mod tests;
