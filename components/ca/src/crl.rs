//! The certificate revocation list: signed by the host, which enforces what it has signed.

use base64::{Engine, engine::general_purpose::STANDARD};
use exprsn_sdk::{
    ca::authority::{self, Revoked},
    openapi::Operation,
    prelude::*,
    sql::Tx,
};

/// How long a list counts, in seconds.
const LIFETIME_S: i64 = 7 * 86_400;
/// A list is renewed when less than this is left of it, in seconds.
const RENEW_S: i64 = 3 * 86_400;

const DER: &str = "application/pkix-crl";
const PEM: &str = "application/x-pem-file";

#[derive(Deserialize)]
struct List {
    pem: String,
    next_update: i64,
}

/// In which form.
#[derive(Deserialize, JsonSchema, Validate)]
pub struct Form {
    /// `der` or `pem`; by the Accept header when absent.
    #[garde(skip)]
    format: Option<Format>,
}

#[derive(Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    Der,
    Pem,
}

/// The list in the form that was asked for.
pub struct Crl {
    pem: String,
    format: Format,
}

impl IntoResponse for Crl {
    fn into_response(self) -> Response {
        let (media_type, body) = match self.format {
            Format::Pem => (PEM, Some(self.pem.into_bytes())),
            Format::Der => (DER, der(&self.pem)),
        };
        match body {
            Some(body) => Response::ok()
                .header("content-type", media_type)
                .header("vary", "accept")
                .body(body),
            None => Problem::fault("the revocation list cannot be read", "not PEM").into_response(),
        }
    }

    fn describe(operation: &mut Operation<'_>) {
        let binary = json!({ "schema": { "type": "string", "format": "binary" } });
        let text = json!({ "schema": { "type": "string" } });
        operation.response(StatusCode::OK, Some(json!({ DER: binary, PEM: text })));
    }
}

/// `GET /api/crl`
pub async fn show(headers: Headers, form: Query<Form>) -> Result<Crl> {
    let asked = if headers
        .get("accept")
        .is_some_and(|accept| accept.contains("pem"))
    {
        Format::Pem
    } else {
        Format::Der
    };
    Ok(Crl {
        pem: renew().await?,
        format: form.format.unwrap_or(asked),
    })
}

/// The present list, signed anew if it is about to run out.
pub async fn renew() -> Result<String> {
    let present: Option<List> = sql::query_one_as(
        "SELECT pem, next_update FROM revocation_list WHERE only_row = 1",
        params![],
    )
    .await?;
    if let Some(list) = present.filter(|list| list.next_update - now_s() >= RENEW_S) {
        return Ok(list.pem);
    }
    let tx = sql::begin().await?;
    let pem = sign(&tx).await?;
    tx.commit().await?;
    Ok(pem)
}

/// Signs a list of all that is revoked now, within the transaction that changed it.
pub async fn sign(tx: &Tx) -> Result<String> {
    #[derive(Deserialize)]
    struct Row {
        serial: String,
        revoked_at: i64,
    }
    // Takes the lock first, so that lists are signed one after the other. The host has signed the highest number even
    // where the transaction failed afterwards; the time is beyond that.
    let text = "UPDATE revocation_list SET number = CASE WHEN number >= $1 THEN number + 1 ELSE $1 END WHERE only_row = 1 RETURNING number";
    let number: i64 = tx.scalar(text, params![now_ms()]).await?;
    let now = now_s();
    let text = "SELECT serial, revoked_at FROM certificates WHERE revoked_at IS NOT NULL AND not_after > $1 ORDER BY revoked_at, serial";
    let rows: Vec<Row> = tx.query_as(text, params![now]).await?;
    let revoked = rows
        .into_iter()
        .map(|row| Revoked {
            serial: row.serial,
            at: row.revoked_at,
        })
        .collect();
    let pem = authority::sign_crl(
        u64::try_from(number).unwrap_or_default(),
        revoked,
        now + LIFETIME_S,
    )
    .await?;
    let text = "UPDATE revocation_list SET pem = $1, this_update = $2, next_update = $3 WHERE only_row = 1";
    tx.execute(text, params![pem, now, now + LIFETIME_S])
        .await?;
    Ok(pem)
}

/// The bytes within PEM's armour.
fn der(pem: &str) -> Option<Vec<u8>> {
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    STANDARD
        .decode(body.trim())
        .ok()
        .filter(|der| !der.is_empty())
}

#[cfg(test)]
mod tests {
    use super::der;

    #[test]
    fn pem_is_unwrapped() {
        assert_eq!(
            der("-----BEGIN X509 CRL-----\nAQID\nBAU=\n-----END X509 CRL-----\n"),
            Some(vec![1, 2, 3, 4, 5])
        );
        assert_eq!(der(""), None);
        assert_eq!(
            der("-----BEGIN X509 CRL-----\n***\n-----END X509 CRL-----\n"),
            None
        );
    }
}
