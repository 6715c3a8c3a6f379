//! Signing keys: EdDSA, ES256 and RS256, named by their RFC 7638 thumbprint.

use aws_lc_rs::{
    digest::{SHA256, digest},
    encoding::AsDer,
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};
use std::fmt;
use wasmtime::{Result, format_err};

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    EdDsa,
    Es256,
    Rs256,
}

impl Algorithm {
    /// The name in a JWT's header (RFC 7518, RFC 8037).
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// The name in files.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::EdDsa => "eddsa",
            Self::Es256 => "es256",
            Self::Rs256 => "rs256",
        }
    }
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

/// A private key with its public half. `Debug` shows nothing of the private part.
pub struct SigningKey {
    kid: String,
    /// The members of the public JWK that its thumbprint covers.
    public: Value,
    pair: Pair,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// Makes a private key, as PKCS#8. Takes up to seconds for RS256: never on a core's thread.
pub fn generate(algorithm: Algorithm) -> Result<Vec<u8>> {
    let failed = |_| format_err!("cannot generate an {} key", algorithm.name());
    let rng = SystemRandom::new();
    Ok(match algorithm {
        Algorithm::EdDsa => Ed25519KeyPair::generate_pkcs8(&rng)
            .map_err(failed)?
            .as_ref()
            .to_vec(),
        Algorithm::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng)
            .map_err(failed)?
            .as_ref()
            .to_vec(),
        Algorithm::Rs256 => RsaKeyPair::generate(KeySize::Rsa2048)
            .and_then(|pair| pair.as_der())
            .map_err(failed)?
            .as_ref()
            .to_vec(),
    })
}

impl SigningKey {
    /// Reads a private key.
    pub fn from_pkcs8(algorithm: Algorithm, pkcs8: &[u8]) -> Result<Self> {
        let failed = |error| format_err!("not an {} key in PKCS#8: {error}", algorithm.name());
        let pair = match algorithm {
            Algorithm::EdDsa => Pair::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8).map_err(failed)?),
            Algorithm::Es256 => Pair::P256(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
                    .map_err(failed)?,
            ),
            Algorithm::Rs256 => Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(pkcs8).map_err(failed)?)),
        };
        let (public, canonical) = public_jwk(&pair);
        let kid = BASE64URL.encode(digest(&SHA256, canonical.as_bytes()));
        Ok(Self { kid, public, pair })
    }

    pub fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Ed25519(_) => Algorithm::EdDsa,
            Pair::P256(_) => Algorithm::Es256,
            Pair::Rsa(_) => Algorithm::Rs256,
        }
    }

    /// The key's name: its JWK thumbprint (RFC 7638).
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Signs as JWS wants it: raw `r || s` for ES256.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let failed = |_| format_err!("signing with {} failed", self.kid);
        let rng = SystemRandom::new();
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.try_sign(message).map_err(failed)?.as_ref().to_vec()),
            Pair::P256(pair) => Ok(pair.sign(&rng, message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &rng, message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
        }
    }

    /// The raw public key, as [`aws_lc_rs::signature::ParsedPublicKey`] takes it.
    pub fn public_key(&self) -> &[u8] {
        match &self.pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::P256(pair) => pair.public_key().as_ref(),
            Pair::Rsa(pair) => pair.public_key().as_ref(),
        }
    }

    /// The public key as a JSON Web Key (RFC 7517).
    pub fn jwk(&self) -> Value {
        let mut jwk = self.public.clone();
        jwk["kid"] = self.kid.as_str().into();
        jwk["alg"] = self.algorithm().name().into();
        jwk["use"] = "sig".into();
        jwk
    }
}

/// The public members, and their canonical text for the thumbprint: names sorted, no blanks.
fn public_jwk(pair: &Pair) -> (Value, String) {
    let encode = |bytes: &[u8]| BASE64URL.encode(bytes);
    match pair {
        Pair::Ed25519(pair) => {
            let x = encode(pair.public_key().as_ref());
            (
                json!({ "kty": "OKP", "crv": "Ed25519", "x": x }),
                format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#),
            )
        }
        Pair::P256(pair) => {
            // Uncompressed point: 0x04, then both coordinates.
            let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
            let (x, y) = (encode(x), encode(y));
            (
                json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y }),
                format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#),
            )
        }
        Pair::Rsa(pair) => {
            let n = encode(
                pair.public_key()
                    .modulus()
                    .big_endian_without_leading_zero(),
            );
            let e = encode(
                pair.public_key()
                    .exponent()
                    .big_endian_without_leading_zero(),
            );
            (
                json!({ "kty": "RSA", "n": n, "e": e }),
                format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::{Algorithm as Alg, DecodingKey, Validation, jwk::Jwk};

    #[test]
    fn another_implementation_verifies_all_algorithms() {
        for (algorithm, alg) in [
            (Algorithm::EdDsa, Alg::EdDSA),
            (Algorithm::Es256, Alg::ES256),
            (Algorithm::Rs256, Alg::RS256),
        ] {
            let key = SigningKey::from_pkcs8(algorithm, &generate(algorithm).expect("a key"))
                .expect("read");
            let token =
                super::super::jws::sign(&key, "JWT", br#"{"sub":"user:1","exp":4000000000}"#)
                    .expect("signed");
            let jwk: Jwk = serde_json::from_value(key.jwk()).expect("a JWK");
            let verifier = DecodingKey::from_jwk(&jwk).expect("a key");
            let decoded = jsonwebtoken::decode::<Value>(&token, &verifier, &Validation::new(alg))
                .expect("verified");
            assert_eq!(decoded.claims["sub"], "user:1");
            assert_eq!(decoded.header.kid.as_deref(), Some(key.kid()));
            assert!(!format!("{key:?}").contains(key.public["x"].as_str().unwrap_or("none")));
        }
    }

    #[test]
    fn the_thumbprint_is_rfc_8037s() {
        // RFC 8037, appendix A: its private key, and the thumbprint of appendix A.3.
        let seed = BASE64URL
            .decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
            .expect("base64url");
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a pair");
        let key =
            SigningKey::from_pkcs8(Algorithm::EdDsa, pair.to_pkcs8().expect("PKCS#8").as_ref())
                .expect("read");
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_key_of_another_algorithm_is_refused() {
        let ed = generate(Algorithm::EdDsa).expect("a key");
        assert!(SigningKey::from_pkcs8(Algorithm::Es256, &ed).is_err());
        assert!(SigningKey::from_pkcs8(Algorithm::Rs256, &ed).is_err());
        assert!(SigningKey::from_pkcs8(Algorithm::EdDsa, b"nonsense").is_err());
    }
}
