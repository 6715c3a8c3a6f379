//! exprsn-nexus: the gateway passes on, limits, explains, composes.

use crate::harness::{Answer, Call, PATIENCE, Platform, Setup};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::OnceLock,
};

/// Bodies of this size must pass a gateway that has less memory than that.
const BIG_BYTES: usize = 32 << 20;

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        Platform::start(&Setup {
            services: &["ca", "setup", "nexus"],
            guests: &["hello", "echo", "hostile"],
            config: "[service.exprsn-nexus.config]\ncors_origins = \"https://app.example\"\ncors_credentials = \"true\"\n\
                     request_bytes_max = \"40000000\"\ncompose_ms_max = \"1500\"\n\
                     [service.exprsn-nexus.limits]\nmemory_bytes_max = 8388608\n\
                     [service.exprsn-hello.limits]\nbody_bytes_max = 100000000\nmemory_bytes_max = 268435456",
            ..Setup::default()
        })
    })
}

/// A request through the gateway.
fn through(method: &str, path: &str) -> Call {
    platform().call("nexus", method, path)
}

fn token(platform: &Platform, subject: &str, resource: &str, permissions: &[&str]) -> String {
    let claims = json!({ "subject": subject, "resource": resource, "permissions": permissions });
    let issued = platform
        .call("ca", "POST", "/api/tokens")
        .token(&platform.operator())
        .json(&claims)
        .send();
    issued.expect_status(201).json()["token"]
        .as_str()
        .expect("a token")
        .to_owned()
}

#[test]
fn lists_the_services_behind_it() {
    let index = through("GET", "/").send().expect_status(200).json();
    let hello = index["services"]
        .as_array()
        .expect("services")
        .iter()
        .find(|service| service["name"] == "exprsn-hello");
    let hello = hello.expect("hello is listed");
    assert_eq!(
        (&hello["basePath"], &hello["openapi"]),
        (&json!("/hello"), &json!("/hello/openapi.json"))
    );
    through("GET", "/hello/openapi.json")
        .send()
        .expect_status(200);
}

#[test]
fn passes_requests_on_in_the_name_of_who_asks() {
    let anonymous = through("GET", "/hello/whoami")
        .send()
        .expect_status(200)
        .json();
    assert_eq!(
        (&anonymous["subject"], &anonymous["user"]),
        (&json!("exprsn-nexus"), &Value::Null),
        "{anonymous}"
    );
    let token = token(platform(), "user:gina", "exprsn-hello/*", &["read"]);
    let gina = through("GET", "/hello/whoami")
        .token(&token)
        .send()
        .expect_status(200)
        .json();
    assert_eq!(
        (&gina["caller"], &gina["user"], &gina["path"]),
        (
            &json!("service"),
            &json!("gina"),
            &json!(["exprsn-nexus", "exprsn-hello"])
        )
    );
    assert_eq!(
        gina["authorizationSeen"], false,
        "tokens stay with the host"
    );
    let query = through("GET", "/echo/echo/query?n=7&tag=a%2Fb")
        .send()
        .expect_status(200)
        .json();
    assert_eq!(query, json!({ "n": 7, "tag": ["a/b"] }));
}

#[test]
fn the_service_asked_authorises_the_user() {
    let read = |token: Option<&str>| {
        let call = through("GET", "/hello/read");
        token
            .map_or_else(|| through("GET", "/hello/read"), |token| call.token(token))
            .send()
    };
    read(None).expect_problem(401, "token");
    read(Some(&token(
        platform(),
        "user:a",
        "exprsn-hello/*",
        &["read"],
    )))
    .expect_status(200);
    read(Some(&token(
        platform(),
        "user:a",
        "exprsn-hello/*",
        &["write"],
    )))
    .expect_problem(403, "read");
    read(Some(&token(
        platform(),
        "user:a",
        "exprsn-other/*",
        &["read"],
    )))
    .expect_problem(403, "");
    // The claims of one token under the signature of another.
    let (mine, theirs) = (
        token(platform(), "user:a", "*", &["read"]),
        token(platform(), "user:b", "*", &["read"]),
    );
    let (claims, signature) = (mine.rsplit_once('.'), theirs.rsplit_once('.'));
    let forged = format!(
        "{}.{}",
        claims.expect("a token").0,
        signature.expect("a token").1
    );
    read(Some(&forged)).expect_problem(401, "signature");
}

#[test]
fn any_method_and_status_of_a_service_passes() {
    let answer = through("DELETE", "/hello/hello")
        .send()
        .expect_problem(405, "GET");
    assert_eq!(answer.header("allow"), "GET");
    assert!(
        through("HEAD", "/hello/hello")
            .send()
            .expect_status(200)
            .body
            .is_empty()
    );
    through("REPORT", "/hello/hello").send().expect_status(405);
    through("GET", "/hello/nowhere")
        .send()
        .expect_problem(404, "/nowhere");
    through("TRACE", "/hello/hello").send().expect_status(405);
}

