//! `POST /api/compose`: several calls, one answer. What is allowed in it, and how answers are put into it.

use crate::{cors::is_token, target::Target};
use exprsn_sdk::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Calls in one request.
pub const CALLS_MAX: usize = 20;
/// Longest identifier of a call, in bytes.
const ID_BYTES_MAX: usize = 64;
/// Fields that one call may set.
const HEADERS_MAX: usize = 32;
/// Longest value of such a field, in bytes.
const HEADER_BYTES_MAX: usize = 4_096;
/// Fields that a call may not set: they belong to the connection, to the gateway, or to the caller's identity, which is
/// that of the request as a whole.
const HEADERS_REFUSED: &[&str] = &[
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-real-ip",
    "x-request-id",
];

/// Several calls, made in parallel with the rights of the caller.
#[derive(Debug, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct ComposeRequest {
    /// Up to 20 calls, each with an `id` of its own.
    #[garde(length(min = 1, max = CALLS_MAX), dive, custom(ids_differ))]
    pub calls: Vec<Call>,
}

/// One call through the gateway.
#[derive(Debug, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// What its answer is called.
    #[garde(length(bytes, min = 1, max = ID_BYTES_MAX))]
    pub id: String,
    /// `GET` where it is absent.
    #[serde(default = "get")]
    #[garde(length(bytes, min = 1, max = 32), custom(plain_method))]
    pub method: String,
    /// A path of the gateway: `/timeline/api/posts?limit=5`.
    #[garde(custom(leads_somewhere))]
    pub path: String,
    #[serde(default)]
    #[garde(custom(headers_allowed))]
    pub headers: BTreeMap<String, String>,
    /// Sent as `application/json`.
    #[serde(default)]
    #[garde(skip)]
    pub body: Option<Value>,
}

/// All answers, in the order of the calls.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ComposeAnswer {
    pub results: Vec<Part>,
}

/// The answer of one call, good or bad.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    pub id: String,
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    /// JSON as it is, text as a string, anything else in base64; null where there is none.
    pub body: Value,
    /// `base64` where the body is neither JSON nor text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<&'static str>,
}

fn get() -> String {
    "GET".to_owned()
}

fn ids_differ(calls: &[Call], _: &()) -> garde::Result {
    let mut seen = BTreeSet::new();
    match calls.iter().find(|call| !seen.insert(call.id.as_str())) {
        Some(call) => Err(garde::Error::new(format!(
            "two calls have the id `{}`",
            call.id
        ))),
        None => Ok(()),
    }
}

fn plain_method(method: &str, _: &()) -> garde::Result {
    if !is_token(method) || method.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(garde::Error::new(
            "must be a method in capitals, such as GET",
        ));
    }
    match method {
        "CONNECT" | "TRACE" => Err(garde::Error::new("CONNECT and TRACE cannot be composed")),
        _ => Ok(()),
    }
}

fn leads_somewhere(path: &str, _: &()) -> garde::Result {
    Target::parse(path).map(|_| ()).map_err(garde::Error::new)
}

fn headers_allowed(headers: &BTreeMap<String, String>, _: &()) -> garde::Result {
    if headers.len() > HEADERS_MAX {
        return Err(garde::Error::new(format!("at most {HEADERS_MAX} fields")));
    }
    for (name, value) in headers {
        let lower = name.to_ascii_lowercase();
        let forwarding = crate::forwarded::is_forwarding_field(&lower);
        if !is_token(name) || forwarding || HEADERS_REFUSED.contains(&lower.as_str()) {
            return Err(garde::Error::new(format!(
                "`{name}` cannot be set for a single call"
            )));
        }
        let plain = value
            .bytes()
            .all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte));
        if !plain || value.len() > HEADER_BYTES_MAX {
            return Err(garde::Error::new(format!(
                "the value of `{name}` is too long or not plain"
            )));
        }
    }
    Ok(())
}

/// How a body is put into JSON, by its media type.
pub fn body_value(media_type: Option<&str>, body: &[u8]) -> (Value, Option<&'static str>) {
    if body.is_empty() {
        return (Value::Null, None);
    }
    let essence = media_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    let json = essence == "application/json" || essence.ends_with("+json");
    if json && let Ok(value) = serde_json::from_slice(body) {
        return (value, None);
    }
    match std::str::from_utf8(body) {
        Ok(text) if json || essence.starts_with("text/") || essence.is_empty() => {
            (Value::String(text.to_owned()), None)
        }
        _ => (Value::String(base64(body)), Some("base64")),
    }
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4_usize {
            let index = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit > chunk.len() {
                '='
            } else {
                char::from(ALPHABET[index as usize])
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(request: Value, expected: Option<&str>) {
        let request: ComposeRequest = serde_json::from_value(request).unwrap();
        match (request.validate(), expected) {
            (Ok(()), None) => {}
            (Err(report), Some(expected)) => {
                assert!(report.to_string().contains(expected), "{report}");
            }
            (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn checks_calls() {
        let call = json!({ "id": "a", "path": "/timeline/api/posts" });
        check(json!({ "calls": [call] }), None);
        check(json!({ "calls": [] }), Some("length"));
        check(
            json!({ "calls": [call, call] }),
            Some("two calls have the id `a`"),
        );
        check(json!({ "calls": vec![call.clone(); 21] }), Some("length"));
        let with = |key: &str, value: Value| {
            let mut call = call.clone();
            call[key] = value;
            json!({ "calls": [call] })
        };
        check(with("path", json!("/ca/../auth")), Some("segments"));
        check(
            with("path", json!("/nexus/api/compose")),
            Some("no name of a service"),
        );
        check(with("method", json!("TRACE")), Some("cannot be composed"));
        check(with("method", json!("get")), Some("capitals"));
        check(
            with("headers", json!({ "Authorization": "Bearer x" })),
            Some("cannot be set"),
        );
        check(
            with("headers", json!({ "X-Forwarded-For": "1.2.3.4" })),
            Some("cannot be set"),
        );
        check(
            with("headers", json!({ "X-A": "1\r\nX-B: 2" })),
            Some("not plain"),
        );
        check(with("headers", json!({ "Idempotency-Key": "1" })), None);
    }

    #[test]
    fn bodies_keep_their_nature() {
        let json_type = Some("application/problem+json; charset=utf-8");
        assert_eq!(
            body_value(json_type, br#"{"a":1}"#),
            (json!({ "a": 1 }), None)
        );
        assert_eq!(body_value(json_type, b"{broken"), (json!("{broken"), None));
        assert_eq!(body_value(Some("text/html"), b"<p>"), (json!("<p>"), None));
        assert_eq!(
            body_value(Some("image/png"), b"png"),
            (json!("cG5n"), Some("base64"))
        );
        assert_eq!(
            body_value(Some("text/plain"), &[0xff]),
            (json!("/w=="), Some("base64"))
        );
        assert_eq!(body_value(None, b""), (Value::Null, None));
    }

    #[test]
    fn encodes_base64() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
