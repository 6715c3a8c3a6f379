//! Policies of calls between services: what is repeated, what is left alone, and how far a failure reaches.
//!
//! The services are one guest, `link`, under several names; each calls the next.

use crate::harness::{Answer, Call, Platform, Setup, eventually, repacked};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The port of the first link; each further one has the next.
const PORT: usize = 3_921;
/// Every attempt counts, and no breaker interferes.
const NO_BREAKER: &str = "[mesh]\nbreaker_percent = 101\nbackoff_ms = 1\nretry_burst = 100\n";
/// Clients of each service, and the requests of each, while one service is dead.
const CLIENTS: usize = 2;
const REQUESTS: usize = 20;

/// A platform of links.
struct Links {
    platform: Platform,
    count: usize,
    _folder: TempDir,
}

fn name(link: usize) -> String {
    match link {
        1 => "exprsn-link".to_owned(),
        n => format!("exprsn-link-{n}"),
    }
}

impl Links {
    fn start(count: usize, config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = config.to_owned();
        for link in 1..=count {
            let own = name(link);
            if link > 1 {
                let (named, port) = (
                    format!("name = \"{own}\""),
                    format!("port = {}", PORT + link - 1),
                );
                let changes = [
                    ("name = \"exprsn-link\"", named.as_str()),
                    ("port = 3921", port.as_str()),
                ];
                let file = folder.path().join(format!("{own}.wasm"));
                fs::write(&file, repacked("link", &changes, &[])).expect("written");
                let grants = ["ca", "cache", "config", "events", "http", "telemetry"]
                    .map(|grant| format!("{grant} = \"as-requested\""))
                    .join(", ");
                let _ = write!(
                    config,
                    "\n[service.{own}]\ncomponent = {file:?}\ngrants = {{ {grants} }}\n"
                );
            }
            if link < count {
                let next = name(link + 1);
                let _ = write!(config, "\n[service.{own}.config]\nnext = \"{next}\"\n");
            }
        }
        let platform = Platform::start(&Setup {
            services: &["ca", "setup", "pulse"],
            guests: &["link"],
            config: &config,
            ..Setup::default()
        });
        Self {
            platform,
            count,
            _folder: folder,
        }
    }

    fn call(&self, link: usize, method: &str, path: &str) -> Call {
        let port = PORT + link - 1;
        Call::new(
            method,
            &format!("http://{}:{port}{path}", self.platform.address),
        )
    }

    fn behave(&self, link: usize, how: &str) {
        let path = format!("/behave/{how}");
        self.call(link, "POST", &path).send().expect_status(204);
    }

    fn count(&self, link: usize, name: &str) -> i64 {
        let answer = self.call(link, "GET", &format!("/count/{name}")).send();
        answer.expect_status(200).json().as_i64().expect("a number")
    }

    /// What became of a call that the first link makes of another.
    fn ask(&self, method: &str, of: usize) -> Value {
        asked(self.asking(method, of))
    }

    fn asking(&self, method: &str, of: usize) -> Call {
        self.call(1, method, &format!("/ask/{}/work", name(of)))
    }

