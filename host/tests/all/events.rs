//! The `events` capability as guests have it: published once, delivered to each subscriber, and live channels.

use crate::harness::{Platform, Setup, eventually};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader},
    sync::OnceLock,
};

const LIMITS: &str = "[capability.queue]
event_bytes_max = 1000
[capability.events]
live_bytes_max = 100
channel_bytes_max = 40";

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        Platform::start(&Setup {
            guests: &["broker", "sql"],
            config: LIMITS,
            ..Setup::default()
        })
    })
}

#[track_caller]
fn call(path: &str, body: Value) -> Value {
    platform()
        .call("broker", "POST", path)
        .json(&body)
        .send()
        .expect_status(200)
        .json()
}

#[track_caller]
fn publish(topic: &str, id: &str, data: Value) {
    let answer = call(
        "/publish",
        json!({ "topic": topic, "id": id, "data": data }),
    );
    assert_eq!(answer, json!({ "ok": id }));
}

#[track_caller]
fn expect_error(path: &str, body: Value, texts: &[&str]) {
    let answer = call(path, body);
    let error = answer["error"]
        .as_str()
        .unwrap_or_else(|| panic!("no error: {answer}"));
    texts
        .iter()
        .for_each(|text| assert!(error.contains(text), "no `{text}` in {error}"));
}

/// What the subscriber noted: `attempts`, `source`.
fn noted(what: &str, id: &str) -> Option<String> {
    let answer = call(
        "/cache",
        json!({ "call": "get", "key": format!("{what}:{id}") }),
    );
    answer["ok"].as_str().map(str::to_owned)
}

/// The delivery of an event as a job.
fn delivery(id: &str) -> Value {
    let id = format!("exprsn-broker/{id}");
    call(
        "/queue",
        json!({ "queue": "events:exprsn-broker", "call": "get", "id": id }),
    )
}

fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

#[test]
fn an_event_is_delivered_once_however_often_it_is_published() {
    let (id, after) = (unique("once"), unique("after"));
    for _ in 0..3 {
        publish("tick.one", &id, json!({ "do": "succeed" }));
    }
    eventually("it is delivered", || noted("attempts", &id));
    // Published again when its delivery has gone.
    eventually("its delivery has gone", || {
        delivery(&id).get("error").cloned()
    });
    publish("tick.one", &id, json!({ "do": "succeed" }));
    publish("tick.two", &after, json!({ "do": "succeed" }));
    eventually("the next one is delivered", || noted("attempts", &after));
    assert_eq!(noted("attempts", &id).as_deref(), Some("1"));
    assert_eq!(
        noted("source", &id).as_deref(),
        Some("spiffe://exprsn.local/service/exprsn-broker")
    );
}

#[test]
fn an_event_that_is_not_taken_is_delivered_again_then_kept_and_replayed() {
    let id = unique("dead");
    publish("tick.dead", &id, json!({ "do": "fail" }));
    let dead = eventually("it is a dead letter", || {
        let job = delivery(&id)["ok"].clone();
        job["state"]
            .as_str()
            .is_some_and(|state| state.ends_with("Failed"))
            .then_some(job)
    });
    assert_eq!(
        (&dead["attempt"], &dead["name"], &dead["failedReason"]),
        (&json!(2), &json!("tick.dead"), &json!("attempt 2 fails"))
    );
    let retry = json!({ "queue": "events:exprsn-broker", "call": "retry", "id": format!("exprsn-broker/{id}") });
    assert_eq!(call("/queue", retry), json!({ "ok": null }));
    eventually("it is delivered twice more", || {
        noted("attempts", &id).filter(|attempts| attempts == "4")
    });
}

#[test]
fn an_event_reaches_another_service() {
    let id = unique("far");
    publish("sql.far", &id, json!({ "about": id }));
    let wish = json!({ "sql": "SELECT kind FROM received WHERE id = $1", "values": [id] });
    eventually("the other service has it", || {
        let rows = platform()
            .call("sql", "POST", "/query")
            .json(&wish)
            .send()
            .expect_status(200)
            .json();
        (rows["rows"] == json!([["event"]])).then_some(())
    });
}

#[test]
fn errors_when_not_granted() {
    let event = |topic: &str| json!({ "topic": topic, "data": {} });
    expect_error(
        "/publish",
        event("post.created"),
        &[
            "AccessDenied",
            "topic `post.created` is not granted",
            "`publish` under [grants.events]",
        ],
    );
    expect_error("/publish", event("tick.*"), &["Invalid", "no `*`"]);
    expect_error("/publish", event(""), &["AccessDenied"]);
}

#[test]
fn errors_when_a_limit_is_exceeded() {
    let long = "x".repeat(1_001);
    expect_error(
        "/publish",
        json!({ "topic": "tick.long", "data": long }),
        &["LimitExceeded", "event_bytes_max is 1000"],
    );
    expect_error(
        "/broadcast",
        json!({ "channel": "c", "data": long }),
        &["LimitExceeded", "live_bytes_max is 100"],
    );
    expect_error(
        "/broadcast",
        json!({ "channel": long, "data": 1 }),
        &["LimitExceeded", "channel_bytes_max is 40"],
    );
}

/// Listens through a route that streams: the channel's messages as Server-Sent Events.
fn listen(channel: &str) -> impl Iterator<Item = String> + use<> {
    let (status, _, body, _) = platform()
        .call("broker", "GET", &format!("/listen/{channel}"))
        .open()
        .expect("an answer");
    assert_eq!(status, 200);
    let mut lines = BufReader::new(body).lines().map_while(Result::ok);
    assert_eq!(
        lines.next().as_deref(),
        Some(": open"),
        "the stream is open before there is a message"
    );
    lines.filter_map(|line| line.strip_prefix("data: ").map(str::to_owned))
}

#[test]
fn live_messages_reach_those_who_listen_on_the_channel() {
    let (here, there) = (unique("h"), unique("t"));
    let broadcast = |channel: &str, data: &str| {
        assert_eq!(
            call("/broadcast", json!({ "channel": channel, "data": data })),
            json!({ "ok": null })
        );
    };
    broadcast(&here, "early");
    let (mut first, mut second, mut other) = (listen(&here), listen(&here), listen(&there));
    broadcast(&there, "elsewhere");
    broadcast(&here, "1");
    broadcast(&here, "2");
    for listener in [&mut first, &mut second] {
        assert_eq!(
            (listener.next().as_deref(), listener.next().as_deref()),
            (Some("\"1\""), Some("\"2\""))
        );
    }
    assert_eq!(other.next().as_deref(), Some("\"elsewhere\""));
}
