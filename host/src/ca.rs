//! The certificate authority's half that the host keeps: keys, certificates, tokens, admission.
//!
//! The service exprsn-ca decides what is issued and revoked and keeps the audit log; the host signs, remembers and
//! enforces. Its keys are files under `<data>/ca/`, its memory is `<data>/host.db`.
//!
//! **Invariant:** nothing runs without a certificate of this authority for exactly its bytes.
//! **Invariant:** no private key and no token leaves this module but as a file that only the host's user can read; none
//! is ever logged.

mod admission;
mod admitted;
pub mod authorise;
pub mod certificate;
pub mod claims;
mod file;
pub(crate) mod json;
pub(crate) mod jws;
pub mod key;
mod ledger;
pub mod pattern;
pub mod pki;
mod ring;
pub mod signer;
mod standing;
mod together;
pub mod tokens;
mod vault;
mod withholding;

pub use admission::Candidate;
pub use admitted::NotAdmitted;
pub use authorise::Denial;
pub use certificate::{CertificateFault, ComponentCertificate, HostCertificate};
pub use claims::{Claims, Subject};
pub use file::{private_folder, read_or_create as secret_file, replace as replace_file};
pub use key::Algorithm;
pub use ledger::{Admission, Decided, Withholding};
pub use signer::Signer;
pub use together::{Issuer, Together};
pub use tokens::{Refusal, Rejection, Resolver, Tokens, Verdict, VerifiedToken};

use crate::{
    approval::Approvals,
    clock,
    component::hex,
    invocation::{Permission, Permissions, Principal, PrincipalKind},
    library::Library,
    name::ServiceName,
    withheld::WithheldGrants,
};
use arc_swap::ArcSwap;
use ledger::{Ledger, Remembered};
use pki::{Certificate, Pki};
use ring::{KeyRing, Rotation};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};
use tokio::sync::watch;
use vault::Vault;
use wasmtime::{Result, error::Context as _, format_err};

/// The service that decides; its bytes are pinned.
pub const CA_SERVICE: &str = "exprsn-ca";
/// The file of the operator's token, in the data directory.
pub const OPERATOR_TOKEN_FILE: &str = "operator.token";
/// Lifetime of the operator's token, in seconds; it is written anew well before.
pub const OPERATOR_TOKEN_S: i64 = 86_400;
/// The folder of the keys that sign tokens, in the vault.
const TOKEN_KEYS: &str = "tokens";
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
    library: Arc<Library>,
    /// The operator's answers in platform.toml.
    answers: OnceLock<BTreeMap<ServiceName, Approvals>>,
    tokens: Tokens,
    signer: Arc<Signer>,
    vault: Vault,
    /// Whoever signs certificates for this host, where it does not do so itself.
    issuer: Option<Arc<dyn Issuer>>,
    revoked: ArcSwap<HashSet<String>>,
    revocations: watch::Sender<u64>,
    withheld: WithheldGrants,
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
        Self::open_together(data, trust_domain, options, Together::default())
    }

    /// Opens the authority of a host that forms a platform with others. Blocks; never on a runtime's thread.
    pub fn open_together(
        data: &Path,
        trust_domain: &str,
        options: &Options,
        together: Together,
    ) -> Result<Arc<Self>> {
        let now_s = clock::now_s();
        let folder = data.join("ca");
        let pki =
            Pki::open(&folder, trust_domain, now_s).context("opening the certificate authority")?;
        let rotation = Rotation {
            after_s: i64::from(options.token_key_days) * DAY_S,
            keep_s: tokens::LIFETIME_S_MAX,
        };
        let vault = Vault::new(&folder, together.memory.clone());
        together.take_over(&vault)?;
        let ring = KeyRing::open_rotating(
            &vault,
            &vault.path(TOKEN_KEYS),
            Algorithm::EdDsa,
            rotation,
            now_s,
        )
        .context("opening the keys that sign tokens")?;
        let (ledger, remembered) = Ledger::open(&data.join("host.db"), together.memory, now_s)?;
        let issuer = if options.issuer.is_empty() {
            format!("https://ca.{trust_domain}")
        } else {
            options.issuer.clone()
        };
        let tokens = Tokens::new(
            issuer,
            ring,
            ledger.clone(),
            &remembered,
            options.token_cache_bytes_max,
            now_s,
        )?;
        let Remembered {
            revoked_certificates,
            withheld,
            ..
        } = remembered;
        let authority = Arc::new(Self {
            data: data.to_owned(),
            options: options.clone(),
            pki: Arc::new(pki),
            ledger,
            library: Arc::new(Library::open(data)?),
            answers: OnceLock::new(),
            tokens,
            signer: Arc::new(Signer::new(vault.clone())),
            vault,
            issuer: together.issuer,
            revoked: ArcSwap::from_pointee(revoked_certificates.into_iter().collect()),
            revocations: watch::Sender::new(0),
            withheld: WithheldGrants::default(),
        });
        authority.recall_withheld(withheld);
        authority.write_operator_token(now_s)?;
        Ok(authority)
    }

    /// Grants that are withheld from services which have them.
    pub fn withheld(&self) -> &WithheldGrants {
        &self.withheld
    }

    /// Tokens, for what is more than [`Authority::authenticate`] and [`Authority::authorise`].
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The component files that may be admitted.
    pub fn library(&self) -> &Arc<Library> {
        &self.library
    }

    /// Keys of services.
    pub fn signer(&self) -> &Arc<Signer> {
        &self.signer
    }

    /// Signs a certificate of the platform's own listeners for DNS names and addresses; the second is its key, PKCS#8.
    ///
    /// Where another host signs, it is asked: blocks, never on a runtime's thread.
    pub fn issue_listener(
        &self,
        names: &[String],
        days: i64,
        now_s: i64,
    ) -> Result<(Certificate, Vec<u8>)> {
        if let Some(issuer) = &self.issuer {
            return issuer.listener(names, days);
        }
        self.pki.issue_listener(names, days, now_s)
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
    pub fn authorise(
        &self,
        principal: &Principal,
        service: &ServiceName,
        path: &str,
        permission: Permission,
    ) -> Result<(), Denial> {
        authorise::authorise(principal, service, path, permission, |authority| {
            self.tokens.resolve(authority)
        })
    }

    /// Writes `<data>/operator.token`, with which whoever can read it may do everything for a day.
    pub fn write_operator_token(&self, now_s: i64) -> Result<()> {
        let claims = Claims {
            id: String::new(),
            subject: Subject {
                kind: PrincipalKind::Operator,
                name: "local".to_owned(),
            },
            audience: Vec::new(),
            resources: vec!["*".to_owned()],
            permissions: Permission::ALL.into_iter().collect::<Permissions>(),
            issued_at: now_s,
            not_before: now_s,
            expires_at: now_s + OPERATOR_TOKEN_S,
            uses_max: None,
            extra: serde_json::Map::new(),
        };
        let (token, _) = self
            .tokens
            .mint(claims, now_s)
            .map_err(|error| format_err!("cannot mint the operator's token: {error}"))?;
        file::replace(&self.data.join(OPERATOR_TOKEN_FILE), token.as_bytes())
    }
}

/// Parses a JSON object in which each name occurs once.
pub fn json_object(text: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    json::object(text.as_bytes())
}

/// The bytes behind an even number of hexadecimal digits.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let whole = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| {
        (0..text.len())
            .step_by(2)
            .filter_map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
            .collect()
    })
}

#[cfg(test)]
mod tests;
