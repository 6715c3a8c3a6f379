//! The certificate authority's half that the host keeps: keys, certificates, tokens, admission.
//!
//! The service exprsn-ca decides what is issued and revoked and keeps the audit log; the host signs, remembers and
//! enforces. Its keys are files under `<data>/ca/`, its memory is `<data>/host.db`.
//!
//! **Invariant:** nothing runs without a certificate of this authority for exactly its bytes.
//! **Invariant:** no private key and no token leaves this module but as a file that only the host's user can read; none
//! is ever logged.

pub mod authorise;
pub mod certificate;
pub mod claims;
mod file;
mod json;
mod jws;
pub mod key;
mod ledger;
pub mod pattern;
pub mod pki;
mod ring;
pub mod signer;
mod standing;
pub mod tokens;

pub use authorise::Denial;
pub use certificate::{CertificateFault, ComponentCertificate};
pub use claims::{Claims, Subject};
pub use key::Algorithm;
pub use ledger::Admission;
pub use signer::Signer;
pub use tokens::{Refusal, Rejection, Resolver, Tokens, Verdict, VerifiedToken};

use crate::{
    clock,
    invocation::{Permission, Permissions, Principal, PrincipalKind},
    name::ServiceName,
};
use arc_swap::ArcSwap;
use ledger::{Ledger, Remembered};
use pki::{Certificate, LeafRequest, Pki};
use ring::{KeyRing, Rotation};
use serde::Deserialize;
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;
use wasmtime::{Result, bail, ensure, error::Context as _, format_err};

/// The service that decides; its bytes are pinned.
pub const CA_SERVICE: &str = "exprsn-ca";
/// The file of the operator's token, in the data directory.
pub const OPERATOR_TOKEN_FILE: &str = "operator.token";
/// Lifetime of the operator's token, in seconds; it is written anew well before.
pub const OPERATOR_TOKEN_S: i64 = 86_400;
/// Most serial numbers in one revocation list.
pub const REVOKED_CERTIFICATES_MAX: usize = 100_000;

const DAY_S: i64 = 86_400;

/// `[capability.ca]` in platform.toml.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The claim `iss` of tokens; empty is `https://ca.<trust domain>`.
    pub issuer: String,
    /// Validity of a component's certificate, in days; it is renewed at a start when a third or less is left.
    pub certificate_days: u32,
    /// Age at which the key that signs tokens is followed by another, in days.
    pub token_key_days: u32,
    /// Memory for tokens whose signature was verified, in bytes.
    pub token_cache_bytes_max: u64,
    /// What happens when exprsn-ca's component has other bytes than at its first start.
    pub pin: Pin,
}

/// What happens when a pinned component changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// It does not start.
    Strict,
    /// It starts and is pinned anew, with a warning in the log: for development.
    Follow,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            certificate_days: 90,
            token_key_days: 90,
            token_cache_bytes_max: 16 << 20,
            pin: Pin::Strict,
        }
    }
}

/// The host's certificate authority.
#[derive(Debug)]
pub struct Authority {
    data: PathBuf,
    options: Options,
    pki: Arc<Pki>,
    ledger: Ledger,
    tokens: Tokens,
    signer: Arc<Signer>,
    revoked: ArcSwap<HashSet<String>>,
    revocations: watch::Sender<u64>,
}

impl Authority {
    /// Opens the authority with default options; see [`Authority::open_with`].
    pub fn open(data: &Path, trust_domain: &str) -> Result<Arc<Self>> {
        Self::open_with(data, trust_domain, &Options::default())
    }

    /// Opens the authority in the data directory, making its keys at the first start, and writes the operator's token.
    ///
    /// Blocks for some disk accesses. The error names the file at fault and the remedy.
    pub fn open_with(data: &Path, trust_domain: &str, options: &Options) -> Result<Arc<Self>> {
        let now_s = clock::now_s();
        let folder = data.join("ca");
        let pki = Pki::open(&folder, trust_domain, now_s).context("opening the certificate authority")?;
        let rotation = Rotation { after_s: i64::from(options.token_key_days) * DAY_S, keep_s: tokens::LIFETIME_S_MAX };
        let ring = KeyRing::open_rotating(&folder.join("tokens"), Algorithm::EdDsa, rotation, now_s)
            .context("opening the keys that sign tokens")?;
        let (ledger, remembered) = Ledger::open(&data.join("host.db"), now_s)?;
        let issuer = if options.issuer.is_empty() { format!("https://ca.{trust_domain}") } else { options.issuer.clone() };
        let tokens = Tokens::new(issuer, ring, ledger.clone(), &remembered, options.token_cache_bytes_max, now_s)?;
        let Remembered { revoked_certificates, .. } = remembered;
        let authority = Arc::new(Self {
            data: data.to_owned(),
            options: options.clone(),
            pki: Arc::new(pki),
            ledger,
            tokens,
            signer: Arc::new(Signer::new(&folder.join("keys"))),
            revoked: ArcSwap::from_pointee(revoked_certificates.into_iter().collect()),
            revocations: watch::Sender::new(0),
        });
        authority.write_operator_token(now_s)?;
        Ok(authority)
    }

