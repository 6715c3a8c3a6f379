//! Grants, and the tokens of each: a family of refresh tokens and the access tokens that still live.

use crate::domain::refresh::Presented;
use exprsn_sdk::prelude::*;

/// The client of the JSON API, which is no registered client.
pub const OWN_CLIENT: &str = "exprsn";

/// What a client may do for a person.
#[derive(Clone, Debug)]
pub struct Grant {
    pub id: String,
    pub user_id: String,
    pub session_id: String,
    pub client_id: String,
    /// Goes on after its session.
    pub offline: bool,
    /// Separated by spaces.
    pub scope: String,
    pub expires_at: i64,
}

/// An access token that has been issued. `expires_at` is in seconds, as tokens have it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessToken {
    pub id: String,
    pub expires_at: i64,
}

/// A refresh token as it is stored, with its grant.
#[derive(Clone, Debug, Deserialize)]
pub struct StoredRefresh {
    pub grant_id: String,
    pub user_id: String,
    pub session_id: String,
    pub client_id: String,
    pub kind: String,
    pub scope: String,
    pub used_at: Option<i64>,
    pub expires_at: i64,
    pub grant_revoked_at: Option<i64>,
    pub grant_expires_at: i64,
}

impl StoredRefresh {
    /// What the decision about it needs.
    pub fn presented(&self) -> Presented {
        Presented {
            used_at: self.used_at,
            expires_at: self.expires_at,
            grant_revoked_at: self.grant_revoked_at,
            grant_expires_at: self.grant_expires_at,
            client_id: self.client_id.clone(),
        }
    }

    /// Its grant.
    pub fn grant(&self) -> Grant {
        Grant {
            id: self.grant_id.clone(),
            user_id: self.user_id.clone(),
            session_id: self.session_id.clone(),
            client_id: self.client_id.clone(),
            offline: self.kind == "offline",
            scope: self.scope.clone(),
            expires_at: self.grant_expires_at,
        }
    }
}

/// A grant as its owner sees it: an application that has access.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrantView {
    pub id: String,
    pub client_id: String,
    /// None when the client is no longer registered.
    pub client_name: Option<String>,
    /// `online` ends with its session, `offline` goes on.
    pub kind: String,
    pub scope: String,
    /// Milliseconds since the Unix epoch, as are the following.
    pub created_at: i64,
    pub last_used_at: i64,
    pub expires_at: i64,
}

/// Adds a grant.
pub async fn insert(tx: &sql::Tx, grant: &Grant, now: i64) -> Result<()> {
    let kind = if grant.offline { "offline" } else { "online" };
    tx.execute(
        "INSERT INTO grants (id, user_id, session_id, client_id, kind, scope, created_at, last_used_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)",
        params![grant.id, grant.user_id, grant.session_id, grant.client_id, kind, grant.scope, now, grant.expires_at],
    )
    .await?;
    Ok(())
}

/// Notes that a grant is used; false when it is over. Holds the row, so that a revocation comes before or after, not between.
pub async fn hold(tx: &sql::Tx, id: &str, now: i64) -> Result<bool> {
    let text = "UPDATE grants SET last_used_at = $2 WHERE id = $1 AND revoked_at IS NULL AND expires_at > $2";
    Ok(tx.execute(text, params![id, now]).await? == 1)
}

/// Adds a refresh token.
pub async fn insert_refresh(
    tx: &sql::Tx,
    digest: &str,
    grant_id: &str,
    now: i64,
    expires_at: i64,
) -> Result<()> {
    tx.execute(
        "INSERT INTO refresh_tokens (digest, grant_id, created_at, expires_at) VALUES ($1, $2, $3, $4)",
        params![digest, grant_id, now, expires_at],
    )
    .await?;
    Ok(())
}

/// Adds an access token; none is the grant of `client_credentials`.
pub async fn insert_access(
    tx: &sql::Tx,
    token: &AccessToken,
    grant_id: Option<&str>,
    client_id: &str,
) -> Result<()> {
    tx.execute(
        "INSERT INTO access_tokens (id, grant_id, client_id, expires_at) VALUES ($1, $2, $3, $4)",
        params![token.id, grant_id, client_id, token.expires_at],
    )
    .await?;
    Ok(())
}