    fn run(&self, arguments: &[&str]) {
        let output = self.platform.command(arguments).output().expect("it runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// The sum of a metric's series whose labels hold all of `labels`; none where there is no series.
    fn metric(&self, metric: &str, labels: &[&str]) -> Option<f64> {
        let answer = self.platform.call("pulse", "GET", "/metrics").send();
        let text = answer.expect_status(200).text();
        let series = text.lines().filter(|line| {
            line.starts_with(&format!("{metric}{{"))
                && labels.iter().all(|label| line.contains(label))
        });
        series
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .reduce(|sum, more| sum + more)
    }

    /// The state of the first link's breaker for another: 0 closed, 1 half-open, 2 open.
    fn breaker(&self, of: usize) -> Option<f64> {
        let labels = [
            "from=\"exprsn-link\"".to_owned(),
            format!("target=\"{}\"", name(of)),
        ];
        self.metric("exprsn_mesh_breaker_state", &[&labels[0], &labels[1]])
    }
}

fn asked(call: Call) -> Value {
    call.send().expect_status(200).json()
}

#[track_caller]
fn is_problem(answer: &Value, kind: &str) {
    let body = answer["body"].as_str().unwrap_or_default();
    assert!(
        answer["status"] == 503 && body.contains(&format!("urn:exprsn:problem:{kind}")),
        "{answer}"
    );
}

#[test]
fn a_breaker_opens_is_tried_and_closes_and_all_of_it_is_told() {
    let links = Links::start(
        2,
        "[mesh]\nattempts_max = 1\nbreaker_calls_min = 4\nbreaker_open_ms = 500\nbreaker_trials = 2\n",
    );
    links.behave(2, "fail");
    for _ in 0..4 {
        assert_eq!(links.ask("GET", 2)["status"], 500);
    }
    let refused = links.ask("GET", 2);
    is_problem(&refused, "circuit-open");
    assert!(
        refused["body"]
            .as_str()
            .unwrap_or_default()
            .contains(&name(2)),
        "{refused}"
    );
    assert_eq!(refused["retryAfter"], "1");
    assert_eq!(links.count(2, "calls"), 4, "the fifth was not made");
    let rejected = links.metric("exprsn_mesh_rejected_total", &["reason=\"circuit-open\""]);
    assert!(rejected >= Some(1.0), "{rejected:?}");

    // Half-open, the first failure opens it again.
    eventually("a trial call is made", || {
        (links.ask("GET", 2)["status"] == 500).then_some(())
    });
    is_problem(&links.ask("GET", 2), "circuit-open");
    assert_eq!(links.breaker(2), Some(2.0));

    links.behave(2, "well");
    eventually("the breaker closes", || {
        links.ask("GET", 2);
        (links.breaker(2) == Some(0.0)).then_some(())
    });
    assert_eq!(links.ask("GET", 2)["status"], 200);
    for to in ["open", "half-open", "closed"] {
        eventually(&format!("{to} is announced"), || {
            (links.count(2, &format!("exprsn-link-{to}")) >= 1).then_some(())
        });
    }
    let failures = ["from=\"exprsn-link\"", "outcome=\"failure\""];
    assert!(links.metric("exprsn_mesh_calls_total", &failures) >= Some(5.0));
}

#[test]
fn only_what_is_idempotent_is_repeated() {
    let links = Links::start(2, NO_BREAKER);
    for (method, key, attempts) in [
        ("GET", false, 3),
        ("PUT", false, 3),
        ("DELETE", false, 3),
        ("POST", false, 1),
        ("PATCH", false, 1),
        ("POST", true, 3),
    ] {
        links.behave(2, "fail");
        let mut call = links.asking(method, 2);
        if key {
            call = call.header("idempotency-key", "one");
        }
        assert_eq!(asked(call)["status"], 500);
        assert_eq!(links.count(2, "calls"), attempts, "{method} {key}");
    }
    let retries = links.metric("exprsn_mesh_retries_total", &["from=\"exprsn-link\""]);
    assert_eq!(retries, Some(8.0));
}

#[test]
fn the_budget_bounds_repetitions() {
    let config =
        "[mesh]\nbreaker_percent = 101\nbackoff_ms = 1\nretry_burst = 2\nretry_percent = 10\n";
    let links = Links::start(2, config);
    links.behave(2, "fail");
    for _ in 0..50 {
        links.ask("GET", 2);
    }
    let calls = links.count(2, "calls");
    // Two that were saved up, and one for each ten calls.
    assert!((52..=57).contains(&calls), "{calls}");
}

#[test]
fn a_bulkhead_keeps_one_slow_target_from_taking_all_calls() {
    let links = Links::start(
        3,
        "[mesh]\nattempts_max = 1\nbulkhead_max = 2\nbulkhead_wait_ms = 50\nbreaker_percent = 101\n",
    );
    links.behave(2, "hang");
    let slow = thread::scope(|scope| {
        let asking: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| links.ask("GET", 2)))
            .collect();
        eventually("two calls are under way", || {
            (links.count(2, "calls") == 2).then_some(())
        });
        let begun = Instant::now();
        for _ in 0..10 {
            assert_eq!(links.ask("GET", 3)["status"], 200);
        }
        assert!(begun.elapsed() < Duration::from_secs(2), "others go on");
        let join = |one: thread::ScopedJoinHandle<'_, Value>| one.join().expect("an answer");
        asking.into_iter().map(join).collect::<Vec<_>>()
    });
    let is_full = |answer: &&Value| answer.to_string().contains("bulkhead-full");
    assert_eq!(slow.iter().filter(is_full).count(), 4, "{slow:?}");
    assert_eq!(links.count(2, "calls"), 2);
}

