//! Keys of services, which never enter guest memory: `<data>/ca/keys/<service>/<key>/`.
//!
//! **Invariant:** a service names keys within its own folder only; two services' keys of one name are two keys.

use super::{file, json, jws, key::Algorithm, ring::KeyRing, vault::Vault};
use crate::name::ServiceName;
use aws_lc_rs::hmac;
use std::{
    collections::HashMap,
    fmt, fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use wasmtime::error::Context as _;

/// Longest name of a key, in bytes.
pub const KEY_NAME_BYTES_MAX: usize = 64;
/// Most keys of one service.
pub const KEYS_PER_SERVICE_MAX: usize = 64;
/// Largest claims that are signed, in bytes of JSON.
pub const CLAIMS_BYTES_MAX: usize = 64 * 1024;
/// Most data under one HMAC, in bytes.
pub const HMAC_BYTES_MAX: usize = 16 << 20;
const TYPE_BYTES_MAX: usize = 64;
const SECRET_BYTES: usize = 32;

/// Why nothing was signed.
#[derive(Debug)]
pub enum SignError {
    /// What was asked is wrong; the text says how.
    Invalid(String),
    /// A limit; the text names it.
    Limit(String),
    /// The host's own fault, for its log.
    Fault(wasmtime::Error),
}

impl From<wasmtime::Error> for SignError {
    fn from(fault: wasmtime::Error) -> Self {
        Self::Fault(fault)
    }
}

type Rings = HashMap<(ServiceName, String, Algorithm), Arc<KeyRing>>;
type Secrets = HashMap<(ServiceName, String), Arc<hmac::Key>>;

/// The signing keys of all services. Its functions block on first use of a key, and RS256 computes for a millisecond:
/// never on a core's thread.
pub struct Signer {
    vault: Vault,
    folder: PathBuf,
    rings: Mutex<Rings>,
    secrets: Mutex<Secrets>,
    /// Held while a key is made, so that no key is made twice.
    making: Mutex<()>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// A signer that keeps its keys in the vault's folder `keys`.
    pub fn new(vault: Vault) -> Self {
        Self {
            folder: vault.path("keys"),
            vault,
            rings: Mutex::default(),
            secrets: Mutex::default(),
            making: Mutex::default(),
        }
    }

    /// Signs a JWT; `claims` is a JSON object. The key is made at first use.
    pub fn sign_jwt(
        &self,
        service: &ServiceName,
        key: &str,
        algorithm: Algorithm,
        typ: &str,
        claims: &str,
        now_s: i64,
    ) -> Result<String, SignError> {
        if claims.len() > CLAIMS_BYTES_MAX {
            return Err(SignError::Limit(format!(
                "the claims are larger than {CLAIMS_BYTES_MAX} bytes"
            )));
        }
        if typ.is_empty()
            || typ.len() > TYPE_BYTES_MAX
            || !typ.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(SignError::Invalid(format!(
                "`typ` must be 1 to {TYPE_BYTES_MAX} printable ASCII characters"
            )));
        }
        json::object(claims.as_bytes()).ok_or_else(|| {
            SignError::Invalid("`claims` must be a JSON object with each name once".to_owned())
        })?;
        Ok(jws::sign(
            self.ring(service, key, algorithm, now_s)?.signing(),
            typ,
            claims.as_bytes(),
        )?)
    }

    /// The public keys as a JSON Web Key Set, the signing one first.
    pub fn public_keys(
        &self,
        service: &ServiceName,
        key: &str,
        algorithm: Algorithm,
        now_s: i64,
    ) -> Result<String, SignError> {
        Ok(self
            .ring(service, key, algorithm, now_s)?
            .jwks()
            .to_string())
    }

    /// HMAC-SHA256 of `data` with the service's secret of that name, which is made at first use.
    pub fn hmac(
        &self,
        service: &ServiceName,
        key: &str,
        data: &[u8],
    ) -> Result<Vec<u8>, SignError> {
        if data.len() > HMAC_BYTES_MAX {
            return Err(SignError::Limit(format!(
                "the data is larger than {HMAC_BYTES_MAX} bytes"
            )));
        }
        Ok(hmac::sign(&*self.secret(service, key)?, data)
            .as_ref()
            .to_vec())
    }

    /// Makes another key, which signs from now on; the old ones stay in the set of public keys.
    pub fn rotate(
        &self,
        service: &ServiceName,
        key: &str,
        algorithm: Algorithm,
        now_s: i64,
    ) -> Result<(), SignError> {
        self.ring(service, key, algorithm, now_s)?;
        let _making = lock(&self.making);
        let ring = KeyRing::add(
            &self.vault,
            &self.key_folder(service, key)?,
            algorithm,
            now_s,
        )?;
        lock(&self.rings).insert((service.clone(), key.to_owned(), algorithm), Arc::new(ring));
        Ok(())
    }

    /// Whether the key is in memory, so that using it waits for no disk.
    pub fn has_ring(&self, service: &ServiceName, key: &str, algorithm: Algorithm) -> bool {
        lock(&self.rings).contains_key(&(service.clone(), key.to_owned(), algorithm))
    }

    /// Whether the secret is in memory.
    pub fn has_secret(&self, service: &ServiceName, key: &str) -> bool {
        lock(&self.secrets).contains_key(&(service.clone(), key.to_owned()))
    }

    /// Forgets what is in memory of a service's key: its files have changed.
    pub fn reread(&self, service: &str, key: &str) {
        let other = |of: &ServiceName, named: &str| of.as_str() != service || named != key;
        lock(&self.rings).retain(|(of, named, _), _| other(of, named));
        lock(&self.secrets).retain(|(of, named), _| other(of, named));
    }

    fn ring(
        &self,
        service: &ServiceName,
        key: &str,
        algorithm: Algorithm,
        now_s: i64,
    ) -> Result<Arc<KeyRing>, SignError> {
        let id = (service.clone(), key.to_owned(), algorithm);
        if let Some(ring) = lock(&self.rings).get(&id) {
            return Ok(ring.clone());
        }
        let _making = lock(&self.making);
        if let Some(ring) = lock(&self.rings).get(&id) {
            return Ok(ring.clone());
        }
        let ring = Arc::new(KeyRing::open(
            &self.vault,
            &self.key_folder(service, key)?,
            algorithm,
            now_s,
        )?);
        lock(&self.rings).insert(id, ring.clone());
        Ok(ring)
    }

    fn secret(&self, service: &ServiceName, key: &str) -> Result<Arc<hmac::Key>, SignError> {
        let id = (service.clone(), key.to_owned());
        if let Some(secret) = lock(&self.secrets).get(&id) {
            return Ok(secret.clone());
        }
        let _making = lock(&self.making);
        let path = self.key_folder(service, key)?.join("hmac-sha256.key");
        file::private_folder(path.parent().unwrap_or(&path))?;
        let bytes = self
            .vault
            .read_or_create(&path, || Ok(rand::random::<[u8; SECRET_BYTES]>().to_vec()))?;
        if bytes.len() != SECRET_BYTES {
            return Err(SignError::Fault(wasmtime::format_err!(
                "`{}` does not hold {SECRET_BYTES} bytes",
                path.display()
            )));
        }
        let secret = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        lock(&self.secrets).insert(id, secret.clone());
        Ok(secret)
    }

    /// The folder of a key; refuses a name that could leave the service's folder, and one key too many.
    fn key_folder(&self, service: &ServiceName, key: &str) -> Result<PathBuf, SignError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if key.is_empty() || key.len() > KEY_NAME_BYTES_MAX || !key.bytes().all(plain) {
            return Err(SignError::Invalid(format!(
                "the key's name must be 1 to {KEY_NAME_BYTES_MAX} lower-case letters, digits and hyphens"
            )));
        }
        let folder = self.folder.join(service.as_str());
        file::private_folder(&folder)?;
        let path = folder.join(key);
        let listing =
            fs::read_dir(&folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
        if !path.exists() && listing.count() >= KEYS_PER_SERVICE_MAX {
            return Err(SignError::Limit(format!(
                "a service has at most {KEYS_PER_SERVICE_MAX} keys"
            )));
        }
        Ok(path)
    }
}

