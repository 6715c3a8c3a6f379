//! What change costs: asking whether a grant is in force, and another version taking over.

use crate::{
    Row,
    harness::{Platform, Setup, repacked},
    load::median,
};
use exprsn::{
    name::ServiceName,
    withheld::{InForce, WithheldGrants},
};
use serde_json::{Value, json};
use std::{fs, hint::black_box, process::Stdio, time::Instant};

/// Checks that are timed together.
const CHECKS: u32 = 10_000_000;
/// Swaps of which the median is taken.
const SWAPS: usize = 41;

/// All rows of this kind.
pub fn measure() -> Vec<Row> {
    checks().into_iter().chain(swaps()).collect()
}

fn row(work: &'static str, subject: &'static str, unit: &'static str, value: f64) -> Row {
    Row {
        work,
        subject,
        unit,
        value,
        peer: None,
    }
}

/// Nanoseconds of one check, with nothing withheld and with something else withheld.
fn checks() -> [Row; 2] {
    let name = ServiceName::parse("exprsn-bench").expect("a name");
    let grants = WithheldGrants::default();
    let in_force = InForce::new(name.clone(), Vec::new(), grants.of(&name));
    let timed = || {
        let begun = Instant::now();
        for _ in 0..CHECKS {
            let checked =
                black_box(&in_force).check(black_box("queue"), black_box("timeline-fanout"));
            black_box(checked).expect("nobody withholds it");
        }
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(CHECKS)
    };
    let unchanged = timed();
    grants
        .set(&name, &["sql".to_owned(), "call:exprsn-herald".to_owned()])
        .expect("grants");
    let others = timed();
    let work = "whether a grant is in force, asked at each host call";
    [
        row(work, "nothing withheld", "ns", unchanged),
        row(work, "two other grants withheld", "ns", others),
    ]
}

/// Milliseconds from asking to being live: a fresh file, and code from the cache.
fn swaps() -> Vec<Row> {
    let platform = Platform::start(&Setup {
        services: &["ca", "setup"],
        guests: &["steady"],
        own_cache: true,
        ..Setup::default()
    });
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("second.wasm");
    let second = repacked(
        "steady",
        &[("label = \"first\"", "label = \"second\"")],
        &[],
    );
    fs::write(&file, second).expect("written");
    let file = file.to_str().expect("a path");
    let swapped = platform
        .command(&["swap", "steady", file, "--allow-unsigned", "--json"])
        .stderr(Stdio::inherit())
        .output()
        .expect("it runs");
    let fresh: Value = serde_json::from_slice(&swapped.stdout).expect("JSON");
    let took = |changed: &Value| changed["tookMs"].as_f64().expect("milliseconds");
    let cached = (0..SWAPS).map(|turn| {
        let digest = &fresh[if turn % 2 == 0 { "former" } else { "digest" }];
        let call = platform.call("setup", "POST", "/api/services/exprsn-steady/swap");
        let call = call.token(&platform.operator());
        took(
            &call
                .json(&json!({ "digest": digest }))
                .send()
                .expect_status(200)
                .json(),
        )
    });
    let work = "another version takes over";
    vec![
        row(work, "fresh file, compiled", "ms", took(&fresh)),
        row(work, "cached code", "ms", median(cached.collect())),
    ]
}
