//! The registry's tables.

use crate::{
    changes::{Change, KEPT_MAX, Kind, Observed, status_name},
    registration::NewRegistration,
    view::{Registration, Running},
};
use exprsn_sdk::{prelude::*, sql::Tx};

/// Registrations that the registry holds, so that its list stays readable in one piece.
pub const REGISTRATIONS_MAX: usize = 1_000;

const COLUMNS: &str = "name, version, host, port, health_check_path, dependencies, metadata, owner, lease_seconds, \
                       registered_at, renewed_at, expires_at";

/// All registrations, sorted by name.
pub async fn registrations() -> Result<Vec<Registration>> {
    Ok(sql::query_as(
        &format!("SELECT {COLUMNS} FROM registrations ORDER BY name"),
        params![],
    )
    .await?)
}

/// The same within a transaction.
pub async fn registrations_in(tx: &Tx) -> Result<Vec<Registration>> {
    Ok(tx
        .query_as(
            &format!("SELECT {COLUMNS} FROM registrations ORDER BY name"),
            params![],
        )
        .await?)
}

/// One registration.
pub async fn registration_in(tx: &Tx, name: &str) -> Result<Option<Registration>> {
    Ok(tx
        .query_one_as(
            &format!("SELECT {COLUMNS} FROM registrations WHERE name = $1"),
            params![name],
        )
        .await?)
}

/// Writes a registration, or renews the one there is. The first owner stays the owner.
pub async fn upsert(tx: &Tx, new: &NewRegistration, owner: &str, now: i64) -> Result<()> {
    let statement = "INSERT INTO registrations (name, version, host, port, health_check_path, dependencies, metadata, \
         owner, lease_seconds, registered_at, renewed_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11) \
         ON CONFLICT (name) DO UPDATE SET version = $2, host = $3, port = $4, health_check_path = $5, dependencies = $6, \
         metadata = $7, lease_seconds = $9, renewed_at = $10, expires_at = $11, expiry_told = 0";
    let dependencies = json!(new.dependencies).to_string();
    let metadata = json!(new.metadata).to_string();
    let values = params![
        new.name,
        new.version,
        new.host,
        i64::from(new.port),
        new.health_check_path,
        dependencies,
        metadata,
        owner,
        i64::from(new.lease_seconds),
        now,
        expiry(now, new.lease_seconds),
    ];
    tx.execute(statement, values).await?;
    Ok(())
}

/// Extends a lease; answers when it ends now.
pub async fn renew(tx: &Tx, registration: &Registration, now: i64) -> Result<i64> {
    let expires_at = expiry(now, registration.lease_seconds);
    let statement = "UPDATE registrations SET renewed_at = $2, expires_at = $3, expiry_told = 0 WHERE name = $1";
    tx.execute(statement, params![registration.name, now, expires_at])
        .await?;
    Ok(expires_at)
}

fn expiry(now: i64, lease_seconds: u32) -> i64 {
    now.saturating_add(i64::from(lease_seconds) * 1_000)
}

/// Removes a registration.
pub async fn remove(tx: &Tx, name: &str) -> Result<()> {
    tx.execute("DELETE FROM registrations WHERE name = $1", params![name])
        .await?;
    Ok(())
}

/// Keeps a change for listeners who come back.
pub async fn record(tx: &Tx, change: &Change) -> Result<()> {
    let data = json!(change).to_string();
    tx.execute(
        "INSERT INTO changes (id, data) VALUES ($1, $2)",
        params![change.id, data],
    )
    .await?;
    Ok(())
}

/// The kept changes after the one with this id, as they are sent.
pub async fn changes_after(id: &str) -> Result<Vec<Change>> {
    let statement = "SELECT data FROM changes WHERE id > $1 ORDER BY id LIMIT $2";
    let rows: Vec<String> = sql::query_as(statement, params![id, i64::from(KEPT_MAX)]).await?;
    Ok(rows
        .iter()
        .filter_map(|data| serde_json::from_str(data).ok())
        .collect())
}

/// What was last noticed of the platform's services.
pub async fn observed() -> Result<Vec<Observed>> {
    Ok(sql::query_as(
        "SELECT name, status, digest FROM observed ORDER BY name",
        params![],
    )
    .await?)
}

/// Notes a service's state; false when somebody else has noted the same already.
pub async fn observe(tx: &Tx, service: &Running, now: i64) -> Result<bool> {
    let statement = "INSERT INTO observed (name, status, digest, at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (name) DO UPDATE SET status = $2, digest = $3, at = $4 \
         WHERE observed.status <> $2 OR observed.digest <> $3";
    let values = params![
        service.name,
        status_name(service.status),
        service.digest,
        now
    ];
    Ok(tx.execute(statement, values).await? == 1)
}

/// Forgets a service that is configured no more; false when somebody else has.
pub async fn unobserve(tx: &Tx, name: &str) -> Result<bool> {
    Ok(tx
        .execute("DELETE FROM observed WHERE name = $1", params![name])
        .await?
        == 1)
}

/// Registrations whose lease has run out and of which nobody was told yet.
pub async fn expired(tx: &Tx, now: i64) -> Result<Vec<Registration>> {
    let found = format!(
        "SELECT {COLUMNS} FROM registrations WHERE expires_at <= $1 AND expiry_told = 0 ORDER BY name"
    );
    let expired = tx.query_as(&found, params![now]).await?;
    let told =
        "UPDATE registrations SET expiry_told = 1 WHERE expires_at <= $1 AND expiry_told = 0";
    tx.execute(told, params![now]).await?;
    Ok(expired)
}

/// Removes registrations whose lease ran out before an instant, and answers them.
pub async fn remove_expired(tx: &Tx, before: i64) -> Result<Vec<Registration>> {
    let found = format!("SELECT {COLUMNS} FROM registrations WHERE expires_at <= $1 ORDER BY name");
    let gone = tx.query_as(&found, params![before]).await?;
    tx.execute(
        "DELETE FROM registrations WHERE expires_at <= $1",
        params![before],
    )
    .await?;
    Ok(gone)
}

/// Forgets all but the newest changes.
pub async fn prune(tx: &Tx) -> Result<()> {
    let statement =
        "DELETE FROM changes WHERE id NOT IN (SELECT id FROM changes ORDER BY id DESC LIMIT $1)";
    tx.execute(statement, params![i64::from(KEPT_MAX)]).await?;
    Ok(())
}

/// Whether there is anything for a sweep to do with leases.
pub async fn any_expired(now: i64) -> Result<bool> {
    let statement = "SELECT COUNT(*) FROM registrations WHERE expires_at <= $1";
    Ok(sql::scalar::<i64>(statement, params![now]).await? > 0)
}

/// A change of a registration as it stands.
pub fn change(kind: Kind, registration: &Registration, now: i64) -> Change {
    Change::of(kind, &registration.view(now), uuid_v7(), now)
}
