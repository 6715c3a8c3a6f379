//! Sessions: one sign-in of one person each.

use crate::facts::Facts;
use exprsn_sdk::prelude::*;

/// How a session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// The JSON API.
    Api,
    /// The page, with the digest of the browser's cookie.
    Browser { cookie_digest: &'a str },
}

/// A row of `sessions`, as far as it matters to decisions.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    pub id: String,
    pub user_id: String,
    /// RFC 8176, separated by spaces.
    pub methods: String,
    pub authenticated_at: i64,
    pub expires_at: i64,
}

/// A session as its owner sees it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    pub id: String,
    /// `api`, or `browser` for the page that OAuth clients send people to.
    pub kind: String,
    pub address: Option<String>,
    pub user_agent: Option<String>,
    /// Milliseconds since the Unix epoch, as are the following.
    pub created_at: i64,
    pub last_seen_at: i64,
    pub expires_at: i64,
    /// Whether it is the session of the token that asks.
    #[serde(default)]
    pub current: bool,
}

/// Opens a session.
pub async fn insert(
    tx: &sql::Tx,
    session: &Session,
    origin: Origin<'_>,
    facts: &Facts,
) -> Result<()> {
    let (kind, cookie) = match origin {
        Origin::Api => ("api", None),
        Origin::Browser { cookie_digest } => ("browser", Some(cookie_digest)),
    };
    tx.execute(
        "INSERT INTO sessions (id, user_id, kind, cookie_digest, methods, address, user_agent, created_at, \
         authenticated_at, last_seen_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $8, $10)",
        params![
            session.id,
            session.user_id,
            kind,
            cookie,
            session.methods,
            facts.address,
            facts.user_agent,
            facts.now,
            session.authenticated_at,
            session.expires_at
        ],
    )
    .await?;
    Ok(())
}

/// Notes that the same person signed in again in the same browser: a fresh cookie, a fresh instant, the same session.
pub async fn renew(tx: &sql::Tx, session: &Session, cookie_digest: &str, now: i64) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE sessions SET cookie_digest = $2, methods = $3, authenticated_at = $4, last_seen_at = $5, expires_at = $6 \
             WHERE id = $1 AND ended_at IS NULL",
            params![session.id, cookie_digest, session.methods, session.authenticated_at, now, session.expires_at],
        )
        .await?;
    Ok(changed == 1)
}

const LIVE: &str = "ended_at IS NULL AND expires_at > ";

/// The live session of a browser's cookie.
pub async fn by_cookie(cookie_digest: &str, now: i64) -> Result<Option<Session>> {
    let text = format!(
        "SELECT id, user_id, methods, authenticated_at, expires_at FROM sessions WHERE cookie_digest = $1 AND {LIVE} $2"
    );
    Ok(sql::query_one_as(&text, params![cookie_digest, now]).await?)
}

/// A live session by its id.
pub async fn by_id(id: &str, now: i64) -> Result<Option<Session>> {
    let text = format!(
        "SELECT id, user_id, methods, authenticated_at, expires_at FROM sessions WHERE id = $1 AND {LIVE} $2"
    );
    Ok(sql::query_one_as(&text, params![id, now]).await?)
}

/// A session by its id, over or not.
pub async fn any_by_id(id: &str) -> Result<Option<Session>> {
    let text =
        "SELECT id, user_id, methods, authenticated_at, expires_at FROM sessions WHERE id = $1";
    Ok(sql::query_one_as(text, params![id]).await?)
}

/// The live sessions of a person, newest first.
pub async fn of_user(user_id: &str, now: i64, limit: i64) -> Result<Vec<SessionView>> {
    let text = format!(
        "SELECT id, kind, address, user_agent, created_at, last_seen_at, expires_at FROM sessions \
         WHERE user_id = $1 AND {LIVE} $2 ORDER BY id DESC LIMIT $3"
    );
    Ok(sql::query_as(&text, params![user_id, now, limit]).await?)
}

/// Notes that a session was used.
pub async fn touch(tx: &sql::Tx, id: &str, now: i64) -> Result<()> {
    tx.execute(
        "UPDATE sessions SET last_seen_at = $2 WHERE id = $1",
        params![id, now],
    )
    .await?;
    Ok(())
}

/// Ends sessions of a person: one, or all. Answers the ids of those that were live.
pub async fn end(tx: &sql::Tx, user_id: &str, id: Option<&str>, now: i64) -> Result<Vec<String>> {
    let text = "UPDATE sessions SET ended_at = $3, cookie_digest = NULL WHERE user_id = $1 AND ended_at IS NULL \
                AND (CAST($2 AS TEXT) IS NULL OR id = $2) RETURNING id";
    Ok(tx.query_as(text, params![user_id, id, now]).await?)
}
