//! Migrations.

use super::*;
use crate::sql::migrate::{MigrationFile, Status, select};
use crate::sql::{Failure, error::chain};

fn files(files: &[(&str, &str)]) -> Vec<MigrationFile> {
    let file = |(name, sql): &(&str, &str)| MigrationFile {
        name: (*name).to_owned(),
        sql: (*sql).to_owned(),
    };
    files.iter().map(file).collect()
}

/// As a component that works with its own schema alone.
async fn migrate(bench: &Bench, files: &[MigrationFile]) -> Result<Vec<String>, Failure> {
    bench.database.migrate(files, 0..=0).await
}

async fn status(bench: &Bench, files: &[MigrationFile]) -> Result<Status, Failure> {
    bench.database.status(files, 0..=0).await
}

const FIRST: (&str, &str) = (
    "0001_posts.sql",
    "CREATE TABLE posts (id TEXT PRIMARY KEY); CREATE INDEX p ON posts (id);",
);
const SECOND: (&str, &str) = (
    "0002_likes.sql",
    "CREATE TABLE likes (post TEXT REFERENCES posts (id))",
);
const THIRD: (&str, &str) = ("0003_fill.sql", "INSERT INTO posts (id) VALUES ('a')");

pub async fn each_is_applied_once_and_in_order(engine: Engine) {
    let bench = Bench::new(engine).await;
    let both = files(&[SECOND, FIRST]);
    assert_eq!(
        status(&bench, &both).await.unwrap().pending,
        ["0001_posts", "0002_likes"]
    );
    assert_eq!(
        migrate(&bench, &both).await.unwrap(),
        ["0001_posts", "0002_likes"]
    );
    let all = files(&[FIRST, SECOND, THIRD]);
    assert_eq!(migrate(&bench, &all).await.unwrap(), ["0003_fill"]);
    assert!(migrate(&bench, &all).await.unwrap().is_empty());
    let status = status(&bench, &all).await.unwrap();
    assert_eq!(status.applied.len(), 3);
    assert!(status.pending.is_empty() && status.applied.iter().all(|done| done.applied_at > 0));
    assert_eq!(
        bench
            .query("SELECT id FROM posts", &[])
            .await
            .unwrap()
            .rows
            .len(),
        1
    );
}

pub async fn a_different_past_is_refused_by_name(engine: Engine) {
    let bench = Bench::new(engine).await;
    migrate(&bench, &files(&[FIRST, THIRD])).await.unwrap();
    for (files, expected) in [
        (
            files(&[(FIRST.0, "CREATE TABLE other (a)"), THIRD]),
            "`0001_posts` has changed",
        ),
        (files(&[FIRST]), "`0003_fill`, which the component lacks"),
        (
            files(&[FIRST, SECOND, THIRD]),
            "`0002_likes` comes before one that is applied",
        ),
        (
            files(&[FIRST, ("0001_again.sql", ""), THIRD]),
            "have the same number",
        ),
    ] {
        let error = chain(&migrate(&bench, &files).await.unwrap_err());
        assert!(error.contains(expected), "{error}");
        assert!(status(&bench, &files).await.is_err());
    }
}

pub async fn one_that_fails_leaves_nothing_and_names_itself(engine: Engine) {
    let bench = Bench::new(engine).await;
    for (sql, on_sqlite, on_postgres) in [
        (
            "CREATE TABLE half (a TEXT); CREATE TABEL other (b)",
            "syntax error",
            "syntax error",
        ),
        (
            "CREATE TABLE half (a TEXT); COMMIT",
            "not authorized",
            "transaction commands is not implemented",
        ),
        (
            "CREATE TABLE half (a TEXT); DROP TABLE _exprsn_outbox",
            "not authorized",
            "does not exist",
        ),
        (
            "CREATE TABLE half (a TEXT); DELETE FROM _exprsn_migrations",
            "not authorized",
            "does not exist",
        ),
        (
            "CREATE TABLE half (a TEXT); DELETE FROM exprsn_host.migrations",
            "no such table",
            "permission denied",
        ),
    ] {
        let expected = match engine {
            Engine::Sqlite => on_sqlite,
            Engine::Postgres => on_postgres,
        };
        let bad = files(&[("0001_bad.sql", sql)]);
        let error = migrate(&bench, &bad).await.unwrap_err();
        let error = chain(&error);
        assert!(
            error.contains("`0001_bad`") && error.contains(expected),
            "{sql}: {error}"
        );
        assert_eq!(status(&bench, &bad).await.unwrap().pending, ["0001_bad"]);
        let half = bench.query("SELECT * FROM half", &[]).await;
        assert!(matches!(half, Err(Error::Invalid(_))), "{half:?}");
    }
}

#[test]
fn an_engine_has_its_own_files() {
    let both = [
        ("0002_geo.postgres.sql", "p"),
        ("0001_a.sql", "a"),
        ("0002_geo.sqlite.sql", "s"),
    ];
    let sql = |engine| {
        let selected = select(&files(&both), engine).unwrap();
        selected
            .into_iter()
            .map(|migration| migration.sql)
            .collect::<Vec<_>>()
    };
    assert_eq!(sql(Engine::Sqlite), ["a", "s"]);
    assert_eq!(sql(Engine::Postgres), ["a", "p"]);
    let error = select(&files(&both[..2]), Engine::Sqlite)
        .unwrap_err()
        .to_string();
    assert!(error.contains("0002_geo.sqlite.sql"), "{error}");
    for name in [
        "init.sql",
        "1_init.sql",
        "0001-init.sql",
        "0001_.sql",
        "0001_Init.sql",
        "0001_a.mysql.sql",
        "0001_a",
    ] {
        let error = select(&files(&[(name, "")]), Engine::Sqlite)
            .unwrap_err()
            .to_string();
        assert!(error.contains(name), "{error}");
    }
}

/// The migrations of every service in the repository, in the order of their names.
fn checked_in() -> Vec<(String, Vec<MigrationFile>)> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let mut services: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    services.sort();
    let read = |folder: std::path::PathBuf| {
        let file = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            MigrationFile {
                name,
                sql: std::fs::read_to_string(path).unwrap(),
            }
        };
        let files = std::fs::read_dir(&folder).unwrap().map(file).collect();
        (
            folder.file_name().unwrap().to_string_lossy().into_owned(),
            files,
        )
    };
    services
        .into_iter()
        .filter(|path| path.is_dir())
        .map(read)
        .collect()
}

pub async fn those_of_every_service_apply_to_an_empty_database(engine: Engine) {
    for (service, files) in checked_in() {
        let bench = Bench::empty(engine, Limits::default()).await;
        let applied = migrate(&bench, &files).await;
        let applied = applied.unwrap_or_else(|error| panic!("{service}: {}", chain(&error)));
        assert!(!applied.is_empty(), "migrations/{service} is empty");
    }
}
