//! Synchronous twins, and wasi:http 0.2 from end to end: a guest without async functions that does as it is told.

use crate::harness::{Platform, Setup, eventually};
use exprsn::capability;
use serde_json::{Value, json};
use std::{fs, path::Path, sync::OnceLock};

const LIMITS: &str = "[capability.sql]
rows_max = 20
[capability.cache]
value_bytes_max = 100
[capability.queue]
data_bytes_max = 1000";

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        Platform::start(&Setup {
            guests: &["twins", "relay"],
            config: LIMITS,
            ..Setup::default()
        })
    })
}

/// What the guest answers: `{"ok": …}` or `{"error": …}`.
#[track_caller]
fn call(path: &str, wish: Value) -> Value {
    platform()
        .call("twins", "POST", path)
        .json(&wish)
        .send()
        .expect_status(200)
        .json()
}

#[track_caller]
fn ok(path: &str, wish: Value) -> Value {
    let answer = call(path, wish);
    answer
        .get("ok")
        .unwrap_or_else(|| panic!("{path}: {answer}"))
        .clone()
}

#[track_caller]
fn expect_error(path: &str, wish: Value, texts: &[&str]) {
    let answer = call(path, wish);
    let error = answer["error"].as_str();
    let error = error.unwrap_or_else(|| panic!("{path}: {answer}"));
    for text in texts {
        assert!(error.contains(text), "{path}: no `{text}` in {error}");
    }
}

fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

/// The note under `id`, once it is there.
#[track_caller]
fn noted(id: &str) -> String {
    let select =
        json!({ "do": "query", "sql": "SELECT text FROM notes WHERE id = $1", "values": [id] });
    eventually(&format!("{id} is noted"), || {
        let rows = ok("/sql", select.clone());
        rows[0][0].as_str().map(str::to_owned)
    })
}

#[test]
fn a_component_without_async_functions_answers_http() {
    let health = platform().call("twins", "GET", "/health").send();
    let health = health.expect_status(200).json();
    assert_eq!(
        health["ok"],
        json!({ "name": "exprsn-twins", "database": true, "broker": true })
    );
}

#[test]
fn sql_runs_statements_batches_and_transactions() {
    let (first, second) = (unique("a"), unique("b"));
    let insert = "INSERT INTO notes (id, text) VALUES ($1, 'x')";
    let wish = json!({ "do": "execute", "sql": insert, "values": [first] });
    assert_eq!(ok("/sql", wish.clone()), 1);
    expect_error("/sql", wish, &["Constraint", "notes.id"]);
    let batch = json!({ "do": "batch", "statements": [
        { "sql": insert, "values": [second] },
        { "sql": "SELECT text FROM notes WHERE id = $1", "values": [second] },
    ] });
    assert_eq!(ok("/sql", batch)[1], json!([["x"]]));
    assert_eq!(noted(&first), "x");
}

#[test]
fn a_transaction_takes_effect_when_it_is_committed_only() {
    let count = |id: &str| {
        let sql = "SELECT count(*) FROM notes WHERE id = $1";
        ok("/sql", json!({ "do": "query", "sql": sql, "values": [id] }))[0][0].clone()
    };
    for (end, expected) in [("commit", 1), ("rollback", 0), ("drop", 0)] {
        let (id, job, event) = (unique("row"), unique("job"), unique("event"));
        let insert =
            json!({ "sql": "INSERT INTO notes (id, text) VALUES ($1, 'x')", "values": [id] });
        let wish = json!({ "statements": [insert], "job": job, "event": event, "end": end });
        ok("/sql", wish);
        assert_eq!(count(&id), expected, "{end}");
        if end == "commit" {
            assert_eq!(noted(&job), "job 1");
            assert_eq!(noted(&event), "event 1");
        }
    }
}

#[test]
fn jobs_are_added_and_done_by_the_synchronous_worker() {
    let (done, failed) = (unique("done"), unique("failed"));
    let add = |id: &str, data: &str| json!({ "queue": "twin-work", "id": id, "data": data });
    assert_eq!(ok("/queue", add(&done, "{}")), json!(done));
    ok("/queue", add(&failed, "\"again\""));
    assert_eq!(noted(&done), "job 1");
    assert_eq!(
        noted(&failed),
        "job 2",
        "an error of the worker is followed by another attempt"
    );
    let get = json!({ "do": "get", "queue": "twin-work", "id": done });
    let job = eventually("the job is completed", || {
        let job = ok("/queue", get.clone());
        (job["state"] == "State::Completed").then_some(job)
    });
    assert_eq!(job["returnValue"], "\"noted\"");
}

