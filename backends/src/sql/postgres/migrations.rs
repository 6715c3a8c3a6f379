//! Migrations on PostgreSQL: run by the role that owns the tables, recorded by the host's, one host at a time.

use super::{PostgresDatabase, pool::Connection, provision, roles::literal};
use crate::{
    clock,
    sql::{
        Failure,
        error::BoxError,
        migrate::{self, Applied, Engine, Migration, MigrationFile, Status},
    },
};
use std::ops::RangeInclusive;

/// Held by the host that migrates this database.
const LOCK: &str = "SELECT pg_advisory_lock(7012023)";
const APPLIED: &str = "SELECT name, checksum, applied_at FROM exprsn_host.migrations ORDER BY name";
const RECORD: &str = "SELECT exprsn_host.record($1, $2, $3, $4)";

/// What the database has and what it lacks. Changes nothing.
pub async fn status(
    database: &PostgresDatabase,
    files: &[MigrationFile],
    bears: &RangeInclusive<u32>,
) -> Result<Status, Failure> {
    let inner = &database.inner;
    let host = provision::connect_as(&inside(database), &inner.roles.host, &inner.secrets).await?;
    migrate::status_of(applied(&host).await?, files, Engine::Postgres, bears)
}

/// Applies what is pending, each migration in a transaction of its own. Answers their names.
pub async fn migrate(
    database: &PostgresDatabase,
    files: &[MigrationFile],
    bears: &RangeInclusive<u32>,
) -> Result<Vec<String>, Failure> {
    let inner = &database.inner;
    let of_service = || format!("migrations of {}", inner.service);
    let wanted = migrate::select(files, Engine::Postgres).map_err(Failure::doing(of_service()))?;
    let inside = inside(database);
    // The session's end gives the lock back.
    let host = provision::connect_as(&inside, &inner.roles.host, &inner.secrets).await?;
    host.client
        .batch_execute(LOCK)
        .await
        .map_err(Failure::doing("waiting for the other hosts' migrations"))?;
    let pending = migrate::plan(&applied(&host).await?, &wanted, bears)
        .map_err(Failure::doing(of_service()))?;
    let mut names = Vec::new();
    if pending.is_empty() {
        return Ok(names);
    }
    let owner = provision::connect_as(&inside, &inner.roles.owner, &inner.secrets).await?;
    for migration in pending {
        apply(&owner, &inner.key, &migration)
            .await
            .map_err(Failure::doing(format!(
                "migration `{}` of {} failed; nothing of it is applied",
                migration.name, inner.service
            )))?;
        tracing::info!(service = %inner.service, migration = migration.name, "applied a migration");
        names.push(migration.name);
    }
    Ok(names)
}

/// Into the service's database.
fn inside(database: &PostgresDatabase) -> super::pool::Connector {
    database.inner.inside.clone()
}

async fn applied(host: &Connection) -> Result<Vec<Applied>, Failure> {
    let rows = host.client.query(APPLIED, &[]).await;
    let rows = rows.map_err(Failure::doing("reading the applied migrations"))?;
    let applied = rows.iter().map(|row| Applied {
        name: row.get(0),
        checksum: row.get(1),
        applied_at: row.get(2),
    });
    Ok(applied.collect())
}

async fn apply(owner: &Connection, key: &str, migration: &Migration) -> Result<(), BoxError> {
    // Inside of a function, statements can neither commit nor roll back what they are part of.
    let body = format!("BEGIN EXECUTE {}; END", literal_in_body(&migration.sql));
    owner.client.batch_execute("BEGIN").await?;
    let run = format!("DO {}", literal_in_body(&body));
    let applied = async {
        owner.client.batch_execute(&run).await?;
        let now_ms = clock::now_ms();
        owner
            .client
            .execute(
                RECORD,
                &[&key, &migration.name, &migration.checksum, &now_ms],
            )
            .await?;
        owner.client.batch_execute("COMMIT").await
    };
    let applied: Result<(), tokio_postgres::Error> = applied.await;
    if let Err(error) = applied {
        // The connection closes with the failure, which rolls back as well.
        let _ = owner.client.batch_execute("ROLLBACK").await;
        return Err(told(error));
    }
    Ok(())
}

/// A string literal, whatever `standard_conforming_strings` says.
fn literal_in_body(text: &str) -> String {
    if text.contains('\\') {
        return format!("E{}", literal(&text.replace('\\', "\\\\")));
    }
    literal(text)
}

/// The server's words with their place in the migration.
fn told(error: tokio_postgres::Error) -> BoxError {
    use tokio_postgres::error::ErrorPosition;
    let Some(server) = error.as_db_error() else {
        return error.into();
    };
    let mut text = server.message().to_owned();
    if let Some(ErrorPosition::Internal { position, query }) = server.position() {
        let before: String = query.chars().take(*position as usize).collect();
        text.push_str(&format!(" (line {})", before.lines().count().max(1)));
    }
    if let Some(detail) = server.detail() {
        text.push_str(&format!(": {detail}"));
    }
    text.into()
}
