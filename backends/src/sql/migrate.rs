//! Migrations: a component's embedded SQL files, applied once each and in order to its service's database.

use super::Failure;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// One migration as its component carries it: `0001_init.sql`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationFile {
    pub name: String,
    pub sql: String,
}

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
    pub(super) checksum: String,
}

/// A migration that has been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub name: String,
    pub(super) checksum: String,
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

/// The migrations for `engine`, in order. A file that is misnamed, missing for the engine or doubled is an error.
pub fn select(files: &[MigrationFile], engine: Engine) -> Result<Vec<Migration>, Failure> {
    let mut selected: Vec<Migration> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for file in files {
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
        return Err(Failure::new(format!(
            "migrations `{}` and `{}` have the same number",
            pair[0].name, pair[1].name
        )));
    }
    let lacking = names
        .into_iter()
        .find(|name| !selected.iter().any(|migration| migration.name == *name));
    match lacking {
        Some(name) => Err(Failure::new(format!(
            "migration `{name}` has no file for {0}: add `{name}.{0}.sql`",
            engine.as_str()
        ))),
        None => Ok(selected),
    }
}

/// Name and engine of `0001_init.sql` or `0001_init.postgres.sql`.
fn parse_name(file: &str) -> Result<(&str, Option<Engine>), Failure> {
    let wrong = || {
        Failure::new(format!(
            "migration `{file}` is misnamed; write it like `0001_create_posts.sql`"
        ))
    };
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
    if shaped && !words.is_empty() && words.bytes().all(plain) {
        Ok((name, engine))
    } else {
        Err(wrong())
    }
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
) -> Result<Vec<Migration>, Failure> {
    let newest = wanted.last().map_or(0, |last| as_number(&last.name));
    for done in applied {
        let migration = wanted.iter().find(|migration| migration.name == done.name);
        match migration {
            Some(migration) if migration.checksum != done.checksum => {
                return Err(Failure::new(format!(
                    "migration `{}` has changed since it was applied: restore its text and add a new migration instead",
                    done.name
                )));
            }
            None if !is_borne(&done.name, newest, bears) => {
                return Err(Failure::new(format!(
                    "the database has migration `{}`, which the component lacks, and it works with {:04} to {:04} \
                     ([schema] in its component.toml): is this an older version of it?",
                    done.name,
                    bears.start(),
                    bears.end()
                )));
            }
            _ => {}
        }
    }
    let is_applied =
        |migration: &&Migration| applied.iter().any(|done| done.name == migration.name);
    let last = wanted.iter().rposition(|migration| is_applied(&migration));
    let (past, pending) = wanted.split_at(last.map_or(0, |last| last + 1));
    if let Some(gap) = past.iter().find(|migration| !is_applied(migration)) {
        return Err(Failure::new(format!(
            "migration `{}` comes before one that is applied already: give it the next free number",
            gap.name
        )));
    }
    Ok(pending.to_vec())
}

/// Whether a version whose last migration is `newest` works with one that a later version brought.
fn is_borne(name: &str, newest: u32, bears: &RangeInclusive<u32>) -> bool {
    let later = as_number(name);
    later > newest && later <= *bears.end()
}

/// What a database that has `applied` lacks of `files`.
pub(super) fn status_of(
    applied: Vec<Applied>,
    files: &[MigrationFile],
    engine: Engine,
    bears: &RangeInclusive<u32>,
) -> Result<Status, Failure> {
    let pending = plan(&applied, &select(files, engine)?, bears)?;
    Ok(Status {
        applied,
        pending: pending
            .into_iter()
            .map(|migration| migration.name)
            .collect(),
    })
}

/// The status of a database that is not there yet.
pub fn status_of_none(files: &[MigrationFile], engine: Engine) -> Result<Status, Failure> {
    status_of(Vec::new(), files, engine, &(0..=0))
}
