//! Hostile guests and hostile clients: what each of them gets, and that two innocent services beside them notice nothing.
//!
//! The innocents are a handler that computes and one whose every request waits for the broker's disk. While harm is
//! done, none of their requests may fail, and the slowest hundredth may take twice as long as in the calm before.

mod components;
mod computing;
mod floods;
mod forging;
mod hoarding;

use crate::harness::{Answer, Platform, Setup};
use serde_json::{Value, json};
use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A slowest hundredth below this is no harm, whatever it was before: the noise of a machine with two shared cores.
const NOISE: Duration = Duration::from_millis(250);
/// How long the calm is measured.
const CALM: Duration = Duration::from_millis(400);
/// Fewest requests of each innocent that say anything.
const REQUESTS_MIN: usize = 10;
/// Harm that is worse than it may be this often in a row is no noise.
const TRIES_MAX: usize = 3;

const CONFIG: &str = "
[platform]
compile_cpu_s_max = 3
[service.exprsn-hostile.limits]
hostcall_bytes_max = 8388608
messages_per_second_max = 2000
calls_max = 16
metric_series_max = 50
[capability.sql]
statement_ms_max = 500
transaction_ms_max = 1000
transactions_max = 16
";

/// The platform that all harm is done to.
fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        Platform::start(&Setup {
            services: &["ca", "setup"],
            guests: &["broker", "hello", "hostile"],
            config: CONFIG,
            ..Setup::default()
        })
    })
}

/// A platform, not started yet, with a guest whose start function loops now and then.
fn with_bad_starts() -> Platform {
    Platform::prepare(&Setup {
        guests: &["hello", "hostile-start"],
        ..Setup::default()
    })
}

/// An answer of the hostile guest that is JSON.
#[track_caller]
fn hostile(method: &str, path: &str, body: &Value) -> Value {
    let mut call = platform().call("hostile", method, path);
    if method == "POST" {
        call = call.json(body);
    }
    call.send().expect_status(200).json()
}

fn innocent_computing() -> Answer {
    platform().call("hello", "GET", "/hello").send()
}

fn innocent_waiting() -> Answer {
    let job = json!({ "queue": "broker-innocent", "call": "add", "jobs": [{ "data": { "do": "succeed" } }] });
    platform()
        .call("broker", "POST", "/queue")
        .json(&job)
        .send()
}

/// Asks both innocents, one request after the other each, until `done`; answers the slowest hundredth of each.
fn served(done: &AtomicBool) -> [Duration; 2] {
    std::thread::scope(|scope| {
        let innocents: [fn() -> Answer; 2] = [innocent_computing, innocent_waiting];
        let asked = innocents.map(|ask| {
            scope.spawn(move || {
                let mut took = Vec::new();
                while !done.load(Relaxed) || took.len() < REQUESTS_MIN {
                    let begun = Instant::now();
                    let answer = ask().expect_status(200);
                    assert!(!answer.text().contains("error"), "{}", answer.text());
                    took.push(begun.elapsed());
                }
                took.sort();
                took[took.len() - 1 - took.len() / 100]
            })
        });
        asked.map(|asked| {
            asked
                .join()
                .expect("every request of an innocent is answered")
        })
    })
}

/// Does `harm` while the innocents are served, and compares with the calm before.
fn while_innocents_are_served(harm: impl Fn(&'static Platform)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut seen = Vec::new();
    for _ in 0..TRIES_MAX {
        let calm = during(|| std::thread::sleep(CALM));
        let harmed = during(|| harm(platform()));
        let bearable = |calm: Duration| (2 * calm).max(NOISE);
        if harmed[0] <= bearable(calm[0]) && harmed[1] <= bearable(calm[1]) {
            return;
        }
        seen.push((calm, harmed));
    }
    panic!("innocents wait for others' harm: calm and harmed [computing, waiting]: {seen:?}");
}

fn during(act: impl FnOnce()) -> [Duration; 2] {
    /// Set also when what is done panics, so that the innocents end.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    // The platform starts before anything is measured.
    platform();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let served = scope.spawn(|| served(&done));
        {
            let _done = Done(&done);
            act();
        }
        served.join().expect("the innocents are served")
    })
}

/// The host's memory that is its own, in bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", platform().pid()));
    let status = status.expect("the host runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|kib| kib.parse().ok());
    kib.map_or(0, |kib: u64| kib << 10)
}