/// Nothing is left half done under these locks, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn name(text: &str) -> ServiceName {
        ServiceName::parse(text).expect("a name")
    }

    fn signer_in(folder: &std::path::Path) -> Signer {
        Signer::new(Vault::alone(folder))
    }

    fn kids(set: &str) -> Vec<String> {
        let set: Value = serde_json::from_str(set).expect("JSON");
        set["keys"]
            .as_array()
            .expect("keys")
            .iter()
            .map(|key| key["kid"].as_str().expect("kid").to_owned())
            .collect()
    }

    #[test]
    fn what_is_signed_verifies_with_the_public_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let auth = name("exprsn-auth");
        for (algorithm, alg) in [
            (Algorithm::EdDsa, jsonwebtoken::Algorithm::EdDSA),
            (Algorithm::Es256, jsonwebtoken::Algorithm::ES256),
            (Algorithm::Rs256, jsonwebtoken::Algorithm::RS256),
        ] {
            let token = signer_in(folder.path())
                .sign_jwt(
                    &auth,
                    "id-token",
                    algorithm,
                    "JWT",
                    r#"{"sub":"42","exp":4000000000}"#,
                    0,
                )
                .expect("signed");
            // A restart finds the same key.
            let set = signer_in(folder.path())
                .public_keys(&auth, "id-token", algorithm, 1)
                .expect("keys");
            let set: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&set).expect("a JWKS");
            let key = jsonwebtoken::DecodingKey::from_jwk(&set.keys[0]).expect("a key");
            let decoded =
                jsonwebtoken::decode::<Value>(&token, &key, &jsonwebtoken::Validation::new(alg))
                    .expect("verified");
            assert_eq!(decoded.claims["sub"], "42");
        }
    }

    #[test]
    fn keys_of_services_are_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let signer = signer_in(folder.path());
        let (auth, vault) = (name("exprsn-auth"), name("exprsn-vault"));
        let set = |service: &ServiceName| {
            kids(
                &signer
                    .public_keys(service, "id", Algorithm::EdDsa, 0)
                    .expect("keys"),
            )
        };
        assert_ne!(set(&auth), set(&vault));
        let tag =
            |service: &ServiceName, key: &str| signer.hmac(service, key, b"data").expect("a tag");
        assert_eq!(tag(&auth, "cookie"), tag(&auth, "cookie"));
        assert_ne!(tag(&auth, "cookie"), tag(&auth, "other"));
        assert_ne!(tag(&auth, "cookie"), tag(&vault, "cookie"));
        assert_eq!(
            signer_in(folder.path())
                .hmac(&auth, "cookie", b"data")
                .expect("a tag"),
            tag(&auth, "cookie")
        );
    }

    #[test]
    fn rotation_keeps_the_old_public_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let signer = signer_in(folder.path());
        let auth = name("exprsn-auth");
        let set = || {
            kids(
                &signer
                    .public_keys(&auth, "id", Algorithm::EdDsa, 0)
                    .expect("keys"),
            )
        };
        let before = set();
        signer
            .rotate(&auth, "id", Algorithm::EdDsa, 0)
            .expect("rotated");
        let after = set();
        assert_eq!((after.len(), &after[1]), (2, &before[0]));
    }

    #[test]
    fn names_cannot_leave_the_folder_and_sizes_are_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let signer = signer_in(folder.path());
        let auth = name("exprsn-auth");
        for bad in ["", "..", "../exprsn-ca", "a/b", "A", "a\0", &"a".repeat(65)] {
            assert!(
                matches!(signer.hmac(&auth, bad, b""), Err(SignError::Invalid(_))),
                "{bad}"
            );
        }
        let sign = |typ: &str, claims: &str| {
            signer.sign_jwt(&auth, "id", Algorithm::EdDsa, typ, claims, 0)
        };
        assert!(matches!(sign("JWT", "[]"), Err(SignError::Invalid(_))));
        assert!(matches!(
            sign("JWT", r#"{"a":1,"a":2}"#),
            Err(SignError::Invalid(_))
        ));
        assert!(matches!(sign("", "{}"), Err(SignError::Invalid(_))));
        assert!(matches!(
            sign(
                "JWT",
                &format!("{{\"a\":\"{}\"}}", "x".repeat(CLAIMS_BYTES_MAX))
            ),
            Err(SignError::Limit(_))
        ));
        for n in 0..KEYS_PER_SERVICE_MAX {
            signer
                .hmac(&auth, &format!("k{n}"), b"")
                .expect("within the limit");
        }
        assert!(matches!(
            signer.hmac(&auth, "one-more", b""),
            Err(SignError::Limit(_))
        ));
        assert!(signer.hmac(&auth, "k0", b"").is_ok());
    }
}
