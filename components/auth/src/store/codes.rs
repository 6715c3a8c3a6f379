//! Authorization codes and remembered consent.

use crate::domain::scope::Scopes;
use exprsn_sdk::prelude::*;

/// A row of `authorization_codes`.
#[derive(Clone, Debug, Deserialize)]
pub struct Code {
    pub digest: String,
    pub client_id: String,
    pub user_id: String,
    pub session_id: String,
    pub redirect_uri: String,
    pub scope: String,
    pub nonce: Option<String>,
    pub code_challenge: String,
    pub expires_at: i64,
    pub used_at: Option<i64>,
    pub grant_id: Option<String>,
}

/// Adds a code.
pub async fn insert(tx: &sql::Tx, code: &Code, now: i64) -> Result<()> {
    tx.execute(
        "INSERT INTO authorization_codes (digest, client_id, user_id, session_id, redirect_uri, scope, nonce, \
         code_challenge, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            code.digest,
            code.client_id,
            code.user_id,
            code.session_id,
            code.redirect_uri,
            code.scope,
            code.nonce,
            code.code_challenge,
            now,
            code.expires_at
        ],
    )
    .await?;
    Ok(())
}

/// A code by its digest.
pub async fn by_digest(digest: &str) -> Result<Option<Code>> {
    let text = "SELECT digest, client_id, user_id, session_id, redirect_uri, scope, nonce, code_challenge, expires_at, \
                used_at, grant_id FROM authorization_codes WHERE digest = $1";
    Ok(sql::query_one_as(text, params![digest]).await?)
}

/// Marks a code as exchanged for a grant; false when somebody was faster.
pub async fn redeem(tx: &sql::Tx, digest: &str, grant_id: &str, now: i64) -> Result<bool> {
    let text = "UPDATE authorization_codes SET used_at = $2, grant_id = $3 WHERE digest = $1 AND used_at IS NULL";
    Ok(tx.execute(text, params![digest, now, grant_id]).await? == 1)
}

/// What a person has allowed a client so far.
pub async fn consented(user_id: &str, client_id: &str) -> Result<Scopes> {
    let text = "SELECT scope FROM consents WHERE user_id = $1 AND client_id = $2";
    let scope: Option<String> = sql::query_one_as(text, params![user_id, client_id]).await?;
    Ok(scope.map_or(Scopes::NONE, |scope| Scopes::parse(&scope)))
}

/// Remembers what a person has allowed a client.
pub async fn remember(
    tx: &sql::Tx,
    user_id: &str,
    client_id: &str,
    scopes: Scopes,
    now: i64,
) -> Result<()> {
    tx.execute(
        "INSERT INTO consents (user_id, client_id, scope, updated_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (user_id, client_id) DO UPDATE SET scope = excluded.scope, updated_at = excluded.updated_at",
        params![user_id, client_id, scopes.to_string(), now],
    )
    .await?;
    Ok(())
}

/// Forgets what a person has allowed a client.
pub async fn forget(tx: &sql::Tx, user_id: &str, client_id: &str) -> Result<()> {
    tx.execute(
        "DELETE FROM consents WHERE user_id = $1 AND client_id = $2",
        params![user_id, client_id],
    )
    .await?;
    Ok(())
}
