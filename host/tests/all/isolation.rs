//! A guest that misbehaves ends its own request and nothing else.

use crate::harness::{Platform, Setup};
use std::{
    io::Read as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

fn platform() -> &'static Platform {
    static PLATFORM: std::sync::OnceLock<Platform> = std::sync::OnceLock::new();
    PLATFORM.get_or_init(|| {
        Platform::start(&Setup {
            guests: &["hello", "hostile"],
            ..Setup::default()
        })
    })
}

/// Runs `harm` while innocent requests go to the hostile service and to another one; none of them may fail.
fn while_innocents_are_served(harm: impl FnOnce(&Platform)) {
    let platform = platform();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (service, path) in [("hostile", "/calm"), ("hello", "/hello")] {
            let done = &done;
            scope.spawn(move || {
                let mut served = 0;
                while !done.load(Relaxed) || served == 0 {
                    let begun = Instant::now();
                    platform
                        .call(service, "GET", path)
                        .send()
                        .expect_status(200);
                    assert!(
                        begun.elapsed() < Duration::from_secs(2),
                        "{service} took {:?}",
                        begun.elapsed()
                    );
                    served += 1;
                }
            });
        }
        // Dropped also when `harm` panics, so that the innocents end.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let _done = Done(&done);
        harm(platform);
    });
}

#[test]
fn an_endless_loop_is_stopped_at_its_cpu_limit() {
    while_innocents_are_served(|platform| {
        let answer = platform.call("hostile", "GET", "/loop").send();
        answer.expect_problem(500, "cpu_ms_max");
    });
}

#[test]
fn allocating_without_end_is_stopped_at_the_memory_limit() {
    while_innocents_are_served(|platform| {
        platform
            .call("hostile", "GET", "/allocate")
            .send()
            .expect_problem(500, "memory_bytes_max");
    });
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
        crate::harness::eventually("the trap is logged", || {
            platform.log().contains(&trace).then_some(())
        });
    });
}

#[test]
fn recursion_without_end_is_a_trap() {
    while_innocents_are_served(|platform| {
        platform
            .call("hostile", "GET", "/recurse")
            .send()
            .expect_status(500);
    });
}

#[test]
fn sleeping_past_the_deadline_is_a_504() {
    while_innocents_are_served(|platform| {
        let begun = Instant::now();
        platform
            .call("hostile", "GET", "/sleep")
            .send()
            .expect_problem(504, "did not answer in time");
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "{:?}",
            begun.elapsed()
        );
    });
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

#[test]
fn many_loops_at_once_leave_a_turn_for_others() {
    while_innocents_are_served(|platform| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    platform
                        .call("hostile", "GET", "/loop")
                        .send()
                        .expect_status(500)
                });
            }
        });
    });
}
