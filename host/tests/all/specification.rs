//! The specification's examples work as they are written there.

use crate::harness::{Call, Platform, eventually};
use serde_json::{Value, json};

/// Users write with tokens that exprsn-ca issued.
fn ca_token(platform: &Platform, claims: &Value) -> String {
    let answer = platform
        .call("ca", "POST", "/api/tokens")
        .token(&platform.operator())
        .json(claims)
        .send();
    answer.expect_status(201).json()["token"]
        .as_str()
        .expect("a token")
        .to_owned()
}

#[test]
fn a_post_is_made_with_a_ca_token() {
    let platform = Platform::shared();
    let token = ca_token(
        platform,
        &json!({ "subject": "user:spec", "resource": "http://localhost:3004/api/*", "permissions": { "read": true, "write": true } }),
    );
    let answer = platform
        .call("timeline", "POST", "/api/posts")
        .token(&token)
        .json(&json!({ "content": "Test post" }));
    let post = answer.send().expect_status(201).json();
    assert_eq!(post["content"], "Test post");
    assert_eq!(post["authorId"], "spec");
}

#[test]
fn a_token_is_validated() {
    let platform = Platform::shared();
    let claims = json!({ "subject": "user:spec", "resource": "http://localhost:3014/api/notifications/*", "permissions": { "write": true } });
    let token = ca_token(platform, &claims);
    let validate = |token: &str| {
        platform
            .call("ca", "POST", "/api/tokens/validate")
            .json(&json!({ "token": token }))
            .send()
    };
    let good = validate(&token).expect_status(200).json();
    assert_eq!(good["valid"], true, "{good}");
    let bad = validate("...").expect_status(200).json();
    assert_eq!(bad["valid"], false, "{bad}");
}

#[test]
fn notifications_are_sent_and_sent_in_bulk_with_a_token_for_that_resource() {
    let platform = Platform::shared();
    let token = ca_token(
        platform,
        &json!({ "subject": "service:exprsn-timeline", "resource": "http://localhost:3014/api/notifications/*", "permissions": { "write": true } }),
    );
    let send = json!({ "userId": "spec-reader", "type": "new_post", "postId": "p1" });
    let answer = platform
        .call("herald", "POST", "/api/notifications/send")
        .token(&token)
        .json(&send)
        .send();
    assert!(answer.status < 300, "{}", answer.text());
    let bulk =
        json!({ "type": "new_post", "userIds": ["spec-reader", "spec-other"], "postId": "p2" });
    let answer = platform
        .call("herald", "POST", "/api/notifications/bulk")
        .token(&token)
        .json(&bulk)
        .send();
    assert!(answer.status < 300, "{}", answer.text());
    let reader = ca_token(
        platform,
        &json!({ "subject": "user:spec-reader", "resource": "*", "permissions": ["read"] }),
    );
    eventually("both are in the inbox", || {
        let inbox = platform
            .call("herald", "GET", "/api/notifications")
            .token(&reader)
            .send()
            .expect_status(200)
            .json();
        (inbox["items"].as_array().expect("items").len() == 2).then_some(())
    });
    platform
        .call("timeline", "GET", "/api/timeline/home")
        .token(&token)
        .send()
        .expect_status(403);
}

#[test]
fn a_service_registers_and_is_listed() {
    let platform = Platform::shared();
    let token = ca_token(
        platform,
        &json!({ "subject": "service:exprsn-example", "resource": "exprsn-setup/*", "permissions": ["read", "write"] }),
    );
    let registration = json!({
        "name": "exprsn-example",
        "version": "1.0.0",
        "host": "localhost",
        "port": 3999,
        "healthCheckPath": "/health",
        "dependencies": ["exprsn-ca", "exprsn-auth", "exprsn-herald"],
    });
    let answer = platform
        .call("setup", "POST", "/api/registry/register")
        .token(&token)
        .json(&registration)
        .send();
    assert!(answer.status < 300, "{}", answer.text());
    let services = platform
        .call("setup", "GET", "/api/registry/services")
        .send()
        .expect_status(200)
        .json();
    let named = |name: &str| {
        services
            .as_array()
            .expect("an array")
            .iter()
            .any(|service| service["name"] == name)
    };
    assert!(
        named("exprsn-example") && named("exprsn-timeline"),
        "{services}"
    );
}

