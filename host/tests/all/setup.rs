//! exprsn-setup: the registry with its leases, the health of all, the graph, and the stream of changes.

use crate::harness::{Call, Platform, Setup, eventually};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Read},
    sync::OnceLock,
};

fn platform() -> &'static Platform {
    static PLATFORM: OnceLock<Platform> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        Platform::start(&Setup {
            services: &["ca", "setup"],
            config: "[service.exprsn-setup.config]\nremove_after_s = \"2\"\nhealth_reused_ms = \"0\"",
            ..Setup::default()
        })
    })
}

/// A token of a subject that may read, write and delete.
fn token(subject: &str) -> String {
    let claims = json!({ "subject": subject, "resource": "exprsn-setup/*", "permissions": ["read", "write", "delete"] });
    let issued = platform()
        .call("ca", "POST", "/api/tokens")
        .token(&platform().operator())
        .json(&claims)
        .send();
    issued.expect_status(201).json()["token"]
        .as_str()
        .expect("a token")
        .to_owned()
}

/// The specification's body with another name.
fn registration(name: &str) -> Value {
    json!({
        "name": name, "version": "1.0.0", "host": "localhost", "port": 3999, "healthCheckPath": "/health",
        "dependencies": ["exprsn-ca"],
    })
}

fn register(token: &str, body: &Value) -> crate::harness::Answer {
    platform()
        .call("setup", "POST", "/api/registry/register")
        .token(token)
        .json(body)
        .send()
}

fn show(name: &str) -> crate::harness::Answer {
    platform()
        .call("setup", "GET", &format!("/api/registry/services/{name}"))
        .send()
}

/// The names of the events of a stream, with their data.
struct Changes(BufReader<Box<dyn Read + Send>>);

impl Changes {
    fn open(call: Call) -> Self {
        let (status, headers, body, _) = call.open().expect("the stream opens");
        assert_eq!(
            (status, headers["content-type"].to_str().expect("text")),
            (200, "text/event-stream")
        );
        let mut changes = Self(BufReader::new(body));
        assert_eq!(changes.line(), ": open");
        changes
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the stream goes on");
        assert!(!line.is_empty(), "the stream has ended");
        line.trim_end().to_owned()
    }

    /// The next event of a kind about a service; others are passed over.
    fn next(&mut self, kind: &str, name: &str) -> Value {
        let mut event = String::new();
        loop {
            let line = self.line();
            if let Some(named) = line.strip_prefix("event: ") {
                event = named.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data).expect("JSON");
                if event == kind && data["name"] == name {
                    return data;
                }
            }
        }
    }
}

#[test]
fn lists_what_the_platform_runs() {
    let services = platform()
        .call("setup", "GET", "/api/registry/services")
        .send()
        .expect_status(200)
        .json();
    let ca = services
        .as_array()
        .expect("an array")
        .iter()
        .find(|service| service["name"] == "exprsn-ca")
        .expect("exprsn-ca");
    assert_eq!(
        (&ca["status"], &ca["source"], &ca["port"]),
        (&json!("healthy"), &json!("platform"), &json!(3000))
    );
    assert_eq!(ca["digest"].as_str().map(str::len), Some(64));
    assert_eq!(ca["leaseExpiresAt"], Value::Null);
    assert_eq!(
        show("exprsn-setup").expect_status(200).json()["dependencies"],
        json!(["exprsn-ca"])
    );
    show("exprsn-nobody").expect_problem(404, "exprsn-nobody");
}

#[test]
fn a_service_registers_renews_and_leaves() {
    let token = token("service:exprsn-billing");
    let answer = register(&token, &registration("exprsn-billing")).expect_status(201);
    assert_eq!(
        answer.header("location"),
        "/api/registry/services/exprsn-billing"
    );
    let first = answer.json();
    assert_eq!(
        (&first["status"], &first["source"]),
        (&json!("healthy"), &json!("registered"))
    );
    assert_eq!(first["lease"]["seconds"], 30);
    let again = register(&token, &registration("exprsn-billing"))
        .expect_status(200)
        .json();
    assert!(
        again["leaseExpiresAt"].as_i64() >= first["leaseExpiresAt"].as_i64(),
        "{first} {again}"
    );
    let heartbeat = |token: &str| {
        platform()
            .call(
                "setup",
                "POST",
                "/api/registry/services/exprsn-billing/heartbeat",
            )
            .token(token)
            .send()
    };
    let renewed = heartbeat(&token).expect_status(200).json();
    assert!(renewed["leaseExpiresAt"].as_i64() >= again["leaseExpiresAt"].as_i64());
    let leave = || {
        platform()
            .call("setup", "DELETE", "/api/registry/services/exprsn-billing")
            .token(&token)
            .send()
    };
    leave().expect_status(204);
    leave().expect_problem(404, "exprsn-billing");
    heartbeat(&token).expect_problem(404, "not registered");
    show("exprsn-billing").expect_status(404);
}

