//! Components that the host has admitted, and their way into the records.

use crate::{
    audit,
    store::{self, NewCertificate},
};
use exprsn_sdk::{
    ca::authority::{self, Component},
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
    /// Whether it is what the service runs as.
    live: bool,
    /// The approved grants, by capability.
    grants: Value,
    certificate: CertificateView,
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
    let components = record().await?;
    Ok(Json(Components {
        items: components.into_iter().map(view).collect(),
    }))
}

fn view(component: Component) -> ComponentView {
    ComponentView {
        service: component.service,
        version: component.version,
        digest: component.digest,
        live: component.live,
        grants: serde_json::from_str(&component.grants).unwrap_or(Value::Null),
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
