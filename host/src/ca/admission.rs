//! Admission: which component runs as which service, under which certificate, and until when.

use super::{
    Admission, Authority, CA_SERVICE, CertificateFault, ComponentCertificate, DAY_S, Decided,
    HostCertificate, Pin, REVOKED_CERTIFICATES_MAX, from_hex,
    pki::{Certificate, LeafRequest},
};
use crate::{approval::Approved, clock, component::ComponentFile, name::ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use tokio::sync::watch;
use wasmtime::{Result, bail, ensure, error::Context as _};

/// A component version that is to be admitted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Candidate {
    pub service: ServiceName,
    pub version: String,
    /// SHA-256, lower-case hex.
    pub digest: String,
    /// The approved grants, JSON.
    pub grants: String,
    /// Optional capabilities that were refused.
    pub refused: Vec<String>,
    /// The public key of whoever signed it, hex.
    pub signer: Option<String>,
    pub decided: Decided,
}

impl Candidate {
    /// What a file is admitted as, with what was approved.
    pub fn new(file: &ComponentFile, approved: &Approved, decided: Decided) -> Result<Self> {
        Ok(Self {
            service: file.manifest.name.clone(),
            version: file.manifest.version.clone(),
            digest: file.digest.clone(),
            grants: serde_json::to_string(&approved.grants).context("writing the grants down")?,
            refused: approved.refused.iter().map(ToString::to_string).collect(),
            signer: file.signer.as_ref().map(|signer| signer.key.clone()),
            decided,
        })
    }
}

impl Authority {
    /// Admits a component version by the operator's word in platform.toml; see [`Authority::admit_as`].
    pub async fn admit(
        &self,
        service: &ServiceName,
        version: &str,
        digest: &str,
        grants: &str,
    ) -> Result<ComponentCertificate> {
        self.admit_as(Candidate {
            service: service.clone(),
            version: version.to_owned(),
            digest: digest.to_owned(),
            grants: grants.to_owned(),
            refused: Vec::new(),
            signer: None,
            decided: Decided::Configuration,
        })
        .await
    }

    /// Admits a component version with its approved grants, and returns the certificate under which it runs.
    ///
    /// The certificate of an earlier admission is kept while bytes, version and grants are the same and more than a
    /// third of its life is left. Refused are bytes whose certificate was revoked, and exprsn-ca with other bytes than
    /// pinned.
    pub async fn admit_as(&self, candidate: Candidate) -> Result<ComponentCertificate> {
        let now_s = clock::now_s();
        let (service, digest) = (&candidate.service, candidate.digest.as_str());
        ensure!(
            from_hex(digest).is_some_and(|bytes| bytes.len() == 32),
            "the digest is not SHA-256 in hexadecimal"
        );
        if service.as_str() == CA_SERVICE {
            self.check_pin(service, digest, now_s).await?;
        }
        ensure!(
            !self.ledger.was_revoked(service.as_str(), digest).await?,
            "{service} is not admitted: the certificate of exactly this component (sha256:{digest}) was revoked; install another build of it"
        );
        if let Some(certificate) = self.still_good(&candidate, now_s).await? {
            return Ok(certificate);
        }
        self.certify(candidate, now_s).await
    }

    /// Issues a certificate, or has it issued, and remembers the admission.
    pub(super) async fn certify(
        &self,
        candidate: Candidate,
        now_s: i64,
    ) -> Result<ComponentCertificate> {
        if let Some(issuer) = &self.issuer {
            let live = candidate.decided == Decided::Configuration;
            let service = candidate.service.clone();
            let admission = Admission {
                live,
                ..issuer.clone().admit(candidate).await?
            };
            let pem = &admission.certificate.pem;
            let certificate = self.verify_at(&service, &admission.digest, pem, now_s)?;
            // The host that signed has told the others.
            self.ledger.keep_admission(admission, now_s).await?;
            return Ok(certificate);
        }
        let issued = self.issue(&candidate, now_s).await?;
        let Candidate {
            service,
            version,
            digest,
            ..
        } = &candidate;
        let certificate = self.verify_at(service, digest, &issued.pem, now_s)?;
        tracing::info!(%service, version, digest, serial = %certificate.serial, decided = candidate.decided.as_str(), "admitted");
        let admission = Admission {
            service: service.to_string(),
            version: candidate.version,
            digest: candidate.digest,
            grants: candidate.grants,
            certificate: issued,
            live: candidate.decided == Decided::Configuration,
            decided: candidate.decided,
            refused: candidate.refused,
            signer: candidate.signer,
        };
        self.ledger.admit(admission, now_s).await?;
        Ok(certificate)
    }