#[test]
fn a_record_belongs_to_who_made_it() {
    let (owner, stranger) = (token("user:owner"), token("user:stranger"));
    register(&owner, &registration("owned")).expect_status(201);
    register(&stranger, &registration("owned")).expect_problem(403, "somebody else");
    let path = "/api/registry/services/owned";
    platform()
        .call("setup", "DELETE", path)
        .token(&stranger)
        .send()
        .expect_problem(403, "somebody else");
    platform()
        .call("setup", "POST", &format!("{path}/heartbeat"))
        .token(&stranger)
        .send()
        .expect_problem(403, "somebody else");
    platform()
        .call("setup", "DELETE", path)
        .token(&platform().operator())
        .send()
        .expect_status(204);
    platform()
        .call("setup", "POST", "/api/registry/register")
        .json(&registration("x"))
        .send()
        .expect_problem(401, "token");
}

#[test]
fn what_the_platform_runs_cannot_be_taken_over() {
    let mut body = registration("exprsn-ca");
    body["dependencies"] = json!([]);
    body["port"] = json!(6666);
    register(&token("user:mallory"), &body).expect_problem(403, "run by this platform");
    let renewed = register(&token("service:exprsn-ca"), &body)
        .expect_status(201)
        .json();
    assert_eq!(
        (&renewed["port"], &renewed["source"]),
        (&json!(3000), &json!("platform"))
    );
    assert!(renewed["leaseExpiresAt"].is_i64(), "{renewed}");
    register(&platform().operator(), &body).expect_status(200);
    platform()
        .call("setup", "DELETE", "/api/registry/services/exprsn-ca")
        .token(&platform().operator())
        .send()
        .expect_status(204);
    assert_eq!(
        show("exprsn-ca").expect_status(200).json()["status"],
        "healthy"
    );
}

#[test]
fn mistakes_are_named() {
    let token = token("user:clumsy");
    for (field, value) in [
        ("/name", json!("Not A Name")),
        ("/version", json!("one")),
        ("/host", json!("http://x")),
        ("/port", json!(0)),
        ("/healthCheckPath", json!("health")),
        ("/leaseSeconds", json!(1)),
        (
            "/dependencies/0",
            json!(["'; DROP TABLE registrations; --"]),
        ),
        ("/surprise", json!(1)),
    ] {
        let mut body = registration("clumsy");
        let name = field
            .trim_start_matches('/')
            .split('/')
            .next()
            .expect("a field")
            .to_owned();
        body[name] = value;
        register(&token, &body).expect_problem(422, field);
    }
    let call = platform()
        .call("setup", "POST", "/api/registry/register")
        .token(&token);
    call.body("application/json", "{ broken")
        .send()
        .expect_problem(400, "");
}

#[test]
fn a_circle_of_dependencies_is_refused_by_name() {
    let token = token("user:circular");
    let mut first = registration("circle-a");
    first["dependencies"] = json!(["circle-b"]);
    register(&token, &first).expect_status(201);
    let mut second = registration("circle-b");
    second["dependencies"] = json!(["circle-c"]);
    register(&token, &second).expect_status(201);
    let mut third = registration("circle-c");
    third["dependencies"] = json!(["circle-a"]);
    let refused = register(&token, &third)
        .expect_problem(409, "circle-c → circle-a → circle-b → circle-c")
        .json();
    assert_eq!(
        refused["cycle"],
        json!(["circle-c", "circle-a", "circle-b", "circle-c"])
    );
    show("circle-c").expect_status(404);
    let graph = platform()
        .call("setup", "GET", "/api/graph")
        .send()
        .expect_status(200)
        .json();
    assert!(
        graph["missing"]
            .as_array()
            .expect("names")
            .contains(&json!("circle-c")),
        "{graph}"
    );
    assert_eq!(graph["cycles"], json!([]));
    let order = graph["startOrder"].as_array().expect("groups");
    let group = |name: &str| {
        order
            .iter()
            .position(|group| group.as_array().expect("names").contains(&json!(name)))
    };
    assert!(
        group("exprsn-ca") < group("exprsn-setup") && group("circle-b") < group("circle-a"),
        "{graph}"
    );
}

