//! The `queue` capability as guests have it: a guest that adds and does jobs as it is told.

use crate::harness::{Platform, Setup, eventually};
use serde_json::{Value, json};
use std::sync::OnceLock;

const LIMITS: &str = "[capability.queue]
data_bytes_max = 1000
batch_max = 500
pending_max = 500";

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        Platform::start(&Setup {
            guests: &["broker"],
            config: LIMITS,
            ..Setup::default()
        })
    })
}

/// A call of the interface: `{"ok": …}` or `{"error": …}`.
#[track_caller]
fn call(platform: &Platform, queue: &str, mut call: Value) -> Value {
    call["queue"] = json!(queue);
    platform
        .call("broker", "POST", "/queue")
        .json(&call)
        .send()
        .expect_status(200)
        .json()
}

#[track_caller]
fn ok(platform: &Platform, queue: &str, wish: Value) -> Value {
    let answer = call(platform, queue, wish.clone());
    answer
        .get("ok")
        .unwrap_or_else(|| panic!("{wish}: {answer}"))
        .clone()
}

#[track_caller]
fn expect_error(queue: &str, wish: Value, texts: &[&str]) {
    let answer = call(platform(), queue, wish);
    let error = answer["error"]
        .as_str()
        .unwrap_or_else(|| panic!("no error: {answer}"));
    texts
        .iter()
        .for_each(|text| assert!(error.contains(text), "no `{text}` in {error}"));
}

#[track_caller]
fn add(queue: &str, jobs: Value) {
    ok(platform(), queue, json!({ "call": "add", "jobs": jobs }));
}

/// The job once it is in `state`.
#[track_caller]
fn reaches(queue: &str, id: &str, state: &str) -> Value {
    eventually(&format!("job {id} becomes {state}"), || {
        let job = ok(platform(), queue, json!({ "call": "get", "id": id }));
        job["state"]
            .as_str()
            .is_some_and(|now| now.ends_with(state))
            .then_some(job)
    })
}

/// What the guest noted about a job: `attempts` or `order`.
fn noted(platform: &Platform, what: &str, id: &str) -> Option<u64> {
    let wish = json!({ "call": "get", "key": format!("{what}:{id}") });
    let answer = platform
        .call("broker", "POST", "/cache")
        .json(&wish)
        .send()
        .expect_status(200)
        .json();
    answer["ok"]
        .as_str()
        .map(|text| text.parse().expect("a number"))
}

/// An id that no other test uses.
fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

