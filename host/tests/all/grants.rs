//! What was not granted, and whose token is not good, is refused with an error of its own.

use crate::harness::{ALL, EXPRSN, Platform, Setup, built, eventually};
use serde_json::json;
use std::{fs, process::Command};

fn platform() -> &'static Platform {
    static PLATFORM: std::sync::OnceLock<Platform> = std::sync::OnceLock::new();
    PLATFORM.get_or_init(|| {
        Platform::start(&Setup {
            services: &["ca"],
            guests: &["hello", "hostile"],
            ..Setup::default()
        })
    })
}

/// A token for hello, by way of exprsn-ca.
fn token(claims: serde_json::Value) -> String {
    let platform = platform();
    let answer = platform
        .call("ca", "POST", "/api/tokens")
        .token(&platform.operator())
        .json(&claims)
        .send();
    let answer = answer.expect_status(201).json();
    answer["token"].as_str().expect("a token").to_owned()
}

fn good() -> serde_json::Value {
    json!({ "subject": "user:ada", "resource": "exprsn-hello/*", "permissions": ["read", "write"], "expiresIn": 600 })
}

#[test]
fn a_good_token_is_a_principal_to_the_guest_and_never_a_header() {
    let answer = platform()
        .call("hello", "GET", "/whoami")
        .token(&token(good()))
        .send()
        .expect_status(200)
        .json();
    assert_eq!(answer["caller"], "user");
    assert_eq!(answer["subject"], "ada");
    assert_eq!(answer["authorizationSeen"], false);
}

#[test]
fn an_anonymous_request_may_use_public_routes_only() {
    platform()
        .call("hello", "GET", "/hello")
        .send()
        .expect_status(200);
    let answer = platform()
        .call("hello", "GET", "/read")
        .send()
        .expect_problem(401, "needs a token with `read`");
    assert!(answer.header("www-authenticate").starts_with("Bearer"));
}

#[test]
fn a_forged_token_is_refused() {
    let good = token(good());
    let (signed, signature) = good.rsplit_once('.').expect("a JWT");
    let other = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{signed}.{other}{}", &signature[1..]);
    platform()
        .call("hello", "GET", "/read")
        .token(&forged)
        .send()
        .expect_problem(401, "signature");
    platform()
        .call("hello", "GET", "/read")
        .token("a.b.c")
        .send()
        .expect_status(401);
}

#[test]
fn an_expired_token_is_refused() {
    let mut claims = good();
    claims["expiresIn"] = json!(1);
    let short = token(claims);
    let answer = eventually("the token expires", || {
        let answer = platform()
            .call("hello", "GET", "/read")
            .token(&short)
            .send();
        (answer.status != 200).then_some(answer)
    });
    answer.expect_problem(401, "expired");
}

#[test]
fn a_token_of_another_resource_is_refused() {
    let mut claims = good();
    claims["resource"] = json!("exprsn-herald/*");
    platform()
        .call("hello", "GET", "/read")
        .token(&token(claims))
        .send()
        .expect_status(403);
    let mut claims = good();
    claims["resource"] = json!("http://localhost:3101/re*");
    platform()
        .call("hello", "GET", "/read")
        .token(&token(claims))
        .send()
        .expect_status(200);
}

#[test]
fn a_token_without_the_permission_is_refused() {
    let mut claims = good();
    claims["permissions"] = json!(["read"]);
    let reader = token(claims);
    platform()
        .call("hello", "GET", "/read")
        .token(&reader)
        .send()
        .expect_status(200);
    platform()
        .call("hello", "POST", "/write")
        .token(&reader)
        .send()
        .expect_problem(403, "write");
}

#[test]
fn a_revoked_token_is_refused_at_the_next_call() {
    let platform = platform();
    let token = token(good());
    platform
        .call("hello", "GET", "/read")
        .token(&token)
        .send()
        .expect_status(200);
    let revoke = platform
        .call("ca", "POST", "/api/tokens/revoke")
        .token(&platform.operator());
    let answer = revoke.json(&json!({ "token": token })).send();
    assert!(answer.status < 300, "{}", answer.text());
    platform
        .call("hello", "GET", "/read")
        .token(&token)
        .send()
        .expect_problem(401, "revoked");
    eventually("the refusal is logged", || {
        platform
            .log()
            .contains("a token was rejected")
            .then_some(())
    });
}

