//! Short-lived values shared by the instances of the service. May be lost at any time.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exprsn::cache::store;
use crate::problem::Problem;

pub use store::{Bucket, Error};

/// The value of a key.
pub async fn get(key: &str) -> Result<Option<Vec<u8>>, Error> {
    store::get(key.to_owned()).await
}

/// Sets a value, for `ttl_ms` or until it is evicted.
pub async fn set(key: &str, value: impl Into<Vec<u8>>, ttl_ms: Option<u64>) -> Result<(), Error> {
    store::set(key.to_owned(), value.into(), ttl_ms).await
}

/// Sets a value where there is none; says whether it did.
pub async fn set_if_absent(
    key: &str,
    value: impl Into<Vec<u8>>,
    ttl_ms: Option<u64>,
) -> Result<bool, Error> {
    store::set_if_absent(key.to_owned(), value.into(), ttl_ms).await
}

/// Removes a value; says whether there was one.
pub async fn delete(key: &str) -> Result<bool, Error> {
    store::delete(key.to_owned()).await
}

/// Adds to a number (0 when absent) and answers the sum. `ttl_ms` counts from the first increment.
pub async fn increment(key: &str, by: i64, ttl_ms: Option<u64>) -> Result<i64, Error> {
    store::increment(key.to_owned(), by, ttl_ms).await
}

/// Takes tokens from a bucket that holds `capacity` and refills by `refill_per_second`.
pub async fn take_tokens(
    key: &str,
    capacity: u64,
    refill_per_second: f64,
    tokens: u64,
) -> Result<Bucket, Error> {
    store::take_tokens(key.to_owned(), capacity, refill_per_second, tokens).await
}

/// The JSON value of a key; one that is no `T` any more counts as absent.
pub async fn get_json<T: DeserializeOwned>(key: &str) -> Result<Option<T>, Error> {
    Ok(get(key)
        .await?
        .and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Sets a value as JSON.
pub async fn set_json<T: Serialize + ?Sized>(
    key: &str,
    value: &T,
    ttl_ms: Option<u64>,
) -> Result<(), Error> {
    let text = serde_json::to_vec(value).map_err(|error| Error::Invalid(error.to_string()))?;
    set(key, text, ttl_ms).await
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(_) | Error::LimitExceeded(_) => Problem::unavailable(1),
            Error::AccessDenied(what) | Error::Invalid(what) => {
                Problem::fault("the cache refused a call", what)
            }
        }
    }
}
