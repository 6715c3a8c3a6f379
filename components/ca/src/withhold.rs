//! Grants taken back from running services, and given again.
//!
//! The table says what is withheld; the host enforces it. A change is in force before it is on record: a failure in
//! between is told to the caller, and the next sweep makes the host do as the record says.

use crate::{
    audit,
    policy::{self, EVERYTHING},
};
use exprsn_sdk::{
    ca::authority::{self, Withheld},
    prelude::*,
    sql::Tx,
};
use std::collections::{BTreeMap, BTreeSet};

/// A grant that is withheld.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all(serialize = "camelCase"))]
pub struct WithheldGrant {
    #[serde(skip_serializing)]
    service: String,
    /// `*`, `sql`, `queue:timeline-fanout`, `call:exprsn-herald`, …
    grant: String,
    reason: Option<String>,
    /// Seconds since the Unix epoch.
    withheld_at: i64,
    withheld_by: String,
}

/// What is withheld from a service now.
#[derive(Serialize, JsonSchema)]
pub struct InForce {
    service: String,
    withheld: Vec<WithheldGrant>,
}

/// What is to be withheld.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// `sql`, `queue:<name>`, `events:<topic>`, `call:<service>`, `egress:<scheme>://<host>:<port>`; everything when absent,
    /// and then requests are answered 503.
    #[garde(length(bytes, min = 1, max = 512))]
    grant: Option<String>,
    /// Why, for the record.
    #[garde(length(chars, max = 500))]
    reason: Option<String>,
}

/// What is to be given back.
#[derive(Deserialize, JsonSchema, Validate)]
pub struct Restoration {
    /// As it was withheld; everything when absent.
    #[garde(length(bytes, min = 1, max = 512))]
    grant: Option<String>,
}

const COLUMNS: &str = "service, scope AS \"grant\", reason, withheld_at, withheld_by";

/// Everything that is withheld, by service.
pub async fn all() -> Result<BTreeMap<String, Vec<WithheldGrant>>> {
    let text = format!("SELECT {COLUMNS} FROM withheld WHERE restored_at IS NULL ORDER BY scope");
    let rows: Vec<WithheldGrant> = sql::query_as(&text, params![]).await?;
    let mut all: BTreeMap<String, Vec<WithheldGrant>> = BTreeMap::new();
    for row in rows {
        all.entry(row.service.clone()).or_default().push(row);
    }
    Ok(all)
}

async fn of(tx: &Tx, service: &str) -> Result<Vec<WithheldGrant>> {
    let text = format!(
        "SELECT {COLUMNS} FROM withheld WHERE service = $1 AND restored_at IS NULL ORDER BY scope"
    );
    Ok(tx.query_as(&text, params![service]).await?)
}

/// `POST /api/components/{service}/revocations`
pub async fn revoke(
    caller: Caller,
    Path(service): Path<String>,
    Json(body): Json<Revocation>,
) -> Result<Json<InForce>> {
    let by = caller.principal().full_subject();
    let grant = body.grant.unwrap_or_else(|| EVERYTHING.to_owned());
    check(&service, &grant).await?;
    let tx = sql::begin().await?;
    let details = json!({ "grant": grant, "reason": body.reason });
    // The log's lock comes first, so that changes of a service reach the host one after the other.
    audit::append(&tx, &by, "grant.withheld", &service, &details).await?;
    let text = "INSERT INTO withheld (id, service, scope, reason, withheld_at, withheld_by) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT DO NOTHING";
    let values = params![uuid_v7(), service, grant, body.reason, now_s(), by];
    tx.execute(text, values).await?;
    let withheld = enforce(&tx, &service).await?;
    tx.commit().await?;
    Ok(Json(InForce { service, withheld }))
}

/// `DELETE /api/components/{service}/revocations`
pub async fn restore(
    caller: Caller,
    Path(service): Path<String>,
    asked: Query<Restoration>,
) -> Result<Json<InForce>> {
    let by = caller.principal().full_subject();
    let tx = sql::begin().await?;
    let details = json!({ "grant": asked.grant });
    audit::append(&tx, &by, "grant.restored", &service, &details).await?;
    let text = "UPDATE withheld SET restored_at = $2, restored_by = $3
        WHERE service = $1 AND restored_at IS NULL AND (CAST($4 AS TEXT) IS NULL OR scope = $4)";
    let values = params![service, now_s(), by, asked.grant.as_deref()];
    if tx.execute(text, values).await? == 0 {
        let what = asked.grant.as_deref().unwrap_or("anything");
        return Err(Problem::new(StatusCode::NOT_FOUND)
            .detail(format!("{what} is not withheld from {service}")));
    }
    let withheld = enforce(&tx, &service).await?;
    tx.commit().await?;
    Ok(Json(InForce { service, withheld }))
}

/// Refuses what the service was not granted, and names what it was.
async fn check(service: &str, grant: &str) -> Result<()> {
    let admissions = authority::admissions().await?;
    let own = || {
        admissions
            .iter()
            .filter(|one| one.component.service == service)
    };
    let present = own()
        .find(|one| one.component.live)
        .or_else(|| own().next());
    let present = present.ok_or_else(|| Problem::not_found("component admitted as", service))?;
    let grants = serde_json::from_str(&present.component.grants).unwrap_or_default();
    let offered = policy::offered(&grants);
    if policy::is_offered(&offered, grant) {
        return Ok(());
    }
    Err(Problem::unprocessable(
        "/grant",
        format!(
            "was not granted to {service}, which has: {}",
            offered.join(", ")
        ),
    ))
}

/// Makes the host do as the table says of a service.
async fn enforce(tx: &Tx, service: &str) -> Result<Vec<WithheldGrant>> {
    let withheld = of(tx, service).await?;
    let told = withheld.iter().map(|one| Withheld {
        grant: one.grant.clone(),
        by: one.withheld_by.clone(),
        reason: one.reason.clone(),
    });
    authority::withhold(service, told.collect()).await?;
    Ok(withheld)
}

/// Makes the host do as the table says, where it does not.
pub async fn reconcile() -> Result<()> {
    if differing().await?.is_empty() {
        return Ok(());
    }
    let tx = sql::begin().await?;
    audit::lock(&tx).await?;
    for service in differing().await? {
        log::warn!(
            "the host withheld other grants than is on record",
            service = service.clone()
        );
        enforce(&tx, &service).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Services of which host and table say different things.
async fn differing() -> Result<Vec<String>> {
    let mut enforced: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (service, one) in authority::withheld_grants().await? {
        enforced.entry(service).or_default().insert(one.grant);
    }
    let recorded: BTreeMap<String, BTreeSet<String>> = all()
        .await?
        .into_iter()
        .map(|(service, all)| (service, all.into_iter().map(|one| one.grant).collect()))
        .collect();
    let services: BTreeSet<&String> = enforced.keys().chain(recorded.keys()).collect();
    let differing = services
        .into_iter()
        .filter(|service| enforced.get(*service) != recorded.get(*service));
    Ok(differing.cloned().collect())
}
