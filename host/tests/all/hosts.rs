//! Several hosts as one platform: enrolment, calls across hosts, what is revoked and changed on one is so on all.

use crate::{
    fanout::users,
    harness::{Call, Platform, Setup, eventually, repacked},
    herald,
};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Within which every host must have heard.
const HEARD_MAX: Duration = Duration::from_secs(1);
/// What a busy machine adds to that before a test can tell.
const SLACK: Duration = Duration::from_secs(2);

fn first(services: &[&str], guests: &[&str], config: &str) -> Platform {
    Platform::start(&Setup {
        services,
        guests,
        config,
        meets: true,
        ..Setup::default()
    })
}

fn beside(first: &Platform, services: &[&str], guests: &[&str]) -> Platform {
    Platform::beside(
        first,
        &Setup {
            services,
            guests,
            ..Setup::default()
        },
    )
}

fn hosts(platform: &Platform) -> Vec<Value> {
    let told = platform.cli(&["host", "list", "--json"]).stdout;
    let told: Value = serde_json::from_slice(&told).expect("JSON");
    told["hosts"].as_array().expect("hosts").clone()
}

fn live_on(platform: &Platform, service: &str) -> usize {
    let serves = |host: &&Value| {
        let services = host["services"].as_array().expect("services");
        services
            .iter()
            .any(|one| one["name"] == service && one["state"] == "live")
    };
    hosts(platform).iter().filter(serves).count()
}

#[test]
fn a_host_joins_with_an_invitation_that_is_good_once() {
    let first = first(&["ca", "setup"], &[], "");
    let second = beside(&first, &["auth"], &[]);
    let seen = hosts(&first);
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen.iter().filter(|host| host["seat"] == true).count(), 1);
    // The same invitation does not let a third one in.
    let token = first.cli(&["host", "invite"]);
    let token = String::from_utf8(token.stdout).expect("UTF-8");
    let join = |token: &str| {
        let other = Platform::prepare_beside(
            &first,
            &Setup {
                services: &["herald"],
                ..Setup::default()
            },
        );
        let other = other.with_invitation(token.trim());
        let outcome = other.try_restart();
        (outcome, other)
    };
    let (joined, third) = join(&token);
    joined.expect("a good invitation");
    let (refused, fourth) = join(&token);
    assert!(
        refused.is_err() && fourth.log().contains("was used"),
        "{}",
        fourth.log()
    );
    let (refused, fifth) = join("exprsn-join.nonsense");
    assert!(
        refused.is_err() && fifth.log().contains("exprsn host invite"),
        "{}",
        fifth.log()
    );
    // Whoever has joined needs no invitation again, nor the first host.
    drop((fourth, fifth));
    third.stop();
    third.with_invitation("").restart();
    eventually("the third host is there", || {
        (live_on(&first, "exprsn-herald") == 1).then_some(())
    });
    drop(second);
}

