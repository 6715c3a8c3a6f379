//! ID tokens (OpenID Connect Core §2): their claims, and reading one back as a hint.
//!
//! Signing happens in the host, where the key is. Verifying needs the public key alone, so it is done here.

use data_encoding::BASE64URL_NOPAD;
use num_bigint::BigUint;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Most characters of a token that is read back.
const TOKEN_CHARS_MAX: usize = 8_192;
/// The DigestInfo of SHA-256 before the hash itself (RFC 8017 §9.2, note 1).
const SHA256_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// What an ID token says. Instants in seconds since the Unix epoch.
pub struct Claims<'a> {
    pub issuer: &'a str,
    pub user_id: &'a str,
    pub client_id: &'a str,
    pub session_id: &'a str,
    pub nonce: Option<&'a str>,
    pub authenticated_at_s: i64,
    /// How the person proved who they are (RFC 8176): `pwd`, `otp`, `mfa`.
    pub methods: &'a [String],
    pub access_token: &'a str,
    pub now_s: i64,
    pub lifetime_s: i64,
    /// Claims of the scopes `profile` and `email`.
    pub person: Map<String, Value>,
}

impl Claims<'_> {
    /// The claims as a JSON object.
    pub fn to_json(&self) -> Value {
        let mut claims = self.person.clone();
        let own = json!({
            "iss": self.issuer,
            "sub": self.user_id,
            "aud": self.client_id,
            "azp": self.client_id,
            "iat": self.now_s,
            "exp": self.now_s + self.lifetime_s,
            "auth_time": self.authenticated_at_s,
            "amr": self.methods,
            "sid": self.session_id,
            "at_hash": at_hash(self.access_token),
        });
        claims.extend(own.as_object().cloned().unwrap_or_default());
        if let Some(nonce) = self.nonce {
            claims.insert("nonce".into(), nonce.into());
        }
        Value::Object(claims)
    }
}

/// The left half of the access token's SHA-256 (OpenID Connect Core §3.1.3.6).
fn at_hash(access_token: &str) -> String {
    BASE64URL_NOPAD.encode(&Sha256::digest(access_token.as_bytes())[..16])
}

/// What a hint tells.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Hint {
    pub iss: String,
    pub sub: String,
    pub aud: String,
    pub sid: Option<String>,
}

/// Reads an ID token of ours back. It may be expired: a hint often is (OpenID Connect RP-Initiated Logout §2).
pub fn read_hint(token: &str, issuer: &str, key_set: &Value) -> Option<Hint> {
    if token.len() > TOKEN_CHARS_MAX {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    let header: Header = decode_json(header)?;
    if header.alg != "RS256" {
        return None;
    }
    let keys: KeySet = KeySet::deserialize(key_set).ok()?;
    let key = keys
        .keys
        .iter()
        .find(|k| k.kid == header.kid && k.kty == "RSA")?;
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
    let hint: Hint = decode_json(payload)?;
    (key.verifies(signed.as_bytes(), &signature) && hint.iss == issuer).then_some(hint)
}

fn decode_json<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).ok()?).ok()
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kty: String,
    kid: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
}

impl Key {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2.2): what the signature opens to must be exactly what it should be.
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let number = |text: &str| {
            Some(BigUint::from_bytes_be(
                &BASE64URL_NOPAD.decode(text.as_bytes()).ok()?,
            ))
        };
        let (Some(n), Some(e)) = (number(&self.n), number(&self.e)) else {
            return false;
        };
        let bytes = usize::try_from(n.bits().div_ceil(8)).unwrap_or(0);
        let signature_number = BigUint::from_bytes_be(signature);
        if !(256..=1024).contains(&bytes) || signature.len() != bytes || signature_number >= n {
            return false;
        }
        signature_number.modpow(&e, &n) == BigUint::from_bytes_be(&expected(message, bytes))
    }
}

/// EMSA-PKCS1-v1_5: `00 01 ff … ff 00 DigestInfo hash`, `bytes` long.
fn expected(message: &[u8], bytes: usize) -> Vec<u8> {
    let hash = Sha256::digest(message);
    let padding = bytes - 3 - SHA256_INFO.len() - hash.len();
    let mut out = vec![0, 1];
    out.extend(std::iter::repeat_n(0xff, padding));
    out.push(0);
    out.extend(SHA256_INFO);
    out.extend(hash);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_the_access_token_as_the_specification_shows() {
        // OpenID Connect Core, appendix A.3.
        assert_eq!(
            at_hash("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"),
            "77QmUPtjPfzWtF2AnpK9RQ"
        );
    }

    #[test]
    fn own_claims_win_over_those_of_the_person() {
        let mut person = Map::new();
        person.insert("sub".into(), "somebody else".into());
        person.insert("name".into(), "Ann".into());
        let claims = Claims {
            issuer: "https://id.example",
            user_id: "u1",
            client_id: "c1",
            session_id: "s1",
            nonce: Some("n1"),
            authenticated_at_s: 5,
            methods: &["pwd".into()],
            access_token: "at",
            now_s: 10,
            lifetime_s: 900,
            person,
        };
        let read = claims.to_json();
        assert_eq!(read["sub"], "u1");
        assert_eq!(read["name"], "Ann");
        assert_eq!(read["nonce"], "n1");
        assert_eq!(read["exp"], 910);
        assert_eq!(read["aud"], "c1");
    }

    /// A token and its key, made once with OpenSSL: `iss` https://id.example, `sub` u1, `aud` c1, `sid` s1.
    const TOKEN: &str = include_str!("testdata/id_token.jwt");

    fn keys() -> Value {
        serde_json::from_str(include_str!("testdata/jwks.json")).expect("JSON")
    }

    #[test]
    fn reads_a_hint_of_ours() {
        let hint = read_hint(TOKEN.trim(), "https://id.example", &keys()).expect("signed by us");
        assert_eq!(
            (hint.sub.as_str(), hint.aud.as_str(), hint.sid.as_deref()),
            ("u1", "c1", Some("s1"))
        );
    }

    #[test]
    fn refuses_a_hint_of_another_issuer_or_changed_on_the_way() {
        let token = TOKEN.trim();
        assert_eq!(read_hint(token, "https://other.example", &keys()), None);
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let (header, _) = signed.split_once('.').expect("three parts");
        let forged =
            BASE64URL_NOPAD.encode(br#"{"iss":"https://id.example","sub":"u2","aud":"c1"}"#);
        assert_eq!(
            read_hint(
                &format!("{header}.{forged}.{signature}"),
                "https://id.example",
                &keys()
            ),
            None
        );
        let none = BASE64URL_NOPAD.encode(br#"{"alg":"none","kid":"k1"}"#);
        assert_eq!(
            read_hint(&format!("{none}.{forged}."), "https://id.example", &keys()),
            None
        );
        assert_eq!(read_hint("", "https://id.example", &keys()), None);
        assert_eq!(
            read_hint(&"a.".repeat(5_000), "https://id.example", &keys()),
            None
        );
    }
}
