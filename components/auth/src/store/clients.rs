//! Registered OAuth clients.

use crate::domain::client::{AuthMethod, Client, GrantType};
use crate::domain::scope::Scopes;
use exprsn_sdk::prelude::*;

#[derive(Deserialize)]
struct Row {
    id: String,
    name: String,
    secret_digest: Option<String>,
    auth_method: String,
    redirect_uris: String,
    post_logout_redirect_uris: String,
    grant_types: String,
    scope: String,
    first_party: i64,
    client_uri: Option<String>,
    created_at: i64,
}

const COLUMNS: &str = "id, name, secret_digest, auth_method, redirect_uris, post_logout_redirect_uris, grant_types, scope, \
                       first_party, client_uri, created_at";

impl Row {
    fn into_client(self) -> Result<Client> {
        let list = |text: &str| {
            serde_json::from_str(text)
                .map_err(|e| Problem::fault("a client's list of URIs is not JSON", e))
        };
        let auth_method = AuthMethod::parse(&self.auth_method).ok_or_else(|| {
            Problem::fault("a client's auth_method is unknown", &self.auth_method)
        })?;
        Ok(Client {
            auth_method,
            redirect_uris: list(&self.redirect_uris)?,
            post_logout_redirect_uris: list(&self.post_logout_redirect_uris)?,
            grant_types: self
                .grant_types
                .split(' ')
                .filter_map(GrantType::parse)
                .collect(),
            scopes: Scopes::parse(&self.scope),
            first_party: self.first_party == 1,
            id: self.id,
            name: self.name,
            secret_digest: self.secret_digest,
            client_uri: self.client_uri,
            created_at: self.created_at,
        })
    }
}

/// A client by its id.
pub async fn by_id(id: &str) -> Result<Option<Client>> {
    let row: Option<Row> = sql::query_one_as(
        &format!("SELECT {COLUMNS} FROM clients WHERE id = $1"),
        params![id],
    )
    .await?;
    row.map(Row::into_client).transpose()
}

/// Clients, newest first, from before a place.
pub async fn list(before: (i64, String), limit: i64) -> Result<Vec<Client>> {
    let text = format!(
        "SELECT {COLUMNS} FROM clients WHERE (created_at, id) < ($1, $2) ORDER BY created_at DESC, id DESC LIMIT $3"
    );
    let rows: Vec<Row> = sql::query_as(&text, params![before.0, before.1, limit]).await?;
    rows.into_iter().map(Row::into_client).collect()
}

fn values(client: &Client, now: i64) -> Result<Vec<sql::Value>> {
    let list = |uris: &[String]| {
        serde_json::to_string(uris).map_err(|e| Problem::fault("writing a list of URIs", e))
    };
    let grants: Vec<&str> = client.grant_types.iter().map(|g| g.as_str()).collect();
    Ok(params![
        client.id,
        client.name,
        client.secret_digest,
        client.auth_method.as_str(),
        list(&client.redirect_uris)?,
        list(&client.post_logout_redirect_uris)?,
        grants.join(" "),
        client.scopes.to_string(),
        i64::from(client.first_party),
        client.client_uri,
        now
    ])
}

/// Adds a client.
pub async fn insert(tx: &sql::Tx, client: &Client, by: &str) -> Result<()> {
    let mut values = values(client, client.created_at)?;
    values.extend(params![by]);
    tx.execute(
        "INSERT INTO clients (id, name, secret_digest, auth_method, redirect_uris, post_logout_redirect_uris, grant_types, \
         scope, first_party, client_uri, created_at, updated_at, created_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12)",
        values,
    )
    .await?;
    Ok(())
}

/// Writes all of a client but its origin; false when there is no such client.
pub async fn update(tx: &sql::Tx, client: &Client, now: i64) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE clients SET name = $2, secret_digest = $3, auth_method = $4, redirect_uris = $5, \
             post_logout_redirect_uris = $6, grant_types = $7, scope = $8, first_party = $9, client_uri = $10, \
             updated_at = $11 WHERE id = $1",
            values(client, now)?,
        )
        .await?;
    Ok(changed == 1)
}

/// Deletes a client; false when there is none.
pub async fn delete(tx: &sql::Tx, id: &str) -> Result<bool> {
    Ok(tx
        .execute("DELETE FROM clients WHERE id = $1", params![id])
        .await?
        == 1)
}
