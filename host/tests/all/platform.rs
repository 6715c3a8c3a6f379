//! The `platform` capability: services, queues and metrics of the host, for those who may see them.

use crate::harness::{ALL, Platform, Setup};
use std::process::Command;

#[test]
fn the_registry_shows_what_runs() {
    let platform = Platform::shared();
    let services = platform
        .call("setup", "GET", "/api/registry/services")
        .send()
        .expect_status(200)
        .json();
    for service in ALL.iter() {
        let name = format!("exprsn-{service}");
        let found = services
            .as_array()
            .expect("an array")
            .iter()
            .find(|found| found["name"] == name.as_str());
        let found = found.unwrap_or_else(|| panic!("{name} is not in {services}"));
        assert_eq!(found["port"], crate::harness::port(service));
        assert_eq!(found["digest"].as_str().map(str::len), Some(64), "{found}");
    }
}

#[test]
fn metrics_of_the_whole_host_are_there_for_prometheus() {
    let platform = Platform::shared();
    platform
        .call("timeline", "GET", "/health")
        .send()
        .expect_status(200);
    let answer = platform
        .call("pulse", "GET", "/metrics")
        .send()
        .expect_status(200);
    assert!(
        answer
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    let text = answer.text();
    assert!(text.contains(r#"exprsn_invocations_total{service="exprsn-timeline",trigger="http",outcome="success"}"#), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn errors_when_not_granted() {
    // Queues are for administrators: without a token, and with a user's, the answer is a refusal.
    let platform = Platform::shared();
    platform
        .call("setup", "GET", "/api/queues")
        .send()
        .expect_problem(401, "admin");
    let user = platform.user("curious");
    platform
        .call("setup", "GET", "/api/queues")
        .token(&user.token)
        .send()
        .expect_problem(403, "admin");
}

#[test]
fn the_word_to_look_at_files_again_does_not_end_a_host_that_follows_none() {
    let platform = Platform::start(&Setup {
        services: &["ca"],
        ..Setup::default()
    });
    let pid = platform.pid().to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status();
    assert!(sent.is_ok_and(|status| status.success()));
    let health = platform.call("ca", "GET", "/health").send();
    health.expect_status(200);
    assert!(platform.stop().success(), "{}", platform.log());
}
