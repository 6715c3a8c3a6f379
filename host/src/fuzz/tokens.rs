//! Tokens that clients send.

use super::text;
use crate::ca::{claims::Claims, json, jws};
use serde_json::{Map, Value};

/// The first line as a token, and as the payload that an authority would have signed.
pub fn token(input: &[u8]) {
    let text = text(input);
    if let Ok(parts) = jws::parse(&text) {
        assert!(text.len() <= jws::TOKEN_BYTES_MAX && text.as_bytes().starts_with(parts.signed));
        payload(&parts.payload);
    }
    payload(text.as_bytes());
}

fn payload(bytes: &[u8]) {
    let Some(payload) = json::object(bytes) else {
        return;
    };
    let Ok((issuer, claims)) = Claims::from_payload(payload) else {
        return;
    };
    round_trip(&issuer, &claims);
}

/// What was read and is signed again is read as the same.
pub(super) fn round_trip(issuer: &str, claims: &Claims) {
    assert_eq!(claims.check(), Ok(()));
    let written = json::object(&claims.to_payload(issuer)).expect("a payload is an object");
    let (issuer_again, again) = Claims::from_payload(written).expect("claims that were checked");
    assert_eq!(issuer_again, issuer);
    let plain = |claims: &Claims| Claims {
        extra: Map::new(),
        ..claims.clone()
    };
    assert_eq!(plain(&again), plain(claims));
    assert!(same(
        &Value::Object(again.extra),
        &Value::Object(claims.extra.clone())
    ));
    assert!(claims.weight() > 0);
    let principal = claims.principal();
    assert!(json::object(principal.extra.as_bytes()).is_some());
}

/// Equal but for the last digits of fractions, of which JSON's readers may differ.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() => {
            let (a, b) = (
                a.as_f64().unwrap_or_default(),
                b.as_f64().unwrap_or_default(),
            );
            (a - b).abs() <= a.abs() * 1e-15
        }
        (a, b) => a == b,
    }
}
