//! Traces, metrics and logs as a collector receives them: one trace from the gateway to the notification.

use crate::{
    harness::{Platform, Setup, eventually},
    timeline::{follow, people},
};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{KeyValue, any_value},
    logs::v1::LogRecord,
    resource::v1::Resource,
    trace::v1::{Span, span::SpanKind},
};
use prost::Message as _;
use serde_json::json;
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

/// A receiver of OTLP by HTTP.
struct Receiver {
    endpoint: String,
    received: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    /// Spans with their service's name.
    spans: Vec<(String, Span)>,
    lines: Vec<(String, LogRecord)>,
    metrics: Vec<ExportMetricsServiceRequest>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let received = Arc::<Mutex<Received>>::default();
        let into = received.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let into = into.clone();
                std::thread::spawn(move || receive(&stream, &into));
            }
        });
        Self { endpoint, received }
    }

    fn platform(&self) -> Platform {
        let config = format!(
            "[telemetry]\nendpoint = {:?}\nbatch_ms = 50\nmetrics_ms = 500\n",
            self.endpoint
        );
        Platform::start(&Setup {
            services: &["ca", "setup", "nexus", "timeline", "herald"],
            config: &config,
            ..Setup::default()
        })
    }

    fn trace(&self, id: &[u8]) -> Vec<(String, Span)> {
        let received = self.received.lock().expect("the lock");
        let spans = received.spans.iter();
        spans
            .filter(|(_, span)| span.trace_id == id)
            .cloned()
            .collect()
    }
}

/// Takes requests until the sender goes.
fn receive(stream: &TcpStream, into: &Mutex<Received>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut path, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("post ") {
                rest.split(' ')
                    .next()
                    .unwrap_or_default()
                    .clone_into(&mut path);
            }
            if let Some(bytes) = line.strip_prefix("content-length:") {
                length = bytes.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        keep(&path, &body, &mut into.lock().expect("the lock"));
        let answer =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        (&*stream).write_all(answer).expect("an answer");
    }
}

fn keep(path: &str, body: &[u8], into: &mut Received) {
    match path {
        "/v1/traces" => {
            let request = ExportTraceServiceRequest::decode(body).expect("spans");
            for resource in request.resource_spans {
                let service = service(resource.resource.as_ref());
                let spans = resource
                    .scope_spans
                    .into_iter()
                    .flat_map(|scope| scope.spans);
                into.spans.extend(spans.map(|span| (service.clone(), span)));
            }
        }
        "/v1/logs" => {
            let request = ExportLogsServiceRequest::decode(body).expect("lines");
            for resource in request.resource_logs {
                let service = service(resource.resource.as_ref());
                let scopes = resource.scope_logs.into_iter();
                let lines = scopes.flat_map(|scope| scope.log_records);
                into.lines.extend(lines.map(|line| (service.clone(), line)));
            }
        }
        "/v1/metrics" => into
            .metrics
            .push(ExportMetricsServiceRequest::decode(body).expect("metrics")),
        other => panic!("{other}"),
    }
}

