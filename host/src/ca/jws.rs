//! Tokens as text: compact JWS (RFC 7515), read so strictly that nothing is left to choose (RFC 8725).
//!
//! **Invariant:** the header only picks one of the authority's own keys by `kid`; it never brings a key, a place to
//! fetch one, or an algorithm.

use super::{json, key::SigningKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::Value;

/// Longest token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// The `typ` of the platform's tokens (RFC 9068).
pub const TOKEN_TYPE: &str = "at+jwt";

/// A token taken apart; nothing of it is verified.
pub struct Unverified<'a> {
    pub kid: String,
    pub payload: Vec<u8>,
    /// What the signature covers.
    pub signed: &'a [u8],
    pub signature: Vec<u8>,
}

/// Takes a token apart. The error says what of its form is wrong.
pub fn parse(token: &str) -> Result<Unverified<'_>, &'static str> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err("it is longer than 8 KiB");
    }
    let (signed, signature) = token
        .rsplit_once('.')
        .ok_or("it is not three parts joined by dots")?;
    let (header, payload) = signed
        .split_once('.')
        .ok_or("it is not three parts joined by dots")?;
    let decode = |part: &str| {
        BASE64URL
            .decode(part)
            .map_err(|_| "a part is not base64url")
    };
    let kid = check_header(&decode(header)?)?;
    Ok(Unverified {
        kid,
        payload: decode(payload)?,
        signed: signed.as_bytes(),
        // What is no base64url is nobody's signature, and an empty one verifies with no key.
        signature: BASE64URL.decode(signature).unwrap_or_default(),
    })
}

/// Checks that the header says what ours say and nothing else; returns its `kid`.
fn check_header(header: &[u8]) -> Result<String, &'static str> {
    let mut header =
        json::object(header).ok_or("its header is not a JSON object with each name once")?;
    if header.remove("alg") != Some(Value::from("EdDSA")) {
        return Err("its algorithm is not EdDSA");
    }
    if header.remove("typ") != Some(Value::from(TOKEN_TYPE)) {
        return Err("its type is not at+jwt");
    }
    let Some(Value::String(kid)) = header.remove("kid") else {
        return Err("its header names no key");
    };
    if header.is_empty() {
        Ok(kid)
    } else {
        Err("its header has a member that is not allowed here")
    }
}

/// Signs a payload, which is a JSON object.
pub fn sign(key: &SigningKey, typ: &str, payload: &[u8]) -> wasmtime::Result<String> {
    let header = serde_json::json!({ "alg": key.algorithm().name(), "kid": key.kid(), "typ": typ });
    let mut token = BASE64URL.encode(header.to_string());
    token.push('.');
    BASE64URL.encode_string(payload, &mut token);
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    BASE64URL.encode_string(signature, &mut token);
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str) -> String {
        format!(
            "{}.{}.{}",
            BASE64URL.encode(header),
            BASE64URL.encode("{}"),
            BASE64URL.encode([0; 64])
        )
    }

    #[test]
    fn only_our_header_is_read() {
        let good = token(r#"{"alg":"EdDSA","kid":"k","typ":"at+jwt"}"#);
        assert_eq!(
            parse(&good).map(|parts| parts.kid).ok().as_deref(),
            Some("k")
        );
        for (header, expected) in [
            (r#"{"alg":"none","kid":"k","typ":"at+jwt"}"#, "algorithm"),
            (r#"{"alg":"HS256","kid":"k","typ":"at+jwt"}"#, "algorithm"),
            (r#"{"alg":"eddsa","kid":"k","typ":"at+jwt"}"#, "algorithm"),
            (r#"{"kid":"k","typ":"at+jwt"}"#, "algorithm"),
            (r#"{"alg":"EdDSA","kid":"k","typ":"JWT"}"#, "type"),
            (r#"{"alg":"EdDSA","kid":"k"}"#, "type"),
            (r#"{"alg":"EdDSA","typ":"at+jwt"}"#, "names no key"),
            (r#"{"alg":"EdDSA","kid":7,"typ":"at+jwt"}"#, "names no key"),
            (
                r#"{"alg":"EdDSA","kid":"k","typ":"at+jwt","jwk":{}}"#,
                "not allowed",
            ),
            (
                r#"{"alg":"EdDSA","kid":"k","typ":"at+jwt","jku":"https://evil"}"#,
                "not allowed",
            ),
            (
                r#"{"alg":"EdDSA","kid":"k","typ":"at+jwt","crit":[]}"#,
                "not allowed",
            ),
            (
                r#"{"alg":"EdDSA","alg":"none","kid":"k","typ":"at+jwt"}"#,
                "each name once",
            ),
            (r#"[]"#, "JSON object"),
        ] {
            let error = parse(&token(header)).err().unwrap_or("accepted");
            assert!(error.contains(expected), "{header}: {error}");
        }
    }

    #[test]
    fn broken_forms_are_refused() {
        let good = token(r#"{"alg":"EdDSA","kid":"k","typ":"at+jwt"}"#);
        for bad in [
            "",
            ".",
            "..",
            "a.b",
            "a.b.c",
            "Bearer x.y.z",
            &format!("{good}.x"),
            &good.replace('.', ".."),
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            parse(&"a".repeat(TOKEN_BYTES_MAX + 1)).err(),
            Some("it is longer than 8 KiB")
        );
    }
}
