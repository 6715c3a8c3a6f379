//! The authority of a host that forms a platform with others: what it takes over from them, and what it asks one of them.

use super::{
    Admission, Authority, Candidate, TOKEN_KEYS,
    ledger::{Heard, Withholding},
    pki::{Certificate, HostRequest},
    ring::KeyRing,
    vault::Vault,
};
use crate::{
    ca::Algorithm,
    cluster::{Kind, Memory},
    name::ServiceName,
    telemetry::chain,
};
use exprsn_backends::shared::{Change, Fact};
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use std::{collections::HashMap, fmt, sync::Arc};
use wasmtime::{Result, error::Context as _, format_err};

/// The host that holds the certificate authority's keys, as another one asks it.
pub trait Issuer: fmt::Debug + Send + Sync {
    /// Has a component admitted.
    fn admit(self: Arc<Self>, candidate: Candidate) -> BoxFuture<'static, Result<Admission>>;

    /// Has a certificate of listeners signed; the second is its key, PKCS#8. Blocks; never on a runtime's thread.
    fn listener(&self, names: &[String], days: i64) -> Result<(Certificate, Vec<u8>)>;
}

/// What an authority has of other hosts when it is opened.
#[derive(Debug, Default)]
pub struct Together {
    pub memory: Option<Memory>,
    /// None where this host signs itself.
    pub issuer: Option<Arc<dyn Issuer>>,
    /// What is in the shared memory.
    pub facts: Vec<Fact>,
}

impl Together {
    /// Keeps the keys that others have made, and gives them those that this host has made.
    pub(super) fn take_over(&self, vault: &Vault) -> Result<()> {
        if self.memory.is_none() {
            return Ok(());
        }
        let heard: HashMap<_, _> = self.facts.iter().filter_map(secret).collect();
        for (path, sealed) in &heard {
            vault.hear(path, sealed)?;
        }
        for folder in [TOKEN_KEYS, "keys"] {
            vault.share(folder, &|path| heard.contains_key(path))?;
        }
        Ok(())
    }
}

/// The path and the sealed bytes of a secret.
fn secret(fact: &Fact) -> Option<(&str, &[u8])> {
    let value = fact.value.as_deref()?;
    (Kind::parse(&fact.kind) == Some(Kind::Secret)).then_some((fact.key.as_str(), value))
}

fn parsed<T: DeserializeOwned>(fact: &Fact, value: &[u8]) -> Result<T> {
    serde_json::from_slice(value)
        .with_context(|| format!("the shared fact {}/{} cannot be read", fact.kind, fact.key))
}

impl Authority {
    /// Whether this host signs certificates itself.
    pub fn issues(&self) -> bool {
        self.pki.issues()
    }

    /// Everything that this host remembers of the authority, for a shared memory that is empty.
    pub async fn everything(&self) -> Result<Vec<Change>> {
        Ok(self.ledger.everything().await?)
    }

    /// Signs the certificate of a host.
    pub fn issue_host(&self, request: HostRequest<'_>, now_s: i64) -> Result<Certificate> {
        self.pki.issue_host(request, now_s)
    }

    /// Signs a certificate of another host's listeners, whose key has never left it.
    pub fn issue_listener_for(
        &self,
        names: &[String],
        days: i64,
        csr: &str,
        now_s: i64,
    ) -> Result<Certificate> {
        self.pki.issue_listener_for(names, days, csr, now_s)
    }

    /// Keeps and puts in force what another host has written. What is not the authority's is passed over.
    pub async fn hear(&self, fact: &Fact, now_s: i64) -> Result<()> {
        match (Kind::parse(&fact.kind), &fact.value) {
            (Some(Kind::RevokedToken), Some(value)) => {
                let (id, expires_at) = (fact.key.clone(), parsed(fact, value)?);
                self.tokens.hear_revoked(&id, expires_at, now_s);
                let heard = Heard::RevokedToken { id, expires_at };
                self.ledger.hear(&heard, now_s).await?;
            }
            (Some(Kind::RevokedCertificate), Some(value)) => {
                let (serial, at) = (fact.key.clone(), parsed(fact, value)?);
                self.enforce_revoked(std::slice::from_ref(&serial));
                let heard = Heard::RevokedCertificate { serial, at };
                self.ledger.hear(&heard, now_s).await?;
            }
            (Some(Kind::Withheld), value) => {
                let grants = match value {
                    Some(value) => parsed(fact, value)?,
                    None => Vec::new(),
                };
                self.hear_withheld(&fact.key, grants, now_s).await?;
            }
            (Some(Kind::Admission), Some(value)) => {
                let heard = Heard::Admission(Box::new(parsed(fact, value)?));
                self.ledger.hear(&heard, now_s).await?;
            }
            (Some(Kind::Secret), Some(value)) => {
                self.hear_secret(fact.key.clone(), value.clone()).await?
            }
            _ => {}
        }
        Ok(())
    }

    async fn hear_withheld(
        &self,
        service: &str,
        grants: Vec<Withholding>,
        now_s: i64,
    ) -> Result<()> {
        let texts: Vec<String> = grants.iter().map(|one| one.grant.clone()).collect();
        let name = ServiceName::parse(service).map_err(|error| format_err!("{error}"))?;
        // In force first: this host may lose what it keeps, the platform does not.
        if let Err(error) = self.withheld.set(&name, &texts) {
            tracing::error!(
                service,
                "a withheld grant cannot be read, so all are: {error}"
            );
            let _ = self.withheld.set(&name, &["*".to_owned()]);
        }
        let heard = Heard::Withheld {
            service: service.to_owned(),
            grants,
        };
        Ok(self.ledger.hear(&heard, now_s).await?)
    }

    async fn hear_secret(&self, path: String, sealed: Vec<u8>) -> Result<()> {
        let (vault, kept) = (self.vault.clone(), path.clone());
        tokio::task::spawn_blocking(move || vault.hear(&kept, &sealed)).await??;
        let mut parts = path.split('/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("keys"), Some(service), Some(key)) => self.signer.reread(service, key),
            _ => self.reread_token_keys().await?,
        }
        Ok(())
    }

    async fn reread_token_keys(&self) -> Result<()> {
        let folder = self.vault.path(TOKEN_KEYS);
        let ring =
            tokio::task::spawn_blocking(move || KeyRing::read(&folder, Algorithm::EdDsa)).await??;
        if ring.is_empty() {
            return Ok(());
        }
        self.tokens.replace_ring(ring);
        if let Err(error) = self.write_operator_token(crate::clock::now_s()) {
            tracing::warn!(
                error = chain(&error),
                "the operator's token was not written anew"
            );
        }
        Ok(())
    }
}
