//! Guests that never come to an end: loops, memory, recursion, bodies, sleep.

use super::{hostile, platform, while_innocents_are_served, with_bad_starts};
use crate::harness::{Platform, Setup, eventually};
use serde_json::{Value, json};
use std::{
    io::Read as _,
    time::{Duration, Instant},
};

fn refused(path: &str, status: u16, text: &str) {
    platform()
        .call("hostile", "GET", path)
        .send()
        .expect_problem(status, text);
}

#[test]
fn an_endless_loop_is_stopped_at_its_cpu_limit() {
    while_innocents_are_served(|_| refused("/loop", 500, "cpu_ms_max"));
}

#[test]
fn waiting_is_not_computing() {
    // Seventy times woken, each time a tick of the epoch later: more ticks than the limit, and no computing at all.
    while_innocents_are_served(|platform| {
        let answer = platform.call("hostile", "GET", "/patient").send();
        assert_eq!(answer.expect_status(200).text(), "waited");
    });
}

#[test]
fn many_loops_at_once_leave_a_turn_for_others() {
    while_innocents_are_served(|_| {
        std::thread::scope(|scope| {
            for _ in 0..24 {
                scope.spawn(|| {
                    // Together they want more than the cores have, so that the clock stops some of them first.
                    let answer = platform().call("hostile", "GET", "/loop").send();
                    assert!(matches!(answer.status, 500 | 504), "{}", answer.text());
                });
            }
        });
    });
}

/// The reason for which a job, or the delivery of an event, failed.
fn failed(queue: &str, id: &str) -> String {
    eventually("the attempt has failed", || {
        let job = hostile("GET", &format!("/jobs/{queue}/{id}"), &Value::Null);
        (job["state"].to_string().contains("Failed"))
            .then(|| job["failedReason"].as_str().unwrap_or_default().to_owned())
    })
}

#[test]
fn a_job_that_loops_or_allocates_fails_with_its_limit() {
    for (act, reason) in [
        ("loop", "exceeded its limit cpu_ms_max"),
        ("allocate", "exceeded its limit memory_bytes_max"),
    ] {
        while_innocents_are_served(|_| {
            let added = hostile("POST", "/jobs", &json!({ "do": act }));
            assert_eq!(
                failed("hostile-work", added["id"].as_str().expect("an id")),
                reason
            );
        });
    }
}

#[test]
fn an_event_whose_receiver_loops_fails_with_its_limit() {
    while_innocents_are_served(|_| {
        let published = hostile("POST", "/events", &json!({ "do": "loop" }));
        let id = published["id"].as_str().expect("an id");
        // A delivery is a job whose id names the event's source too.
        let queue = "events:exprsn-hostile";
        assert_eq!(
            failed(queue, &format!("exprsn-hostile/{id}")),
            "exceeded its limit cpu_ms_max"
        );
    });
}

#[test]
fn a_start_function_that_loops_is_stopped_at_its_cpu_limit() {
    let platform = with_bad_starts();
    // One start in four loops, that for the health check too.
    eventually("a start got through", || platform.try_restart().ok());
    let statuses: Vec<u16> = (0..60)
        .map(|_| {
            platform
                .call("hello", "GET", "/hello")
                .send()
                .expect_status(200);
            let answer = platform.call("hostile-start", "GET", "/calm").send();
            if answer.status == 500 {
                let text = answer.text();
                assert!(text.contains("cpu_ms_max"), "{text}");
            }
            answer.status
        })
        .take_while(|status| *status == 200)
        .collect();
    assert!(statuses.len() < 60, "no start looped: {statuses:?}");
}

#[test]
fn allocating_without_end_is_stopped_at_the_memory_limit() {
    while_innocents_are_served(|_| refused("/allocate", 500, "memory_bytes_max"));
}

#[test]
fn recursion_without_end_is_stopped_at_the_stack_limit() {
    while_innocents_are_served(|_| refused("/recurse", 500, "stack_bytes_max"));
}

#[test]
fn a_trap_names_the_trace_that_the_operator_finds_in_the_log() {
    while_innocents_are_served(|platform| {
        let answer = platform
            .call("hostile", "GET", "/trap")
            .send()
            .expect_problem(500, "the operator finds trace");
        let trace = answer.header("x-request-id").to_owned();
        assert!(answer.text().contains(&trace), "{}", answer.text());
        eventually("the trap is logged", || {
            platform.log().contains(&trace).then_some(())
        });
    });
}

#[test]
fn sleeping_past_the_deadline_is_a_504() {
    while_innocents_are_served(|_| {
        let begun = Instant::now();
        refused("/sleep", 504, "did not answer in time");
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn a_job_past_its_time_fails_with_its_reason() {
    let platform = Platform::start(&Setup {
        guests: &["hostile"],
        config: "[service.exprsn-hostile.limits]\njob_ms_max = 300\n",
        ..Setup::default()
    });
    let ask = |method, path: &str| platform.call("hostile", method, path);
    let added = ask("POST", "/jobs").json(&json!({ "do": "sleep" })).send();
    let id = added.expect_status(200).json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let reason = eventually("the attempt has failed", || {
        let job = ask("GET", &format!("/jobs/hostile-work/{id}"))
            .send()
            .json();
        (job["state"].to_string().contains("Failed")).then(|| job["failedReason"].to_string())
    });
    assert!(
        reason.contains("took longer than its time limit"),
        "{reason}"
    );
}

#[test]
fn a_body_without_end_is_cut_and_does_not_pass_for_whole() {
    while_innocents_are_served(|platform| {
        let (status, _, mut body, _) = platform
            .call("hostile", "GET", "/endless")
            .open()
            .expect("an answer");
        assert_eq!(status, 200);
        let mut received = 0u64;
        let mut chunk = vec![0; 64 << 10];
        let error = loop {
            match body.read(&mut chunk) {
                Ok(0) => panic!("the body ended as if it were whole after {received} bytes"),
                Ok(count) => received += count as u64,
                Err(error) => break error,
            }
        };
        assert!(
            received <= 8 << 20,
            "{received} bytes came, over response_bytes_max: {error}"
        );
    });
}