#[test]
fn without_a_certificate_nobody_calls_and_a_removed_host_is_cut_off() {
    let first = first(&["ca", "setup", "auth"], &[], "");
    let second = beside(&first, &["herald"], &[]);
    // No certificate: neither a call nor a question of the operator's without the token.
    let bare = |arguments: &[&str]| {
        let output = std::process::Command::new("curl")
            .args(["-sk", "--max-time", "5"])
            .args(arguments)
            .arg(format!("https://{}:3100/hosts", first.address))
            .output()
            .expect("curl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(bare(&[]).contains("operator's token"), "{}", bare(&[]));
    assert!(bare(&["-H", "exprsn-envelope: e30"]).contains("mutual TLS"));
    assert_eq!(live_on(&first, "exprsn-herald"), 1);
    let name = hosts(&first)
        .into_iter()
        .find(|host| host["seat"] == false)
        .expect("the second host");
    let name = name["name"].as_str().expect("a name").to_owned();
    let is_healthy = || {
        let report = first.call("setup", "GET", "/api/health").send().json();
        let services = report["services"].as_array().expect("services");
        services
            .iter()
            .any(|one| one["service"] == "exprsn-herald" && one["status"] == "healthy")
    };
    eventually("it answers", || is_healthy().then_some(()));
    first.cli(&["host", "remove", &name]);
    eventually("nobody speaks with it any more", || {
        (!is_healthy()).then_some(())
    });
    // It knows, and answers nobody.
    let health = eventually("it stands still", || {
        let health = second.call("herald", "GET", "/health").send();
        (health.status == 503).then_some(health)
    });
    assert!(health.text().contains("host-cut-off"), "{}", health.text());
    assert!(second.log().contains("was removed from the platform"));
    eventually("its lease is gone", || {
        (hosts(&first).len() == 1).then_some(())
    });
}

#[test]
fn services_on_three_hosts_are_one_platform() {
    let first = first(&["ca", "setup", "auth"], &[], "");
    let second = beside(&first, &["nexus", "timeline"], &[]);
    let third = beside(&first, &["herald", "pulse", "timeline"], &[]);
    first.ask_elsewhere(&["nexus", "timeline"], &second);
    first.ask_elsewhere(&["herald", "pulse"], &third);
    // Registered at one host, used at another through the gateway of a second, read at a third.
    let user = first.user("across");
    let posted = first
        .call("nexus", "POST", "/timeline/api/posts")
        .token(&user.token)
        .json(&json!({ "content": "from afar" }))
        .send()
        .expect_status(201)
        .json();
    let id = posted["id"].as_str().expect("an id").to_owned();
    let read = Call::new(
        "GET",
        &format!("http://{}:3004/api/posts/{id}", third.address),
    );
    read.token(&user.token).send().expect_status(200);
    // The gateway of the second host reaches what runs on the first and on the third only.
    for path in ["/auth/api/auth/me", "/herald/api/notifications"] {
        let answer = first.call("nexus", "GET", path).token(&user.token).send();
        assert!(
            answer.status == 200 || answer.status == 404,
            "{path}: {}",
            answer.text()
        );
    }
    // A problem that the service made arrives as it is, and so does one of the host there.
    let refused = first
        .call("nexus", "GET", "/herald/api/notifications")
        .send();
    refused.expect_problem(401, "token");
    // What is live on no host is told as such, and the whole is listed once.
    let listed = first
        .call("setup", "GET", "/api/registry/services")
        .send()
        .expect_status(200)
        .json();
    let names: Vec<&str> = listed
        .as_array()
        .expect("services")
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    for service in [
        "ca", "setup", "auth", "nexus", "timeline", "herald", "pulse",
    ] {
        let name = format!("exprsn-{service}");
        assert_eq!(
            names.iter().filter(|found| **found == name).count(),
            1,
            "{name}: {names:?}"
        );
    }
}

#[test]
fn what_is_revoked_on_one_host_is_refused_on_all_within_a_second() {
    let first = first(&["ca", "setup", "auth", "timeline"], &[], "");
    let second = beside(&first, &["timeline"], &[]);
    let user = users(&first, 1).remove(0);
    let there = |path: &str| {
        Call::new("GET", &format!("http://{}:3004{path}", second.address))
            .token(&user.token)
            .send()
    };
    there("/api/timeline/home").expect_status(200);
    let begun = Instant::now();
    first.cli(&["component", "revoke", "timeline", "--grant", "sql"]);
    let refused = eventually("the other host refuses", || {
        let answer = there("/api/timeline/home");
        (answer.status != 200).then(|| begun.elapsed())
    });
    assert!(refused < HEARD_MAX + SLACK, "{refused:?}");
    first.cli(&["component", "restore", "timeline", "--grant", "sql"]);
    eventually("the other host has it back", || {
        (there("/api/timeline/home").status == 200).then_some(())
    });
    // A token that is revoked at the first host is no good at the second.
    let claims = token_id(&user.token);
    let revoked = first
        .call("ca", "POST", "/api/tokens/revoke")
        .token(&first.operator())
        .form(&[("id", &claims)])
        .send();
    assert!(revoked.status < 300, "{}", revoked.text());
    let begun = Instant::now();
    let refused = eventually("the other host refuses the token", || {
        (there("/api/timeline/home").status == 401).then(|| begun.elapsed())
    });
    assert!(refused < HEARD_MAX + SLACK, "{refused:?}");
}

fn token_id(token: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = token.split('.').nth(1).expect("a payload");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    let claims: Value = serde_json::from_slice(&payload).expect("JSON");
    claims["jti"].as_str().expect("an id").to_owned()
}

#[test]
fn a_host_that_does_not_hear_answers_nothing_until_it_does() {
    let first = first(&["ca", "setup", "auth", "nexus"], &[], "");
    let ready = || first.call("nexus", "GET", "/readyz").send().status;
    let live = || first.call("nexus", "GET", "/livez").send().status;
    assert_eq!((ready(), live()), (200, 200));
    let postgres = &first.servers().expect("servers").postgres;
    postgres.kill();
    let cut = eventually("it stops answering", || {
        let answer = first.call("nexus", "GET", "/health").send();
        (answer.status == 503 && answer.text().contains("host-cut-off")).then_some(answer)
    });
    assert!(!cut.header("retry-after").is_empty());
    assert_eq!((ready(), live()), (503, 200));
    postgres.resume();
    eventually("it answers again", || (ready() == 200).then_some(()));
    first
        .call("nexus", "GET", "/health")
        .send()
        .expect_status(200);
}

#[test]
fn a_swap_reaches_every_host_and_one_that_cannot_follow_takes_all_back() {
    let first = first(&["ca", "setup", "auth"], &["steady"], "");
    let second = beside(&first, &[], &["steady"]);
    let version = |host: &Platform| {
        let answer = host.call("steady", "GET", "/version").send();
        (answer.status, answer.text())
    };
    let before = version(&first);
    assert_eq!(before, version(&second));
    let next = repacked(
        "steady",
        &[("version = \"1.0.0\"", "version = \"1.1.0\"")],
        &[],
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("next.wasm");
    std::fs::write(&file, next).expect("written");
    // Every request of both hosts is answered while the version changes on both.
    let stop = AtomicBool::new(false);
    let failures = std::thread::scope(|scope| {
        let asking: Vec<_> = [&first, &second]
            .map(|host| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut failed = Vec::new();
                    while !stop.load(Relaxed) {
                        let answer = host.call("steady", "GET", "/version").send();
                        if answer.status != 200 {
                            failed.push(answer.text());
                        }
                    }
                    failed
                })
            })
            .into_iter()
            .collect();
        let file = file.to_str().expect("a path");
        first.cli(&["swap", "steady", file, "--allow-unsigned", "--json"]);
        let digests: Vec<Value> = hosts(&first)
            .iter()
            .flat_map(|host| host["services"].as_array().expect("services").clone())
            .filter(|one| one["name"] == "exprsn-steady")
            .map(|one| one["digest"].clone())
            .collect();
        assert_eq!(digests.len(), 2);
        assert_eq!(digests[0], digests[1], "acknowledged when both have it");
        stop.store(true, Relaxed);
        asking
            .into_iter()
            .flat_map(|one| one.join().expect("asked"))
            .collect::<Vec<_>>()
    });
    assert!(failures.is_empty(), "{failures:?}");
    // It is what a restart of the other host starts.
    second.stop();
    second.restart();
    let listed = hosts(&first);
    let digests: Vec<&Value> = listed
        .iter()
        .flat_map(|host| host["services"].as_array().expect("services"))
        .filter(|one| one["name"] == "exprsn-steady")
        .map(|one| &one["digest"])
        .collect();
    assert!(
        digests.len() == 2 && digests[0] == digests[1],
        "{digests:?}"
    );
    first.cli(&["rollback", "steady", "--json"]);
    assert_eq!(
        (version(&first), version(&second)),
        (before.clone(), before)
    );
}