#[test]
fn events_are_published_and_taken_by_the_synchronous_subscriber() {
    let (taken, failed) = (unique("taken"), unique("failed"));
    let publish = |id: &str, data: &str| json!({ "topic": "twin.said", "id": id, "data": data });
    assert_eq!(ok("/publish", publish(&taken, "{}")), json!(taken));
    ok("/publish", publish(&failed, "\"again\""));
    assert_eq!(noted(&taken), "event 1");
    assert_eq!(noted(&failed), "event 2");
}

#[test]
fn the_cache_and_keys_can_be_used() {
    let key = unique("key");
    assert_eq!(ok("/cache", json!({ "key": key })), Value::Null);
    assert_eq!(ok("/cache", json!({ "key": key, "value": "v" })), "v");
    assert_eq!(ok("/cache", json!({ "key": key })), "v");
    // Signed with the service's own key, which is not the authority's: no token of the platform.
    let signed = ok("/ca", json!({ "key": "twin" }));
    assert_eq!(signed["parts"], 3, "{signed}");
    assert_ne!(signed["rejection"], Value::Null, "{signed}");
}

#[test]
fn another_service_is_called_over_the_mesh() {
    let answer = ok(
        "/call",
        json!({ "service": "exprsn-relay", "path": "/who" }),
    );
    assert_eq!(answer["status"], 200, "{answer}");
    let who: Value = serde_json::from_str(answer["body"].as_str().expect("a body")).expect("JSON");
    assert_eq!(who["caller"], "exprsn-twins");
    assert_eq!(who["path"], json!(["exprsn-twins", "exprsn-relay"]));
}

#[test]
fn errors_when_not_granted() {
    let denied = "AccessDenied";
    let job = json!({ "queue": "others", "id": "x", "data": "{}" });
    expect_error("/queue", job, &[denied, "`others` is not granted"]);
    let event = json!({ "topic": "other.said", "id": "x", "data": "{}" });
    expect_error("/publish", event, &[denied, "`other.said` is not granted"]);
    expect_error("/ca", json!({ "key": "others" }), &[denied]);
    let attach = json!({ "do": "execute", "sql": "ATTACH 'x' AS y" });
    expect_error("/sql", attach, &[denied]);
    for (service, path) in [("exprsn-ca", "/health"), ("exprsn-herald", "/")] {
        let wish = json!({ "service": service, "path": path });
        expect_error("/call", wish, &["HttpRequestDenied"]);
    }
}

#[test]
fn errors_when_limit_exceeded() {
    let exceeded = "LimitExceeded";
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30) SELECT i FROM n";
    let rows = json!({ "do": "query", "sql": many });
    expect_error("/sql", rows, &[exceeded, "rows_max"]);
    let value = json!({ "key": "k", "value": "v".repeat(101) });
    expect_error("/cache", value, &[exceeded, "value_bytes_max is 100"]);
    let data = json!("x".repeat(1001)).to_string();
    let job = json!({ "queue": "twin-work", "id": unique("large"), "data": data });
    expect_error("/queue", job, &[exceeded, "data_bytes_max"]);
}

#[test]
fn a_twin_belongs_to_the_capability_of_its_interface() {
    let deps = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit/deps");
    let mut twins = 0;
    for name in capability::NAMES {
        let file = deps.join(format!("exprsn-{name}/{name}-sync.wit"));
        let Ok(text) = fs::read_to_string(file) else {
            continue;
        };
        let interfaces = text
            .lines()
            .filter_map(|line| line.strip_prefix("interface "));
        for interface in interfaces {
            let interface = interface.trim_end_matches(" {");
            let import = format!("exprsn:{name}/{interface}@1.0.0");
            assert_eq!(capability::of_import(&import), Some(*name), "{import}");
            twins += 1;
        }
    }
    assert!(twins >= 10, "{twins} twins");
}