#[test]
fn paths_that_lead_nowhere_are_problems() {
    through("GET", "/nothing/at/all")
        .send()
        .expect_problem(404, "nothing");
    through("GET", "/nexus/api/compose")
        .send()
        .expect_problem(404, "service");
    through("GET", "/Hello/hello")
        .send()
        .expect_problem(404, "service");
    through("GET", "/hello/%2e%2e/hello")
        .send()
        .expect_problem(400, "path");
}

#[test]
fn a_failing_service_is_a_problem_and_the_gateway_lives_on() {
    through("GET", "/hostile/trap")
        .send()
        .expect_problem(500, "");
    through("GET", "/hostile/sleep")
        .send()
        .expect_problem(504, "in time");
    through("GET", "/hostile/calm").send().expect_status(200);
}

#[test]
fn browsers_are_told_who_may_read() {
    let preflight = |origin: &str, path: &str| {
        let call = through("OPTIONS", path)
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        call.header(
            "access-control-request-headers",
            "authorization, content-type",
        )
        .send()
    };
    for path in ["/hello/write", "/api/compose", "/"] {
        let answer = preflight("https://app.example", path).expect_status(204);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            "https://app.example",
            "{path}"
        );
        assert_eq!(answer.header("access-control-allow-credentials"), "true");
        assert_eq!(
            answer.header("access-control-allow-headers"),
            "authorization, content-type"
        );
        assert!(
            answer
                .header("access-control-allow-methods")
                .contains("POST")
                && answer.header("vary").contains("Origin")
        );
    }
    preflight("https://evil.example", "/hello/write").expect_problem(403, "cors_origins");
    let actual = |origin: &str| {
        through("GET", "/hello/hello")
            .header("origin", origin)
            .send()
            .expect_status(200)
    };
    assert_eq!(
        actual("https://app.example").header("access-control-allow-origin"),
        "https://app.example"
    );
    assert!(
        actual("https://app.example")
            .header("access-control-expose-headers")
            .contains("RateLimit")
    );
    let refused = actual("https://evil.example");
    assert_eq!(
        (
            refused.header("access-control-allow-origin"),
            refused.header("vary")
        ),
        ("", "Origin")
    );
}

#[test]
fn every_answer_is_marked_and_made_safe() {
    let answer = through("GET", "/hello/hello")
        .header("x-request-id", "trace-me.1")
        .send()
        .expect_status(200);
    assert_eq!(answer.header("x-request-id"), "trace-me.1");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("x-frame-options"), "DENY");
    assert!(
        answer
            .header("content-security-policy")
            .contains("frame-ancestors 'none'")
    );
    assert!(
        answer
            .header("ratelimit-policy")
            .starts_with("\"address\";q="),
        "{:?}",
        answer.headers
    );
    let strange = through("GET", "/nothing/x")
        .header("x-request-id", "a b\"c")
        .send()
        .expect_status(404);
    assert_eq!(
        strange.header("x-request-id").len(),
        32,
        "one of our own in place of a strange one"
    );
    // What a client says of its address is not believed: the service sees the real one.
    let seen = through("GET", "/echo/echo/caller")
        .header("x-forwarded-for", "203.0.113.9")
        .send()
        .expect_status(200)
        .json();
    assert!(
        seen["address"]
            .as_str()
            .is_some_and(|address| address.starts_with("127.")),
        "{seen}"
    );
}

#[test]
fn big_bodies_stream_through_little_memory() {
    let body: Vec<u8> = (0..BIG_BYTES)
        .map(|at| b'a' + u8::try_from(at % 23).expect("small"))
        .collect();
    let answer = through("POST", "/hello/echo")
        .body("text/plain", body.clone())
        .send()
        .expect_status(200);
    assert!(
        answer.body == body,
        "{} bytes of {}",
        answer.body.len(),
        body.len()
    );
    // The length alone is enough to be refused: nothing of the body is sent.
    let origin = platform().origin("nexus");
    let address = origin.strip_prefix("http://").expect("an origin");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(
        stream,
        "POST /hello/echo HTTP/1.1\r\nHost: {address}\r\nContent-Length: 40000001\r\n\r\n"
    )
    .expect("sent");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("an answer");
    assert_eq!(String::from_utf8_lossy(&status), "HTTP/1.1 413");
}

