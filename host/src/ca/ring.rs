//! Rings of keys: the newest signs, all of them verify; each key is a file named by the second of its making.

use super::{
    file,
    key::{Algorithm, SigningKey, generate},
    vault::Vault,
};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use serde_json::{Value, json};
use std::{fs, path::Path};
use wasmtime::{Result, bail, error::Context as _, format_err};

/// Most keys in one ring.
pub const RING_KEYS_MAX: usize = 32;

/// When keys change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Age at which the newest key is followed by another, in seconds.
    pub after_s: i64,
    /// How long a key verifies after a newer one was made, in seconds: the longest lifetime of what it signed.
    pub keep_s: i64,
}

/// The keys in one folder, of one algorithm, newest first. Never empty.
#[derive(Debug)]
pub struct KeyRing {
    keys: Vec<Entry>,
}

struct Entry {
    created_s: i64,
    key: SigningKey,
    verifier: ParsedPublicKey,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("created_s", &self.created_s)
            .field("key", &self.key)
            .finish()
    }
}

impl KeyRing {
    /// Opens the ring in `folder`, making its first key if it has none. Blocks; never on a core's thread.
    pub fn open(vault: &Vault, folder: &Path, algorithm: Algorithm, now_s: i64) -> Result<Self> {
        file::private_folder(folder)?;
        let ring = Self::read(folder, algorithm)?;
        if ring.keys.is_empty() {
            Self::add(vault, folder, algorithm, now_s)
        } else {
            Ok(ring)
        }
    }

    /// Opens the ring, adds a key if the newest is due, and deletes what is past its use. Blocks.
    pub fn open_rotating(
        vault: &Vault,
        folder: &Path,
        algorithm: Algorithm,
        rotation: Rotation,
        now_s: i64,
    ) -> Result<Self> {
        let ring = Self::open(vault, folder, algorithm, now_s)?;
        let due = ring.keys[0].created_s.saturating_add(rotation.after_s) <= now_s;
        let mut ring = if due {
            Self::add(vault, folder, algorithm, now_s)?
        } else {
            ring
        };
        // A key is past its use once its successor has been signing for longer than anything signed can last.
        let kept = 1 + ring
            .keys
            .windows(2)
            .take_while(|pair| pair[0].created_s.saturating_add(rotation.keep_s) > now_s)
            .count();
        for old in ring.keys.drain(kept..) {
            vault.remove(&folder.join(file_name(old.created_s, algorithm)))?;
        }
        Ok(ring)
    }

    /// Adds a key, which signs from now on. Blocks.
    pub fn add(vault: &Vault, folder: &Path, algorithm: Algorithm, now_s: i64) -> Result<Self> {
        let newest = Self::read(folder, algorithm)?
            .keys
            .first()
            .map(|entry| entry.created_s);
        // Two rotations in one second must not share a name.
        let created_s = newest.map_or(now_s, |newest| now_s.max(newest + 1));
        vault.read_or_create(&folder.join(file_name(created_s, algorithm)), || {
            generate(algorithm)
        })?;
        Self::read(folder, algorithm)
    }

    /// What is in the folder by now; it may be empty. Blocks.
    pub(super) fn read(folder: &Path, algorithm: Algorithm) -> Result<Self> {
        let listing =
            fs::read_dir(folder).with_context(|| format!("cannot list `{}`", folder.display()))?;
        let mut keys = Vec::new();
        for item in listing {
            let path = item
                .with_context(|| format!("cannot list `{}`", folder.display()))?
                .path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(created_s) = created(&name, algorithm) else {
                continue;
            };
            let pkcs8 = file::read(&path)?
                .ok_or_else(|| format_err!("`{}` vanished while it was read", path.display()))?;
            keys.push(
                entry(created_s, algorithm, &pkcs8)
                    .with_context(|| format!("the key `{}` cannot be used", path.display()))?,
            );
        }
        if keys.len() > RING_KEYS_MAX {
            bail!(
                "`{}` holds more than {RING_KEYS_MAX} keys; delete the oldest",
                folder.display()
            );
        }
        keys.sort_by_key(|entry| std::cmp::Reverse(entry.created_s));
        Ok(Self { keys })
    }

