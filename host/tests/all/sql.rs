//! The `sql` capability as a guest has it: a guest that runs whatever statements it is sent.

use crate::harness::{Platform, Setup, eventually};
use exprsn_backends::testing::postgres::Cluster;
use serde_json::{Value, json};
use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

const LIMITS: &str = "[capability.sql]
rows_max = 50
statement_ms_max = 1000
transaction_ms_max = 1500";

/// What keeps the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Sqlite,
    Postgres,
}

/// Runs each function on each backend, as a test of its own.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(
                #[test]
                fn $name() {
                    super::$name(super::Backend::Sqlite);
                }
            )+
        }

        mod on_postgres {
            $(
                #[test]
                fn $name() {
                    super::$name(super::Backend::Postgres);
                }
            )+
        }
    };
}

on_both!(
    values_go_there_and_back,
    statements_and_batches_change_what_they_say,
    errors_when_it_reaches_beyond_its_own_rows,
    errors_when_limit_exceeded,
    a_stream_is_longer_than_any_result_and_says_how_it_ended,
    while_one_task_of_a_guest_waits_its_others_go_on,
    a_transaction_happens_as_a_whole_or_not_at_all,
    a_transaction_that_idles_is_rolled_back,
    what_is_announced_follows_the_transaction,
    errors_when_an_announcement_is_not_granted,
    what_was_answered_survives_a_kill_and_is_announced_once,
);

/// Counts without end.
const ENDLESS: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";

impl Backend {
    /// The platform that the tests of this backend share.
    fn platform(self) -> &'static Platform {
        static SQLITE: OnceLock<Platform> = OnceLock::new();
        static POSTGRES: OnceLock<Platform> = OnceLock::new();
        let (shared, cluster) = match self {
            Self::Sqlite => (&SQLITE, None),
            Self::Postgres => (&POSTGRES, Some(Cluster::shared())),
        };
        shared.get_or_init(|| start(cluster, LIMITS))
    }

    fn is_postgres(self) -> bool {
        self == Self::Postgres
    }
}

/// Starts a platform whose databases are on the cluster, or in files of its own.
fn start(cluster: Option<&Cluster>, limits: &str) -> Platform {
    let server = cluster.map(|cluster| {
        format!(
            "[capability.sql]\nbackend = \"postgres\"\n{}\n[backends.postgres]\nurl = \"{}\"",
            limits.trim_start_matches("[capability.sql]"),
            cluster.url()
        )
    });
    Platform::start(&Setup {
        guests: &["sql"],
        config: server.as_deref().unwrap_or(limits),
        ..Setup::default()
    })
}

#[track_caller]
fn call(platform: &Platform, path: &str, body: &Value) -> Value {
    platform
        .call("sql", "POST", path)
        .json(body)
        .send()
        .expect_status(200)
        .json()
}

#[track_caller]
fn query(platform: &Platform, sql: &str, values: Value) -> Value {
    call(platform, "/query", &json!({ "sql": sql, "values": values }))
}

#[track_caller]
fn execute(platform: &Platform, sql: &str, values: Value) -> Value {
    call(
        platform,
        "/execute",
        &json!({ "sql": sql, "values": values }),
    )
}

#[track_caller]
fn expect_error(answer: &Value, kind: &str, text: &str) {
    assert_eq!(answer["error"], kind, "{answer}");
    assert!(
        answer["text"]
            .as_str()
            .is_some_and(|told| told.contains(text)),
        "no `{text}` in {answer}"
    );
}

/// A name that no other test uses.
fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

fn exists(platform: &Platform, id: &str) -> bool {
    query(platform, "SELECT id FROM things WHERE id = $1", json!([id]))["rows"] == json!([[id]])
}

fn values_go_there_and_back(backend: Backend) {
    let platform = backend.platform();
    let blob = if backend.is_postgres() {
        "BYTEA"
    } else {
        "BLOB"
    };
    let sql = format!(
        "SELECT CAST($2 AS TEXT) AS b, CAST($1 AS BIGINT) AS a, $3, CAST($4 AS BIGINT), CAST($5 AS DOUBLE PRECISION),
         CAST($6 AS {blob}), CAST($7 AS BIGINT), CAST($8 AS TEXT)"
    );
    let values = json!([1, "z\u{e4}hl", null, true, -0.5, { "blob": [0, 255] }, { "timestamp": 1_700_000_000_000_i64 }, { "json": "{\"a\":1}" }]);
    let answer = query(platform, &sql, values);
    assert_eq!(
        answer["columns"].as_array().map(|columns| &columns[..2]),
        Some(&[json!("b"), json!("a")][..])
    );
    assert_eq!(
        answer["rows"],
        json!([["z\u{e4}hl", 1, null, 1, -0.5, { "blob": [0, 255] }, 1_700_000_000_000_i64, "{\"a\":1}"]])
    );
}

