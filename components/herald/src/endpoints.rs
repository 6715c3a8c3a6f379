//! Webhook endpoints: registered by users for their own notifications, by services for everybody's.
//!
//! Secrets are kept nowhere: each is an HMAC of the endpoint's id and its version under a key that stays in the host.

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::Tx;

use crate::deliveries;
use crate::model::{ENDPOINTS_MAX, EVERY_TYPE, Endpoint, EndpointEdit, NewEndpoint};
use crate::{address, webhook};

/// The name of the key in the host.
const SECRET_KEY: &str = "webhook-secret";
/// How long webhooks are signed with the secret before the present one, too, in milliseconds.
const ROTATION_MS: i64 = 24 * 60 * 60 * 1_000;

const COLUMNS: &str =
    "id, url, description, types, secret_version, disabled_at, disabled_reason, created_at";

/// An endpoint as the database has it.
#[derive(Deserialize)]
struct Row {
    id: String,
    url: String,
    description: String,
    types: String,
    secret_version: i64,
    disabled_at: Option<i64>,
    disabled_reason: Option<String>,
    created_at: i64,
}

impl From<Row> for Endpoint {
    fn from(row: Row) -> Self {
        Endpoint {
            id: row.id,
            url: row.url,
            description: row.description,
            types: serde_json::from_str(&row.types).unwrap_or_default(),
            disabled: row.disabled_at.is_some(),
            disabled_reason: row.disabled_reason,
            created_at: row.created_at,
            secret: None,
        }
    }
}

/// Registers an endpoint; its secret is in this answer and in no other.
pub async fn create(
    caller: Caller,
    key: IdempotencyKey,
    user: User,
    Json(new): Json<NewEndpoint>,
) -> Result<Once<Created<Endpoint>>> {
    once(&key, &caller, &("endpoint", &new), async {
        check_url(&new.url)?;
        let is_service = user.kind == ca::Kind::Service;
        let types = match &new.types {
            Some(types) => types.clone(),
            None if is_service => {
                return Err(Problem::unprocessable(
                    "/types",
                    "a service says which types it wants",
                ));
            }
            None => vec![EVERY_TYPE.to_owned()],
        };
        let row = insert(
            &user.id,
            if is_service { "service" } else { "user" },
            &new,
            &types,
        )
        .await?;
        let secret = shown_secret(&row.id, row.secret_version).await?;
        let location = format!("/api/endpoints/{}", row.id);
        Ok(Created::at(
            location,
            Endpoint {
                secret: Some(secret),
                ..row.into()
            },
        ))
    })
    .await
}

async fn insert(
    owner_id: &str,
    owner_kind: &str,
    new: &NewEndpoint,
    types: &[String],
) -> Result<Row> {
    // Counting and inserting are one statement, so that two requests at once cannot both take the last place.
    let text = format!(
        "INSERT INTO endpoints (id, owner_id, owner_kind, url, description, types, created_at) \
         SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS TEXT), CAST($7 AS BIGINT) \
         WHERE (SELECT COUNT(*) FROM endpoints WHERE owner_id = $2) < $8 RETURNING {COLUMNS}"
    );
    let types = serde_json::to_string(types)
        .map_err(|error| Problem::fault("types are not JSON", error))?;
    let parameters = params![
        uuid_v7(),
        owner_id,
        owner_kind,
        new.url,
        new.description,
        types,
        now_ms(),
        ENDPOINTS_MAX
    ];
    let row: Option<Row> = sql::query_one_as(&text, parameters).await?;
    row.ok_or_else(|| {
        Problem::conflict(format!(
            "nobody can have more than {ENDPOINTS_MAX} endpoints"
        ))
    })
}

fn check_url(url: &str) -> Result<()> {
    let loopback = config::parse("webhook_loopback", false);
    address::check(url, loopback).map_err(|reason| Problem::unprocessable("/url", reason))
}

/// Lists the caller's endpoints.
pub async fn list(user: User, page: Query<PageQuery>) -> Result<Json<Page<Endpoint>>> {
    let after = page.cursor::<Id>()?.map_or_else(String::new, Id::into);
    let text = format!(
        "SELECT {COLUMNS} FROM endpoints WHERE owner_id = $1 AND id > $2 ORDER BY id LIMIT $3"
    );
    let rows: Vec<Row> =
        sql::query_as(&text, params![user.id, after, page.limit_plus_one()]).await?;
    let rows: Vec<Endpoint> = rows.into_iter().map(Endpoint::from).collect();
    Ok(Json(page.page(rows, |endpoint| endpoint.id.clone())))
}

