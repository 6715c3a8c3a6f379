//! SQLite alone: what no guest may do, with whatever words, and what values become.

use super::*;
use crate::sql::{Rights, value::Value};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;

struct Bench {
    folder: TempDir,
    database: Arc<SqliteDatabase>,
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn statement(text: &str, parameters: &[Value]) -> Statement {
    Statement {
        text: text.to_owned(),
        parameters: parameters.to_vec(),
    }
}

fn call(rights: Rights) -> Call {
    Call {
        rights,
        deadline: Instant::now() + Duration::from_secs(60),
    }
}

impl Bench {
    async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    /// A database with a table `t (k INTEGER PRIMARY KEY, v TEXT)`.
    async fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let service = ServiceName::parse("exprsn-notes").unwrap();
        let database = open(&folder.path().join("notes.db"), &service, limits).unwrap();
        let bench = Self {
            folder,
            database: Arc::new(database),
        };
        bench
            .define("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)")
            .await;
        bench
    }

    async fn define(&self, text: &str) {
        self.database
            .execute(call(Rights::Schema), statement(text, &[]))
            .await
            .unwrap();
    }

    async fn query(&self, text: &str, parameters: &[Value]) -> Result<RowSet> {
        self.database
            .query(call(Rights::Rows), statement(text, parameters))
            .await
    }

    async fn execute(&self, text: &str, parameters: &[Value]) -> Result<u64> {
        self.database
            .execute(call(Rights::Rows), statement(text, parameters))
            .await
    }
}