#[test]
fn an_earlier_answer_is_given_again_where_the_route_declares_it() {
    let links = Links::start(
        3,
        "[mesh]\nbackoff_ms = 1\n[mesh.target.exprsn-link-2.route.\"GET /work\"]\nfallback_ms_max = 600000\n",
    );
    let fresh = links.ask("GET", 2);
    assert_eq!(
        (&fresh["status"], &fresh["age"]),
        (&200.into(), &Value::Null)
    );
    links.ask("GET", 3);
    links.behave(2, "fail");
    links.behave(3, "fail");
    let again = links.ask("GET", 2);
    assert_eq!(
        (&again["status"], &again["body"]),
        (&200.into(), &fresh["body"])
    );
    assert_eq!(again["warning"], "110 exprsn \"Response is Stale\"");
    assert!(again["age"].is_string(), "{again}");
    assert_eq!(
        links.ask("POST", 2)["status"],
        500,
        "POST is never answered from memory"
    );
    assert_eq!(
        links.ask("GET", 3)["status"],
        500,
        "nor what is not declared"
    );
    assert_eq!(
        links.metric("exprsn_mesh_fallbacks_total", &["target=\"exprsn-link-2\""]),
        Some(1.0)
    );
    // The operator's word is no failure.
    links.run(&["component", "revoke", &name(2)]);
    is_problem(&links.ask("GET", 2), "withheld");
}

#[test]
fn a_callee_does_not_work_past_its_callers_deadline() {
    let config = "[mesh]\nattempts_max = 1\n[mesh.target.exprsn-link-2]\ntimeout_ms = 300\n";
    let links = Links::start(2, config);
    let body = links.ask("GET", 2)["body"].as_str().map(str::to_owned);
    let body: Value = serde_json::from_str(&body.expect("a body")).expect("JSON");
    let left = body["remainingMs"].as_u64().expect("what is left");
    assert!(left <= 300, "{left}");
    links.behave(2, "hang");
    let begun = Instant::now();
    let late = links.ask("GET", 2);
    assert!(late["error"].is_string() || late["status"] == 504, "{late}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    // What the log says has ended does nothing any more.
    eventually("the callee is stopped", || {
        let log = links.platform.log();
        let stopped = log
            .lines()
            .any(|line| line.contains("an invocation failed") && line.contains("wall_ms_max"));
        stopped.then_some(())
    });
    assert_eq!(links.count(2, "woken"), 0);
}

#[test]
fn too_many_hops_and_circles_are_refused_with_their_path() {
    let links = Links::start(5, "");
    let through = |path: &[usize]| {
        let asked: String = path
            .iter()
            .map(|link| format!("/ask/{}", name(*link)))
            .collect();
        links.call(1, "GET", &format!("{asked}/work")).send()
    };
    let is_refused = |answer: Answer, kind: &str, path: &[usize]| {
        let path: Vec<_> = path.iter().map(|link| name(*link)).collect();
        let text = answer.expect_status(200).text();
        assert!(
            text.contains("508") && text.contains(kind) && text.contains(&path.join(" → ")),
            "{text}"
        );
    };
    assert!(
        !through(&[2, 3, 4]).text().contains("508"),
        "three hops are fine"
    );
    is_refused(through(&[2, 3, 4, 5]), "too-many-hops", &[1, 2, 3, 4, 5]);
    is_refused(through(&[2, 3, 2]), "call-cycle", &[1, 2, 3, 2]);
}

/// Ways in which a service dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    Withdrawn,
    Failing,
    Hanging,
}

