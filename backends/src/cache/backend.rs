//! What keeps short-lived values: the trait, and what is said across it.

use super::bucket::{Answer, Rate};
use futures::future::BoxFuture;
use std::fmt;

/// Longest time that a value is kept, in milliseconds: a year.
pub const TTL_MS_MAX: u64 = 366 * 24 * 3_600_000;

/// Why a call did nothing.
#[derive(Debug)]
pub enum Error {
    /// Incrementing what is not a number, or beyond what fits.
    Invalid(String),
    /// What keeps the values cannot be reached now. Its cause is for the log.
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) => f.write_str(text),
            Self::Unavailable(_) => f.write_str("the cache cannot be reached"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unavailable(source) => Some(source.as_ref()),
            Self::Invalid(_) => None,
        }
    }
}

impl Error {
    pub(super) fn not_a_number() -> Self {
        Self::Invalid("the value is not a whole number".to_owned())
    }

    pub(super) fn too_great(number: impl fmt::Display, by: i64) -> Self {
        Self::Invalid(format!("{number} + {by} does not fit into 64 bits"))
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The values and buckets of one service. Every method is atomic among all who share them. Values and buckets have names of
/// their own. Whatever is kept may be forgotten at any time, so what must last does not belong here.
pub trait Backend: Send + Sync + fmt::Debug + 'static {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>>>;

    /// Without `ttl_ms` the value stays until there is no room for it.
    fn set<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> BoxFuture<'a, Result<()>>;

    /// Sets only where there is no value; answers whether it did.
    fn set_if_absent<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> BoxFuture<'a, Result<bool>>;

    /// Answers whether there was a value.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool>>;

    /// Adds to a number kept as decimal text. `ttl_ms` counts from the first increment.
    fn increment<'a>(
        &'a self,
        key: &'a str,
        by: i64,
        ttl_ms: Option<u64>,
    ) -> BoxFuture<'a, Result<i64>>;

    /// Takes `tokens` from a bucket where they are there at `now_ms`, in milliseconds since the Unix epoch.
    fn take_tokens<'a>(
        &'a self,
        key: &'a str,
        rate: Rate,
        tokens: u64,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Answer>>;
}