fn service(resource: Option<&Resource>) -> String {
    let attributes = &resource.expect("a resource").attributes;
    text(attributes, "service.name").expect("a name")
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|one| one.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn is(service: &str, name: &str, kind: SpanKind) -> impl Fn(&(String, Span)) -> bool {
    move |(of, span)| of == service && span.name.starts_with(name) && span.kind == kind as i32
}

#[test]
fn one_trace_shows_a_post_from_the_gateway_to_the_notification() {
    let receiver = Receiver::start();
    let platform = receiver.platform();
    let [author, reader] = people(&platform);
    // What following brings by itself has come, or it would be its trace that brings the post.
    let before = crate::fanout::post(&platform, &author, "before").expect("taken");
    follow(&platform, &reader, &author);
    eventually("the posts of before have come", || {
        crate::fanout::home(&platform, &reader)
            .contains_key(&before)
            .then_some(())
    });
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let caller = "00f067aa0ba902b7";
    let answer = platform
        .call("nexus", "POST", "/timeline/api/posts")
        .token(&author.token)
        .header("traceparent", &format!("00-{trace}-{caller}-01"))
        .json(&json!({ "content": "traced" }))
        .send()
        .expect_status(201);
    assert_eq!(answer.header("x-request-id"), trace);
    let id = u128::from_str_radix(trace, 16).expect("hex").to_be_bytes();
    let wanted = [
        is("exprsn-nexus", "POST ", SpanKind::Server),
        is("exprsn-nexus", "POST", SpanKind::Client),
        is("exprsn-timeline", "POST ", SpanKind::Server),
        is(
            "exprsn-timeline",
            "send timeline-fanout",
            SpanKind::Producer,
        ),
        is(
            "exprsn-timeline",
            "outbox timeline-fanout",
            SpanKind::Internal,
        ),
        is(
            "exprsn-timeline",
            "process timeline-fanout",
            SpanKind::Consumer,
        ),
        is(
            "exprsn-timeline",
            "send timeline.delivered",
            SpanKind::Producer,
        ),
        is(
            "exprsn-timeline",
            "outbox timeline.delivered",
            SpanKind::Internal,
        ),
        is(
            "exprsn-herald",
            "process timeline.delivered",
            SpanKind::Consumer,
        ),
    ];
    let mut last = None;
    let spans = eventually("all spans have come", || {
        let spans = receiver.trace(&id);
        let missing = wanted.iter().position(|wanted| !spans.iter().any(wanted));
        if missing != last {
            last = missing;
            let names: Vec<_> = spans
                .iter()
                .map(|(of, span)| format!("{of}: {}", span.name))
                .collect();
            eprintln!("waiting for number {missing:?}, have {names:#?}");
        }
        missing.is_none().then_some(spans)
    });
    let find = |index: usize| {
        &spans
            .iter()
            .find(|span| wanted[index](span))
            .expect("there")
            .1
    };
    let first = find(0);
    assert_eq!(
        first.parent_span_id,
        u64::from_str_radix(caller, 16).expect("hex").to_be_bytes()
    );
    // Each is caused by the one before it.
    for index in 1..wanted.len() {
        assert_eq!(
            find(index).parent_span_id,
            find(index - 1).span_id,
            "{spans:#?}"
        );
    }
    assert_eq!(
        text(&first.attributes, "http.request.method").as_deref(),
        Some("POST")
    );
    assert_eq!(
        text(&first.attributes, "http.response.status_code").as_deref(),
        Some("201")
    );
    assert_eq!(
        text(&find(2).attributes, "http.route").as_deref(),
        Some("/api/posts")
    );
    let mut ids: Vec<_> = spans.iter().map(|(_, span)| &span.span_id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), spans.len(), "each span has an id of its own");
}

#[test]
fn logs_and_metrics_come_by_their_services() {
    let receiver = Receiver::start();
    let platform = receiver.platform();
    platform
        .call("nexus", "GET", "/health")
        .send()
        .expect_status(200);
    eventually(
        "a metric of the gateway and a line of the host have come",
        || {
            let received = receiver.received.lock().expect("the lock");
            let measured = received
                .metrics
                .iter()
                .flat_map(|request| &request.resource_metrics)
                .any(|resource| {
                    service(resource.resource.as_ref()) == "exprsn-nexus"
                        && resource
                            .scope_metrics
                            .iter()
                            .flat_map(|scope| &scope.metrics)
                            .any(|metric| {
                                metric.name == "http.server.request.duration" && metric.unit == "s"
                            })
                });
            (measured && !received.lines.is_empty()).then_some(())
        },
    );
}

#[test]
fn an_absent_collector_is_nobodys_business() {
    let platform = Platform::start(&Setup {
        guests: &["echo", "hello"],
        // Nobody listens on the port of discarded bytes.
        config: "[telemetry]\nendpoint = \"http://127.0.0.1:9\"\nbatch_ms = 10\nqueue_max = 16\n",
        ..Setup::default()
    });
    for _ in 0..200 {
        platform
            .call("echo", "GET", "/echo/ids")
            .send()
            .expect_status(200);
    }
}

#[test]
fn what_promtool_reads_it_finds_well_made() {
    let platform = Platform::shared();
    platform
        .call("nexus", "GET", "/health")
        .send()
        .expect_status(200);
    let text = platform
        .call("pulse", "GET", "/metrics")
        .send()
        .expect_status(200)
        .text();
    assert!(
        text.contains("http_server_request_duration_seconds_bucket"),
        "{text}"
    );
    assert!(text.contains("# {trace_id=\""), "exemplars: {text}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs: `cargo xtask test` installs it");
    let text = exprsn_telemetry::to_prometheus(&text);
    promtool
        .stdin
        .take()
        .expect("stdin")
        .write_all(text.as_bytes())
        .expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
