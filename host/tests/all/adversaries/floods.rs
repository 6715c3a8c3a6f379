//! Floods: jobs, events, promises of them, log records, metrics, calls. Each is cut at its service's own limit.

use super::{hostile, platform, while_innocents_are_served};
use crate::harness::eventually;
use serde_json::{Value, json};

fn flood(path: &str) -> Value {
    hostile("POST", path, &json!({}))
}

/// A flood of messages, after what the one before has used up of its second has come back.
fn flood_of_messages(path: &str) -> Value {
    eventually("the service may send again", || {
        let told = flood(path);
        (told["done"].as_u64() > Some(0)).then_some(told)
    })
}

#[track_caller]
fn assert_cut(told: &Value, limit: &str) {
    assert!(told["done"].as_u64() > Some(0), "{told}");
    assert!(told["refused"].as_u64() > Some(0), "{told}");
    assert!(told["said"].to_string().contains(limit), "{told}");
}

#[test]
fn a_flood_of_jobs_is_cut_at_the_rate_of_its_service() {
    while_innocents_are_served(|_| {
        assert_cut(
            &flood_of_messages("/flood/jobs/40000"),
            "messages_per_second_max",
        );
    });
}

#[test]
fn a_flood_of_events_is_cut_at_the_rate_of_its_service() {
    while_innocents_are_served(|_| {
        assert_cut(
            &flood_of_messages("/flood/events/20000"),
            "messages_per_second_max",
        );
    });
}

#[test]
fn a_flood_of_promised_jobs_is_cut_where_it_is_promised() {
    while_innocents_are_served(|_| {
        assert_cut(
            &flood_of_messages("/flood/outbox/8000"),
            "messages_per_second_max",
        );
    });
}

#[test]
fn a_flood_of_calls_is_cut_and_the_service_called_has_room_for_others() {
    while_innocents_are_served(|_| {
        let told = flood("/flood/calls/400");
        assert_cut(&told, "ConnectionLimitReached");
        assert!(told["done"].as_u64() >= Some(16), "{told}");
    });
}

#[test]
fn a_flood_of_log_records_is_cut_and_forges_no_record() {
    while_innocents_are_served(|platform| {
        let before = platform.log().len();
        for path in [
            "/flood/log/20000/100",
            "/flood/log/200/1000000",
            "/flood/stdout/20000",
        ] {
            platform
                .call("hostile", "POST", path)
                .json(&json!({}))
                .send()
                .expect_status(200);
        }
        // Rates are by the second: a flood that lasts some seconds may fill as many.
        let log = platform.log();
        let flooded = log[before.min(log.len())..]
            .lines()
            .filter(|line| line.contains("flood"));
        let bytes: usize = flooded.map(str::len).sum();
        assert!(
            bytes < 40 << 20,
            "{bytes} bytes of the flood are in the log"
        );
    });
    eventually(
        "what was dropped is told, and what was said is one record",
        || {
            let calm = platform()
                .call("hostile", "POST", "/flood/log/1/10")
                .json(&json!({}));
            calm.send().expect_status(200);
            let log = platform().log();
            let forged = log
                .lines()
                .find(|line| line.starts_with("2026-01-01T00:00:00Z"));
            assert_eq!(forged, None, "a guest wrote a record of its own");
            assert!(
                !log.contains("\u{1b}[2J"),
                "an escape of a terminal is in the log"
            );
            let told = log.contains("log records were dropped: over log_records_per_second_max");
            let said = log
                .lines()
                .any(|line| line.contains("harmless") && line.contains("exprsn-hostile"));
            (told && said).then_some(())
        },
    );
}

#[test]
fn a_flood_of_metrics_is_cut_at_the_series_of_its_service() {
    while_innocents_are_served(|platform| {
        let counted = platform
            .call("hostile", "POST", "/flood/metrics/20000")
            .json(&json!({}));
        counted.send().expect_status(200);
    });
    assert!(
        platform().log().contains("as metric_series_max allows"),
        "the operator is not told"
    );
}