#[test]
fn a_lease_that_is_not_renewed_runs_out_and_listeners_are_told() {
    let token = token("user:shortlived");
    let events = || platform().call("setup", "GET", "/api/registry/events");
    let mut live = Changes::open(events());
    let mut body = registration("shortlived");
    body["leaseSeconds"] = json!(5);
    register(&token, &body).expect_status(201);
    let registered = live.next("registered", "shortlived");
    assert_eq!(registered["status"], "healthy");
    let expired = live.next("expired", "shortlived");
    assert_eq!(expired["status"], "unhealthy");
    assert_eq!(
        live.next("removed", "shortlived")["id"]
            .as_str()
            .map(str::len),
        Some(36)
    );
    show("shortlived").expect_status(404);
    // Who comes back is told what was missed.
    let last = registered["id"].as_str().expect("an id");
    let mut again = Changes::open(events().header("last-event-id", last));
    assert_eq!(again.next("expired", "shortlived")["id"], expired["id"]);
}

#[test]
fn the_health_of_all_is_asked_for() {
    let health = || {
        platform()
            .call("setup", "GET", "/api/health")
            .send()
            .expect_status(200)
            .json()
    };
    let of = |report: &Value, name: &str| {
        report["services"]
            .as_array()
            .expect("services")
            .iter()
            .find(|service| service["service"] == name)
            .cloned()
    };
    let report = health();
    for name in ["exprsn-ca", "exprsn-setup"] {
        let service = of(&report, name).expect("it is in the report");
        assert_eq!(
            (&service["status"], &service["database"]),
            (&json!("healthy"), &json!(true)),
            "{service}"
        );
        assert!(
            service["uptime"]
                .as_f64()
                .is_some_and(|uptime| uptime > 0.0),
            "{service}"
        );
    }
    // A registered service that nobody can reach degrades the whole, but does not make the platform unhealthy.
    let token = token("user:unreachable");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("an address")
        .port();
    let mut body = registration("unreachable");
    body["port"] = json!(port);
    register(&token, &body).expect_status(201);
    let report = health();
    let service = of(&report, "unreachable").expect("it is in the report");
    assert_eq!(
        (&service["status"], &report["status"]),
        (&json!("unhealthy"), &json!("degraded")),
        "{report}"
    );
    assert!(service["reason"].is_string(), "{service}");
    platform()
        .call("setup", "DELETE", "/api/registry/services/unreachable")
        .token(&token)
        .send()
        .expect_status(204);
}

#[test]
fn queues_are_for_administrators() {
    let queues = |token: &str| {
        platform()
            .call("setup", "GET", "/api/queues")
            .token(token)
            .send()
    };
    queues(&token("user:curious")).expect_problem(403, "admin");
    eventually("the queue of this service is listed", || {
        let queues = queues(&platform().operator()).expect_status(200).json();
        queues
            .as_array()
            .expect("an array")
            .iter()
            .any(|queue| queue["name"] == "setup-maintenance")
            .then_some(())
    });
}

#[test]
fn a_registration_survives_a_kill() {
    let platform = Platform::start(&Setup {
        services: &["ca", "setup"],
        ..Setup::default()
    });
    let mut body = registration("durable");
    body["leaseSeconds"] = json!(3_600);
    let register = platform
        .call("setup", "POST", "/api/registry/register")
        .token(&platform.operator())
        .json(&body);
    register.send().expect_status(201);
    platform.kill();
    platform.restart();
    let view = platform
        .call("setup", "GET", "/api/registry/services/durable")
        .send()
        .expect_status(200)
        .json();
    assert_eq!(view["status"], "healthy");
}

#[test]
fn changes_of_what_the_platform_runs_are_told() {
    let call = platform()
        .call("setup", "GET", "/api/registry/events")
        .header("last-event-id", "0");
    let mut changes = Changes::open(call);
    // The first look may find it still starting.
    while changes.next("state", "exprsn-setup")["status"] != "healthy" {}
}
