//! The database and the roles of a service, and what they are called.
//!
//! Each service has three roles, none of which may do anything outside of its database: its guests connect as the first,
//! which changes rows; migrations and services granted `ddl` as the second, which owns the tables; the host's outbox and
//! its record of migrations belong to the third.

use crate::name::ServiceName;
use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// The database of the hosts themselves.
pub const PLATFORM: &str = "exprsn_platform";

/// What PostgreSQL knows a service by. A `$` occurs in no service's name, so no service can be called like another's role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    pub database: String,
    /// Reads and changes rows.
    pub rows: String,
    /// Owns the tables.
    pub owner: String,
    /// Owns what is the host's.
    pub host: String,
}

impl Roles {
    /// `exprsn_timeline` for `exprsn-timeline`, `exprsn$notes` for a stranger's `notes`.
    pub fn of(service: &ServiceName) -> Self {
        let plain = service.as_str().replace('-', "_");
        let name = if plain.starts_with("exprsn_") && plain != PLATFORM {
            plain
        } else {
            format!("exprsn${plain}")
        };
        Self {
            owner: format!("{name}$owner"),
            host: format!("{name}$host"),
            rows: name.clone(),
            database: name,
        }
    }

    /// All roles.
    pub fn all(&self) -> [&str; 3] {
        [&self.rows, &self.owner, &self.host]
    }
}

/// What the hosts of a platform derive passwords from, so that none is stored.
#[derive(Clone)]
pub struct Secrets(hmac::Key);

impl Secrets {
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// A role's password.
    pub fn password(&self, role: &str) -> String {
        self.derive("password", role)
    }

    /// What the host shows to write into a service's outbox; its guests do not have it.
    pub fn host_key(&self, database: &str) -> String {
        self.derive("host", database)
    }

    fn derive(&self, purpose: &str, of: &str) -> String {
        let tag = hmac::sign(&self.0, format!("exprsn sql 1 {purpose} {of}").as_bytes());
        URL_SAFE_NO_PAD.encode(tag.as_ref())
    }
}

/// An identifier, quoted. Names hold no quotation marks.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string, quoted.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_service_is_called_like_anothers_role() {
        let roles = |name: &str| Roles::of(&ServiceName::parse(name).unwrap());
        assert_eq!(roles("exprsn-timeline").database, "exprsn_timeline");
        assert_eq!(roles("postgres").database, "exprsn$postgres");
        assert_ne!(roles("exprsn-platform").database, PLATFORM);
        let names = [
            "exprsn-platform",
            "platform",
            "exprsn-a",
            "exprsn-a-owner",
            "exprsn-a-host",
            "a",
            "a-owner",
            "exprsn",
        ];
        let mut all: Vec<String> = names
            .iter()
            .flat_map(|name| roles(name).all().map(str::to_owned))
            .collect();
        all.sort();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn secrets_differ_by_role_purpose_and_key() {
        let secrets = Secrets::new(b"a");
        assert_eq!(secrets.password("x"), Secrets::new(b"a").password("x"));
        assert_ne!(secrets.password("x"), secrets.password("y"));
        assert_ne!(secrets.password("x"), secrets.host_key("x"));
        assert_ne!(secrets.password("x"), Secrets::new(b"b").password("x"));
    }
}
