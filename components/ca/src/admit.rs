//! Component files sent in, looked into and admitted.

use crate::{
    audit,
    components::{self, ComponentView},
    policy::Trust,
    publishers,
    store::{self, NewCertificate},
};
use exprsn_sdk::{
    ca::{
        Error,
        authority::{self, Admission},
    },
    prelude::*,
};
use serde_json::{Map, Value};

/// A decision to admit a component.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewAdmission {
    /// SHA-256 of a file that was sent in, lower-case hex.
    #[garde(length(bytes, equal = 64))]
    digest: String,
    /// To each capability that it asks for `"as-requested"`, `"refused"`, or less than is asked for in the grant's own
    /// shape. Absent: the answers of platform.toml, or those of the service's last admission if it asked for the same.
    #[garde(skip)]
    approve: Option<Map<String, Value>>,
    /// Admits what no trusted publisher has signed.
    #[serde(default)]
    #[garde(skip)]
    allow_unsigned: bool,
}

/// What is on record of a decision.
#[derive(Clone, Deserialize)]
pub struct Decision {
    pub serial: String,
    pub service: String,
    pub digest: String,
    pub signer: Option<String>,
    pub trust: String,
    pub asked: String,
    pub answers: Option<String>,
    pub decided_at: i64,
    pub decided_by: String,
}

const COLUMNS: &str =
    "serial, service, digest, signer, trust, asked, answers, decided_at, decided_by";
/// Decisions that are looked through for a list; the host lists no more admissions.
const DECISIONS_MAX: i64 = 1_000;

/// Decisions, newest first.
pub async fn decisions() -> Result<Vec<Decision>> {
    let text = format!("SELECT {COLUMNS} FROM decisions ORDER BY id DESC LIMIT $1");
    Ok(sql::query_as(&text, params![DECISIONS_MAX]).await?)
}

/// `POST /api/components/files`
///
/// The bytes go to the host as they come; they do not enter this component.
pub async fn receive(body: Body) -> Result<Created<Value>> {
    let inspection = authority::receive(body).await?;
    let digest = inspection["digest"].as_str().unwrap_or_default();
    Ok(Created::at(
        format!("/api/components/files/{digest}"),
        inspection,
    ))
}

/// `GET /api/components/files/{digest}`
pub async fn inspect(Path(digest): Path<String>) -> Result<AnyJson> {
    Ok(AnyJson(authority::inspect(&digest).await?))
}

/// `POST /api/components`
pub async fn admit(
    caller: Caller,
    Json(new): Json<NewAdmission>,
) -> Result<Created<ComponentView>> {
    // What the host has admitted before comes first in the log.
    components::record().await?;
    let by = caller.principal().full_subject();
    let inspection = authority::inspect(&new.digest).await?;
    let service = inspection["name"].as_str().unwrap_or_default().to_owned();
    let signer = inspection["signer"]["key"].as_str().map(str::to_owned);
    let publishers = publishers::all().await?;
    let trust = Trust::of(signer.as_deref(), |key| {
        publishers.iter().any(|one| one.key == key)
    });
    trust
        .allow(signer.as_deref(), new.allow_unsigned)
        .map_err(|why| unprocessable(format!("{service} is not admitted: {why}")))?;
    let asked = asked(&inspection);
    let tx = sql::begin().await?;
    audit::lock(&tx).await?;
    let (admission, answers) = ask_host(&new, &service, &asked).await?;
    let decision = Decision {
        serial: admission.component.certificate.serial.clone(),
        service,
        digest: new.digest,
        signer,
        trust: trust.as_str().to_owned(),
        asked: asked.to_string(),
        answers: answers.as_ref().map(Value::to_string),
        decided_at: now_s(),
        decided_by: by,
    };
    record(&tx, &admission, &decision, answers.as_ref()).await?;
    tx.commit().await?;
    let view = components::view_one(admission, &decision).await?;
    Ok(Created::at("/api/components", view))
}

fn unprocessable(text: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY).detail(text)
}

/// Scopes by capability.
fn asked(inspection: &Value) -> Value {
    let grants = inspection["grants"].as_array().into_iter().flatten();
    let scope = |grant: &Value| {
        Some((
            grant["capability"].as_str()?.to_owned(),
            grant["scope"].clone(),
        ))
    };
    Value::Object(grants.filter_map(scope).collect())
}

/// Has the host admit it, with the answers given or else those that count; says which were used.
async fn ask_host(
    new: &NewAdmission,
    service: &str,
    asked: &Value,
) -> Result<(Admission, Option<Value>)> {
    if let Some(answers) = &new.approve {
        let answers = Value::Object(answers.clone());
        return Ok((
            authority::admit(&new.digest, Some(&answers)).await?,
            Some(answers),
        ));
    }
    let by_configuration = authority::admit(&new.digest, None).await;
    let Err(Error::Invalid(_)) = &by_configuration else {
        return Ok((by_configuration?, None));
    };
    match last_answers(service, asked).await? {
        Some(answers) => Ok((
            authority::admit(&new.digest, Some(&answers)).await?,
            Some(answers),
        )),
        None => Ok((by_configuration?, None)),
    }
}

/// The answers of the service's last decision, if the component asked for the same then.
async fn last_answers(service: &str, asked: &Value) -> Result<Option<Value>> {
    let text =
        format!("SELECT {COLUMNS} FROM decisions WHERE service = $1 ORDER BY id DESC LIMIT 1");
    let last: Option<Decision> = sql::query_one_as(&text, params![service]).await?;
    let asked = asked.to_string();
    let same = last.filter(|last| last.asked == asked);
    Ok(same
        .and_then(|last| last.answers)
        .and_then(|answers| serde_json::from_str(&answers).ok()))
}

async fn record(
    tx: &sql::Tx,
    admission: &Admission,
    decision: &Decision,
    answers: Option<&Value>,
) -> Result<()> {
    let component = &admission.component;
    let new = NewCertificate {
        kind: "component",
        certificate: &component.certificate,
        component: Some((&component.service, &component.version, &component.digest)),
    };
    store::record_certificate(tx, &new, decision.decided_at).await?;
    let text = format!(
        "INSERT INTO decisions (id, {COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    );
    let values = params![
        uuid_v7(),
        decision.serial,
        decision.service,
        decision.digest,
        decision.signer,
        decision.trust,
        decision.asked,
        decision.answers,
        decision.decided_at,
        decision.decided_by
    ];
    tx.execute(&text, values).await?;
    let details = json!({
        "service": component.service,
        "version": component.version,
        "digest": component.digest,
        "grants": serde_json::from_str::<Value>(&component.grants).unwrap_or_default(),
        "refused": admission.refused,
        "answers": answers,
        "signer": decision.signer,
        "trust": decision.trust,
        "notAfter": component.certificate.not_after,
    });
    let by = &decision.decided_by;
    audit::append(tx, by, "component.admitted", &decision.serial, &details).await
}
