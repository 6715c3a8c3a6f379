//! What BENCHMARKS in the README quotes: `cargo xtask bench [--quick] [--json]`.
//!
//! Everything is measured in one run on one machine, and the load comes from the same machine: ratios mean more than
//! absolute figures. Subjects that are compared take turns, several rounds of them, and medians are printed.

mod broker;
mod change;
#[path = "../tests/all/harness.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod harness;
mod load;
mod native;

use harness::{ALL, Platform, Setup, eventually};
use load::{Load, median};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Connections of the load on throughput.
const CONNECTIONS: usize = 32;

/// How much is measured.
struct Effort {
    rounds: usize,
    round: Duration,
    followers: usize,
    jobs: u64,
}

/// A line of the table.
struct Row {
    work: &'static str,
    subject: &'static str,
    unit: &'static str,
    value: f64,
    /// What it is compared with, and the ratio of the two.
    peer: Option<(&'static str, f64)>,
}

fn main() {
    let flag = |name: &str| std::env::args().any(|argument| argument == name);
    let effort = if flag("--quick") {
        Effort {
            rounds: 3,
            round: Duration::from_secs(1),
            followers: 200,
            jobs: 20_000,
        }
    } else {
        Effort {
            rounds: 7,
            round: Duration::from_secs(3),
            followers: 1_000,
            jobs: 200_000,
        }
    };
    let mut rows = Vec::new();
    progress("throughput and calls");
    rows.extend(requests(&effort));
    progress("jobs and events");
    rows.extend(broker::measure(effort.jobs).into_iter().map(|figure| Row {
        work: figure.work,
        subject: "broker",
        unit: figure.unit,
        value: figure.value,
        peer: None,
    }));
    progress("change");
    rows.extend(change::measure());
    progress("fan-out");
    rows.push(fan_out(&effort));
    progress("cold start");
    rows.extend(starts());
    if flag("--json") {
        println!("{}", Value::Array(rows.iter().map(as_json).collect()));
    } else {
        print_table(&rows);
    }
}

fn progress(what: &str) {
    eprintln!("measuring {what} …");
}

/// Requests a second and latency: native hyper, a component, a call between two services.
fn requests(effort: &Effort) -> Vec<Row> {
    let platform = Platform::start(&Setup {
        guests: &["hello", "relay"],
        ..Setup::default()
    });
    let native = native::serve();
    let address = |service| platform.origin(service).replace("http://", "");
    let subjects = [
        (native.to_string(), "/hello"),
        (address("hello"), "/hello"),
        (address("hello"), "/pass/exprsn-relay/hello"),
    ];
    let mut throughput: [Vec<f64>; 3] = Default::default();
    let mut latency: [Vec<f64>; 3] = Default::default();
    for _ in 0..effort.rounds {
        for (index, (address, path)) in subjects.iter().enumerate() {
            let load = |connections| Load {
                address: address.clone(),
                path,
                connections,
                duration: effort.round,
            };
            throughput[index].push(load(CONNECTIONS).run().per_second());
            latency[index].push(load(1).run().median_us());
        }
    }
    request_rows(throughput.map(median), latency.map(median))
}

fn request_rows(rate: [f64; 3], wait: [f64; 3]) -> Vec<Row> {
    let row = |work, subject, unit, value| Row {
        work,
        subject,
        unit,
        value,
        peer: None,
    };
    let (handler, calling) = ("trivial handler", "handler that calls another service");
    let latency = "latency, one connection, median";
    let hop = "service-to-service hop, authorised, added at the median";
    vec![
        row(handler, "native hyper", "requests/s", rate[0]),
        Row {
            peer: Some(("native hyper", rate[1] / rate[0])),
            ..row(handler, "component", "requests/s", rate[1])
        },
        Row {
            peer: Some(("one component", rate[2] / rate[1])),
            ..row(calling, "two components", "requests/s", rate[2])
        },
        row(latency, "native hyper", "µs", wait[0]),
        Row {
            peer: Some(("native hyper", wait[1] / wait[0])),
            ..row(latency, "component", "µs", wait[1])
        },
        row(hop, "in process", "µs", wait[2] - wait[1]),
    ]
}

/// From sending a post until the last follower's home timeline and inbox have it.
fn fan_out(effort: &Effort) -> Row {
    let platform = Platform::start(&Setup {
        services: &ALL,
        ..Setup::default()
    });
    let operator = platform.operator();
    let user = |index: usize| {
        let claims = json!({ "subject": format!("user:bench-{index}"), "resource": "*", "permissions": ["read", "write", "append", "update", "delete"], "expiresIn": 3600 });
        let answer = platform
            .call("ca", "POST", "/api/tokens")
            .token(&operator)
            .json(&claims)
            .send()
            .expect_status(201);
        answer.json()["token"].as_str().expect("a token").to_owned()
    };
    let author = user(0);
    for index in 1..=effort.followers {
        platform
            .call("timeline", "PUT", "/api/users/bench-0/follow")
            .token(&user(index))
            .send();
    }
    let seconds = (0..effort.rounds.min(5)).map(|_| {
        let begun = Instant::now();
        let post = platform
            .call("timeline", "POST", "/api/posts")
            .token(&author)
            .json(&json!({ "content": "to all" }));
        let id = post.send().expect_status(201).json()["id"]
            .as_str()
            .expect("an id")
            .to_owned();
        eventually("everybody has the post", || {
            let stats = platform
                .call("pulse", "GET", &format!("/api/stats/posts/{id}"))
                .token(&author)
                .send();
            (stats.status == 200 && stats.json()["deliveries"] == effort.followers).then_some(())
        });
        begun.elapsed().as_secs_f64() * 1_000.0
    });
    let value = median(seconds.collect());
    Row {
        work: "fan-out of one post to every follower, counted by pulse",
        subject: "timeline → herald, pulse",
        unit: "ms",
        value,
        peer: None,
    }
}

/// From the command to the ready line with all services, and what the host holds at rest.
fn starts() -> Vec<Row> {
    let platform = Platform::prepare(&Setup {
        services: &ALL,
        own_cache: true,
        ..Setup::default()
    });
    let timed = || {
        let begun = Instant::now();
        platform.restart();
        begun.elapsed().as_secs_f64()
    };
    let cold = timed();
    assert!(platform.stop().success());
    let warm = timed();
    let resident = resident_mib(platform.pid());
    vec![
        Row {
            work: "start of everything",
            subject: "without cache",
            unit: "s",
            value: cold,
            peer: None,
        },
        Row {
            work: "start of everything",
            subject: "with cache",
            unit: "s",
            value: warm,
            peer: Some(("without cache", warm / cold)),
        },
        Row {
            work: "memory at rest",
            subject: "all services",
            unit: "MiB",
            value: resident,
            peer: None,
        },
    ]
}

fn resident_mib(pid: u32) -> f64 {
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the host runs on Linux");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("the kernel tells it");
    let kib: f64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kib / 1_024.0
}

fn as_json(row: &Row) -> Value {
    let (peer, ratio) = row.peer.unzip();
    json!({ "work": row.work, "subject": row.subject, "unit": row.unit, "value": row.value, "peer": peer, "ratio": ratio })
}

fn print_table(rows: &[Row]) {
    println!("| work | subject | median | compared |\n|---|---|---:|---|");
    for row in rows {
        let digits = if row.value < 100.0 { 2 } else { 0 };
        let compared = row
            .peer
            .map(|(peer, ratio)| format!("{ratio:.2} × {peer}"))
            .unwrap_or_default();
        println!(
            "| {} | {} | {:.digits$} {} | {compared} |",
            row.work, row.subject, row.value, row.unit
        );
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!(
        "\n{cores} cores, shared with the load generator; {CONNECTIONS} connections for throughput."
    );
}
