//! What the hosts of one platform remember together: facts in PostgreSQL, which each host keeps a copy of.
//!
//! **Invariant:** what is acknowledged is in the shared memory first and in this host's copy after: a copy never knows
//! more than the platform.
//! **Invariant:** a secret leaves this host only sealed with the platform's seal key, which only its hosts have.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use exprsn_backends::shared::{Change, Error, Shared};
use serde::Serialize;
use std::{fmt, sync::Arc, time::Duration};
use tokio::runtime::Handle;
use wasmtime::{Result, ensure, error::Context as _, format_err};

/// Bytes of the seal key.
pub const SEAL_KEY_BYTES: usize = 32;
/// How often other hosts are looked at while something waits until they have heard.
const SETTLE_TICK: Duration = Duration::from_millis(50);

/// What facts are about; the key that follows the kind is in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// \[the platform's root\]: whose memory this is.
    Platform,
    /// \[token id\]
    RevokedToken,
    /// \[serial number\]
    RevokedCertificate,
    /// \[service\]
    Withheld,
    /// \[serial number\]
    Admission,
    /// \[service\]: what it is to run as.
    Deployment,
    /// \[id\]: an entry of a service's history.
    History,
    /// \[path under `<data>/ca`\]: a key that services or tokens are signed with.
    Secret,
    /// \[host\]: serial numbers of the certificates that were signed for it.
    Host,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Platform,
        Self::RevokedToken,
        Self::RevokedCertificate,
        Self::Withheld,
        Self::Admission,
        Self::Deployment,
        Self::History,
        Self::Secret,
        Self::Host,
    ];

    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::RevokedToken => "revoked-token",
            Self::RevokedCertificate => "revoked-certificate",
            Self::Withheld => "withheld",
            Self::Admission => "admission",
            Self::Deployment => "deployment",
            Self::History => "history",
            Self::Secret => "secret",
            Self::Host => "host",
        }
    }

    /// The kind called `name`; none where a newer host has written it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// A change of a fact of this kind. Nothing as its value removes it.
    pub fn change<T: Serialize>(self, key: &str, value: Option<&T>) -> Change {
        Change {
            kind: self.as_str().to_owned(),
            key: key.to_owned(),
            value: value.map(|value| {
                serde_json::to_vec(value).expect("facts are structures with text as keys")
            }),
            expires_at: None,
        }
    }
}

/// The shared memory as this host writes to it.
#[derive(Clone)]
pub struct Memory {
    shared: Shared,
    seal: Arc<Seal>,
    handle: Handle,
    /// Longest wait for another host to hear; one that has not by then trusts nothing.
    deaf_max: Duration,
}

impl Memory {
    pub fn new(shared: Shared, seal: Seal, handle: Handle, deaf_max: Duration) -> Self {
        Self {
            shared,
            seal: Arc::new(seal),
            handle,
            deaf_max,
        }
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Remembers a change. Durable, and known to every host within a second, when it returns.
    pub async fn tell(&self, change: Change) -> Result<(), Error> {
        self.shared.put(vec![change]).await.map(drop)
    }

    /// Remembers changes together.
    pub async fn tell_all(&self, changes: Vec<Change>) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.shared.put(changes).await.map(drop)
    }

    /// The secret at `path`, which becomes `make` if no host has made it yet. Blocks; never on a runtime's thread.
    ///
    /// Returns when every host has it or trusts nothing any more: what is signed with it verifies everywhere.
    pub fn secret(&self, path: &str, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        let sealed = self.seal.close(path, &make()?)?;
        let kept = self.handle.block_on(async {
            let kept = self
                .shared
                .create(Kind::Secret.as_str(), path, sealed)
                .await?;
            self.settle().await?;
            Ok::<_, Error>(kept)
        });
        let kept = kept.with_context(|| format!("sharing the key `{path}` with other hosts"))?;
        self.seal.open(path, &kept)
    }

    /// Forgets a secret. Blocks.
    pub fn forget_secret(&self, path: &str) -> Result<()> {
        let forget = Kind::Secret.change::<()>(path, None);
        Ok(self.handle.block_on(self.tell(forget))?)
    }

    /// Opens a secret as it was heard.
    pub fn unseal(&self, path: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        self.seal.open(path, sealed)
    }

    /// Waits until every host has heard what is remembered by now, or has gone deaf.
    async fn settle(&self) -> Result<(), Error> {
        let wanted = self.shared.beat(None, 0, i64::MAX).await?.revision;
        let all_heard = async {
            let mut tick = tokio::time::interval(SETTLE_TICK);
            loop {
                tick.tick().await;
                let hosts = self.shared.beat(None, 0, i64::MAX).await?.hosts;
                let behind = |state: &str| super::HostState::heard(state) < wanted;
                if !hosts.iter().any(|host| behind(&host.state)) {
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(self.deaf_max, all_heard)
            .await
            .unwrap_or(Ok(()))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

/// Closes secrets with AES-256-GCM, each bound to its path.
pub struct Seal(LessSafeKey);

impl Seal {
    pub fn new(key: &[u8]) -> Result<Self> {
        ensure!(
            key.len() == SEAL_KEY_BYTES,
            "the platform's seal key does not have {SEAL_KEY_BYTES} bytes"
        );
        let key = UnboundKey::new(&AES_256_GCM, key)
            .map_err(|_| format_err!("the platform's seal key cannot be used"))?;
        Ok(Self(LessSafeKey::new(key)))
    }

    fn close(&self, path: &str, secret: &[u8]) -> Result<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = secret.to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(path.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| format_err!("`{path}` cannot be sealed"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    fn open(&self, path: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let (nonce, sealed) = sealed
            .split_at_checked(NONCE_LEN)
            .with_context(|| format!("the shared secret `{path}` is cut short"))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).expect("its length was just cut");
        let mut secret = sealed.to_vec();
        let opened = self
            .0
            .open_in_place(nonce, Aad::from(path.as_bytes()), &mut secret)
            .map_err(|_| {
                format_err!(
                    "the shared secret `{path}` was not sealed by this platform: is [backends.postgres] that of another one?"
                )
            })?
            .len();
        secret.truncate(opened);
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_open_with_their_key_at_their_path_only() {
        let seal = Seal::new(&[7; SEAL_KEY_BYTES]).unwrap();
        let sealed = seal.close("keys/a", b"secret").unwrap();
        assert_eq!(seal.open("keys/a", &sealed).unwrap(), b"secret");
        assert_ne!(seal.close("keys/a", b"secret").unwrap(), sealed);
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        let other = Seal::new(&[8; SEAL_KEY_BYTES]).unwrap();
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        for (seal, path, sealed) in [
            (&other, "keys/a", &sealed[..]),
            (&seal, "keys/b", &sealed[..]),
            (&seal, "keys/a", &changed[..]),
            (&seal, "keys/a", &sealed[..5]),
        ] {
            assert!(seal.open(path, sealed).is_err());
        }
        assert!(Seal::new(b"short").is_err());
    }

    #[test]
    fn kinds_have_names_of_their_own() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(Kind::parse("of a later version"), None);
    }
}
