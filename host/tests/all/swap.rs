//! Another version takes over: nobody notices, and one that does worse does not stay.

use crate::harness::{Platform, Setup, built, eventually, port, repacked};
use serde_json::{Value, json};
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// What answers and works in these tests.
const STEADY: &str = "exprsn-steady";
/// Threads that ask without pause while versions change, each on connections of its own.
const CLIENTS: usize = 64;
/// How long they do, with a swap every second.
const UNDER_LOAD: Duration = Duration::from_secs(60);
/// The median that a swap of cached code may take, in milliseconds.
const SWAP_MS_MAX: u64 = 50;
/// Rounds in which that is measured, until one keeps it.
const ROUNDS_MAX: usize = 10;

/// A platform with steady and what changes it, and versions of steady to change it for.
struct Bench {
    platform: Platform,
    folder: TempDir,
}

impl Bench {
    fn start(config: &str) -> Self {
        let platform = Platform::start(&Setup {
            services: &["ca", "setup", "pulse"],
            guests: &["steady"],
            config,
            ..Setup::default()
        });
        Self {
            platform,
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// A version of steady whose manifest differs by `changes`, in a file of its own.
    fn version(&self, label: &str, changes: &[(&str, &str)]) -> PathBuf {
        self.version_with(label, changes, &[])
    }

    /// The same with further migrations.
    fn version_with(
        &self,
        label: &str,
        changes: &[(&str, &str)],
        migrations: &[(&str, &str)],
    ) -> PathBuf {
        let labelled = format!("label = \"{label}\"");
        let mut all = vec![("label = \"first\"", labelled.as_str())];
        all.extend(changes);
        let packed = repacked("steady", &all, migrations);
        let path = self.folder.path().join(format!("{label}.wasm"));
        fs::write(&path, packed).expect("written");
        path
    }

    /// `exprsn swap exprsn-steady …`: what it prints as JSON, or what it says of its failure.
    fn swap(&self, component: &Path, more: &[&str]) -> Result<Value, String> {
        let component = component.to_str().expect("a path");
        let arguments = [
            &["swap", "steady", component, "--allow-unsigned", "--json"],
            more,
        ];
        self.run(&arguments.concat())
    }

    fn run(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut command = self.platform.command(arguments);
        let output = command
            .stderr(std::process::Stdio::piped())
            .output()
            .expect("it runs");
        if output.status.success() {
            return Ok(serde_json::from_slice(&output.stdout).expect("JSON"));
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The same over exprsn-setup's API.
    fn change(&self, what: &str, body: &Value) -> Value {
        let path = format!("/api/services/{STEADY}/{what}");
        let call = self.platform.call("setup", "POST", &path);
        let answer = call.token(&self.platform.operator()).json(body).send();
        answer.expect_status(200).json()
    }

    fn history(&self) -> Vec<Value> {
        let history = self
            .run(&["history", "steady", "--json"])
            .expect("a history");
        history["items"].as_array().expect("items").clone()
    }

    fn label(&self) -> String {
        let answer = self.platform.call("steady", "GET", "/version").send();
        answer.expect_status(200).text()
    }

    /// Versions of steady in the host's memory.
    fn versions(&self) -> u64 {
        let answer = self.platform.call("pulse", "GET", "/metrics").send();
        let text = answer.expect_status(200).text();
        let line = format!("exprsn_versions{{service=\"{STEADY}\"}} ");
        let count = text.lines().find_map(|l| l.strip_prefix(&line));
        count
            .and_then(|count| count.parse().ok())
            .unwrap_or_else(|| panic!("no {line} in {text}"))
    }

    /// Resident memory of the host, in bytes.
    fn resident(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.platform.pid());
        let text = fs::read_to_string(path).expect("a running host");
        let pages = text
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<u64>().ok());
        pages.expect("pages") * 4_096
    }
}

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    failures: AtomicU64,
    accepted: AtomicU64,
    done: AtomicBool,
}

/// One client: requests of all kinds one after the other on its own connections, each answer checked whole.
fn client(origin: &str, seen: &Seen) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into();
    let body = "x".repeat(10_000);
    let mut turn = 0;
    while !seen.done.load(Relaxed) {
        turn += 1;
        let well = match turn % 4 {
            0 => answered(agent.get(format!("{origin}/version")).call(), 200, |text| {
                text == "first" || text == "second"
            }),
            1 => answered(
                agent.post(format!("{origin}/echo")).send(&body),
                200,
                |text| text == body,
            ),
            2 => answered(agent.get(format!("{origin}/stream")).call(), 200, |text| {
                text.lines().count() == 8
            }),
            _ => {
                let url = format!("{origin}/work/{}", uuid::Uuid::new_v4());
                let accepted = answered(agent.post(url).send_empty(), 202, |_| true);
                seen.accepted.fetch_add(u64::from(accepted), Relaxed);
                accepted
            }
        };
        seen.requests.fetch_add(1, Relaxed);
        seen.failures.fetch_add(u64::from(!well), Relaxed);
    }
}

