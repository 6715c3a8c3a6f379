//! HTTP to the world outside: what the grant names is reached, at the authority that was checked, and nothing else is.

use crate::harness::{Platform, Setup, eventually};
use crate::peer::{self, Certified, WebServer};
use serde_json::{Value, json};

/// A platform with the guest that asks outside as it is told: `http://*:*`, `http://127.0.0.1:*`, `https://localhost:*`.
fn platform() -> &'static Platform {
    static PLATFORM: std::sync::OnceLock<Platform> = std::sync::OnceLock::new();
    PLATFORM.get_or_init(|| {
        Platform::start(&Setup {
            guests: &["egress"],
            ..Setup::default()
        })
    })
}

fn fetch_of(platform: &Platform, fetch: Value) -> Value {
    let call = platform.call("egress", "POST", "/fetch").json(&fetch);
    call.send().expect_status(200).json()
}

fn fetch(authority: &str, path: &str) -> Value {
    fetch_of(platform(), json!({ "authority": authority, "path": path }))
}

/// Expects the request to be refused, with one of these codes or before it is one.
#[track_caller]
fn expect_refused(authority: &str, codes: &[&str]) {
    let answer = fetch(authority, "/");
    let error = answer["error"]
        .as_str()
        .unwrap_or_else(|| panic!("{authority} was reached: {answer}"));
    assert!(
        codes.iter().any(|code| error.contains(code)),
        "{authority}: {error}"
    );
}