fn statements_and_batches_change_what_they_say(backend: Backend) {
    let platform = backend.platform();
    let (a, b) = (unique("a"), unique("b"));
    let insert = "INSERT INTO things (id, number) VALUES ($1, $2)";
    assert_eq!(
        execute(platform, insert, json!([a, 1])),
        json!({ "changed": 1 })
    );
    let returning = query(
        platform,
        "UPDATE things SET number = number + 1 WHERE id = $1 RETURNING number",
        json!([a]),
    );
    assert_eq!(returning["rows"], json!([[2]]));
    let again = json!([{ "sql": insert, "values": [b, 1] }, { "sql": insert, "values": [a, 1] }]);
    expect_error(
        &call(platform, "/batch", &again),
        "constraint",
        "Unique things.id",
    );
    assert!(!exists(platform, &b), "a batch is all or nothing");
    let both = json!([{ "sql": insert, "values": [b, 1] }, { "sql": "SELECT number FROM things WHERE id = $1", "values": [b] }]);
    assert_eq!(call(platform, "/batch", &both)[1]["rows"], json!([[1]]));
    expect_error(
        &execute(platform, insert, json!([unique("c"), -1])),
        "constraint",
        "Check",
    );
    let orphan = execute(
        platform,
        "INSERT INTO things (id, parent) VALUES ($1, 'nobody')",
        json!([unique("c")]),
    );
    expect_error(&orphan, "constraint", "ForeignKey");
    expect_error(
        &execute(platform, "INSERT INTO nowhere VALUES (1)", json!([])),
        "invalid",
        if backend.is_postgres() {
            "does not exist"
        } else {
            "no such table"
        },
    );
}

fn errors_when_it_reaches_beyond_its_own_rows(backend: Backend) {
    let platform = backend.platform();
    let beyond = if backend.is_postgres() {
        [
            "SET ROLE postgres",
            "COPY things TO PROGRAM 'id'",
            "SELECT * FROM exprsn_host.outbox",
            "DELETE FROM exprsn_host.migrations",
            "SELECT pg_read_file('/etc/passwd')",
        ]
    } else {
        [
            "ATTACH 'other.db' AS other",
            "PRAGMA journal_mode = OFF",
            "SELECT * FROM _exprsn_outbox",
            "DELETE FROM _exprsn_migrations",
            "SELECT load_extension('x')",
        ]
    };
    let of_both = [
        "CREATE TABLE mine (a INTEGER)",
        "DROP TABLE things",
        "COMMIT",
    ];
    for sql in beyond.into_iter().chain(of_both) {
        for path in ["/query", "/execute"] {
            let answer = call(platform, path, &json!({ "sql": sql }));
            assert_eq!(answer["error"], "access-denied", "{sql}: {answer}");
        }
    }
}

