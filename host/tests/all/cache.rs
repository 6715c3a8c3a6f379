//! The `cache` capability as guests have it.

use crate::harness::{Platform, Setup, eventually};
use serde_json::{Value, json};
use std::sync::OnceLock;

const LIMITS: &str = "[capability.cache]
value_bytes_max = 1000
key_bytes_max = 100";

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

#[track_caller]
fn call(wish: Value) -> Value {
    platform()
        .call("broker", "POST", "/cache")
        .json(&wish)
        .send()
        .expect_status(200)
        .json()
}

#[track_caller]
fn expect(wish: Value, answer: Value) {
    assert_eq!(call(wish.clone()), json!({ "ok": answer }), "{wish}");
}

#[track_caller]
fn expect_error(wish: Value, texts: &[&str]) {
    let answer = call(wish);
    let error = answer["error"]
        .as_str()
        .unwrap_or_else(|| panic!("no error: {answer}"));
    texts
        .iter()
        .for_each(|text| assert!(error.contains(text), "no `{text}` in {error}"));
}

fn get(key: &str) -> Value {
    json!({ "call": "get", "key": key })
}

#[test]
fn values_are_set_read_and_removed() {
    let set = |value: &str| json!({ "call": "set", "key": "value", "value": value });
    let set_if_absent =
        |value: &str| json!({ "call": "setIfAbsent", "key": "value", "value": value });
    let delete = || json!({ "call": "delete", "key": "value" });
    expect(get("value"), Value::Null);
    expect(set("1"), Value::Null);
    expect(get("value"), json!("1"));
    expect(set_if_absent("2"), json!(false));
    expect(delete(), json!(true));
    expect(delete(), json!(false));
    expect(set_if_absent("2"), json!(true));
    expect(get("value"), json!("2"));
}

#[test]
fn values_expire() {
    expect(
        json!({ "call": "set", "key": "short", "value": "1", "ttlMs": 50 }),
        Value::Null,
    );
    eventually("it has expired", || {
        call(get("short"))["ok"].is_null().then_some(())
    });
    expect_error(
        json!({ "call": "set", "key": "short", "value": "1", "ttlMs": 0 }),
        &["Invalid", "ttl_ms"],
    );
}

#[test]
fn increments_of_many_requests_add_up() {
    let increment = |by: i64| json!({ "call": "increment", "key": "sum", "by": by });
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..25).for_each(|_| drop(call(increment(2)))));
        }
    });
    expect(increment(-200), json!(0));
    expect(
        json!({ "call": "set", "key": "word", "value": "x" }),
        Value::Null,
    );
    expect_error(
        json!({ "call": "increment", "key": "word", "by": 1 }),
        &["Invalid", "not a whole number"],
    );
}

#[test]
fn a_bucket_gives_what_it_holds() {
    let take = |tokens: u64| json!({ "call": "takeTokens", "key": "bucket", "capacity": 10, "refillPerSecond": 0.001, "tokens": tokens });
    let first = call(take(7))["ok"].clone();
    assert_eq!(
        (
            &first["allowed"],
            &first["remaining"],
            &first["retryAfterMs"]
        ),
        (&json!(true), &json!(3), &json!(0))
    );
    let second = call(take(4))["ok"].clone();
    assert_eq!(
        (&second["allowed"], &second["remaining"]),
        (&json!(false), &json!(3))
    );
    let wait = second["retryAfterMs"].as_u64().expect("a time");
    assert!((900_000..=1_000_000).contains(&wait), "{second}");
    assert!(second["resetMs"].as_u64() > Some(wait), "{second}");
    expect_error(take(11), &["Invalid", "never holds 11"]);
}

#[test]
fn errors_when_a_limit_is_exceeded() {
    let set = |key: &str, value: &str| json!({ "call": "set", "key": key, "value": value });
    expect_error(
        set("long", &"x".repeat(1_001)),
        &["LimitExceeded", "value_bytes_max is 1000"],
    );
    expect_error(
        set(&"k".repeat(101), "x"),
        &["LimitExceeded", "key_bytes_max is 100"],
    );
    expect_error(set("", "x"), &["Invalid", "at least 1 byte"]);
}

#[test]
fn errors_when_not_granted() {
    // A guest without the grant has no such import: it does not load. `grants.rs` shows that for a component that tries.
    let config = "[service.exprsn-broker]\ngrants = { cache = \"refused\" }";
    let refused = Platform::prepare(&Setup {
        guests: &["broker"],
        config,
        ..Setup::default()
    });
    let output = refused.try_restart().expect_err("it does not start");
    let told = format!("{output}{}", refused.log());
    assert!(
        told.contains("it imports exprsn:cache/store@1.0.0, which was refused"),
        "{told}"
    );
}