#[test]
fn every_service_tells_its_health_with_true_readings() {
    let platform = Platform::shared();
    for service in crate::harness::ALL.iter() {
        let health = platform
            .call(service, "GET", "/health")
            .send()
            .expect_status(200)
            .json();
        assert_eq!(health["status"], "healthy", "{health}");
        assert_eq!(health["service"], format!("exprsn-{service}"));
        assert!(health["uptime"].as_f64().expect("uptime") > 0.0, "{health}");
        for reading in ["database", "redis"] {
            assert!(
                health[reading] == true || health[reading].is_null(),
                "{health}"
            );
        }
    }
}

#[test]
fn a_post_queues_its_fan_out_with_attempts_and_backoff() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../components/timeline/component.toml"
    );
    let manifest: toml::Table = std::fs::read_to_string(path)
        .expect("a manifest")
        .parse()
        .expect("a manifest");
    let queues = manifest["queue"].as_array().expect("queues");
    let fanout = queues
        .iter()
        .find(|queue| queue["name"].as_str() == Some("timeline-fanout"))
        .expect("timeline-fanout");
    assert_eq!(fanout["attempts"].as_integer(), Some(3));
    assert_eq!(fanout["backoff"]["type"].as_str(), Some("exponential"));
    assert_eq!(fanout["backoff"]["delay_ms"].as_integer(), Some(2_000));
    let platform = Platform::shared();
    eventually("the queue is there", || {
        let queues = platform
            .call("setup", "GET", "/api/queues")
            .token(&platform.operator())
            .send()
            .expect_status(200);
        queues.text().contains("timeline-fanout").then_some(())
    });
}

#[test]
fn the_gateway_reaches_services_by_their_short_names() {
    let platform = Platform::shared();
    let url = format!("{}/timeline/api/timeline/public", platform.origin("nexus"));
    let answer = Call::new("GET", &url).send().expect_status(200);
    assert!(answer.json()["items"].is_array());
    Call::new("GET", &format!("{}/nothing/api", platform.origin("nexus")))
        .send()
        .expect_problem(404, "nothing");
}

#[test]
fn every_service_describes_itself_in_openapi_as_its_manifest_does() {
    let platform = Platform::shared();
    for service in crate::harness::ALL.iter() {
        let document = platform
            .call(service, "GET", "/openapi.json")
            .send()
            .expect_status(200)
            .json();
        assert!(
            document["openapi"]
                .as_str()
                .expect("a version")
                .starts_with("3.1"),
            "{service}"
        );
        let path = format!(
            "{}/../components/{service}/component.toml",
            env!("CARGO_MANIFEST_DIR")
        );
        let manifest: toml::Table = std::fs::read_to_string(path)
            .expect("a manifest")
            .parse()
            .expect("a manifest");
        let described = document["paths"].as_object().expect("paths");
        for route in manifest["route"].as_array().expect("routes") {
            let path = route["path"].as_str().expect("a path").replace("{*", "{");
            // Pages for a person's browser are no interface for programs.
            let page = matches!(
                path.as_str(),
                "/oauth/login" | "/oauth/mfa" | "/oauth/consent" | "/console" | "/console/{file}"
            );
            if page
                || matches!(path.as_str(), "/health" | "/openapi.json")
                || route["methods"][0].as_str() == Some("*")
            {
                continue;
            }
            let operations = described
                .get(&path)
                .unwrap_or_else(|| panic!("{service}: {path} is not in /openapi.json"));
            for method in route["methods"].as_array().expect("methods") {
                let method = method.as_str().expect("a method").to_lowercase();
                // A browser's preflight (CORS) is no operation of its own.
                assert!(
                    method == "options" || operations.get(&method).is_some(),
                    "{service}: {method} {path} is not in /openapi.json"
                );
            }
        }
        for (path, operations) in described {
            let declared = |method: &str| {
                manifest["route"]
                    .as_array()
                    .expect("routes")
                    .iter()
                    .any(|route| {
                        route["path"].as_str().expect("a path").replace("{*", "{") == *path
                            && route["methods"].as_array().expect("methods").iter().any(
                                |declared| {
                                    declared.as_str().is_some_and(|declared| {
                                        declared == "*" || declared.eq_ignore_ascii_case(method)
                                    })
                                },
                            )
                    })
            };
            for method in operations.as_object().expect("operations").keys() {
                let is_method = matches!(
                    method.as_str(),
                    "get" | "put" | "post" | "delete" | "patch" | "options" | "head"
                );
                assert!(
                    !is_method || declared(method),
                    "{service}: {method} {path} is in /openapi.json but not in component.toml"
                );
            }
        }
    }
}