fn errors_when_limit_exceeded(backend: Backend) {
    let platform = backend.platform();
    let many = format!("{ENDLESS} SELECT i FROM n LIMIT 51");
    expect_error(
        &query(platform, &many, json!([])),
        "limit-exceeded",
        "sql_rows_max",
    );
    let begun = Instant::now();
    let endless = query(
        platform,
        &format!("{ENDLESS} SELECT max(i) FROM n"),
        json!([]),
    );
    expect_error(&endless, "limit-exceeded", "sql_statement_ms_max");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

fn a_stream_is_longer_than_any_result_and_says_how_it_ended(backend: Backend) {
    let platform = backend.platform();
    let numbers = format!("{ENDLESS} SELECT i FROM n LIMIT $1");
    let answer = call(
        platform,
        "/stream",
        &json!({ "sql": numbers, "values": [20_000] }),
    );
    assert_eq!(answer, json!({ "count": 20_000, "sum": 200_010_000 }));
    let overflow =
        "SELECT abs(i) FROM (SELECT 1 AS i UNION ALL SELECT -9223372036854775807 - 1) AS v";
    let answer = call(platform, "/stream", &json!({ "sql": overflow }));
    expect_error(
        answer.get("end").unwrap_or(&answer),
        "invalid",
        if backend.is_postgres() {
            "out of range"
        } else {
            "integer overflow"
        },
    );
    expect_error(
        &call(platform, "/stream", &json!({ "sql": "DELETE FROM things" })),
        "invalid",
        "only reads",
    );
}

fn while_one_task_of_a_guest_waits_its_others_go_on(backend: Backend) {
    let platform = backend.platform();
    let slow = format!("{ENDLESS} SELECT max(i) FROM n");
    let order = call(
        platform,
        "/race",
        &json!([{ "sql": slow }, { "sql": "SELECT 1" }]),
    );
    assert_eq!(
        order,
        json!([{ "name": "quick", "succeeded": true }, { "name": "slow", "succeeded": false }])
    );
}

fn insert_step(id: &str) -> Value {
    json!({ "execute": { "sql": "INSERT INTO things (id) VALUES ($1)", "values": [id] } })
}

fn a_transaction_happens_as_a_whole_or_not_at_all(backend: Backend) {
    let platform = backend.platform();
    let run = |id: &str, end: &str| {
        let script = json!({ "steps": [insert_step(id)], "end": end });
        platform
            .call("sql", "POST", "/transaction")
            .json(&script)
            .send()
    };
    for (end, happens) in [("commit", true), ("rollback", false), ("drop", false)] {
        let id = unique(end);
        assert_eq!(
            run(&id, end).expect_status(200).json(),
            json!({ "steps": [1], "end": "done" })
        );
        assert_eq!(exists(platform, &id), happens, "{end}");
    }
    let id = unique("trap");
    run(&id, "trap").expect_status(500);
    // The next writer waits until the trapped guest's transaction is gone.
    assert_eq!(
        run(&unique("after"), "commit").expect_status(200).json()["end"],
        "done"
    );
    assert!(!exists(platform, &id));
}

fn a_transaction_that_idles_is_rolled_back(backend: Backend) {
    let platform = backend.platform();
    let id = unique("idle");
    let steps = json!([insert_step(&id), { "sleepMs": 3000 }, insert_step(&unique("late"))]);
    let answer = call(
        platform,
        "/transaction",
        &json!({ "steps": steps, "end": "commit" }),
    );
    expect_error(
        &answer["steps"][2],
        "limit-exceeded",
        "sql_transaction_ms_max",
    );
    expect_error(&answer["end"], "limit-exceeded", "rolled back");
    assert!(!exists(platform, &id));
}

fn received(platform: &Platform, kind: &str, prefix: &str) -> Vec<String> {
    let sql = "SELECT id FROM received WHERE kind = $1 AND substr(id, 1, length($2)) = $2 ORDER BY id LIMIT 50";
    let answer = query(platform, sql, json!([kind, prefix]));
    let rows = answer["rows"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"));
    rows.iter()
        .map(|row| row[0].as_str().expect("an id").to_owned())
        .collect()
}

fn announcements(id: &str) -> [Value; 2] {
    [
        json!({ "job": { "queue": "sql-jobs", "id": id } }),
        json!({ "event": { "topic": "sql.happened", "id": id } }),
    ]
}

fn what_is_announced_follows_the_transaction(backend: Backend) {
    let platform = backend.platform();
    let (kept, dropped) = (unique("kept"), unique("dropped"));
    for (id, end) in [(&dropped, "rollback"), (&kept, "commit")] {
        let [job, event] = announcements(id);
        let script = json!({ "steps": [insert_step(id), job, event], "end": end });
        assert_eq!(
            call(platform, "/transaction", &script),
            json!({ "steps": [1, id, id], "end": "done" })
        );
    }
    for kind in ["job", "event"] {
        eventually("the announcement arrives", || {
            (received(platform, kind, &kept) == [kept.clone()]).then_some(())
        });
        assert!(
            received(platform, kind, &dropped).is_empty(),
            "{kind} of a transaction that did not happen"
        );
    }
    assert!(!exists(platform, &dropped));
}

fn errors_when_an_announcement_is_not_granted(backend: Backend) {
    let platform = backend.platform();
    let steps = json!([
        { "job": { "queue": "other", "id": "1" } },
        { "event": { "topic": "other.happened", "id": "1" } },
    ]);
    let answer = call(
        platform,
        "/transaction",
        &json!({ "steps": steps, "end": "rollback" }),
    );
    expect_error(&answer["steps"][0], "access-denied", "other");
    expect_error(&answer["steps"][1], "access-denied", "other.happened");
}

fn what_was_answered_survives_a_kill_and_is_announced_once(backend: Backend) {
    // Databases are called by their service: this platform's must not be another's as well.
    let cluster = backend.is_postgres().then(Cluster::start);
    let platform = start(cluster.as_ref(), "");
    let run = unique("kill");
    let mut answered = Vec::new();
    for round in 0..3 {
        for number in 0..6 {
            let id = format!("{run}-{round}-{number}");
            let [job, event] = announcements(&id);
            let script = json!({ "steps": [insert_step(&id), job, event], "end": "commit" });
            assert_eq!(call(&platform, "/transaction", &script)["end"], "done");
            answered.push(id);
        }
        // Wherever the relay, the broker and the workers are just now.
        platform.kill();
        platform.restart();
    }
    answered.sort();
    for id in &answered {
        assert!(exists(&platform, id), "{id} was answered");
    }
    for kind in ["job", "event"] {
        eventually("all announcements arrive", || {
            (received(&platform, kind, &run) == answered).then_some(())
        });
    }
    assert_eq!(platform.stop().code(), Some(0), "{}", platform.log());
}
