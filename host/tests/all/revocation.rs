//! Live revocation: a grant taken back counts at the next call of a running instance, and so does its return.

use crate::harness::{Platform, Setup, eventually};
use serde_json::{Value, json};

const NAME: &str = "exprsn-stranger";

fn start() -> Platform {
    Platform::start(&Setup {
        services: &["ca"],
        guests: &["stranger", "relay"],
        ..Setup::default()
    })
}

fn used(platform: &Platform, what: &str) -> Value {
    let answer = platform
        .call("stranger", "POST", &format!("/use/{what}"))
        .send();
    answer.expect_status(200).json()
}

/// Whether the host let it through; what lies beyond may fail all the same.
fn is_allowed(platform: &Platform, what: &str) -> bool {
    let answer = used(platform, what);
    let known = ["done", "status", "failed", "denied"];
    assert!(
        known.iter().any(|name| answer.get(name).is_some()),
        "{what}: {answer}"
    );
    answer.get("denied").is_none()
}

fn exprsn(platform: &Platform, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = platform
        .command(arguments)
        .output()
        .expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[track_caller]
fn succeeds(platform: &Platform, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = exprsn(platform, arguments);
    assert_eq!(code, Some(0), "{arguments:?}: {stdout}{stderr}");
    stdout
}

fn revoke(platform: &Platform, grant: &str) -> String {
    succeeds(
        platform,
        &[
            "component",
            "revoke",
            "stranger",
            "--grant",
            grant,
            "--reason",
            "a test",
        ],
    )
}

fn restore(platform: &Platform, grant: &str) -> String {
    succeeds(
        platform,
        &["component", "restore", "stranger", "--grant", grant],
    )
}

/// Grants as they are withheld, and what they cover.
const CASES: [(&str, &str); 8] = [
    ("sql", "sql"),
    ("queue", "queue/stranger-b"),
    ("queue:stranger-a", "queue/stranger-a"),
    ("queue:stranger-*", "queue/stranger-a"),
    ("events:stranger.created", "events/stranger.created"),
    ("cache", "cache"),
    ("call:exprsn-relay", "call/exprsn-relay"),
    ("egress:http://127.0.0.1:9", "egress/127.0.0.1:9"),
];

#[test]
fn a_grant_is_taken_back_and_given_again_at_the_next_call() {
    let platform = start();
    for (grant, what) in CASES {
        assert!(
            is_allowed(&platform, what),
            "{grant}: {}",
            used(&platform, what)
        );
        let told = revoke(&platform, grant);
        assert!(told.contains(grant), "{told}");
        assert!(
            !is_allowed(&platform, what),
            "{grant} counts at the next call"
        );
        let other = if what == "sql" { "cache" } else { "sql" };
        assert!(is_allowed(&platform, other), "{grant} is not {other}");
        let told = restore(&platform, grant);
        assert!(told.contains("nothing is withheld"), "{told}");
        assert!(
            is_allowed(&platform, what),
            "{grant} is back at the next call"
        );
    }
    // Another queue than the one that is named goes on.
    revoke(&platform, "queue:stranger-a");
    assert!(is_allowed(&platform, "queue/stranger-b"));
    assert!(
        !platform.log().contains("a service was changed"),
        "nothing was restarted"
    );
}

#[test]
fn everything_taken_back_is_503_until_it_is_restored() {
    let platform = start();
    assert!(is_allowed(&platform, "sql"));
    succeeds(&platform, &["component", "revoke", NAME]);
    let refused = platform.call("stranger", "POST", "/use/sql").send();
    refused.expect_problem(503, "withheld");
    platform
        .call("relay", "GET", "/health")
        .send()
        .expect_status(200);
    let listed = succeeds(&platform, &["component", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let own = listed
        .as_array()
        .expect("a list")
        .iter()
        .find(|one| one["service"] == NAME);
    let withheld = &own.expect("it is listed")["withheld"];
    assert_eq!(
        (&withheld[0]["grant"], &withheld[0]["withheldBy"]),
        (&json!("*"), &json!("operator:local"))
    );
    succeeds(&platform, &["component", "restore", NAME]);
    assert!(is_allowed(&platform, "sql"));
}

#[test]
fn what_is_withheld_survives_restarts_and_is_audited() {
    let platform = start();
    revoke(&platform, "sql");
    revoke(&platform, "queue:stranger-a");
    platform.kill();
    platform.restart();
    for what in ["sql", "queue/stranger-a"] {
        assert!(!is_allowed(&platform, what), "{what}");
    }
    assert!(is_allowed(&platform, "queue/stranger-b"));
    restore(&platform, "sql");
    platform.stop();
    platform.restart();
    assert!(is_allowed(&platform, "sql") && !is_allowed(&platform, "queue/stranger-a"));
    let told = succeeds(&platform, &["component", "restore", "stranger"]);
    assert!(told.contains("nothing is withheld"), "{told}");
    assert!(is_allowed(&platform, "queue/stranger-a"));

    let log = platform
        .call("ca", "GET", "/api/audit?limit=100")
        .token(&platform.operator());
    let log = log.send().expect_status(200).json();
    let entries = log["items"].as_array().expect("entries");
    let told = |action: &str| {
        entries
            .iter()
            .filter(|entry| entry["action"] == action && entry["subject"] == NAME)
            .count()
    };
    assert_eq!((told("grant.withheld"), told("grant.restored")), (2, 2));
    let reason = entries
        .iter()
        .find(|entry| entry["action"] == "grant.withheld")
        .expect("an entry");
    assert_eq!(
        (&reason["actor"], &reason["details"]["reason"]),
        (&json!("operator:local"), &json!("a test"))
    );
}

#[test]
fn only_what_a_service_has_can_be_taken_back() {
    let platform = start();
    let refused = |arguments: &[&str], expected: &str| {
        let (code, _, told) = exprsn(&platform, arguments);
        assert_eq!(code, Some(1), "{told}");
        assert!(told.contains(expected), "no `{expected}` in {told}");
    };
    refused(
        &["component", "revoke", "stranger", "--grant", "blob"],
        "queue:stranger-a",
    );
    refused(
        &["component", "revoke", "stranger", "--grant", "queue:other"],
        "was not granted to exprsn-stranger",
    );
    refused(
        &[
            "component",
            "revoke",
            "stranger",
            "--grant",
            "call:exprsn-ca",
        ],
        "call:exprsn-relay",
    );
    refused(
        &["component", "revoke", "nobody"],
        "no component was admitted as `nobody`",
    );
    refused(
        &["component", "restore", "stranger", "--grant", "sql"],
        "sql is not withheld from exprsn-stranger",
    );
    refused(
        &["component", "revoke", "ca", "--grant", "sql"],
        "stop the platform instead",
    );
    let restored = platform.call(
        "ca",
        "DELETE",
        "/api/components/exprsn-stranger/revocations",
    );
    restored
        .token(&platform.operator())
        .send()
        .expect_problem(404, "anything is not withheld");
    assert!(is_allowed(&platform, "sql"));
}

#[test]
fn a_permanent_revocation_takes_it_off() {
    let platform = start();
    let told = succeeds(
        &platform,
        &[
            "component",
            "revoke",
            "stranger",
            "--permanent",
            "--reason",
            "malicious",
        ],
    );
    assert!(told.contains("never runs again"), "{told}");
    eventually("it is taken off", || {
        let answer = platform.call("stranger", "POST", "/use/sql").send();
        (answer.status == 503).then_some(())
    });
    platform
        .call("relay", "GET", "/health")
        .send()
        .expect_status(200);
}
