//! The log of what concerns the security of accounts and clients. Rows are added and pruned, never changed.

use crate::facts::Facts;
use exprsn_sdk::prelude::*;

/// What happened, in the words of the log.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// `login.succeeded`, `password.changed`, …
    pub kind: &'static str,
    pub user_id: Option<&'a str>,
    pub client_id: Option<&'a str>,
}

/// A row of the log as clients see it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    pub id: String,
    /// Milliseconds since the Unix epoch.
    pub at: i64,
    /// `login.succeeded`, `login.failed`, `password.changed`, …
    pub kind: String,
    pub user_id: Option<String>,
    pub client_id: Option<String>,
    pub address: Option<String>,
    pub user_agent: Option<String>,
    /// Further facts, as a JSON object in text.
    pub detail: String,
}

const INSERT: &str = "INSERT INTO audit_events (id, at, kind, user_id, client_id, address, user_agent, detail) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

fn values(entry: Entry<'_>, facts: &Facts, detail: &serde_json::Value) -> Vec<sql::Value> {
    params![
        uuid_v7(),
        facts.now,
        entry.kind,
        entry.user_id,
        entry.client_id,
        facts.address,
        facts.user_agent,
        detail.to_string()
    ]
}

/// Adds to the log what a transaction does, if and when it commits.
pub async fn write(
    tx: &sql::Tx,
    entry: Entry<'_>,
    facts: &Facts,
    detail: serde_json::Value,
) -> Result<()> {
    tx.execute(INSERT, values(entry, facts, &detail)).await?;
    Ok(())
}

/// Adds to the log what did not happen: a refusal.
pub async fn refused(entry: Entry<'_>, facts: &Facts, detail: serde_json::Value) -> Result<()> {
    log::warn!(
        "refused",
        kind = entry.kind,
        user = entry.user_id.unwrap_or(""),
        client = entry.client_id.unwrap_or("")
    );
    sql::execute(INSERT, values(entry, facts, &detail)).await?;
    Ok(())
}

/// The log, newest first, from before a place; of one person or of all.
pub async fn list(user_id: Option<&str>, before: &str, limit: i64) -> Result<Vec<AuditEvent>> {
    let text = "SELECT id, at, kind, user_id, client_id, address, user_agent, detail FROM audit_events \
                WHERE id < $1 AND (CAST($2 AS TEXT) IS NULL OR user_id = $2) ORDER BY id DESC LIMIT $3";
    Ok(sql::query_as(text, params![before, user_id, limit]).await?)
}
