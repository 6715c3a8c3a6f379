//! What was admitted: asked for by who loads it, decided by who may.

use super::{Admission, Authority, Candidate, CertificateFault, ComponentCertificate, Decided};
use crate::{
    approval::{self, Approvals, Approved, Unapproved},
    clock,
    component::ComponentFile,
    config::Limits,
    name::ServiceName,
    telemetry::chain,
};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};
use wasmtime::{Result, bail, error::Context as _, format_err};

/// Why a component was not taken in or not admitted.
#[derive(Debug)]
pub enum NotAdmitted {
    /// It has more bytes than a component may have.
    TooLarge(String),
    /// It, or the answer to what it asks for, is not as it must be.
    Invalid(String),
    /// The host's own fault.
    Fault(wasmtime::Error),
}

impl fmt::Display for NotAdmitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(text) | Self::Invalid(text) => f.write_str(text),
            Self::Fault(error) => f.write_str(&chain(error)),
        }
    }
}

impl std::error::Error for NotAdmitted {}

impl From<wasmtime::Error> for NotAdmitted {
    fn from(error: wasmtime::Error) -> Self {
        Self::Fault(error)
    }
}

fn invalid(error: &wasmtime::Error) -> NotAdmitted {
    NotAdmitted::Invalid(chain(error))
}

impl Authority {
    /// The certificate by which exactly this component was admitted as `service`, renewed where a third or less of its
    /// life is left. The error says why there is none and what to do.
    pub async fn admitted(
        &self,
        service: &ServiceName,
        digest: &str,
    ) -> Result<ComponentCertificate> {
        self.admitted_at(service, digest, clock::now_s()).await
    }

    pub(super) async fn admitted_at(
        &self,
        service: &ServiceName,
        digest: &str,
        now_s: i64,
    ) -> Result<ComponentCertificate> {
        if self.ledger.was_revoked(service.as_str(), digest).await? {
            bail!(
                "{service} may not run: the certificate of exactly this component (sha256:{digest}) was revoked; install another build of it"
            );
        }
        let Some(admission) = self.ledger.latest(service.as_str(), Some(digest)).await? else {
            return Err(self.never_admitted(service, digest).await?);
        };
        let pem = &admission.certificate.pem;
        let certificate = self
            .verify_at(service, digest, pem, now_s)
            .map_err(|fault| refusal(service, digest, &fault))?;
        if !self.is_due(&certificate, now_s) {
            return Ok(certificate);
        }
        tracing::info!(%service, digest, "the certificate is renewed");
        let renewed = Candidate {
            service: service.clone(),
            version: admission.version,
            digest: admission.digest,
            grants: admission.grants,
            refused: admission.refused,
            signer: admission.signer,
            decided: admission.decided,
        };
        self.certify(renewed, now_s).await
    }

    async fn never_admitted(&self, service: &ServiceName, digest: &str) -> Result<wasmtime::Error> {
        Ok(match self.ledger.latest(service.as_str(), None).await? {
            Some(other) => format_err!(
                "{service} may not run: its digest is sha256:{digest}, and {service} was admitted as sha256:{}; one byte makes it \
                 another component: admit this one with `exprsn component install FILE`",
                other.digest
            ),
            None => format_err!(
                "{service} may not run: it was never admitted (sha256:{digest}); admit it with `exprsn component install FILE`"
            ),
        })
    }

    /// Says what platform.toml answers to services that are configured there, be it for other hosts.
    pub fn answer_with(&self, answers: &BTreeMap<ServiceName, Approvals>) {
        // Once: the file is read at the start.
        let _ = self.answers.set(answers.clone());
    }

    /// Admits a component of the library by a caller's decision. Without answers, those of platform.toml count.
    pub async fn decide(
        &self,
        digest: &str,
        answers: Option<Approvals>,
    ) -> Result<Admission, NotAdmitted> {
        let file = self.file(digest).await?;
        file.check_requests().map_err(|error| invalid(&error))?;
        Limits::layered(&[&file.manifest.limits]).map_err(NotAdmitted::Invalid)?;
        let name = file.manifest.name.clone();
        let approved = self.approved(&file, answers)?;
        let candidate = Candidate::new(&file, &approved, Decided::Caller)?;
        // It refuses for reasons that the caller can do something about: a pin, a revocation.
        self.admit_as(candidate)
            .await
            .map_err(|error| invalid(&error))?;
        let admission = self.ledger.latest(name.as_str(), Some(digest)).await;
        let admission = admission.map_err(wasmtime::Error::from)?;
        Ok(admission.context("the admission was not found right after it was written")?)
    }

    fn approved(
        &self,
        file: &ComponentFile,
        answers: Option<Approvals>,
    ) -> Result<Approved, NotAdmitted> {
        let name = &file.manifest.name;
        let configured = || self.answers.get().and_then(|all| all.get(name)).cloned();
        let answers = answers.or_else(configured).unwrap_or_default();
        approval::approve(file, &answers).map_err(|unapproved| {
            let remedy = match &unapproved {
                Unapproved::Unanswered(names) => format!(
                    ": answer each with \"as-requested\", \"refused\" or a table in `approve`, as in {{\"{}\": \"as-requested\"}}",
                    names.join("\": \"as-requested\", \"")
                ),
                _ => String::new(),
            };
            NotAdmitted::Invalid(format!("{name} is not admitted: {unapproved}{remedy}"))
        })
    }

    /// A component of the library, its bytes hashed anew.
    pub async fn file(&self, digest: &str) -> Result<ComponentFile, NotAdmitted> {
        let (library, digest) = (self.library.clone(), digest.to_owned());
        let read = tokio::task::spawn_blocking(move || library.get(&digest)).await;
        let read = read.context("reading a component")?;
        read.map_err(|error| invalid(&error))
    }

    /// Removes from the library what nobody has admitted, beyond a bound.
    pub async fn prune_library(&self) -> Result<()> {
        let admissions = self.ledger.admissions().await?;
        let admitted: HashSet<_> = admissions.into_iter().map(|one| one.digest).collect();
        let library = self.library.clone();
        tokio::task::spawn_blocking(move || library.prune(&admitted)).await?
    }
}

fn refusal(service: &ServiceName, digest: &str, fault: &CertificateFault) -> wasmtime::Error {
    let remedy = match fault {
        CertificateFault::Revoked => "install another build of it".to_owned(),
        _ => format!("admit it again with `exprsn component approve {digest}`"),
    };
    format_err!("{service} may not run: {fault} (sha256:{digest}); {remedy}")
}