fn answered(
    answer: Result<http::Response<ureq::Body>, ureq::Error>,
    status: u16,
    check: impl FnOnce(&str) -> bool,
) -> bool {
    let outcome = answer
        .map_err(|error| error.to_string())
        .and_then(|answer| {
            let found = answer.status().as_u16();
            let mut text = String::new();
            let read = answer.into_body().into_reader().read_to_string(&mut text);
            match read {
                Ok(_) if found == status && check(&text) => Ok(()),
                Ok(_) => Err(format!("{found}: {text}")),
                Err(error) => Err(format!("{found}, broken off: {error}")),
            }
        });
    if let Err(error) = &outcome {
        eprintln!("a request failed: {error}");
    }
    outcome.is_ok()
}

#[test]
fn a_swap_every_second_loses_no_request_and_neither_loses_nor_doubles_a_job_or_an_event() {
    // So many clients make latencies that say nothing of a version.
    let bench = Bench::start("[platform]\nswap_p95_floor_ms = 60000");
    // The other version also works on its queue in another way, so that its consumer is replaced each time.
    let second = bench.version(
        "second",
        &[("concurrency = 8\n\n[[sub", "concurrency = 4\n\n[[sub")],
    );
    let second = bench.swap(&second, &[]).expect("it swaps");
    let digests =
        [&second["former"], &second["digest"]].map(|digest| digest.as_str().expect("a digest"));
    let (origin, seen) = (bench.platform.origin("steady"), Seen::default());
    let (mut took, mut before) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| client(&origin, &seen));
        }
        let begun = Instant::now();
        for turn in 0.. {
            let due = begun + Duration::from_secs(turn + 1);
            if due > begun + UNDER_LOAD {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let digest = digests[usize::try_from(turn).expect("few") % 2];
            let changed = bench.change("swap", &json!({ "digest": digest }));
            assert_eq!(changed["cached"], true, "{changed}");
            took.push(changed["tookMs"].as_u64().expect("milliseconds"));
            if turn == 4 {
                before = bench.resident();
            }
        }
        seen.done.store(true, Relaxed);
    });
    took.sort_unstable();
    let (requests, failures) = (seen.requests.load(Relaxed), seen.failures.load(Relaxed));
    eprintln!(
        "{requests} requests, {failures} failed, {} swaps, median {} ms under load",
        took.len(),
        took[took.len() / 2]
    );
    assert_eq!(
        failures,
        0,
        "of {requests} requests during {} swaps",
        took.len()
    );
    assert!(
        requests > 1_000 && took.len() >= 50,
        "{requests} requests, {} swaps",
        took.len()
    );
    let accepted = seen.accepted.load(Relaxed);
    let tally = eventually("all jobs are done and all events are heard", || {
        let tally = bench.platform.call("steady", "GET", "/tally").send().json();
        (tally["missing"] == 0).then_some(tally)
    });
    assert_eq!(
        tally,
        json!({ "accepted": accepted, "missing": 0, "doubled": 0 })
    );
    eventually("old versions leave the memory", || {
        (bench.versions() <= 2).then_some(())
    });
    let after = bench.resident();
    assert!(
        after < before + before / 2,
        "{before} bytes were resident after 5 swaps, {after} after {}",
        took.len()
    );
}

#[test]
fn a_swap_of_cached_code_takes_milliseconds_and_a_fresh_file_the_time_of_its_compilation() {
    let bench = Bench::start("");
    let second = bench.version("second", &[]);
    let fresh = bench.swap(&second, &[]).expect("it swaps");
    assert_eq!(bench.label(), "second");
    let digests = [&fresh["former"], &fresh["digest"]];
    let median = || {
        let mut took: Vec<u64> = (0..20)
            .map(|turn| {
                let changed = bench.change("swap", &json!({ "digest": digests[turn % 2] }));
                assert_eq!(changed["cached"], true, "{changed}");
                changed["tookMs"].as_u64().expect("milliseconds")
            })
            .collect();
        took.sort_unstable();
        took[10]
    };
    // Other tests share the machine: a round that was disturbed by them is measured anew.
    let medians: Vec<u64> = (0..ROUNDS_MAX)
        .map(|_| median())
        .scan(false, |done, median| {
            let before = std::mem::replace(done, median < SWAP_MS_MAX);
            (!before).then_some(median)
        })
        .collect();
    eprintln!(
        "fresh {} ms, medians of cached code {medians:?} ms",
        fresh["tookMs"]
    );
    assert!(
        medians.iter().any(|median| *median < SWAP_MS_MAX),
        "the medians are {medians:?} ms"
    );
}

