//! Names of things, parsed at the edge so that the inside handles no loose strings.

use serde::{Deserialize, Deserializer, Serialize};
use std::{fmt, sync::Arc};

/// Longest service name, in bytes: it becomes a DNS label, a file name and a PostgreSQL role.
pub const SERVICE_NAME_BYTES_MAX: usize = 48;

/// The prefix of the platform's own services; `timeline` on a command line means `exprsn-timeline`.
pub const SERVICE_PREFIX: &str = "exprsn-";

/// A service's full name: lower-case letters, digits and hyphens, beginning with a letter. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Parses a full name; the error says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, String> {
        let first = text.bytes().next();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.len() > SERVICE_NAME_BYTES_MAX {
            return Err(format!(
                "service name `{text}` is longer than {SERVICE_NAME_BYTES_MAX} bytes"
            ));
        }
        if !first.is_some_and(|b| b.is_ascii_lowercase())
            || !text.bytes().all(plain)
            || text.ends_with('-')
        {
            return Err(format!(
                "service name `{text}` must begin with a lower-case letter and hold only lower-case letters, digits and inner hyphens"
            ));
        }
        Ok(Self(text.into()))
    }

    /// Parses a full or short name: `timeline` and `exprsn-timeline` are the same.
    pub fn parse_short(text: &str) -> Result<Self, String> {
        if text.starts_with(SERVICE_PREFIX) {
            Self::parse(text)
        } else {
            Self::parse(&format!("{SERVICE_PREFIX}{text}"))
        }
    }

    /// The full name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without the platform's prefix, as in gateway paths and folders.
    pub fn short(&self) -> &str {
        self.0.strip_prefix(SERVICE_PREFIX).unwrap_or(&self.0)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ServiceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Whether `name` is covered by `pattern`: equal, or by a `*` that ends the pattern.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_are_checked() {
        for good in ["exprsn-ca", "a", "x-1"] {
            assert!(ServiceName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", "a-", "a_b", "a/b", &"a".repeat(49)] {
            assert!(ServiceName::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            ServiceName::parse_short("ca"),
            ServiceName::parse("exprsn-ca")
        );
        assert_eq!(ServiceName::parse("exprsn-ca").unwrap().short(), "ca");
    }

    #[test]
    fn patterns_end_in_a_star() {
        assert!(matches("post.*", "post.created"));
        assert!(matches("*", ""));
        assert!(!matches("post.*", "posts"));
        assert!(!matches("a", "ab"));
    }
}