    /// Admits what another host of the platform runs by its configuration.
    pub async fn admit_for(
        &self,
        host: &HostCertificate,
        candidate: Candidate,
    ) -> Result<Admission> {
        let service = candidate.service.clone();
        ensure!(
            host.may_speak_for(service.as_str()),
            "host {} may not run {service}: invite it anew with this service",
            host.host
        );
        ensure!(
            service.as_str() != CA_SERVICE,
            "{CA_SERVICE} runs on the host that holds the certificate authority's keys"
        );
        let digest = candidate.digest.clone();
        // What runs here by configuration is this host's own affair.
        let candidate = Candidate {
            decided: Decided::Caller,
            ..candidate
        };
        tracing::info!(host = host.host, %service, digest, "another host asks for an admission");
        self.admit_as(candidate).await?;
        let admission = self.ledger.latest(service.as_str(), Some(&digest)).await?;
        admission.context("the admission was not found right after it was written")
    }

    /// Whether a certificate lets the component with this digest run as `service`. The error is the one reason.
    pub fn verify(
        &self,
        service: &ServiceName,
        digest: &str,
        pem: &str,
    ) -> Result<ComponentCertificate, CertificateFault> {
        self.verify_at(service, digest, pem, clock::now_s())
    }

    pub(super) fn verify_at(
        &self,
        service: &ServiceName,
        digest: &str,
        pem: &str,
        now_s: i64,
    ) -> Result<ComponentCertificate, CertificateFault> {
        let certificate = ComponentCertificate::parse(pem, &self.pki.intermediate().pem)?;
        let revoked = self.is_revoked(&certificate.serial);
        certificate.check(&self.spiffe_id(service), digest, revoked, now_s)?;
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
    pub async fn sign_crl(
        &self,
        number: u64,
        revoked: Vec<(String, i64)>,
        next_update_s: i64,
    ) -> Result<Option<String>> {
        ensure!(
            revoked.len() <= REVOKED_CERTIFICATES_MAX,
            "a revocation list holds at most {REVOKED_CERTIFICATES_MAX} certificates"
        );
        let now_s = clock::now_s();
        let (pki, entries) = (self.pki.clone(), revoked.clone());
        let pem = tokio::task::spawn_blocking(move || {
            pki.sign_crl(number, &entries, next_update_s, now_s)
        })
        .await??;
        let serials: Vec<String> = revoked.iter().map(|(serial, _)| serial.clone()).collect();
        if !self.ledger.revoke_certificates(number, revoked).await? {
            return Ok(None);
        }
        self.enforce_revoked(&serials);
        Ok(Some(pem))
    }

    /// Puts in force that certificates are good no longer.
    pub(super) fn enforce_revoked(&self, serials: &[String]) {
        self.revoked
            .rcu(|known| known.iter().chain(serials).cloned().collect::<HashSet<_>>());
        self.revocations.send_modify(|times| *times += 1);
    }

    async fn check_pin(&self, service: &ServiceName, digest: &str, now_s: i64) -> Result<()> {
        let pinned = self
            .ledger
            .pin(service.as_str(), digest, false, now_s)
            .await?;
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
        self.ledger
            .pin(service.as_str(), digest, true, now_s)
            .await?;
        Ok(())
    }

    /// The certificate of an earlier admission, if it is good for the same one and not due for renewal.
    async fn still_good(
        &self,
        candidate: &Candidate,
        now_s: i64,
    ) -> Result<Option<ComponentCertificate>> {
        let service = &candidate.service;
        let admission = match candidate.decided {
            Decided::Configuration if self.issuer.is_none() => {
                self.ledger.live(service.as_str()).await?
            }
            _ => {
                self.ledger
                    .latest(service.as_str(), Some(&candidate.digest))
                    .await?
            }
        };
        let Some(admission) = admission else {
            return Ok(None);
        };
        let pem = &admission.certificate.pem;
        let certificate = match self.verify_at(service, &candidate.digest, pem, now_s) {
            Ok(certificate) => certificate,
            Err(fault) => {
                tracing::info!(%service, reason = %fault, "another certificate is needed");
                return Ok(None);
            }
        };
        let same =
            certificate.version == candidate.version && certificate.grants == candidate.grants;
        Ok((same && !self.is_due(&certificate, now_s)).then_some(certificate))
    }

    /// Whether a third or less is left of a certificate's life.
    pub(super) fn is_due(&self, certificate: &ComponentCertificate, now_s: i64) -> bool {
        now_s >= certificate.not_after - i64::from(self.options.certificate_days) * DAY_S / 3
    }

    async fn issue(&self, candidate: &Candidate, now_s: i64) -> Result<Certificate> {
        let (pki, candidate) = (self.pki.clone(), candidate.clone());
        let days = i64::from(self.options.certificate_days.max(1));
        tokio::task::spawn_blocking(move || {
            let digest = from_hex(&candidate.digest).context("the digest is not hexadecimal")?;
            let request = LeafRequest {
                service: candidate.service.as_str(),
                version: &candidate.version,
                digest: &digest,
                grants: &candidate.grants,
                days,
            };
            pki.issue(request, now_s)
                .with_context(|| format!("issuing the certificate of {}", candidate.service))
        })
        .await?
    }
}