    /// Tokens, for what is more than [`Authority::authenticate`] and [`Authority::authorise`].
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Keys of services.
    pub fn signer(&self) -> &Arc<Signer> {
        &self.signer
    }

    pub fn root(&self) -> &Certificate {
        self.pki.root()
    }

    pub fn intermediate(&self) -> &Certificate {
        self.pki.intermediate()
    }

    /// `spiffe://<trust domain>/service/<name>`.
    pub fn spiffe_id(&self, service: &ServiceName) -> String {
        self.pki.spiffe_id(service.as_str())
    }

    // === Tokens ===

    /// Says which service a URL in a token's resources means: `localhost:3014` is exprsn-herald.
    pub fn resolve_with(&self, resolver: Resolver) {
        self.tokens.resolve_with(resolver);
    }

    /// Examines a token without counting a use. Memory only.
    pub fn verify_token(&self, token: &str, now_s: i64) -> Result<Arc<VerifiedToken>, Rejection> {
        let Verdict { rejection, token } = self.tokens.examine(token, now_s);
        match (rejection, token) {
            (None, Some(token)) => Ok(token),
            (rejection, _) => Err(rejection.unwrap_or(Rejection::BadSignature)),
        }
    }

    /// The principal that a presented token identifies. A use is counted where the token's uses are bounded; all
    /// other tokens are decided on in memory, without waiting.
    pub async fn authenticate(&self, token: &str, now_s: i64) -> Result<Arc<Principal>, Refusal> {
        let token = self.verify_token(token, now_s).map_err(Refusal::Rejected)?;
        self.tokens.count_use(&token, now_s).await?;
        Ok(token.principal.clone())
    }

    /// Whether `principal` has `permission` on `path` of `service`. Pure; decided on the normal form of the path.
    pub fn authorise(&self, principal: &Principal, service: &ServiceName, path: &str, permission: Permission) -> Result<(), Denial> {
        authorise::authorise(principal, service, path, permission, |authority| self.tokens.resolve(authority))
    }

    /// Writes `<data>/operator.token`, with which whoever can read it may do everything for a day.
    pub fn write_operator_token(&self, now_s: i64) -> Result<()> {
        let claims = Claims {
            id: String::new(),
            subject: Subject { kind: PrincipalKind::Operator, name: "local".to_owned() },
            audience: Vec::new(),
            resources: vec!["*".to_owned()],
            permissions: Permission::ALL.into_iter().collect::<Permissions>(),
            issued_at: now_s,
            not_before: now_s,
            expires_at: now_s + OPERATOR_TOKEN_S,
            uses_max: None,
            extra: serde_json::Map::new(),
        };
        let (token, _) = self.tokens.mint(claims, now_s).map_err(|error| format_err!("cannot mint the operator's token: {error}"))?;
        file::replace(&self.data.join(OPERATOR_TOKEN_FILE), token.as_bytes())
    }

    // === Components ===

    /// Admits a component version with its approved grants (JSON), and returns the certificate under which it runs.
    ///
    /// The certificate of an earlier start is kept while bytes, version and grants are the same and more than a third of
    /// its life is left. Refused are bytes whose certificate was revoked, and exprsn-ca with other bytes than pinned.
    pub async fn admit(&self, service: &ServiceName, version: &str, digest: &str, grants: &str) -> Result<ComponentCertificate> {
        let now_s = clock::now_s();
        let bytes = from_hex(digest).filter(|bytes| bytes.len() == 32).context("the digest is not SHA-256 in hexadecimal")?;
        if service.as_str() == CA_SERVICE {
            self.check_pin(service, digest, now_s).await?;
        }
        ensure!(
            !self.ledger.was_revoked(service.as_str(), digest).await?,
            "{service} is not admitted: the certificate of exactly this component (sha256:{digest}) was revoked; install another build of it"
        );
        if let Some(certificate) = self.still_good(service, version, digest, grants, now_s).await? {
            return Ok(certificate);
        }
        let issued = self.issue(service, version, bytes, grants, now_s).await?;
        let certificate = self.verify(service, digest, &issued.pem)?;
        let admission = Admission {
            service: service.to_string(),
            version: version.to_owned(),
            digest: digest.to_owned(),
            grants: grants.to_owned(),
            certificate: issued,
            live: true,
        };
        self.ledger.admit(admission, now_s).await?;
        tracing::info!(%service, version, digest, serial = %certificate.serial, "admitted");
        Ok(certificate)
    }