    /// Whether it has no key.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that signs.
    pub fn signing(&self) -> &SigningKey {
        &self.keys[0].key
    }

    /// The verifier of the key `kid`, if the ring has that key.
    pub fn verifier(&self, kid: &str) -> Option<&ParsedPublicKey> {
        self.keys
            .iter()
            .find(|entry| entry.key.kid() == kid)
            .map(|entry| &entry.verifier)
    }

    /// The public keys as a JSON Web Key Set (RFC 7517), the signing one first.
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.keys.iter().map(|entry| entry.key.jwk()).collect::<Vec<_>>() })
    }
}

fn file_name(created_s: i64, algorithm: Algorithm) -> String {
    format!("{created_s:012}.{}.pk8", algorithm.file_name())
}

fn created(name: &str, algorithm: Algorithm) -> Option<i64> {
    name.strip_suffix(".pk8")?
        .strip_suffix(algorithm.file_name())?
        .strip_suffix('.')?
        .parse()
        .ok()
}

fn entry(created_s: i64, algorithm: Algorithm, pkcs8: &[u8]) -> Result<Entry> {
    let key = SigningKey::from_pkcs8(algorithm, pkcs8)?;
    let scheme: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::EdDsa => &ED25519,
        Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
        Algorithm::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
    };
    let verifier = ParsedPublicKey::new(scheme, key.public_key())
        .map_err(|error| format_err!("its public half: {error}"))?;
    Ok(Entry {
        created_s,
        key,
        verifier,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    fn vault(path: &Path) -> Vault {
        Vault::alone(path)
    }

    const ROTATION: Rotation = Rotation {
        after_s: 90 * DAY,
        keep_s: 30 * DAY,
    };

    #[test]
    fn the_first_key_stays_until_it_is_due() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens");
        let open = |now| {
            KeyRing::open_rotating(&vault(&path), &path, Algorithm::EdDsa, ROTATION, now)
                .expect("opened")
        };
        let first = open(0).signing().kid().to_owned();
        assert_eq!(open(89 * DAY).signing().kid(), first);

        let both = open(90 * DAY);
        let second = both.signing().kid().to_owned();
        assert_ne!(second, first);
        assert!(both.verifier(&first).is_some(), "the old key verifies on");
        assert_eq!(both.jwks()["keys"].as_array().map(Vec::len), Some(2));
        assert_eq!(both.jwks()["keys"][0]["kid"], second.as_str());

        let later = open(121 * DAY);
        assert_eq!(later.signing().kid(), second);
        assert!(
            later.verifier(&first).is_none(),
            "the old key is past its use"
        );
        assert_eq!(fs::read_dir(&path).expect("listed").count(), 1);
    }

    #[test]
    fn what_one_key_signs_its_verifier_verifies() {
        for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("ring");
            let ring = KeyRing::open(&vault(&path), &path, algorithm, 0).expect("opened");
            let ring = if algorithm == Algorithm::Es256 {
                KeyRing::add(&vault(&path), &path, algorithm, 0).expect("added")
            } else {
                ring
            };
            let verifier = ring.verifier(ring.signing().kid()).expect("its own");
            let signature = ring.signing().sign(b"message").expect("signed");
            assert!(verifier.verify_sig(b"message", &signature).is_ok());
            assert!(verifier.verify_sig(b"massage", &signature).is_err());
            assert!(ring.verifier("another").is_none());
        }
    }

    #[test]
    fn a_corrupt_key_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        file::replace(&folder.path().join("000000000001.eddsa.pk8"), b"nonsense").expect("written");
        std::fs::set_permissions(
            folder.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .expect("closed");
        let error = format!(
            "{:?}",
            KeyRing::open(&vault(folder.path()), folder.path(), Algorithm::EdDsa, 0)
                .expect_err("refused")
        );
        assert!(error.contains("000000000001.eddsa.pk8"), "{error}");
    }
}