/// A refresh token by its digest.
pub async fn refresh_by_digest(digest: &str) -> Result<Option<StoredRefresh>> {
    let text = "SELECT r.grant_id, g.user_id, g.session_id, g.client_id, g.kind, g.scope, r.used_at, r.expires_at, \
                g.revoked_at AS grant_revoked_at, g.expires_at AS grant_expires_at \
                FROM refresh_tokens r JOIN grants g ON g.id = r.grant_id WHERE r.digest = $1";
    Ok(sql::query_one_as(text, params![digest]).await?)
}

/// Marks a refresh token as used; false when somebody was faster.
pub async fn use_refresh(tx: &sql::Tx, digest: &str, now: i64) -> Result<bool> {
    let text = "UPDATE refresh_tokens SET used_at = $2 WHERE digest = $1 AND used_at IS NULL";
    Ok(tx.execute(text, params![digest, now]).await? == 1)
}

/// Which grants are meant.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    One(&'a str),
    /// Those that end with a session.
    OnlineOfSession(&'a str),
    OfUser(&'a str),
    /// Those of a person by one client.
    OfClient(&'a str),
}

impl<'a> Which<'a> {
    fn condition(self) -> (&'static str, &'a str) {
        match self {
            Self::One(id) => ("g.id = $1", id),
            Self::OnlineOfSession(id) => ("g.session_id = $1 AND g.kind = 'online'", id),
            Self::OfUser(id) => ("g.user_id = $1", id),
            Self::OfClient(id) => ("g.client_id = $1", id),
        }
    }
}

/// Revokes grants. Answers the access tokens that still live by them, which are to be revoked with the authority.
pub async fn revoke(tx: &sql::Tx, which: Which<'_>, now: i64) -> Result<Vec<AccessToken>> {
    let (condition, value) = which.condition();
    // Before the tokens are read: a refresh that is under way holds the grant's row until it has committed its token.
    let text = format!(
        "UPDATE grants AS g SET revoked_at = $2 WHERE g.revoked_at IS NULL AND {condition}"
    );
    tx.execute(&text, params![value, now]).await?;
    let text = format!(
        "SELECT a.id, a.expires_at FROM access_tokens a JOIN grants g ON g.id = a.grant_id WHERE a.expires_at > $2 AND {condition}"
    );
    Ok(tx
        .query_as(&text, params![value, now.div_euclid(1_000)])
        .await?)
}

/// The live access tokens of a person.
pub async fn tokens_of_user(tx: &sql::Tx, user_id: &str, now: i64) -> Result<Vec<AccessToken>> {
    let text = "SELECT a.id, a.expires_at FROM access_tokens a JOIN grants g ON g.id = a.grant_id \
                WHERE g.user_id = $1 AND a.expires_at > $2";
    Ok(tx
        .query_as(text, params![user_id, now.div_euclid(1_000)])
        .await?)
}

/// The live access tokens that a client holds in its own name.
pub async fn own_tokens(tx: &sql::Tx, client_id: &str, now: i64) -> Result<Vec<AccessToken>> {
    let text = "SELECT id, expires_at FROM access_tokens WHERE client_id = $1 AND grant_id IS NULL AND expires_at > $2";
    Ok(tx
        .query_as(text, params![client_id, now.div_euclid(1_000)])
        .await?)
}

/// The live grants of a person to registered clients, newest first.
pub async fn of_user(user_id: &str, now: i64, limit: i64) -> Result<Vec<GrantView>> {
    let text = "SELECT g.id, g.client_id, c.name AS client_name, g.kind, g.scope, g.created_at, g.last_used_at, g.expires_at \
                FROM grants g LEFT JOIN clients c ON c.id = g.client_id \
                WHERE g.user_id = $1 AND g.revoked_at IS NULL AND g.expires_at > $2 AND g.client_id <> $3 \
                ORDER BY g.id DESC LIMIT $4";
    Ok(sql::query_as(text, params![user_id, now, OWN_CLIENT, limit]).await?)
}

/// The client of a live grant of this person.
pub async fn client_of(id: &str, user_id: &str, now: i64) -> Result<Option<String>> {
    let text = "SELECT client_id FROM grants WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > $3";
    Ok(sql::query_one_as(text, params![id, user_id, now]).await?)
}