#[test]
fn a_job_is_done_once_and_kept_with_its_answer() {
    let id = unique("done");
    let job = json!({ "id": id, "data": { "do": "succeed" } });
    add("broker-work", json!([job, job]));
    let done = reaches("broker-work", &id, "Completed");
    assert_eq!(
        (&done["attempt"], &done["attempts"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(done["returnValue"], "{\"attempt\":1}");
    assert!(
        done["finishedAt"].as_i64() >= done["processedAt"].as_i64(),
        "{done}"
    );
    assert!(
        done["processedAt"].as_i64() >= done["createdAt"].as_i64(),
        "{done}"
    );
    add("broker-work", json!([job]));
    assert_eq!(
        reaches("broker-work", &id, "Completed")["finishedAt"],
        done["finishedAt"]
    );
    assert_eq!(noted(platform(), "attempts", &id), Some(1));
}

#[test]
fn failures_are_tried_again_until_they_succeed() {
    let id = unique("third");
    add(
        "broker-work",
        json!([{ "id": id, "data": { "do": "succeedAt", "attempt": 3 } }]),
    );
    assert_eq!(reaches("broker-work", &id, "Completed")["attempt"], 3);
    assert_eq!(noted(platform(), "attempts", &id), Some(3));
}

#[test]
fn dead_letters_are_listed_replayed_and_removed() {
    let id = unique("dead");
    add(
        "broker-work",
        json!([{ "id": id, "data": { "do": "fail" } }]),
    );
    let dead = reaches("broker-work", &id, "Failed");
    assert_eq!(
        (&dead["attempt"], &dead["failedReason"]),
        (&json!(3), &json!("attempt 3 fails"))
    );
    let list = json!({ "call": "list", "state": "failed", "offset": 0, "limit": 1000 });
    let listed = ok(platform(), "broker-work", list);
    assert!(
        listed
            .as_array()
            .is_some_and(|jobs| jobs.iter().any(|job| job["id"] == *id)),
        "{listed}"
    );
    ok(
        platform(),
        "broker-work",
        json!({ "call": "retry", "id": id }),
    );
    eventually("it is tried three times more", || {
        (noted(platform(), "attempts", &id) == Some(6)).then_some(())
    });
    reaches("broker-work", &id, "Failed");
    ok(
        platform(),
        "broker-work",
        json!({ "call": "remove", "id": id }),
    );
    expect_error(
        "broker-work",
        json!({ "call": "get", "id": id }),
        &["NotFound"],
    );
}

#[test]
fn what_never_will_succeed_is_tried_once() {
    let id = unique("fatal");
    add(
        "broker-work",
        json!([{ "id": id, "data": { "do": "fatal" } }]),
    );
    assert_eq!(
        reaches("broker-work", &id, "Failed")["failedReason"],
        "never again"
    );
    assert_eq!(noted(platform(), "attempts", &id), Some(1));
    let nonsense = unique("nonsense");
    add(
        "broker-work",
        json!([{ "id": nonsense, "data": { "do": "what?" } }]),
    );
    assert_eq!(reaches("broker-work", &nonsense, "Failed")["attempt"], 1);
}

#[test]
fn a_trap_or_a_hang_fails_its_own_attempt_only() {
    let (trap, hang, calm) = (unique("trap"), unique("hang"), unique("calm"));
    add(
        "broker-work",
        json!([
            { "id": trap, "data": { "do": "trap" }, "attempts": 1 },
            { "id": hang, "data": { "do": "hang" }, "attempts": 1 },
            { "id": calm, "data": { "do": "sleep", "ms": 200 } },
        ]),
    );
    reaches("broker-work", &calm, "Completed");
    let trapped = reaches("broker-work", &trap, "Failed");
    assert!(
        trapped["failedReason"]
            .as_str()
            .is_some_and(|reason| !reason.is_empty()),
        "{trapped}"
    );
    let hung = reaches("broker-work", &hang, "Failed");
    assert!(
        hung["failedReason"]
            .as_str()
            .is_some_and(|reason| reason.contains("took longer")),
        "{hung}"
    );
    assert_eq!(
        (noted(platform(), "attempts", &calm), &trapped["attempt"]),
        (Some(1), &json!(1))
    );
}

#[test]
fn the_line_is_by_priority_then_by_age_and_can_be_paused() {
    let ids: Vec<String> = ["low", "high", "first", "second"].map(unique).to_vec();
    ok(
        platform(),
        "broker-line",
        json!({ "call": "pause", "paused": true }),
    );
    let job = |id: &str, priority: u32| json!({ "id": id, "data": { "do": "succeed" }, "priority": priority });
    add(
        "broker-line",
        json!([
            job(&ids[0], 9),
            job(&ids[1], 1),
            job(&ids[2], 0),
            job(&ids[3], 0)
        ]),
    );
    let counts = ok(platform(), "broker-line", json!({ "call": "counts" }));
    assert_eq!(
        (
            &counts["waiting"],
            &counts["prioritized"],
            &counts["paused"]
        ),
        (&json!(2), &json!(2), &json!(true))
    );
    reaches("broker-line", &ids[2], "Paused");
    expect_error(
        "broker-line",
        json!({ "call": "retry", "id": ids[2] }),
        &["Invalid", "has not failed"],
    );
    ok(
        platform(),
        "broker-line",
        json!({ "call": "pause", "paused": false }),
    );
    let order = ids.iter().map(|id| {
        reaches("broker-line", id, "Completed");
        noted(platform(), "order", id).expect("it was done")
    });
    let order: Vec<u64> = order.collect();
    assert!(
        order[2] < order[3] && order[3] < order[1] && order[1] < order[0],
        "{order:?}"
    );
}

#[test]
fn a_delayed_job_waits_its_time() {
    let id = unique("delayed");
    add(
        "broker-work",
        json!([{ "id": id, "data": { "do": "succeed" }, "delayMs": 400 }]),
    );
    assert!(
        ok(
            platform(),
            "broker-work",
            json!({ "call": "get", "id": id })
        )["state"]
            .as_str()
            .is_some()
    );
    let done = reaches("broker-work", &id, "Completed");
    let waited =
        done["processedAt"].as_i64().expect("a time") - done["createdAt"].as_i64().expect("a time");
    assert!(waited >= 400, "{waited} ms");
}

#[test]
fn a_schedule_adds_its_jobs() {
    let done = eventually("two ticks were done", || {
        let list = json!({ "call": "list", "state": "completed", "offset": 0, "limit": 10 });
        let jobs = ok(platform(), "broker-clock", list);
        (jobs.as_array().expect("jobs").len() >= 2).then_some(jobs)
    });
    let at = |job: &Value| -> i64 {
        let id = job["id"].as_str().expect("an id");
        id.strip_prefix("repeat:broker-clock:tick:")
            .expect("an occurrence's id")
            .parse()
            .expect("a time")
    };
    let jobs: Vec<i64> = done.as_array().expect("jobs").iter().map(at).collect();
    assert!(
        jobs.windows(2)
            .all(|pair| pair[0] > pair[1] && pair[0] % 1_000 == 0),
        "{jobs:?}"
    );
}

#[test]
fn errors_when_not_granted() {
    let one = json!({ "call": "add", "jobs": [{ "data": {} }] });
    expect_error(
        "other",
        one.clone(),
        &[
            "AccessDenied",
            "queue `other` is not granted",
            "`produce` under [grants.queue]",
        ],
    );
    expect_error("other", json!({ "call": "counts" }), &["AccessDenied"]);
    expect_error(
        "other",
        json!({ "call": "pause", "paused": true }),
        &["AccessDenied", "`manage`"],
    );
    // Deliveries of events are the host's to add, also where they may be managed.
    expect_error("events:exprsn-broker", one, &["Invalid", "queue name"]);
}

#[test]
fn errors_when_a_limit_is_exceeded() {
    let long = json!([{ "data": "x".repeat(1_000) }]);
    expect_error(
        "broker-work",
        json!({ "call": "add", "jobs": long }),
        &["LimitExceeded", "data_bytes_max is 1000"],
    );
    let many = vec![json!({ "data": {} }); 501];
    expect_error(
        "broker-work",
        json!({ "call": "add", "jobs": many }),
        &["LimitExceeded", "batch_max is 500"],
    );
    // Nobody works on this queue.
    let half = json!({ "call": "add", "jobs": vec![json!({ "data": {} }); 300] });
    let nobody = unique("broker-nobody");
    ok(platform(), &nobody, half.clone());
    expect_error(
        &nobody,
        half,
        &["LimitExceeded", "holds 300", "pending_max is 500"],
    );
    assert_eq!(
        ok(platform(), &nobody, json!({ "call": "counts" }))["waiting"],
        300
    );
    expect_error(
        "broker-work",
        json!({ "call": "add", "jobs": [{ "data": {}, "attempts": 0 }] }),
        &["Invalid", "attempts"],
    );
    expect_error(
        "broker-work",
        json!({ "call": "add", "jobs": [{ "data": {}, "id": "" }] }),
        &["Invalid", "job id"],
    );
}

/// Adds jobs that take a moment, breaks the host off while some are done and some are not, and starts it again.
fn interrupted(end: impl FnOnce(&Platform)) {
    const JOBS: usize = 200;
    let platform = Platform::start(&Setup {
        guests: &["broker"],
        ..Setup::default()
    });
    let jobs: Vec<Value> = (0..JOBS)
        .map(|n| json!({ "id": format!("{n}"), "data": { "do": "sleep", "ms": 20 } }))
        .collect();
    ok(
        &platform,
        "broker-work",
        json!({ "call": "add", "jobs": jobs }),
    );
    let counts = || ok(&platform, "broker-work", json!({ "call": "counts" }));
    eventually("some are done", || {
        (counts()["completed"].as_u64() >= Some(20)).then_some(())
    });
    end(&platform);
    platform.restart();
    eventually("all are done", || {
        (counts()["completed"] == JOBS).then_some(())
    });
    let counts = counts();
    for state in ["waiting", "delayed", "prioritized", "active", "failed"] {
        assert_eq!(counts[state], 0, "{counts}");
    }
}

#[test]
fn no_job_is_lost_when_the_host_is_killed() {
    interrupted(Platform::kill);
}

#[test]
fn no_job_is_lost_when_the_host_drains() {
    interrupted(|platform| assert!(platform.stop().success()));
}
