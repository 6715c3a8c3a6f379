//! Components that the host has admitted, and their way into the records.

use crate::{
    admit::{self, Decision},
    audit,
    publishers::{self, Publisher},
    store::{self, NewCertificate},
    withhold::{self, WithheldGrant},
};
use exprsn_sdk::{
    ca::authority::{self, Admission, Component, Decided},
    prelude::*,
};
use serde_json::Value;
use std::collections::HashSet;

/// An admitted component.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComponentView {
    service: String,
    version: String,
    /// SHA-256, lower-case hex.
    digest: String,
    /// Whether it is what the service runs as now.
    live: bool,
    /// The approved grants, by capability.
    grants: Value,
    /// Optional capabilities that were refused.
    refused: Vec<String>,
    /// The public key (Ed25519, lower-case hex) of whoever signed it.
    signer: Option<String>,
    /// The name under which the signer is trusted now.
    publisher: Option<String>,
    /// By whose decision it was admitted; null where by the operator's word in platform.toml.
    decision: Option<DecisionView>,
    /// Grants that are withheld from the service at present.
    withheld: Vec<WithheldGrant>,
    certificate: CertificateView,
}

/// A decision to admit.
#[derive(Serialize, JsonSchema)]
pub struct DecisionView {
    by: String,
    /// Seconds since the Unix epoch.
    at: i64,
    /// `publisher`: signed by a trusted one. `untrusted`, `unsigned`: allowed all the same.
    trust: String,
    /// What was answered; null where platform.toml answered.
    answers: Option<Value>,
}

/// The certificate under which a component runs.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateView {
    /// Lower-case hex.
    serial: String,
    /// The SPIFFE id.
    subject: String,
    /// Seconds since the Unix epoch.
    not_before: i64,
    not_after: i64,
    pem: String,
}

/// All components.
#[derive(Serialize, JsonSchema)]
pub struct Components {
    items: Vec<ComponentView>,
}

/// `GET /api/components`
pub async fn list() -> Result<Json<Components>> {
    record().await?;
    let decisions = admit::decisions().await?;
    let (publishers, withheld) = (publishers::all().await?, withhold::all().await?);
    let admissions = authority::admissions().await?;
    let items = admissions.into_iter().map(|admission| {
        let decision = decision_on(&admission, &decisions);
        let withheld = withheld.get(&admission.component.service).cloned();
        view(
            admission,
            decision,
            &publishers,
            withheld.unwrap_or_default(),
        )
    });
    Ok(Json(Components {
        items: items.collect(),
    }))
}

/// An admission as it was just decided on.
pub async fn view_one(admission: Admission, decision: &Decision) -> Result<ComponentView> {
    let withheld = withhold::all().await?.remove(&admission.component.service);
    let publishers = publishers::all().await?;
    Ok(view(
        admission,
        Some(decision),
        &publishers,
        withheld.unwrap_or_default(),
    ))
}

/// The decision behind an admission: that of its certificate, or, where it was renewed, of its component.
fn decision_on<'a>(admission: &Admission, decisions: &'a [Decision]) -> Option<&'a Decision> {
    let component = &admission.component;
    let of_certificate = decisions
        .iter()
        .find(|decision| decision.serial == component.certificate.serial);
    let renewed = || {
        decisions.iter().find(|decision| {
            decision.service == component.service && decision.digest == component.digest
        })
    };
    match admission.decided {
        Decided::Configuration => of_certificate,
        Decided::Caller => of_certificate.or_else(renewed),
    }
}

fn view(
    admission: Admission,
    decision: Option<&Decision>,
    publishers: &[Publisher],
    withheld: Vec<WithheldGrant>,
) -> ComponentView {
    let component = admission.component;
    let publisher = publishers
        .iter()
        .find(|publisher| admission.signer.as_ref() == Some(&publisher.key));
    ComponentView {
        service: component.service,
        version: component.version,
        digest: component.digest,
        live: component.live,
        grants: serde_json::from_str(&component.grants).unwrap_or(Value::Null),
        refused: admission.refused,
        publisher: publisher.map(|publisher| publisher.name.clone()),
        signer: admission.signer,
        decision: decision.map(|decision| DecisionView {
            by: decision.decided_by.clone(),
            at: decision.decided_at,
            trust: decision.trust.clone(),
            answers: decision
                .answers
                .as_deref()
                .and_then(|answers| serde_json::from_str(answers).ok()),
        }),
        withheld,
        certificate: CertificateView {
            serial: component.certificate.serial,
            subject: component.certificate.subject,
            not_before: component.certificate.not_before,
            not_after: component.certificate.not_after,
            pem: component.certificate.pem,
        },
    }
}

/// Records and audits what the host has issued since the last time; returns what it has admitted.
pub async fn record() -> Result<Vec<Component>> {
    let components = authority::components().await?;
    let (root, intermediate) = (authority::root().await?, authority::intermediate().await?);
    let known: HashSet<String> = store::serials().await?.into_iter().collect();
    for (kind, certificate) in [("root", &root), ("intermediate", &intermediate)] {
        if !known.contains(&certificate.serial) {
            record_one(
                &NewCertificate {
                    kind,
                    certificate,
                    component: None,
                },
                "certificate.issued",
                &json!({ "kind": kind }),
            )
            .await?;
        }
    }
    // The host lists the newest first; the log tells things in the order of their happening.
    for component in components
        .iter()
        .rev()
        .filter(|component| !known.contains(&component.certificate.serial))
    {
        let new = NewCertificate {
            kind: "component",
            certificate: &component.certificate,
            component: Some((&component.service, &component.version, &component.digest)),
        };
        let details = json!({
            "service": component.service,
            "version": component.version,
            "digest": component.digest,
            "grants": serde_json::from_str::<Value>(&component.grants).unwrap_or_default(),
            "notAfter": component.certificate.not_after,
        });
        record_one(&new, "component.admitted", &details).await?;
    }
    Ok(components)
}

async fn record_one(new: &NewCertificate<'_>, action: &str, details: &Value) -> Result<()> {
    let tx = sql::begin().await?;
    if store::record_certificate(&tx, new, now_s()).await? {
        audit::append(&tx, "host", action, &new.certificate.serial, details).await?;
    }
    tx.commit().await?;
    Ok(())
}