#[test]
fn a_token_for_one_use_is_good_once() {
    let mut claims = good();
    claims["maxUses"] = json!(1);
    let once = token(claims);
    platform()
        .call("hello", "GET", "/read")
        .token(&once)
        .send()
        .expect_status(200);
    platform()
        .call("hello", "GET", "/read")
        .token(&once)
        .send()
        .expect_status(401);
}

#[test]
fn a_call_that_was_not_granted_is_denied_and_logged() {
    let platform = platform();
    // To its own client it is the service's fault; the log says which grant is missing.
    platform
        .call("hello", "GET", "/pass/exprsn-ca/health")
        .send()
        .expect_problem(500, "Internal Server Error");
    eventually("the denial is logged", || {
        platform.log().contains("call denied").then_some(())
    });
    platform
        .call("hello", "GET", "/hello")
        .send()
        .expect_status(200);
}

#[test]
fn a_call_that_comes_back_is_a_508_with_its_path() {
    let answer = platform()
        .call("hello", "GET", "/pass/exprsn-hello/hello")
        .send();
    assert_eq!(answer.status, 508, "{}", answer.text());
    assert!(
        answer.text().contains("exprsn-hello → exprsn-hello"),
        "{}",
        answer.text()
    );
}

#[test]
fn an_inner_address_behind_a_wildcard_is_refused() {
    // hostile may reach `http://*:*`, which names no host: an address inside is not meant by it.
    for inside in ["127.0.0.1:1", "169.254.169.254", "localhost:1", "[::1]:1"] {
        let answer = platform()
            .call("hostile", "GET", &format!("/call/{inside}"))
            .send();
        assert!(answer.status >= 400, "{inside}: {}", answer.text());
    }
}

#[test]
fn a_component_that_does_not_ask_for_what_it_imports_does_not_load() {
    let platform = Platform::prepare(&Setup {
        guests: &["ungranted"],
        ..Setup::default()
    });
    let output = platform
        .command(&["up"])
        .stderr(std::process::Stdio::piped())
        .output()
        .expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        error.contains("it imports `exprsn:sql/") && error.contains("write [grants.sql]"),
        "{error}"
    );
}

#[test]
fn a_component_that_is_not_granted_what_it_asks_for_does_not_load() {
    let unanswered = [
        "it asks for `telemetry`",
        "write telemetry = \"as-requested\"",
    ];
    let refused = [
        "it imports exprsn:telemetry/",
        "which was refused, and its manifest does not say",
    ];
    for (answer, expected) in [("", unanswered), ("telemetry = \"refused\"", refused)] {
        let folder = tempfile::tempdir().expect("a folder");
        let component = built("guests").join("exprsn-hello.wasm");
        let config = format!(
            "[platform]\nport_offset = 20000\n[service.exprsn-hello]\ncomponent = {component:?}\ngrants = {{ ca = \"as-requested\", http = \"as-requested\", {answer} }}"
        );
        fs::write(folder.path().join("platform.toml"), config).expect("written");
        let output = Command::new(EXPRSN)
            .arg("up")
            .current_dir(folder.path())
            .output()
            .expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(
            error.contains("exprsn-hello") && expected.iter().all(|text| error.contains(text)),
            "{error}"
        );
    }
}

#[test]
fn every_service_needs_a_token_where_its_manifest_says_so() {
    let platform = Platform::shared();
    for service in ALL.iter() {
        let path = format!(
            "{}/../components/{service}/component.toml",
            env!("CARGO_MANIFEST_DIR")
        );
        let manifest: toml::Table = fs::read_to_string(path)
            .expect("a manifest")
            .parse()
            .expect("a manifest");
        for route in manifest["route"].as_array().expect("routes") {
            if route["access"].as_str() == Some("public") {
                continue;
            }
            let path = route["path"]
                .as_str()
                .expect("a path")
                .replace("{*", "")
                .replace(['{', '}'], "");
            let method = route["methods"][0]
                .as_str()
                .expect("a method")
                .replace('*', "GET");
            let answer = platform.call(service, &method, &path).send();
            assert_eq!(
                answer.status,
                401,
                "{service} {method} {path}: {}",
                answer.text()
            );
        }
    }
}
