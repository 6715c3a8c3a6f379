//! Certificates: shown, listed, revoked.

use crate::{
    audit, components, crl,
    store::{self, CertificateRecord},
};
use exprsn_sdk::{ca::authority, prelude::*};

const PEM: &str = "application/x-pem-file";

/// `GET /api/certificates/root`
pub async fn root() -> Result<Text> {
    Ok(Text::of(PEM, authority::root().await?.pem))
}

/// `GET /api/certificates/intermediate`
pub async fn intermediate() -> Result<Text> {
    Ok(Text::of(PEM, authority::intermediate().await?.pem))
}

/// `GET /api/certificates`
pub async fn list(page: Query<PageQuery>) -> Result<Json<Page<CertificateRecord>>> {
    components::record().await?;
    let records = store::certificates(page.cursor()?, page.limit_plus_one()).await?;
    Ok(Json(page.page(records, |record| {
        (record.recorded_at, record.serial.clone())
    })))
}

/// Why a certificate is revoked.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    #[garde(length(chars, max = 500))]
    reason: Option<String>,
}

/// `POST /api/certificates/{serial}/revoke`
///
/// The host enforces the list when it has signed it, which is before the transaction ends.
pub async fn revoke(
    caller: Caller,
    Path(serial): Path<String>,
    Json(body): Json<Reason>,
) -> Result<Json<CertificateRecord>> {
    components::record().await?;
    let by = caller.principal().full_subject();
    let tx = sql::begin().await?;
    let record = store::certificate(&tx, &serial)
        .await?
        .ok_or_else(|| Problem::not_found("certificate", &serial))?;
    if record.kind != "component" {
        return Err(Problem::conflict(format!(
            "the {} certificate is the authority itself and cannot be revoked here",
            record.kind
        )));
    }
    if !store::revoke_certificate(&tx, &serial, &by, body.reason.as_deref(), now_s()).await? {
        return Err(Problem::conflict("the certificate is revoked already"));
    }
    let details =
        json!({ "subject": record.subject, "digest": record.digest, "reason": body.reason });
    audit::append(&tx, &by, "certificate.revoked", &serial, &details).await?;
    crl::sign(&tx).await?;
    let record = store::certificate(&tx, &serial)
        .await?
        .ok_or_else(Problem::internal)?;
    tx.commit().await?;
    Ok(Json(record))
}
