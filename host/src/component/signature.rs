//! The publisher's signature: the last section of a component file, over all bytes before it.
//!
//! It says who vouches for these bytes, not that they may do anything: that is the operator's to decide.

use super::hex;
use aws_lc_rs::{
    digest,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use wasmtime::{Result, ensure, error::Context as _, format_err};

/// The custom section that holds the signature, as JSON; the last one of the file.
pub const SIGNATURE_SECTION: &str = "exprsn:signature";

/// What precedes the digest in the signed message, so that the signature is good for nothing else.
const DOMAIN: &[u8] = b"exprsn-component-v1\0";
const ALGORITHM: &str = "ed25519";
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
const CUSTOM_SECTION: u8 = 0;
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// Whose key has signed a component; that the signature is good has been checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// The public key, lower-case hex.
    pub key: String,
}

/// The content of the section.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    algorithm: String,
    key: String,
    signature: String,
}

/// Verifies the section's content against the bytes before the section.
pub(super) fn verify(section: &[u8], signed: &[u8]) -> Result<Signer> {
    let Signature {
        algorithm,
        key,
        signature,
    } = serde_json::from_slice(section)
        .with_context(|| format!("its `{SIGNATURE_SECTION}` section cannot be read"))?;
    ensure!(
        algorithm == ALGORITHM,
        "its signature is of the algorithm `{algorithm}`, and this host knows {ALGORITHM} alone"
    );
    let bytes = from_hex(&key, KEY_BYTES).ok_or_else(|| malformed("key"))?;
    let signature = from_hex(&signature, SIGNATURE_BYTES).ok_or_else(|| malformed("signature"))?;
    UnparsedPublicKey::new(&ED25519, &bytes)
        .verify(&message(signed), &signature)
        .map_err(|_| {
            format_err!(
                "its signature by the key {key} is bad: the file was changed after it was signed, or another key has signed it; \
                 get it anew from its publisher"
            )
        })?;
    Ok(Signer { key })
}

fn malformed(part: &str) -> wasmtime::Error {
    format_err!(
        "the `{part}` in its `{SIGNATURE_SECTION}` section is not what it should be: lower-case hex of the right length"
    )
}

fn message(signed: &[u8]) -> Vec<u8> {
    let digest = digest::digest(&digest::SHA256, signed);
    [DOMAIN, digest.as_ref()].concat()
}

/// Whether a text is a public key as signatures and publishers have it.
pub fn is_key(text: &str) -> bool {
    from_hex(text, KEY_BYTES).is_some()
}

/// The bytes of lower-case hex, if there are exactly `count`.
fn from_hex(text: &str, count: usize) -> Option<Vec<u8>> {
    let digits = text
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !digits || text.len() != 2 * count {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// A publisher's key pair.
pub struct SigningKey(Ed25519KeyPair);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public()).finish()
    }
}

impl SigningKey {
    /// A new key.
    pub fn generate() -> Result<Self> {
        let pair = Ed25519KeyPair::generate()
            .map_err(|_| format_err!("the system gives no random bytes"))?;
        Ok(Self(pair))
    }

    /// Reads a private key: PKCS#8 in PEM, as [`SigningKey::to_pem`] and `openssl genpkey -algorithm ed25519` write it.
    pub fn from_pem(text: &str) -> Result<Self> {
        let body = text
            .split_once(PEM_BEGIN)
            .and_then(|(_, rest)| rest.split_once(PEM_END))
            .map(|(body, _)| body.split_whitespace().collect::<String>())
            .context("it is not a private key in PEM; `exprsn component keygen` makes one")?;
        let der = STANDARD
            .decode(body)
            .map_err(|_| format_err!("its PEM is not base64"))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| {
            format_err!("it is not an Ed25519 key in PKCS#8; `exprsn component keygen` makes one")
        })?;
        Ok(Self(pair))
    }

    /// The private key as PKCS#8 in PEM. For its file alone: never printed, never logged.
    pub fn to_pem(&self) -> Result<String> {
        let der = self
            .0
            .to_pkcs8v1()
            .map_err(|_| format_err!("the key cannot be written down"))?;
        Ok(format!(
            "{PEM_BEGIN}\n{}\n{PEM_END}\n",
            STANDARD.encode(der.as_ref())
        ))
    }

    /// The public key, lower-case hex.
    pub fn public(&self) -> String {
        hex(self.0.public_key().as_ref())
    }

    /// The section that vouches for `component`, which has none yet; it belongs right behind it.
    pub(super) fn section(&self, component: &[u8]) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(&Signature {
            algorithm: ALGORITHM.to_owned(),
            key: self.public(),
            signature: hex(self.0.sign(&message(component)).as_ref()),
        })
        .context("writing the signature down")?;
        let mut content = leb128(SIGNATURE_SECTION.len());
        content.extend_from_slice(SIGNATURE_SECTION.as_bytes());
        content.extend_from_slice(&json);
        let mut section = vec![CUSTOM_SECTION];
        section.extend(leb128(content.len()));
        section.extend(content);
        Ok(section)
    }
}

/// An unsigned number in LEB128, as WebAssembly has it.
pub(super) fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_down_as_it_is_read() {
        let key = SigningKey::generate().unwrap();
        let pem = key.to_pem().unwrap();
        assert_eq!(SigningKey::from_pem(&pem).unwrap().public(), key.public());
        assert!(is_key(&key.public()) && !is_key(&key.public().to_uppercase()) && !is_key("00"));
        assert!(!format!("{key:?}").contains(pem.lines().nth(1).unwrap()));
        for bad in [
            "",
            "-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----",
            &pem.replace("MC4", "MC5"),
        ] {
            assert!(SigningKey::from_pem(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_signature_is_good_for_its_bytes_alone() {
        let key = SigningKey::generate().unwrap();
        let section = key.section(b"component").unwrap();
        let json = &section[section.iter().position(|byte| *byte == b'{').unwrap()..];
        assert_eq!(verify(json, b"component").unwrap().key, key.public());
        let error = verify(json, b"componenT").unwrap_err().to_string();
        assert!(
            error.contains("bad") && error.contains(&key.public()),
            "{error}"
        );
        let text = String::from_utf8(json.to_vec()).unwrap();
        let check = |from: &str, to: &str, expected: &str| {
            let error = format!(
                "{:?}",
                verify(text.replace(from, to).as_bytes(), b"component").unwrap_err()
            );
            assert!(error.contains(expected), "{error}");
        };
        check("ed25519", "rsa", "`rsa`");
        check(&key.public(), "00", "`key`");
        check(
            &key.public(),
            &SigningKey::generate().unwrap().public(),
            "bad",
        );
        check("algorithm", "surprise", "cannot be read");
    }

    #[test]
    fn leb128_follows_the_specification() {
        assert_eq!(leb128(0), [0]);
        assert_eq!(leb128(127), [127]);
        assert_eq!(leb128(624_485), [0xe5, 0x8e, 0x26]);
    }
}
