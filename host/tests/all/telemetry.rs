//! The `telemetry` capability: a guest's logs and metrics, and what every part of the SDK does on a real host.

use crate::harness::{Platform, Setup, eventually};
use serde_json::json;
use std::io::{BufRead as _, BufReader};

fn platform() -> &'static Platform {
    static PLATFORM: std::sync::OnceLock<Platform> = std::sync::OnceLock::new();
    PLATFORM.get_or_init(|| {
        Platform::start(&Setup {
            guests: &["echo", "hello", "hostile"],
            ..Setup::default()
        })
    })
}

#[test]
fn a_guests_log_carries_its_service_and_trace() {
    let answer = platform()
        .call("echo", "GET", "/echo/ids")
        .send()
        .expect_status(200);
    let trace = answer.header("x-request-id").to_owned();
    let line = eventually("the record is in the log", || {
        let log = platform().log();
        log.lines()
            .find(|line| line.contains("ids asked for") && line.contains(&trace))
            .map(str::to_owned)
    });
    assert!(
        line.contains("exprsn-echo") && line.contains("uuid"),
        "{line}"
    );
}

#[test]
fn stderr_of_a_guest_is_in_the_log() {
    platform()
        .call("hostile", "GET", "/trap")
        .send()
        .expect_status(500);
    eventually("the panic's message is in the log", || {
        platform()
            .log()
            .contains("a trap was asked for")
            .then_some(())
    });
}

#[test]
fn errors_when_limit_exceeded() {
    let platform = Platform::start(&Setup {
        guests: &["echo", "hello"],
        config: "[service.exprsn-echo.limits]\nlog_records_per_second_max = 1\n",
        ..Setup::default()
    });
    // Over the limit records are dropped and counted, and the request does not notice.
    for _ in 0..20 {
        platform
            .call("echo", "GET", "/echo/ids")
            .send()
            .expect_status(200);
    }
    eventually("the next second tells of it", || {
        platform
            .call("echo", "GET", "/echo/ids")
            .send()
            .expect_status(200);
        platform
            .log()
            .contains("log records were dropped")
            .then_some(())
    });
}

#[test]
fn a_note_is_written_indexed_by_a_job_and_seen_as_an_event() {
    let call = platform()
        .call("echo", "POST", "/notes")
        .json(&json!({ "text": "'; DROP TABLE notes; --" }));
    let note = call.send().expect_status(201).json();
    let path = format!("/notes/{}", note["id"].as_str().expect("an id"));
    let done = eventually("job and event have come", || {
        let note = platform()
            .call("echo", "GET", &path)
            .send()
            .expect_status(200)
            .json();
        (note["indexed"] == true && note["seen"] == 1).then_some(note)
    });
    assert_eq!(done["text"], "'; DROP TABLE notes; --");
}

#[test]
fn a_repeated_request_with_its_key_is_answered_alike_and_done_once() {
    let key = uuid::Uuid::new_v4().to_string();
    let post = |text: &str| {
        let call = platform()
            .call("echo", "POST", "/notes")
            .header("idempotency-key", &key);
        call.json(&json!({ "text": text })).send()
    };
    let first = post("once").expect_status(201);
    let again = post("once").expect_status(201);
    assert_eq!(first.body, again.body);
    assert_eq!(again.header("idempotency-replayed"), "true");
    post("other").expect_status(422);
}

#[test]
fn live_messages_reach_whoever_listens() {
    let (status, _, body, _) = platform()
        .call("echo", "GET", "/echo/live")
        .open()
        .expect("a stream");
    assert_eq!(status, 200);
    let mut lines = BufReader::new(body).lines();
    // The stream may open a moment before its listener: messages are sent until one is heard.
    let heard = std::thread::spawn(move || {
        lines.find_map(|line| line.ok().filter(|line| line.contains("hi there")))
    });
    eventually("a message is heard", || {
        platform()
            .call("echo", "POST", "/echo/live")
            .json(&json!("hi there"))
            .send()
            .expect_status(204);
        heard.is_finished().then_some(())
    });
    assert!(heard.join().expect("the reader ends").is_some());
}

#[test]
fn events_are_streamed_and_the_stream_ends() {
    let text = platform()
        .call("echo", "GET", "/echo/sse")
        .send()
        .expect_status(200)
        .text();
    assert_eq!(text.matches("event: tick").count(), 3, "{text}");
}

#[test]
fn requests_are_passed_on_both_ways() {
    let body = vec![b'z'; 300_000];
    let call = platform()
        .call("echo", "POST", "/echo/stream")
        .body("text/plain", body.clone());
    assert_eq!(
        call.send().expect_status(200).body,
        body.to_ascii_uppercase()
    );
    let answer = platform()
        .call("echo", "GET", "/echo/call")
        .send()
        .expect_status(200)
        .json();
    assert_eq!(answer["message"], "hello");
    platform()
        .call("echo", "GET", "/forward/hello")
        .send()
        .expect_status(200);
}

#[test]
fn bad_input_is_a_problem_that_names_the_field() {
    let post = |body: &str| {
        platform()
            .call("echo", "POST", "/notes")
            .body("application/json", body.to_owned())
            .send()
    };
    post("{").expect_problem(400, "line 1");
    post("{\"text\": 5}").expect_problem(422, "/text");
    post("{\"text\": \"a\", \"more\": 1}").expect_problem(422, "more");
    post("{}").expect_problem(422, "text");
    platform()
        .call("echo", "POST", "/notes")
        .body("text/plain", "x")
        .send()
        .expect_problem(415, "json");
    platform()
        .call("echo", "GET", "/notes?cursor=nonsense")
        .send()
        .expect_problem(400, "cursor");
    platform()
        .call("echo", "GET", "/notes?limit=0")
        .send()
        .expect_problem(400, "limit");
    platform()
        .call("echo", "GET", "/notes?limit=x")
        .send()
        .expect_problem(400, "limit");
}