#[test]
fn what_is_granted_by_name_is_reached_and_told_the_authority_that_was_checked() {
    let server = WebServer::start();
    let authority = format!("127.0.0.1:{}", server.port);
    let answer = fetch(&authority, "/echo");
    assert_eq!(answer["status"], 200, "{answer}");
    let head = answer["body"].as_str().expect("a body").to_lowercase();
    assert!(head.starts_with("get /echo http/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("\r\nhost: {authority}\r\n")),
        "{head}"
    );
    assert!(head.contains("\r\ntraceparent: 00-"), "{head}");
    // Another spelling of the same place is brought into this one.
    for spelled in [
        format!("127.0.0.1.:{}", server.port),
        format!("[::ffff:127.0.0.1]:{}", server.port),
        format!("[::FFFF:7F00:1]:{}", server.port),
    ] {
        let answer = fetch(&spelled, "/echo");
        let head = answer["body"].as_str().unwrap_or_default().to_lowercase();
        assert!(
            head.contains(&format!("\r\nhost: {authority}\r\n")),
            "{spelled}: {answer}"
        );
    }
}

#[test]
fn a_wildcard_leads_to_nothing_inside() {
    let server = WebServer::start_on("[::]:0");
    let port = server.port;
    for name in [
        format!("localhost:{port}"),
        format!("LOCALHOST:{port}"),
        format!("localhost.:{port}"),
    ] {
        expect_refused(&name, &["DestinationIpProhibited"]);
    }
    for address in [
        format!("127.0.0.2:{port}"),
        format!("[::1]:{port}"),
        format!("[::ffff:127.0.0.2]:{port}"),
        format!("[::127.0.0.1]:{port}"),
        format!("[64:ff9b::7f00:1]:{port}"),
        format!("0.0.0.0:{port}"),
        format!("[::]:{port}"),
        "169.254.169.254".to_owned(),
        "[fd00:ec2::254]".to_owned(),
        "10.0.0.1".to_owned(),
        // Public, and an address all the same: a wildcard covers names.
        "8.8.8.8".to_owned(),
    ] {
        expect_refused(&address, &["HttpRequestDenied"]);
    }
    assert_eq!(server.requests(), 0, "nobody came through");
}

#[test]
fn odd_spellings_of_an_address_are_refused() {
    let server = WebServer::start();
    let port = server.port;
    for odd in [
        format!("0x7f.1:{port}"),
        format!("0x7f000001:{port}"),
        format!("2130706433:{port}"),
        format!("017700000001:{port}"),
        format!("127.1:{port}"),
        format!("0177.0.0.1:{port}"),
        format!("user@127.0.0.1:{port}"),
        format!("user:word@127.0.0.1:{port}"),
        format!("127.0.0.1:{port}@example.com"),
        format!("[::1%25lo]:{port}"),
        format!("[fe80::1%lo]:{port}"),
        format!("%31%32%37.0.0.1:{port}"),
        format!("127.0.0.1..:{port}"),
        "127.0.0.1:0".to_owned(),
        String::new(),
    ] {
        expect_refused(&odd, &["HttpRequestUriInvalid", "malformed authority"]);
    }
    assert_eq!(server.requests(), 0);
}

#[test]
fn neither_path_nor_field_names_another_host() {
    let server = WebServer::start();
    let authority = format!("127.0.0.1:{}", server.port);
    let field = json!({ "authority": authority, "path": "/echo", "headers": [["Host", "169.254.169.254"]] });
    let answer = fetch_of(platform(), field);
    assert!(
        answer["error"]
            .as_str()
            .is_some_and(|error| error.contains("Forbidden")),
        "{answer}"
    );
    for path in [
        "http://169.254.169.254/latest",
        "@169.254.169.254/latest",
        "latest",
        "*",
    ] {
        let answer = fetch(&authority, path);
        let error = answer["error"].as_str().unwrap_or_default();
        let refused = ["HttpRequestUriInvalid", "malformed path"];
        assert!(
            refused.iter().any(|text| error.contains(text)),
            "{path}: {answer}"
        );
    }
    let tunnel = json!({ "authority": authority, "path": "/", "method": "CONNECT" });
    assert_eq!(
        fetch_of(platform(), tunnel)["error"],
        "ErrorCode::HttpRequestMethodInvalid"
    );
    assert_eq!(server.requests(), 0);
    // Two slashes begin a path like any other, sent to the host that was checked.
    let answer = fetch(&authority, "//169.254.169.254/echo");
    let head = answer["body"].as_str().unwrap_or_default().to_lowercase();
    assert!(
        head.starts_with("get //169.254.169.254/echo http/1.1\r\n"),
        "{answer}"
    );
    assert!(
        head.contains(&format!("\r\nhost: {authority}\r\n")),
        "{head}"
    );
}

#[test]
fn a_redirect_is_an_answer_and_its_target_is_checked_as_any_other() {
    let server = WebServer::start();
    let authority = format!("127.0.0.1:{}", server.port);
    for inside in ["169.254.169.254", "localhost"] {
        let answer = fetch(
            &authority,
            &format!("/redirect/http://{inside}:{}/echo", server.port),
        );
        assert_eq!(answer["status"], 302, "{answer}");
        let location = answer["headers"]["location"].as_str().expect("a location");
        let host = location
            .strip_prefix("http://")
            .and_then(|rest| rest.split_once('/'));
        let (host, path) = host.expect("an absolute location");
        let followed = fetch(host, &format!("/{path}"));
        let error = followed["error"].as_str().unwrap_or_default();
        let refused = ["HttpRequestDenied", "DestinationIpProhibited"];
        assert!(
            refused.iter().any(|code| error.contains(code)),
            "{location}: {followed}"
        );
    }
    assert_eq!(server.requests(), 2, "the host itself followed none");
}

#[test]
fn https_is_for_the_name_that_was_granted_and_for_trusted_roots() {
    let certified = Certified::new(&["localhost"]);
    let port = certified.serve(|mut stream| {
        let _ = peer::read_head(&mut stream);
        peer::answer(&mut stream, "200 OK", "secret", "");
    });
    let trusting = Platform::start(&Setup {
        guests: &["egress"],
        config: &format!("[platform]\negress_ca_file = {:?}\n", certified.ca_file()),
        ..Setup::default()
    });
    let secure = json!({ "secure": true, "authority": format!("localhost:{port}") });
    let answer = fetch_of(&trusting, secure.clone());
    assert_eq!(
        (&answer["status"], &answer["body"]),
        (&json!(200), &json!("secret")),
        "{answer}"
    );
    let untrusted = fetch_of(platform(), secure);
    assert_eq!(
        untrusted["error"], "ErrorCode::TlsCertificateError",
        "{untrusted}"
    );
    let other = json!({ "secure": true, "authority": format!("127.0.0.1:{port}") });
    assert_eq!(
        fetch_of(&trusting, other)["error"],
        "ErrorCode::HttpRequestDenied"
    );
}

#[test]
fn a_ca_file_that_is_none_stops_the_start() {
    let platform = Platform::prepare(&Setup {
        guests: &["egress"],
        config: "[platform]\negress_ca_file = \"no such file\"\n",
        ..Setup::default()
    });
    let output = platform.try_restart().expect_err("it does not start");
    let told = format!("{output}{}", platform.log());
    assert!(
        told.contains("egress_ca_file = \"no such file\"") && told.contains("cannot read it"),
        "{told}"
    );
}

#[test]
fn errors_when_limit_exceeded() {
    let server = WebServer::start();
    let platform = Platform::start(&Setup {
        guests: &["egress"],
        config: "[service.exprsn-egress.limits]\negress_connections_max = 2\n",
        ..Setup::default()
    });
    let one =
        |path: &str| json!({ "authority": format!("127.0.0.1:{}", server.port), "path": path });
    let all = json!({ "all": [one("/together"), one("/together"), one("/together")] });
    let answers = platform
        .call("egress", "POST", "/fetches")
        .json(&all)
        .send();
    let answers = answers.expect_status(200).json();
    let outcomes: Vec<_> = answers.as_array().expect("answers").iter().collect();
    let limited = outcomes
        .iter()
        .filter(|answer| answer["error"] == "ErrorCode::ConnectionLimitReached");
    assert_eq!(limited.count(), 1, "{answers}");
    assert_eq!(
        outcomes
            .iter()
            .filter(|answer| answer["status"] == 200)
            .count(),
        2,
        "{answers}"
    );
    // Connections that wait for another request make room for other hosts.
    let others: Vec<_> = (0..3).map(|_| WebServer::start()).collect();
    for other in others.iter().chain([&server]) {
        let fetch = json!({ "authority": format!("127.0.0.1:{}", other.port), "path": "/echo" });
        let answer = fetch_of(&platform, fetch);
        assert_eq!(answer["status"], 200, "{answer}");
    }
}

#[test]
fn a_denial_is_logged_with_the_grant_that_is_missing() {
    let denied = fetch_of(
        platform(),
        json!({ "secure": true, "authority": "api.example.com" }),
    );
    assert_eq!(denied["error"], "ErrorCode::HttpRequestDenied");
    eventually("the denial is logged", || {
        let log = platform().log();
        log.contains("write \"https://api.example.com:443\" into [grants.http] egress")
            .then_some(())
    });
}