#[test]
fn a_version_that_is_not_healthy_never_goes_live() {
    let bench = Bench::start("");
    let sick = bench.version(
        "sick",
        &[("behaviour = \"steady\"", "behaviour = \"unhealthy\"")],
    );
    let error = bench.swap(&sick, &[]).unwrap_err();
    assert!(
        error.contains("is not healthy: /health answered 503"),
        "{error}"
    );
    assert_eq!(bench.label(), "first");
    let last = &bench.history()[0];
    assert_eq!(
        (&last["action"], &last["outcome"]),
        (&json!("swap"), &json!("failed"))
    );
    assert!(
        last["reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("not healthy")),
        "{last}"
    );
}

#[test]
fn a_version_that_fails_or_is_slow_goes_by_itself() {
    let bench = Bench::start("");
    for (label, expected) in [("failing", "failed"), ("slow", "95th percentile")] {
        // What the old version has done is what the new one is held against.
        (0..30).for_each(|_| drop(bench.label()));
        let behaviour = format!("behaviour = \"{label}\"");
        let worse = bench.version(label, &[("behaviour = \"steady\"", &behaviour)]);
        bench
            .swap(&worse, &[])
            .expect("it is healthy, so it goes live");
        eventually("the old version returns", || {
            let answer = bench.platform.call("steady", "GET", "/version").send();
            (answer.status == 200 && answer.text() == "first").then_some(())
        });
        let last = &bench.history()[0];
        assert_eq!(
            (&last["action"], &last["by"]),
            (&json!("auto-rollback"), &json!("host"))
        );
        assert!(
            last["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains(expected)),
            "{last}"
        );
    }
    eventually("the worse ones leave the memory", || {
        (bench.versions() == 1).then_some(())
    });
}

#[test]
fn a_canary_has_its_share_until_it_is_promoted_or_aborted() {
    let bench = Bench::start("");
    let second = bench.version("second", &[]);
    let seconds = || (0..200).filter(|_| bench.label() == "second").count();
    let trial = bench.swap(&second, &["--percent", "10"]).expect("a trial");
    assert_eq!(trial["outcome"], "trial");
    assert_eq!(seconds(), 20);
    let third = bench.version("third", &[]);
    let error = bench.swap(&third, &[]).unwrap_err();
    assert!(
        error.contains("on trial: promote or abort it first"),
        "{error}"
    );
    bench
        .run(&["canary", "abort", "steady", "--json"])
        .expect("aborted");
    assert_eq!(seconds(), 0);
    bench
        .swap(&second, &["--percent", "50"])
        .expect("another trial");
    assert_eq!(seconds(), 100);
    let promoted = bench
        .run(&["canary", "promote", "steady", "--json"])
        .expect("promoted");
    assert_eq!(promoted["outcome"], "live");
    assert_eq!(seconds(), 200);
    let error = bench.run(&["canary", "promote", "steady"]).unwrap_err();
    assert!(
        error.contains("no canary of exprsn-steady is on trial"),
        "{error}"
    );
    let actions: Vec<_> = bench
        .history()
        .iter()
        .map(|entry| entry["action"].clone())
        .collect();
    assert_eq!(
        json!(actions),
        json!(["promote", "canary", "abort", "swap", "canary"])
    );
}

#[test]
fn a_canary_that_does_worse_ends_by_itself() {
    let bench = Bench::start("");
    let behaviour = ("behaviour = \"steady\"", "behaviour = \"failing\"");
    let worse = bench.version("worse", &[behaviour]);
    bench.swap(&worse, &["--percent", "50"]).expect("a trial");
    eventually("the canary ends", || {
        let answer = bench.platform.call("steady", "GET", "/version").send();
        drop(answer);
        (bench.history()[0]["action"] == "auto-rollback").then_some(())
    });
    assert!((0..50).all(|_| bench.label() == "first"));
}

#[test]
fn migrations_are_applied_first_and_refused_where_the_running_version_cannot_bear_them() {
    let bench = Bench::start("");
    let column = [("0002_note.sql", "ALTER TABLE work ADD COLUMN note TEXT;")];
    let second = bench.version_with("second", &[], &column);
    let error = bench.swap(&second, &[]).unwrap_err();
    assert!(
        error.contains("bring the schema to 0002") && error.contains("--restart"),
        "{error}"
    );
    assert_eq!(bench.label(), "first");
    // A version that promises to bear the next schema can be replaced while it runs, and returned to.
    let schema = ("[config]", "[schema]\nmin = 1\nmax = 2\n[config]");
    let bearing = bench.version("bearing", &[schema]);
    bench.swap(&bearing, &[]).expect("the same schema");
    bench.swap(&second, &[]).expect("a schema that is borne");
    assert_eq!(bench.label(), "second");
    let back = bench
        .run(&["rollback", "steady", "--json"])
        .expect("it returns");
    assert_eq!(
        (bench.label().as_str(), &back["action"]),
        ("bearing", &json!("rollback"))
    );
    // The first one never promised that.
    let first = built("guests").join("exprsn-steady.wasm");
    let error = bench.swap(&first, &[]).unwrap_err();
    assert!(
        error.contains("has migration `0002_note`, which the component lacks"),
        "{error}"
    );
    assert_eq!(bench.label(), "bearing");
}

#[test]
fn a_restart_takes_the_old_version_off_and_brings_it_back_when_the_new_one_fails() {
    let bench = Bench::start("");
    let second = bench.version_with(
        "second",
        &[],
        &[("0002_bad.sql", "ALTER TABLE nowhere ADD x;")],
    );
    let error = bench.swap(&second, &["--restart"]).unwrap_err();
    assert!(error.contains("0002_bad"), "{error}");
    assert_eq!(bench.label(), "first");
    let third = bench.version_with(
        "third",
        &[],
        &[("0002_note.sql", "ALTER TABLE work ADD note TEXT;")],
    );
    bench.swap(&third, &["--restart"]).expect("it swaps");
    assert_eq!(bench.label(), "third");
}

#[test]
fn what_was_swapped_in_survives_a_kill_and_can_be_returned_from() {
    let bench = Bench::start("");
    let second = bench.version("second", &[]);
    bench.swap(&second, &[]).expect("it swaps");
    bench.platform.kill();
    bench.platform.restart();
    assert_eq!(bench.label(), "second");
    bench
        .run(&["rollback", "steady", "--json"])
        .expect("it returns");
    assert_eq!(bench.label(), "first");
    bench.platform.kill();
    bench.platform.restart();
    assert_eq!(bench.label(), "first");
}

#[test]
fn who_may_not_and_what_cannot_is_refused() {
    let bench = Bench::start("");
    let digest = "0".repeat(64);
    let swap = |service: &str, token: &str| {
        let path = format!("/api/services/{service}/swap");
        let call = bench.platform.call("setup", "POST", &path).token(token);
        call.json(&json!({ "digest": digest })).send()
    };
    let operator = bench.platform.operator();
    swap(STEADY, &operator).expect_problem(422, "is not in the library");
    let answer = bench
        .platform
        .call("ca", "POST", "/api/tokens")
        .token(&operator)
        .json(&json!({ "subject": "user:ada", "resource": "*", "permissions": ["read", "write"], "expiresIn": 60 }))
        .send();
    let user = answer.expect_status(201).json();
    swap(STEADY, user["token"].as_str().expect("a token")).expect_problem(403, "admin");
    let rollback = bench
        .platform
        .call("setup", "POST", "/api/services/nobody/rollback");
    rollback
        .token(&operator)
        .json(&json!({}))
        .send()
        .expect_status(404);
    let error = bench.run(&["rollback", "steady"]).unwrap_err();
    assert!(error.contains("404"), "{error}");
    // A component keeps its service's name and port.
    let moved = bench.version(
        "moved",
        &[(&*format!("port = {}", port("steady")), "port = 3911")],
    );
    let error = bench.swap(&moved, &[]).unwrap_err();
    assert!(
        error.contains("a service keeps its port while it runs"),
        "{error}"
    );
    let hello = built("guests").join("exprsn-hello.wasm");
    let error = bench.swap(&hello, &[]).unwrap_err();
    assert!(error.contains("exprsn-hello"), "{error}");
    assert_eq!(bench.label(), "first");
}
