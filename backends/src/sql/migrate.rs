//! Migrations: a component's embedded SQL files, applied once each and in order to its service's database.

use super::guard::{self, Rights};
use crate::{
    clock,
    manifest::{MigrationFile, Migrations},
    name::ServiceName,
    sqlite::{self, Database},
};
use rusqlite::Connection;
use std::ops::RangeInclusive;
use wasmtime::{Result, bail, ensure, error::Context as _, format_err};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS _exprsn_migrations (
    name TEXT PRIMARY KEY,
    checksum TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT";

/// A database engine, which may need a file of its own: `0002_geo.postgres.sql` beside `0002_geo.sqlite.sql`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];

    /// The name in files and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// One migration as an engine runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The file's name without `.sql` and engine: `0001_init`.
    pub name: String,
    pub sql: String,
    checksum: String,
}

/// A migration that has been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub name: String,
    checksum: String,
    /// Milliseconds since the Unix epoch.
    pub applied_at: i64,
}

/// What a database has and what it lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub applied: Vec<Applied>,
    /// Names, in the order in which they are to be applied.
    pub pending: Vec<String>,
}

/// Creates the table in which applied migrations are recorded.
pub fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(SCHEMA)
}

/// The migrations for `engine`, in order. A file that is misnamed, missing for the engine or doubled is an error.
pub fn select(files: &Migrations, engine: Engine) -> Result<Vec<Migration>> {
    let mut selected: Vec<Migration> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for file in &files.files {
        let (name, only) = parse_name(&file.name)?;
        names.push(name);
        if only.is_none_or(|only| only == engine) {
            selected.push(Migration {
                name: name.to_owned(),
                sql: file.sql.clone(),
                checksum: checksum(file),
            });
        }
    }
    selected.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = selected
        .windows(2)
        .find(|pair| number(&pair[0].name) == number(&pair[1].name))
    {
        bail!(
            "migrations `{}` and `{}` have the same number",
            pair[0].name,
            pair[1].name
        );
    }
    let lacking = names
        .into_iter()
        .find(|name| !selected.iter().any(|migration| migration.name == *name));
    match lacking {
        Some(name) => bail!(
            "migration `{name}` has no file for {0}: add `{name}.{0}.sql`",
            engine.as_str()
        ),
        None => Ok(selected),
    }
}

/// Name and engine of `0001_init.sql` or `0001_init.postgres.sql`.
fn parse_name(file: &str) -> Result<(&str, Option<Engine>)> {
    let wrong =
        || format_err!("migration `{file}` is misnamed; write it like `0001_create_posts.sql`");
    let stem = file.strip_suffix(".sql").ok_or_else(wrong)?;
    let (name, engine) = match stem.split_once('.') {
        None => (stem, None),
        Some((name, suffix)) => (
            name,
            Some(
                Engine::ALL
                    .into_iter()
                    .find(|engine| engine.as_str() == suffix)
                    .ok_or_else(wrong)?,
            ),
        ),
    };
    let (digits, words) = name.split_once('_').ok_or_else(wrong)?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let shaped = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
    ensure!(
        shaped && !words.is_empty() && words.bytes().all(plain),
        wrong()
    );
    Ok((name, engine))
}

fn number(name: &str) -> &str {
    &name[..4]
}

fn as_number(name: &str) -> u32 {
    number(name).parse().unwrap_or(u32::MAX)
}

/// SHA-256 of the text, in hexadecimal.
fn checksum(file: &MigrationFile) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, file.sql.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Compares what is recorded with what there is. A difference in the past is an error that names the migration.
///
/// A migration that the component lacks is borne if it comes after its last one and within `bears`: a later version's.
pub fn plan(
    applied: &[Applied],
    wanted: &[Migration],
    bears: &RangeInclusive<u32>,
) -> Result<Vec<Migration>> {
    let newest = wanted.last().map_or(0, |last| as_number(&last.name));
    for done in applied {
        let Some(migration) = wanted.iter().find(|migration| migration.name == done.name) else {
            let later = as_number(&done.name);
            ensure!(
                later > newest && later <= *bears.end(),
                "the database has migration `{}`, which the component lacks, and it works with {:04} to {:04} ([schema] in its \
                 component.toml): is this an older version of it?",
                done.name,
                bears.start(),
                bears.end()
            );
            continue;
        };
        ensure!(
            migration.checksum == done.checksum,
            "migration `{}` has changed since it was applied: restore its text and add a new migration instead",
            done.name
        );
    }
    let is_applied =
        |migration: &&Migration| applied.iter().any(|done| done.name == migration.name);
    let last = wanted.iter().rposition(|migration| is_applied(&migration));
    let (past, pending) = wanted.split_at(last.map_or(0, |last| last + 1));
    if let Some(gap) = past.iter().find(|migration| !is_applied(migration)) {
        bail!(
            "migration `{}` comes before one that is applied already: give it the next free number",
            gap.name
        );
    }
    Ok(pending.to_vec())
}

/// What the database of a service has and what it lacks. Changes nothing.
pub async fn status(database: &Database, files: &Migrations) -> Result<Status> {
    let wanted = select(files, Engine::Sqlite)?;
    let applied = database
        .read(read_applied)
        .await
        .context("reading the applied migrations")?;
    let pending = plan(&applied, &wanted, &files.range())?
        .into_iter()
        .map(|migration| migration.name)
        .collect();
    Ok(Status { applied, pending })
}

/// Applies what is pending, each migration in a transaction of its own. Answers their names.
pub async fn migrate(
    database: &Database,
    service: &ServiceName,
    files: &Migrations,
) -> Result<Vec<String>> {
    let wanted =
        select(files, Engine::Sqlite).with_context(|| format!("migrations of {service}"))?;
    let applied = database
        .read(read_applied)
        .await
        .context("reading the applied migrations")?;
    let pending = plan(&applied, &wanted, &files.range()).with_context(|| format!("migrations of {service}"))?;
    let mut names = Vec::new();
    for migration in pending {
        let name = migration.name.clone();
        let applying =
            database.write_again(move |connection| apply(connection, &migration, clock::now_ms()));
        applying.await.with_context(|| {
            format!("migration `{name}` of {service} failed; nothing of it is applied")
        })?;
        tracing::info!(%service, migration = name, "applied a migration");
        names.push(name);
    }
    Ok(names)
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