#[test]
fn events_pass_as_they_come() {
    let (status, headers, mut body, _) = through("GET", "/echo/echo/live")
        .open()
        .expect("the stream opens");
    assert_eq!(
        (status, headers["content-type"].to_str().expect("text")),
        (200, "text/event-stream")
    );
    let mut seen = String::new();
    let mut read = |until: &str| {
        let mut chunk = [0; 256];
        while !seen.contains(until) {
            let count = body.read(&mut chunk).expect("the stream goes on");
            assert!(count > 0, "the stream has ended: {seen}");
            seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    };
    read(": open");
    through("POST", "/echo/echo/live")
        .json(&json!({ "hello": "there" }))
        .send()
        .expect_status(204);
    read("\"hello\":\"there\"");
}

fn compose(calls: &Value, token: Option<&str>) -> Answer {
    let call = through("POST", "/api/compose").json(&json!({ "calls": calls }));
    match token {
        Some(token) => call.token(token).send(),
        None => call.send(),
    }
}

#[test]
fn several_calls_make_one_answer_and_one_failure_is_only_its_own() {
    let token = token(platform(), "user:composer", "*", &["read", "write"]);
    let calls = json!([
        { "id": "who", "path": "/hello/whoami" },
        { "id": "write", "method": "POST", "path": "/hello/write" },
        { "id": "json", "method": "POST", "path": "/echo/echo/json", "body": { "text": "hi" } },
        { "id": "wrong", "method": "POST", "path": "/echo/echo/json", "body": { "text": 5 } },
        { "id": "nobody", "path": "/nothing/here" },
        { "id": "trap", "path": "/hostile/trap" },
        { "id": "slow", "path": "/hostile/sleep" },
    ]);
    let answer = compose(&calls, Some(&token)).expect_status(200).json();
    let results = answer["results"].as_array().expect("results");
    let of = |id: &str| {
        results
            .iter()
            .find(|part| part["id"] == id)
            .unwrap_or_else(|| panic!("no {id} in {answer}"))
    };
    let statuses: Vec<u64> = results
        .iter()
        .filter_map(|part| part["status"].as_u64())
        .collect();
    assert_eq!(statuses, [200, 200, 200, 422, 404, 500, 504], "{answer}");
    assert_eq!(of("who")["body"]["user"], "composer");
    assert_eq!(of("json")["body"], json!({ "text": "hi" }));
    assert_eq!(of("json")["headers"]["content-type"], "application/json");
    assert_eq!(of("wrong")["body"]["status"], 422);
    assert_eq!(of("slow")["headers"]["retry-after"], "1");
}

#[test]
fn composition_is_bounded_and_checked() {
    let call = |id: usize| json!({ "id": id.to_string(), "path": "/hello/hello" });
    let many = |count: usize| Value::from((0..count).map(call).collect::<Vec<_>>());
    compose(&many(20), None).expect_status(200);
    compose(&many(21), None).expect_problem(422, "/calls");
    compose(&json!([]), None).expect_problem(422, "/calls");
    compose(&json!([call(1), call(1)]), None).expect_problem(422, "two calls have the id");
    compose(&json!([{ "id": "a", "path": "/hello/../ca" }]), None)
        .expect_problem(422, "/calls/0/path");
    let header =
        json!([{ "id": "a", "path": "/hello/hello", "headers": { "Authorization": "Bearer x" } }]);
    compose(&header, None).expect_problem(422, "/calls/0/headers");
}

#[test]
fn limits_are_told_and_kept_for_each_principal() {
    let platform = Platform::start(&Setup {
        services: &["ca", "setup", "nexus"],
        guests: &["hello"],
        config: "[service.exprsn-nexus.config]\nrate_principal_per_second = \"0.01\"\nrate_principal_burst = \"3\"\n\
                 rate_address_per_second = \"0.01\"\nrate_address_burst = \"12\"",
        ..Setup::default()
    });
    let (eager, other) = (
        token(&platform, "user:eager", "*", &["read"]),
        token(&platform, "user:other", "*", &["read"]),
    );
    let ask = |token: &str| {
        platform
            .call("nexus", "GET", "/hello/read")
            .token(token)
            .send()
    };
    for left in [2, 1, 0] {
        let answer = ask(&eager).expect_status(200);
        assert_eq!(
            answer.header("ratelimit-policy"),
            "\"address\";q=12;w=1200, \"principal\";q=3;w=300"
        );
        assert!(
            answer
                .header("ratelimit")
                .contains(&format!("\"principal\";r={left};t=")),
            "{:?}",
            answer.headers
        );
    }
    let refused = ask(&eager).expect_problem(429, "quota-exceeded");
    assert_eq!(refused.json()["violated-policies"], json!(["principal"]));
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!((1..=100).contains(&wait), "{wait}");
    ask(&other).expect_status(200);
    // Each part of a composition counts: two are left to the other principal, less one for the composition itself.
    let calls: Vec<Value> = (0..3)
        .map(|id| json!({ "id": id.to_string(), "path": "/hello/read" }))
        .collect();
    let compose = platform
        .call("nexus", "POST", "/api/compose")
        .token(&other)
        .json(&json!({ "calls": calls }));
    let answer = compose.send().expect_status(200).json();
    let mut statuses: Vec<u64> = answer["results"]
        .as_array()
        .expect("results")
        .iter()
        .filter_map(|part| part["status"].as_u64())
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 429, 429], "{answer}");
    // Nine of the address's twelve are gone; without a token only they count.
    let anonymous = || platform.call("nexus", "GET", "/hello/hello").send();
    (0..3).for_each(|_| drop(anonymous().expect_status(200)));
    assert_eq!(
        anonymous().expect_problem(429, "quota").json()["violated-policies"],
        json!(["address"])
    );
    platform
        .call("nexus", "GET", "/health")
        .send()
        .expect_status(200);
}