async fn denied(bench: &Bench, rights: Rights, sql: &str) -> String {
    let attempts = [
        bench
            .database
            .query(call(rights), statement(sql, &[]))
            .await
            .map(drop),
        bench
            .database
            .execute(call(rights), statement(sql, &[]))
            .await
            .map(drop),
        bench
            .database
            .stream(call(rights), statement(sql, &[]))
            .await
            .map(drop),
    ];
    let mut told = String::new();
    for attempt in attempts {
        match attempt {
            Err(Error::Denied(text)) => told = text,
            other => panic!("{sql} with {rights:?}: {other:?}"),
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_its_own_rows_is_reachable() {
    let bench = Bench::new().await;
    let file = bench.folder.path().join("other.db").display().to_string();
    for rights in [Rights::Rows, Rights::Schema] {
        for sql in [
            format!("ATTACH DATABASE '{file}' AS other"),
            "ATTACH ':memory:' AS other".to_owned(),
            "DETACH main".to_owned(),
            format!("VACUUM INTO '{file}'"),
            "PRAGMA user_version".to_owned(),
            "PRAGMA journal_mode = DELETE".to_owned(),
            "PRAGMA table_info(_exprsn_outbox)".to_owned(),
            "PRAGMA writable_schema = ON".to_owned(),
            "SELECT * FROM pragma_database_list".to_owned(),
            "SELECT load_extension('/tmp/x.so')".to_owned(),
            "SELECT * FROM dbstat".to_owned(),
            "BEGIN".to_owned(),
            "COMMIT".to_owned(),
            "ROLLBACK".to_owned(),
            "SAVEPOINT member".to_owned(),
            "RELEASE member".to_owned(),
            "ANALYZE".to_owned(),
            "CREATE TEMP TABLE x (a)".to_owned(),
            "CREATE TABLE temp.x (a)".to_owned(),
            "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END".to_owned(),
        ] {
            // VACUUM is refused by SQLite's own rules before it attaches anything.
            if sql.starts_with("VACUUM") {
                let refused = bench
                    .database
                    .execute(call(rights), statement(&sql, &[]))
                    .await;
                assert!(
                    matches!(refused, Err(Error::Invalid(_) | Error::Denied(_))),
                    "{refused:?}"
                );
                continue;
            }
            // A table-valued pragma is denied when it runs; a stream of it has begun by then.
            if sql.contains("pragma_") {
                let refused = bench
                    .database
                    .query(call(rights), statement(&sql, &[]))
                    .await;
                assert!(matches!(refused, Err(Error::Denied(_))), "{refused:?}");
                continue;
            }
            denied(&bench, rights, &sql).await;
        }
    }
    assert!(!std::path::Path::new(&file).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_tables_do_not_exist_for_guests() {
    let bench = Bench::new().await;
    for sql in [
        "SELECT * FROM _exprsn_outbox",
        "SELECT * FROM _EXPRSN_OUTBOX",
        "SELECT count(*) FROM main._exprsn_migrations",
        "SELECT (SELECT payload FROM _exprsn_outbox)",
        "INSERT INTO _exprsn_outbox (id, kind, payload, created_at) VALUES ('1', 'job', '{}', 0)",
        "DELETE FROM _exprsn_outbox",
        "UPDATE _exprsn_migrations SET checksum = ''",
        "WITH x AS (SELECT * FROM _exprsn_outbox) SELECT * FROM x",
    ] {
        denied(&bench, Rights::Rows, sql).await;
        denied(&bench, Rights::Schema, sql).await;
    }
    for sql in [
        "DROP TABLE _exprsn_outbox",
        "CREATE TABLE _exprsn_mine (a)",
        "CREATE INDEX i ON _exprsn_outbox (payload)",
        "CREATE TRIGGER x AFTER INSERT ON _exprsn_outbox BEGIN SELECT 1; END",
        "ALTER TABLE _exprsn_outbox RENAME TO mine",
        "ALTER TABLE _exprsn_outbox ADD COLUMN mine",
    ] {
        denied(&bench, Rights::Schema, sql).await;
    }
    // Names of tables are not told either, unless the service defines tables itself.
    denied(&bench, Rights::Rows, "SELECT name FROM sqlite_schema").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_or_trigger_gains_nothing() {
    let bench = Bench::new().await;
    // A definition is only text; what it reads is checked when it is used.
    let view = bench.database.execute(
        call(Rights::Schema),
        statement("CREATE VIEW w AS SELECT * FROM _exprsn_outbox", &[]),
    );
    if view.await.is_ok() {
        denied(&bench, Rights::Rows, "SELECT * FROM w").await;
    }
    let trigger = "CREATE TRIGGER x AFTER INSERT ON t BEGIN DELETE FROM _exprsn_migrations; END";
    if bench
        .database
        .execute(call(Rights::Schema), statement(trigger, &[]))
        .await
        .is_ok()
    {
        let refused = bench.execute("INSERT INTO t (v) VALUES ('a')", &[]).await;
        assert!(matches!(refused, Err(Error::Denied(_))), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_has_prepared_is_not_lent_by_its_text() {
    let bench = Bench::new().await;
    let sql = "SELECT count(*) FROM _exprsn_outbox";
    for _ in 0..2 {
        let host = bench.database.file.write(move |c| {
            Ok::<i64, crate::sqlite::Error>(c.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
        });
        assert_eq!(host.await.unwrap(), 0);
        denied(&bench, Rights::Rows, sql).await;
        let insert = bench.execute(sql, &[]).await;
        assert!(matches!(insert, Err(Error::Denied(_))), "{insert:?}");
    }
    // The writer's own control statements are in no cache.
    denied(&bench, Rights::Rows, "ROLLBACK TO member").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_changes_only_with_the_grant() {
    let bench = Bench::new().await;
    for sql in [
        "CREATE TABLE x (a)",
        "DROP TABLE t",
        "ALTER TABLE t ADD COLUMN w",
        "CREATE INDEX i ON t (v)",
        "CREATE VIEW w AS SELECT 1",
        "CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE VIRTUAL TABLE f USING fts5 (v)",
    ] {
        let told = denied(&bench, Rights::Rows, sql).await;
        assert!(told.contains("ddl = true"), "{sql}: {told}");
        bench
            .database
            .execute(call(Rights::Schema), statement(sql, &[]))
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        if sql.starts_with("DROP") {
            bench
                .define("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)")
                .await;
        }
        if sql.starts_with("CREATE TRIGGER") {
            bench.define("DROP TRIGGER x").await;
        }
    }
    let told = denied(
        &bench,
        Rights::Schema,
        "CREATE VIRTUAL TABLE y USING dbstat (main)",
    )
    .await;
    assert!(told.contains("fts5"), "{told}");
    bench
        .define("CREATE TABLE auto (k INTEGER PRIMARY KEY AUTOINCREMENT)")
        .await;
    bench
        .execute("INSERT INTO auto DEFAULT VALUES", &[])
        .await
        .unwrap();
    bench.define("DROP TABLE auto").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_text_search_and_json_work_within_the_guard() {
    let bench = Bench::new().await;
    bench
        .define("CREATE VIRTUAL TABLE posts USING fts5 (title, body)")
        .await;
    bench
        .define("CREATE VIRTUAL TABLE places USING rtree (id, x0, x1, y0, y1)")
        .await;
    let insert = "INSERT INTO posts (rowid, title, body) VALUES ($1, $2, $3)";
    for (number, title) in [(1, "red fox"), (2, "blue whale")] {
        bench
            .execute(
                insert,
                &[Value::Integer(number), text(title), text("about animals")],
            )
            .await
            .unwrap();
    }
    let found = bench
        .query(
            "SELECT rowid FROM posts WHERE posts MATCH $1 ORDER BY rank",
            &[text("whale")],
        )
        .await
        .unwrap();
    assert_eq!(format!("{:?}", found.rows), "[[Integer(2)]]");
    bench
        .execute("DELETE FROM posts WHERE rowid = 2", &[])
        .await
        .unwrap();
    bench
        .execute("INSERT INTO posts (posts) VALUES ('optimize')", &[])
        .await
        .unwrap();
    bench
        .execute("INSERT INTO places VALUES (1, 0, 1, 0, 1)", &[])
        .await
        .unwrap();
    assert_eq!(
        bench
            .query("SELECT id FROM places WHERE x0 <= 0.5 AND x1 >= 0.5", &[])
            .await
            .unwrap()
            .rows
            .len(),
        1
    );
    // Behind its back, the index is not to be touched.
    let shadow = bench.execute("DELETE FROM posts_data", &[]).await;
    assert!(matches!(shadow, Err(Error::Invalid(_))), "{shadow:?}");
    let json = "SELECT value ->> 'a', json_extract($1, '$[1].a') FROM json_each($1)";
    let rows = bench
        .query(json, &[Value::Json(r#"[{"a":1},{"a":2}]"#.to_owned())])
        .await
        .unwrap()
        .rows;
    assert_eq!(rows.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_comes_back_as_it_is_stored() {
    let bench = Bench::new().await;
    bench
        .define("CREATE TABLE v (i INTEGER PRIMARY KEY, x)")
        .await;
    let uuid = "0190b6b2-6d6b-7c3e-9a1b-2f3c4d5e6f70";
    let cases = [
        (Value::Null, Value::Null),
        (Value::Boolean(true), Value::Integer(1)),
        (Value::Integer(i64::MIN), Value::Integer(i64::MIN)),
        (Value::Real(-0.5), Value::Real(-0.5)),
        (Value::Real(f64::INFINITY), Value::Real(f64::INFINITY)),
        (text("héllo \u{0}\u{1F600}"), text("héllo \u{0}\u{1F600}")),
        (Value::Blob(vec![0, 255, 1]), Value::Blob(vec![0, 255, 1])),
        (
            Value::Json(r#"{"a":[1,null]}"#.to_owned()),
            text(r#"{"a":[1,null]}"#),
        ),
        (
            Value::Timestamp(1_700_000_000_000),
            Value::Integer(1_700_000_000_000),
        ),
        (Value::Uuid(uuid.to_owned()), text(uuid)),
    ];
    for (given, stored) in cases {
        let rows = bench
            .query(
                "INSERT INTO v (x) VALUES ($1) RETURNING x",
                std::slice::from_ref(&given),
            )
            .await
            .unwrap()
            .rows;
        assert_eq!(
            format!("{rows:?}"),
            format!("{:?}", [[stored]]),
            "{given:?}"
        );
    }
    for wrong in [
        Value::Real(f64::NAN),
        Value::Json("{".to_owned()),
        Value::Uuid(uuid.to_uppercase()),
        Value::Uuid("x".to_owned()),
    ] {
        let refused = bench
            .execute("INSERT INTO v (x) VALUES ($1)", &[wrong])
            .await;
        assert!(
            matches!(&refused, Err(Error::Invalid(text)) if text.starts_with("$1 is not")),
            "{refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn placeholders_of_sqlite_are_not_ours() {
    let bench = Bench::new().await;
    let check = async |sql: &str, values: &[i64]| {
        let values: Vec<_> = values.iter().map(|value| Value::Integer(*value)).collect();
        bench
            .query(sql, &values)
            .await
            .map(|set| format!("{:?}", set.rows))
    };
    assert_eq!(
        check("SELECT $2, $1, $2", &[1, 2]).await.unwrap(),
        "[[Integer(2), Integer(1), Integer(2)]]"
    );
    let twelve: Vec<i64> = (1..=12).collect();
    assert_eq!(
        check("SELECT $12, $1, $2+$3+$4+$5+$6+$7+$8+$9+$10+$11", &twelve)
            .await
            .unwrap(),
        "[[Integer(12), Integer(1), Integer(65)]]"
    );
    for (sql, values, expected) in [
        ("SELECT $1, $2", &[1][..], "$2 has no value: 1 were given"),
        (
            "SELECT $1",
            &[1, 2],
            "2 values were given, but the last parameter is $1",
        ),
        ("SELECT 1", &[1], "1 values were given"),
        ("SELECT ?", &[1], "parameters are written $1"),
        ("SELECT ?1", &[1], "not `?1`"),
        ("SELECT :a", &[1], "not `:a`"),
        ("SELECT $0", &[1], "not `$0`"),
        ("SELECT $1::text", &[1], "not `$1::text`"),
        ("SELECT 1; SELECT 2", &[], "one statement at a time"),
        ("SELEKT 1", &[], "syntax error"),
        ("SELECT \"nothing\"", &[], "no such column"),
        ("", &[], ""),
        ("-- nothing", &[], ""),
    ] {
        match check(sql, values).await {
            Err(Error::Invalid(text)) => assert!(text.contains(expected), "{sql}: {text}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_makes_no_larger_value() {
    let limits = Limits {
        rows_max: 3,
        result_bytes_max: 2_000,
        value_bytes_max: 10_000,
        ..Limits::default()
    };
    let bench = Bench::with(limits).await;
    let numbers = |count: u32| {
        format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {count}) ")
    };
    let limited = async |sql: &str, expected: &str| match bench.query(sql, &[]).await {
        Err(Error::Limit(text)) => assert!(text.contains(expected), "{sql}: {text}"),
        other => panic!("{sql}: {other:?}"),
    };
    assert_eq!(
        bench
            .query(&(numbers(3) + "SELECT i FROM n"), &[])
            .await
            .unwrap()
            .rows
            .len(),
        3
    );
    limited(&(numbers(4) + "SELECT i FROM n"), "sql_rows_max").await;
    limited("SELECT zeroblob(3000)", "sql_result_bytes_max").await;
    limited("SELECT zeroblob(20000)", "sql_value_bytes_max").await;
}
