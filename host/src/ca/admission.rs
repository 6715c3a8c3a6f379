//! Admission: which component runs as which service, under which certificate, and until when.

use super::{
    Admission, Authority, CA_SERVICE, CertificateFault, ComponentCertificate, DAY_S, Pin,
    REVOKED_CERTIFICATES_MAX, from_hex,
    pki::{Certificate, LeafRequest},
};
use crate::{clock, name::ServiceName};
use std::collections::HashSet;
use tokio::sync::watch;
use wasmtime::{Result, bail, ensure, error::Context as _};

impl Authority {
    /// Admits a component version with its approved grants (JSON), and returns the certificate under which it runs.
    ///
    /// The certificate of an earlier start is kept while bytes, version and grants are the same and more than a third of
    /// its life is left. Refused are bytes whose certificate was revoked, and exprsn-ca with other bytes than pinned.
    pub async fn admit(
        &self,
        service: &ServiceName,
        version: &str,
        digest: &str,
        grants: &str,
    ) -> Result<ComponentCertificate> {
        let now_s = clock::now_s();
        let bytes = from_hex(digest)
            .filter(|bytes| bytes.len() == 32)
            .context("the digest is not SHA-256 in hexadecimal")?;
        if service.as_str() == CA_SERVICE {
            self.check_pin(service, digest, now_s).await?;
        }
        ensure!(
            !self.ledger.was_revoked(service.as_str(), digest).await?,
            "{service} is not admitted: the certificate of exactly this component (sha256:{digest}) was revoked; install another build of it"
        );
        if let Some(certificate) = self
            .still_good(service, version, digest, grants, now_s)
            .await?
        {
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
    pub fn verify(
        &self,
        service: &ServiceName,
        digest: &str,
        pem: &str,
    ) -> Result<ComponentCertificate, CertificateFault> {
        let certificate = ComponentCertificate::parse(pem, &self.pki.intermediate().pem)?;
        certificate.check(
            &self.spiffe_id(service),
            digest,
            self.is_revoked(&certificate.serial),
            clock::now_s(),
        )?;
        Ok(certificate)
    }

    /// The certificate by which exactly this component was admitted as `service`; the error says why there is none.
    pub async fn admitted(
        &self,
        service: &ServiceName,
        digest: &str,
    ) -> Result<ComponentCertificate> {
        let all = self.ledger.admissions().await?;
        let found = all
            .into_iter()
            .find(|a| a.service == service.as_str() && a.digest == digest)
            .with_context(|| format!("sha256:{digest} was never admitted as {service}"))?;
        Ok(self.verify(service, digest, &found.certificate.pem)?)
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
        self.revoked.rcu(|known| {
            known
                .iter()
                .chain(&serials)
                .cloned()
                .collect::<HashSet<_>>()
        });
        self.revocations.send_replace(number);
        Ok(Some(pem))
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

    /// The certificate of an earlier start, if it is good for the same admission and not due for renewal.
    async fn still_good(
        &self,
        service: &ServiceName,
        version: &str,
        digest: &str,
        grants: &str,
        now_s: i64,
    ) -> Result<Option<ComponentCertificate>> {
        let Some(admission) = self.ledger.live(service.as_str()).await? else {
            return Ok(None);
        };
        let certificate = match self.verify(service, digest, &admission.certificate.pem) {
            Ok(certificate) => certificate,
            Err(fault) => {
                tracing::info!(%service, reason = %fault, "another certificate is needed");
                return Ok(None);
            }
        };
        let due =
            now_s >= certificate.not_after - i64::from(self.options.certificate_days) * DAY_S / 3;
        let same = certificate.version == version && certificate.grants == grants;
        Ok((same && !due).then_some(certificate))
    }

    async fn issue(
        &self,
        service: &ServiceName,
        version: &str,
        digest: Vec<u8>,
        grants: &str,
        now_s: i64,
    ) -> Result<Certificate> {
        let (pki, service, version, grants) = (
            self.pki.clone(),
            service.clone(),
            version.to_owned(),
            grants.to_owned(),
        );
        let days = i64::from(self.options.certificate_days.max(1));
        tokio::task::spawn_blocking(move || {
            let request = LeafRequest {
                service: service.as_str(),
                version: &version,
                digest: &digest,
                grants: &grants,
                days,
            };
            pki.issue(request, now_s)
                .with_context(|| format!("issuing the certificate of {service}"))
        })
        .await?
    }
}