/// Reads one endpoint.
pub async fn show(user: User, Path(id): Path<Id>) -> Result<Json<Endpoint>> {
    let text = format!("SELECT {COLUMNS} FROM endpoints WHERE owner_id = $1 AND id = $2");
    let row: Option<Row> = sql::query_one_as(&text, params![user.id, id.as_str()]).await?;
    row.map(|row| Json(row.into()))
        .ok_or_else(|| not_found(&id))
}

/// Changes an endpoint.
pub async fn edit(
    user: User,
    Path(id): Path<Id>,
    Json(edit): Json<EndpointEdit>,
) -> Result<Json<Endpoint>> {
    edit.url.as_deref().map(check_url).transpose()?;
    let types = edit.types.map(|types| json!(types).to_string());
    let disabled = edit.disabled.map(i64::from);
    let text = format!(
        "UPDATE endpoints SET url = COALESCE($3, url), description = COALESCE($4, description), types = COALESCE($5, types), \
             disabled_reason = CASE WHEN CAST($6 AS BIGINT) IS NULL THEN disabled_reason END, \
             disabled_at = CASE WHEN CAST($6 AS BIGINT) IS NULL THEN disabled_at WHEN CAST($6 AS BIGINT) = 1 THEN CAST($7 AS BIGINT) END \
         WHERE owner_id = $1 AND id = $2 RETURNING {COLUMNS}"
    );
    let parameters = params![
        user.id,
        id.as_str(),
        edit.url,
        edit.description,
        types,
        disabled,
        now_ms()
    ];
    let row: Option<Row> = sql::query_one_as(&text, parameters).await?;
    row.map(|row| Json(row.into()))
        .ok_or_else(|| not_found(&id))
}

/// Deletes an endpoint with its deliveries.
pub async fn remove(user: User, Path(id): Path<Id>) -> Result<NoContent> {
    let text = "DELETE FROM endpoints WHERE owner_id = $1 AND id = $2";
    match sql::execute(text, params![user.id, id.as_str()]).await? {
        0 => Err(not_found(&id)),
        _ => Ok(NoContent),
    }
}

/// Replaces the secret; for a day webhooks carry signatures with both.
pub async fn rotate(user: User, Path(id): Path<Id>) -> Result<Json<Endpoint>> {
    let text = format!(
        "UPDATE endpoints SET secret_version = secret_version + 1, rotated_at = $3 WHERE owner_id = $1 AND id = $2 RETURNING {COLUMNS}"
    );
    let row: Option<Row> =
        sql::query_one_as(&text, params![user.id, id.as_str(), now_ms()]).await?;
    let row = row.ok_or_else(|| not_found(&id))?;
    let secret = shown_secret(&row.id, row.secret_version).await?;
    Ok(Json(Endpoint {
        secret: Some(secret),
        ..row.into()
    }))
}

/// Sends a webhook of type `test`, to try the receiver.
pub async fn test(user: User, Path(id): Path<Id>) -> Result<Accepted<serde_json::Value>> {
    let Json(endpoint) = show(user.clone(), Path(id)).await?;
    let (delivery_id, at) = (uuid_v7(), now_ms());
    let planned = deliveries::Planned {
        dedupe_key: format!("test:{delivery_id}"),
        payload: webhook::payload("test", at, json!({ "endpointId": endpoint.id })),
        id: delivery_id.clone(),
        endpoint_id: endpoint.id,
        owner_id: user.id.clone(),
        user_id: user.id,
        kind: "test".to_owned(),
        not_before: at,
    };
    let tx: Tx = sql::begin().await?;
    deliveries::add(&tx, &[planned], at).await?;
    tx.commit().await?;
    Ok(Accepted(json!({ "deliveryId": delivery_id })))
}

/// Switches an endpoint off and says why; its owner may switch it on again.
pub async fn disable(id: &str, reason: &str) -> Result<()> {
    let text = "UPDATE endpoints SET disabled_at = $2, disabled_reason = $3 WHERE id = $1 AND disabled_at IS NULL";
    sql::execute(text, params![id, now_ms(), reason]).await?;
    Ok(())
}

/// The keys that sign an endpoint's webhooks now, the present one first.
pub async fn keys(id: &str, version: i64, rotated_at: Option<i64>) -> Result<Vec<Vec<u8>>> {
    let mut keys = vec![key(id, version).await?];
    if rotated_at.is_some_and(|at| now_ms() - at < ROTATION_MS) {
        keys.push(key(id, version - 1).await?);
    }
    Ok(keys)
}

async fn key(id: &str, version: i64) -> Result<Vec<u8>> {
    Ok(ca::hmac(SECRET_KEY, format!("{id}:{version}")).await?)
}

async fn shown_secret(id: &str, version: i64) -> Result<String> {
    Ok(webhook::secret_text(&key(id, version).await?))
}

fn not_found(id: &Id) -> Problem {
    Problem::not_found("endpoint", id.as_str())
}
