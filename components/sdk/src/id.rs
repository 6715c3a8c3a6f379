//! Ids of things as they come from outside: checked once at the edge, harmless ever after.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Longest id in bytes; a UUID has 36.
pub const ID_BYTES_MAX: usize = 128;

/// The id of a user or a thing: 1 to 128 of `A-Z a-z 0-9 . _ ~ : @ -`.
///
/// Users' ids are the subjects of CA tokens, so they need not be UUIDs. What does not fit the pattern names nothing here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Id {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = (1..=ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_id_byte);
        if fits {
            Ok(Id(text))
        } else {
            Err("an id is 1 to 128 of A-Z a-z 0-9 . _ ~ : @ -")
        }
    }
}

impl From<Id> for String {
    fn from(id: Id) -> String {
        id.0
    }
}

impl JsonSchema for Id {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Id")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": ID_BYTES_MAX, "pattern": "^[A-Za-z0-9._~:@-]+$" })
    }
}

fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._~:@-".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_uuids_names_and_nothing_else() {
        let id = |text: &str| Id::try_from(text.to_owned());
        assert!(id("0193b1a4-7c3e-7d6b-8f10-2f4a5b6c7d8e").is_ok());
        assert!(id("exprsn-workflow").is_ok());
        assert!(id(&"a".repeat(ID_BYTES_MAX)).is_ok());
        for bad in [
            "",
            "a b",
            "x'; DROP TABLE posts;--",
            "a/b",
            "nul\0",
            "ü",
            &"a".repeat(ID_BYTES_MAX + 1),
        ] {
            assert!(id(bad).is_err(), "{bad:?} passed");
        }
    }
}
