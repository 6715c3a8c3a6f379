//! One value of a row, through serde.

use serde::de::value::{SeqDeserializer, StringDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Value as Json;

use super::{Error, Result, Value};

/// One value. SQLite has integers for booleans and instants, and text for JSON and UUIDs.
pub(super) struct Cell(pub(super) Value);

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
            Value::Blob(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.into_iter())),
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