impl Links {
    fn kill(&self, link: usize, death: Death) {
        match death {
            Death::Withdrawn => self.run(&["component", "revoke", &name(link)]),
            Death::Failing => self.behave(link, "fail"),
            Death::Hanging => self.behave(link, "hang"),
        }
    }

    fn revive(&self, link: usize, death: Death) {
        match death {
            Death::Withdrawn => self.run(&["component", "restore", &name(link)]),
            Death::Failing | Death::Hanging => self.behave(link, "well"),
        }
        eventually("all is well again", || {
            let well = |path: &str| {
                (1..=self.count).all(|link| {
                    let answer = self.call(link, "GET", path).send();
                    // Neither without another, nor from memory.
                    answer.status == 200 && answer.json()["degraded"] == false
                })
            };
            let closed = self
                .metric("exprsn_mesh_breaker_state", &[])
                .is_none_or(|sum| sum == 0.0);
            (well("/strict") && well("/chain") && closed).then_some(())
        });
    }

    /// The services beside `dead` that answered one of their own clients with 5xx.
    fn others_failing(&self, dead: usize, path: &str) -> BTreeSet<usize> {
        let failed = Mutex::new(BTreeSet::new());
        thread::scope(|scope| {
            for link in (1..=self.count).filter(|link| *link != dead) {
                for _ in 0..CLIENTS {
                    let failed = &failed;
                    scope.spawn(move || {
                        for _ in 0..REQUESTS {
                            if self.call(link, "GET", path).send().status >= 500 {
                                failed.lock().expect("the lock").insert(link);
                            }
                        }
                    });
                }
            }
        });
        failed.into_inner().expect("the lock")
    }
}

/// Kills each service in turn while all others have clients.
fn each_in_turn(links: &Links, path: &str, others_max: usize) {
    for death in [Death::Failing, Death::Hanging, Death::Withdrawn] {
        for dead in 1..=links.count {
            links.kill(dead, death);
            let others = links.others_failing(dead, path);
            println!("{path}: link {dead} {death:?}: others that failed: {others:?}");
            assert!(
                others.len() <= others_max,
                "{path}: {dead} was {death:?}, and {others:?} failed"
            );
            links.revive(dead, death);
        }
    }
}

/// Soon open, soon tried again.
const LIVELY: &str = "[mesh]\ntimeout_ms = 1500\nreserve_ms = 300\nbackoff_ms = 1\nbreaker_calls_min = 5\nbreaker_open_ms = 200\nbreaker_trials = 1\n";

#[test]
fn a_failure_reaches_nobody_where_services_make_do_without_another() {
    let links = Links::start(4, LIVELY);
    each_in_turn(&links, "/chain", 0);
}

#[test]
fn a_failure_reaches_one_other_at_most_where_answers_are_kept() {
    let links = Links::start(4, &format!("{LIVELY}fallback_ms_max = 600000\n"));
    for link in 1..=links.count {
        links.call(link, "GET", "/strict").send().expect_status(200);
    }
    each_in_turn(&links, "/strict", 1);
}

#[test]
fn a_configuration_that_cannot_be_names_the_table_and_the_key() {
    let platform = Platform::prepare(&Setup {
        services: &["ca"],
        config: "[mesh.target.exprsn-ca]\ntimeout = 1\n",
        ..Setup::default()
    });
    let told = platform.try_restart().err();
    assert!(told.is_some(), "it does not start");
    let log = platform.log();
    assert!(
        log.contains("[mesh.target.exprsn-ca]") && log.contains("timeout"),
        "{log}"
    );
}
