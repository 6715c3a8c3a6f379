//! Idempotency keys: a request sent again gets the answer of the first time.
//!
//! After the IETF draft `draft-ietf-httpapi-idempotency-key-header`. Answers are kept in the table
//! [`IDEMPOTENCY_TABLE`], which the service's migrations create; prune it by `created_at`.

use std::fmt::Write;
use std::future::Future;
use std::marker::PhantomData;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::openapi::Operation;
use crate::problem::{Problem, Result};
use crate::response::{IntoResponse, Response};
use crate::time::now_ms;
use crate::{Caller, IdempotencyKey, params, sql};

/// The table, for a migration.
pub const IDEMPOTENCY_TABLE: &str = "CREATE TABLE idempotency_keys (
  principal TEXT NOT NULL,
  key TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  status BIGINT,
  headers TEXT,
  body BLOB,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (principal, key)
)";

/// Milliseconds after which a request without an answer counts as lost, and the next one takes its place.
pub const IN_FLIGHT_MS_MAX: i64 = 5 * 60 * 1000;

/// Bytes of an answer that are kept at most; a larger one is sent but not kept.
pub const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// A fingerprint of a request's content, for [`idempotent`].
pub fn fingerprint<T: Serialize + ?Sized>(content: &T) -> String {
    let text = serde_json::to_vec(content).unwrap_or_default();
    Sha256::digest(text)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// Runs `work` once per key and caller.
///
/// The same key and fingerprint get the stored answer with `Idempotency-Replayed: true`; another fingerprint gets 422,
/// a key whose first request is still running 409. Without a key `work` just runs. Answers from 500 up are not kept,
/// so that the client may try again.
pub async fn idempotent<R, F, Fut>(
    key: &IdempotencyKey,
    caller: &Caller,
    fingerprint: &str,
    work: F,
) -> Result<Response>
where
    R: IntoResponse,
    F: FnOnce() -> Fut,
    Fut: Future<Output = R>,
{
    let Some(key) = &key.0 else {
        return Ok(work().await.into_response());
    };
    let slot = Slot {
        principal: principal(caller),
        key,
    };
    if let Some(answer) = slot.claim(fingerprint).await? {
        return Ok(answer);
    }
    let response = work().await.into_response();
    if response.status.is_server_error()
        || response
            .content
            .length()
            .is_none_or(|n| n > KEPT_BYTES_MAX as u64)
    {
        slot.release().await?;
        return Ok(response);
    }
    slot.keep(response).await
}

/// The answer of the first time, whether just made or kept; the OpenAPI document describes it as an `R`.
pub struct Once<R> {
    response: Response,
    answer: PhantomData<R>,
}

impl<R: IntoResponse> IntoResponse for Once<R> {
    fn into_response(self) -> Response {
        self.response
    }

    fn describe(operation: &mut Operation<'_>) {
        R::describe(operation);
    }
}

/// Does `work` once per key, caller and content: [`idempotent`] with a typed answer.
pub async fn once<R, C, W>(
    key: &IdempotencyKey,
    caller: &Caller,
    content: &C,
    work: W,
) -> Result<Once<R>>
where
    R: IntoResponse,
    C: Serialize + ?Sized,
    W: Future<Output = Result<R>>,
{
    let response = idempotent(key, caller, &fingerprint(content), || work).await?;
    Ok(Once {
        response,
        answer: PhantomData,
    })
}

struct Slot<'a> {
    principal: String,
    key: &'a str,
}

#[derive(Deserialize)]
struct Kept {
    fingerprint: String,
    status: Option<u16>,
    headers: Option<String>,
    body: Option<Vec<u8>>,
    created_at: i64,
}

