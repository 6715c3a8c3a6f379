//! The header field `Idempotency-Key`.

use serde_json::json;

use super::FromRequest;
use crate::Request;
use crate::openapi::Operation;
use crate::problem::{Problem, Result};

/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// The client's key for a request that it may send again, if it sent one; see [`idempotent`](crate::idempotent).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(pub Option<String>);

impl FromRequest for IdempotencyKey {
    async fn from_request(request: &mut Request) -> Result<Self> {
        let Some(value) = request.headers().get("idempotency-key") else {
            return Ok(Self(None));
        };
        // The draft says a quoted string; nearly all clients send it bare.
        let key = value.trim().trim_matches('"');
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Problem::bad_request(
                "Idempotency-Key",
                format!("must have 1 to {KEY_BYTES_MAX} bytes"),
            ));
        }
        Ok(Self(Some(key.to_owned())))
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.parameter(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "schema": { "type": "string", "maxLength": KEY_BYTES_MAX },
            "description": "Requests with one key have one effect; the second gets the first one's answer.",
        }));
        operation.problem(400);
        operation.problem(409);
        operation.problem(422);
    }
}