#[test]
fn a_service_of_another_host_is_swapped_and_rolled_back_from_here() {
    // The answers to what it asks for are in the configuration of all hosts.
    let first = first(
        &["ca", "setup", "auth"],
        &["steady"],
        "[service.exprsn-steady]\nenabled = false",
    );
    let second = beside(&first, &[], &["steady"]);
    let next = repacked(
        "steady",
        &[("version = \"1.0.0\"", "version = \"1.1.0\"")],
        &[],
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("next.wasm");
    std::fs::write(&file, next).expect("written");
    let file = file.to_str().expect("a path");
    let running = || {
        let listed = hosts(&first);
        let services = listed
            .iter()
            .flat_map(|host| host["services"].as_array().expect("services").clone());
        services
            .filter(|one| one["name"] == "exprsn-steady")
            .map(|one| one["version"].as_str().expect("a version").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(running(), ["1.0.0"]);
    first.cli(&["swap", "steady", file, "--allow-unsigned"]);
    assert_eq!(running(), ["1.1.0"]);
    first.cli(&["rollback", "steady"]);
    assert_eq!(running(), ["1.0.0"]);
    let history = first.cli(&["history", "steady", "--json"]).stdout;
    let history: Value = serde_json::from_slice(&history).expect("JSON");
    assert!(history.to_string().contains("rollback"), "{history}");
    drop(second);
}

#[test]
fn hosts_restart_one_after_the_other_without_a_failed_call() {
    let first = first(&["ca", "setup", "auth", "nexus"], &[], "");
    let second = beside(&first, &["timeline"], &[]);
    let third = beside(&first, &["timeline"], &[]);
    let user = users(&first, 1).remove(0);
    let stop = AtomicBool::new(false);
    let (asked, failed) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut asked, mut failed) = (0, Vec::new());
            while !stop.load(Relaxed) {
                // The gateway of the first host, which has no timeline of its own.
                let answer = first
                    .call("nexus", "GET", "/timeline/api/timeline/home")
                    .token(&user.token)
                    .send();
                asked += 1;
                if answer.status >= 500 {
                    failed.push(answer.text());
                }
            }
            (asked, failed)
        });
        for host in [&second, &third] {
            assert!(host.stop().success());
            host.restart();
            eventually("both are there again", || {
                (live_on(&first, "exprsn-timeline") == 2).then_some(())
            });
        }
        stop.store(true, Relaxed);
        asking.join().expect("asked")
    });
    assert!(asked > 20, "{asked}");
    assert!(failed.is_empty(), "{} of {asked}: {failed:?}", failed.len());
}

#[test]
fn live_messages_reach_listeners_of_other_hosts() {
    let services = ["ca", "setup", "auth", "herald"];
    let first = first(&services, &[], "");
    let second = beside(&first, &["herald"], &[]);
    let user = users(&first, 1).remove(0);
    let events = herald::Events::open(&second, &user, None);
    for number in 0..5 {
        let title = format!("number {number}");
        let note = json!({ "userId": user.id, "type": "note", "title": title });
        herald::send(&first, "send", &note).expect_status(202);
        assert_eq!(events.next().1["title"], title.as_str());
    }
}