impl Slot<'_> {
    /// None: the slot is ours, and the work is to be done.
    async fn claim(&self, fingerprint: &str) -> Result<Option<Response>> {
        let now = now_ms();
        // A claim without an answer is taken over when its request must have ended without one.
        let claimed = sql::execute(
            "INSERT INTO idempotency_keys (principal, key, fingerprint, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (principal, key) DO UPDATE SET created_at = excluded.created_at
             WHERE idempotency_keys.status IS NULL AND idempotency_keys.created_at < $5
               AND idempotency_keys.fingerprint = excluded.fingerprint",
            params![self.principal, self.key, fingerprint, now, now - IN_FLIGHT_MS_MAX],
        )
        .await?;
        if claimed > 0 {
            return Ok(None);
        }
        let kept: Option<Kept> = sql::query_one_as(
            "SELECT fingerprint, status, headers, body, created_at FROM idempotency_keys
             WHERE principal = $1 AND key = $2",
            params![self.principal, self.key],
        )
        .await?;
        match kept {
            Some(kept) => kept.answer(fingerprint, now).map(Some),
            // Released in between.
            None => Err(in_flight()),
        }
    }

    async fn release(&self) -> Result<()> {
        let statement =
            "DELETE FROM idempotency_keys WHERE principal = $1 AND key = $2 AND status IS NULL";
        sql::execute(statement, params![self.principal, self.key]).await?;
        Ok(())
    }

    async fn keep(&self, response: Response) -> Result<Response> {
        let Response {
            status,
            headers,
            content,
        } = response;
        let body = content.bytes(KEPT_BYTES_MAX).await?;
        let fields: Vec<(&str, String)> = headers
            .iter()
            .map(|(name, value)| (name, String::from_utf8_lossy(value).into_owned()))
            .collect();
        let fields = serde_json::to_string(&fields).expect("strings are JSON");
        sql::execute(
            "UPDATE idempotency_keys SET status = $3, headers = $4, body = $5 WHERE principal = $1 AND key = $2",
            params![self.principal, self.key, status.as_u16(), fields, body],
        )
        .await?;
        Ok(Response {
            status,
            headers,
            content: body.into(),
        })
    }
}

impl Kept {
    fn answer(self, fingerprint: &str, now: i64) -> Result<Response> {
        if self.fingerprint != fingerprint {
            return Err(Problem::unprocessable(
                "Idempotency-Key",
                "was used for another request",
            ));
        }
        let Some(status) = self
            .status
            .and_then(|status| StatusCode::from_u16(status).ok())
        else {
            let left = (self.created_at + IN_FLIGHT_MS_MAX - now).clamp(1000, IN_FLIGHT_MS_MAX);
            return Err(in_flight().with("claimExpiresInMs", left));
        };
        let mut response = Response::new(status).body(self.body.unwrap_or_default());
        let fields: Vec<(String, String)> = self
            .headers
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        for (name, value) in fields {
            response.headers.append(&name, value);
        }
        Ok(response.header("idempotency-replayed", "true"))
    }
}

fn in_flight() -> Problem {
    Problem::conflict("a request with this Idempotency-Key is still being handled")
        .header("retry-after", "1")
}

/// Keys belong to whoever chose them: one caller cannot reach another's answers.
fn principal(caller: &Caller) -> String {
    let principal = caller.principal();
    format!("{}:{}", principal.kind.name(), principal.subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(status: Option<u16>) -> Kept {
        let headers = Some(r#"[["location","/x"]]"#.to_owned());
        Kept {
            fingerprint: "f".to_owned(),
            status,
            headers,
            body: Some(b"{}".to_vec()),
            created_at: 0,
        }
    }

    #[test]
    fn the_same_request_gets_the_stored_answer() {
        let answer = kept(Some(201)).answer("f", 1).unwrap();
        assert_eq!(answer.status, 201);
        assert_eq!(answer.headers.get("location"), Some("/x"));
        assert_eq!(answer.headers.get("idempotency-replayed"), Some("true"));
        assert_eq!(answer.content.length(), Some(2));
    }

    #[test]
    fn another_request_and_one_in_flight_are_refused() {
        assert_eq!(kept(Some(201)).answer("g", 1).err().unwrap().status, 422);
        assert_eq!(kept(None).answer("f", 1).err().unwrap().status, 409);
    }

    #[test]
    fn fingerprints_tell_contents_apart() {
        assert_eq!(fingerprint(&1).len(), 64);
        assert_ne!(fingerprint("a"), fingerprint("b"));
    }
}
