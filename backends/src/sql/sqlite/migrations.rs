//! Migrations on SQLite, and the table in which they are recorded.

use super::guard::{self, Rights};
use crate::{
    clock,
    name::ServiceName,
    sql::{
        Failure,
        migrate::{self, Applied, Engine, Migration, MigrationFile, Status},
    },
    sqlite::{self, Database},
};
use rusqlite::Connection;
use std::ops::RangeInclusive;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS _exprsn_migrations (
    name TEXT PRIMARY KEY,
    checksum TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT";

/// Creates the table in which applied migrations are recorded.
pub fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(SCHEMA)
}

/// What the database of a service has and what it lacks. Changes nothing.
pub async fn status(
    database: &Database,
    files: &[MigrationFile],
    bears: &RangeInclusive<u32>,
) -> Result<Status, Failure> {
    migrate::status_of(applied(database).await?, files, Engine::Sqlite, bears)
}

/// Applies what is pending, each migration in a transaction of its own. Answers their names.
pub async fn migrate(
    database: &Database,
    service: &ServiceName,
    files: &[MigrationFile],
    bears: &RangeInclusive<u32>,
) -> Result<Vec<String>, Failure> {
    let of_service = || format!("migrations of {service}");
    let wanted = migrate::select(files, Engine::Sqlite).map_err(Failure::doing(of_service()))?;
    let pending = migrate::plan(&applied(database).await?, &wanted, bears)
        .map_err(Failure::doing(of_service()))?;
    let mut names = Vec::new();
    for migration in pending {
        let name = migration.name.clone();
        database
            .write_again(move |connection| apply(connection, &migration, clock::now_ms()))
            .await
            .map_err(Failure::doing::<sqlite::Error>(format!(
                "migration `{name}` of {service} failed; nothing of it is applied"
            )))?;
        tracing::info!(%service, migration = name, "applied a migration");
        names.push(name);
    }
    Ok(names)
}

async fn applied(database: &Database) -> Result<Vec<Applied>, Failure> {
    let applied = database.read(read_applied).await;
    applied.map_err(Failure::doing("reading the applied migrations"))
}

fn read_applied(connection: &Connection) -> Result<Vec<Applied>, sqlite::Error> {
    let mut statement = connection
        .prepare("SELECT name, checksum, applied_at FROM _exprsn_migrations ORDER BY name")?;
    let rows = statement.query_map([], |row| {
        Ok(Applied {
            name: row.get(0)?,
            checksum: row.get(1)?,
            applied_at: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn apply(connection: &Connection, migration: &Migration, now_ms: i64) -> Result<(), sqlite::Error> {
    {
        let _entered = guard::enter(Rights::Schema, None);
        connection.execute_batch(&migration.sql)?;
    }
    connection.execute(
        "INSERT INTO _exprsn_migrations (name, checksum, applied_at) VALUES ($1, $2, $3)",
        (&migration.name, &migration.checksum, now_ms),
    )?;
    Ok(())
}