    /// Whether a certificate lets the component with this digest run as `service`. The error is the one reason.
    pub fn verify(&self, service: &ServiceName, digest: &str, pem: &str) -> Result<ComponentCertificate, CertificateFault> {
        let certificate = ComponentCertificate::parse(pem, &self.pki.intermediate().pem)?;
        certificate.check(&self.spiffe_id(service), digest, self.is_revoked(&certificate.serial), clock::now_s())?;
        Ok(certificate)
    }

    /// All admissions that are remembered, newest first.
    pub async fn admissions(&self) -> Result<Vec<Admission>> {
        Ok(self.ledger.admissions().await?)
    }

    /// Whether a certificate is revoked. Memory only: cheap enough for every invocation.
    pub fn is_revoked(&self, serial: &str) -> bool {
        self.revoked.load().contains(serial)
    }

    /// Changes whenever certificates are revoked: whoever runs components looks with [`Authority::is_revoked`].
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }

    /// Signs a revocation list and enforces it: from its return on no certificate in it is good.
    ///
    /// Serial numbers accumulate: one that a later list omits stays revoked. `None` if `number` does not exceed the
    /// last list's, in which case nothing is signed.
    pub async fn sign_crl(&self, number: u64, revoked: Vec<(String, i64)>, next_update_s: i64) -> Result<Option<String>> {
        ensure!(revoked.len() <= REVOKED_CERTIFICATES_MAX, "a revocation list holds at most {REVOKED_CERTIFICATES_MAX} certificates");
        let now_s = clock::now_s();
        let (pki, entries) = (self.pki.clone(), revoked.clone());
        let pem = tokio::task::spawn_blocking(move || pki.sign_crl(number, &entries, next_update_s, now_s)).await??;
        let serials: Vec<String> = revoked.iter().map(|(serial, _)| serial.clone()).collect();
        if !self.ledger.revoke_certificates(number, revoked).await? {
            return Ok(None);
        }
        self.revoked.rcu(|known| known.iter().chain(&serials).cloned().collect::<HashSet<_>>());
        self.revocations.send_replace(number);
        Ok(Some(pem))
    }

    async fn check_pin(&self, service: &ServiceName, digest: &str, now_s: i64) -> Result<()> {
        let pinned = self.ledger.pin(service.as_str(), digest, false, now_s).await?;
        if pinned == digest {
            return Ok(());
        }
        if self.options.pin == Pin::Strict {
            bail!(
                "{service} has changed: it is pinned to sha256:{pinned}, and its component is sha256:{digest}; if you \
                 changed it, start once with `pin = \"follow\"` under [capability.ca] in platform.toml"
            );
        }
        tracing::warn!(%service, pinned, digest, "the pinned component has changed and is pinned anew");
        self.ledger.pin(service.as_str(), digest, true, now_s).await?;
        Ok(())
    }

    /// The certificate of an earlier start, if it is good for the same admission and not due for renewal.
    async fn still_good(&self, service: &ServiceName, version: &str, digest: &str, grants: &str, now_s: i64) -> Result<Option<ComponentCertificate>> {
        let Some(admission) = self.ledger.live(service.as_str()).await? else { return Ok(None) };
        let certificate = match self.verify(service, digest, &admission.certificate.pem) {
            Ok(certificate) => certificate,
            Err(fault) => {
                tracing::info!(%service, reason = %fault, "another certificate is needed");
                return Ok(None);
            }
        };
        let due = now_s >= certificate.not_after - i64::from(self.options.certificate_days) * DAY_S / 3;
        let same = certificate.version == version && certificate.grants == grants;
        Ok((same && !due).then_some(certificate))
    }

    async fn issue(&self, service: &ServiceName, version: &str, digest: Vec<u8>, grants: &str, now_s: i64) -> Result<Certificate> {
        let (pki, service, version, grants) = (self.pki.clone(), service.clone(), version.to_owned(), grants.to_owned());
        let days = i64::from(self.options.certificate_days.max(1));
        tokio::task::spawn_blocking(move || {
            let request = LeafRequest { service: service.as_str(), version: &version, digest: &digest, grants: &grants, days };
            pki.issue(request, now_s).with_context(|| format!("issuing the certificate of {service}"))
        })
        .await?
    }
}

/// Parses a JSON object in which each name occurs once.
pub fn json_object(text: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    json::object(text.as_bytes())
}

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes behind an even number of hexadecimal digits.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let whole = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| (0..text.len()).step_by(2).filter_map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect())
}

#[cfg(test)]
mod tests;
