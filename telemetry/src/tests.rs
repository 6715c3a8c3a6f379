//! Against receivers that speak OTLP as a collector does: one by HTTP, made with hyper, and one by gRPC, made with tonic.

mod receiver;

use super::*;
use receiver::{Behaviour, Receiver};
use std::time::Instant;

/// How long something may take to come about.
const PATIENCE: Duration = Duration::from_secs(20);

fn config(receiver: &Receiver) -> Config {
    Config {
        endpoint: receiver.endpoint.clone(),
        protocol: receiver.protocol,
        batch_ms: 20,
        metrics_ms: 20,
        ..Config::default()
    }
}

fn ids(trace_id: u128, span_id: u64, parent_id: u64) -> Ids {
    Ids {
        trace_id,
        span_id,
        parent_id,
        sampled: true,
    }
}

fn span(telemetry: &Arc<Telemetry>, source: &Arc<Source>, ids: Ids) {
    let mut span = telemetry.begin(source, ids, Kind::Server, "GET /x");
    span.set("http.request.method", "GET");
    span.set("http.response.status_code", 200u16);
    span.end();
}

fn line(telemetry: &Telemetry, body: &str) {
    telemetry.log(Line {
        time_ns: now_ns(),
        severity: Severity::Info,
        source: telemetry.host().clone(),
        target: "test".into(),
        body: body.to_owned(),
        attributes: vec![("a".into(), 1i64.into())],
        trace_id: 1,
        span_id: 2,
    });
}

/// Asks until it is so. The state that is waited for is another thread's.
fn eventually(what: &str, so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

fn everything_arrives(protocol: Protocol, compression: Compression) {
    let receiver = Receiver::start(protocol, Behaviour::Take);
    let telemetry = Telemetry::start(
        &Config {
            compression,
            headers: "x-key=a%20b".to_owned(),
            ..config(&receiver)
        },
        "1.2.3",
    );
    let telemetry = telemetry.unwrap();
    telemetry.set_metrics(Box::new(|| {
        "# HELP a A.\n# TYPE a counter\na_total 7\n# EOF\n".to_owned()
    }));
    let service = Source::new("exprsn-timeline", "0.1");
    span(&telemetry, &service, ids(1, 2, 0));
    span(&telemetry, telemetry.host(), ids(1, 3, 2));
    line(&telemetry, "it happened");
    eventually("all has come", || {
        let seen = receiver.seen();
        seen.spans().len() == 2 && seen.lines().len() == 1 && !seen.metrics.is_empty()
    });
    let seen = receiver.seen();
    let (resource, first) = &seen.spans()[0];
    let child = &seen.spans()[1].1;
    assert_eq!(resource.get("service.name").unwrap(), "exprsn-timeline");
    assert_eq!(resource.get("service.namespace").unwrap(), "exprsn");
    assert_eq!(resource.get("service.version").unwrap(), "0.1");
    assert!(resource.contains_key("service.instance.id") && resource.contains_key("host.name"));
    assert_eq!(first.trace_id, 1u128.to_be_bytes());
    assert!(first.parent_span_id.is_empty());
    assert_eq!(child.parent_span_id, first.span_id);
    assert!(first.end_time_unix_nano >= first.start_time_unix_nano);
    let (resource, line) = &seen.lines()[0];
    assert_eq!(resource.get("service.version").unwrap(), "1.2.3");
    assert_eq!(line.trace_id, first.trace_id);
    assert!(seen.keys.iter().all(|key| key == "a b") && !seen.keys.is_empty());
    telemetry.stop(PATIENCE);
    assert_eq!(telemetry.counts(Signal::Traces).sent, 2);
}

#[test]
fn everything_arrives_by_http() {
    everything_arrives(Protocol::Http, Compression::None);
    everything_arrives(Protocol::Http, Compression::Gzip);
}

#[test]
fn everything_arrives_by_grpc() {
    everything_arrives(Protocol::Grpc, Compression::None);
    everything_arrives(Protocol::Grpc, Compression::Gzip);
}

/// Records far more than there is room for, and says how long that took.
fn flood(telemetry: &Arc<Telemetry>, spans: u64) -> Duration {
    let source = Source::new("exprsn-a", "1");
    let begin = Instant::now();
    for id in 0..spans {
        span(telemetry, &source, ids(1, id + 1, 0));
    }
    begin.elapsed()
}

fn nobody_waits_for(receiver: &Receiver) {
    let config = Config {
        queue_max: 1_000,
        batch_max: 100,
        ..config(receiver)
    };
    let telemetry = Telemetry::start(&config, "1").unwrap();
    let took = flood(&telemetry, 50_000);
    // Far less than one answer of the receiver would take.
    assert!(took < Duration::from_secs(5), "{took:?}");
    let counts = telemetry.counts(Signal::Traces);
    assert!(counts.dropped > 40_000, "{counts:?}");
    assert_eq!(counts.sent, 0);
    // What is in memory is the latest all the same.
    let kept = telemetry.recent_trace(1);
    assert_eq!(kept.last().unwrap().span_id, 50_000);
    let begin = Instant::now();
    telemetry.stop(Duration::from_millis(100));
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_slow_receiver_costs_nothing_but_spans() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        nobody_waits_for(&Receiver::start(protocol, Behaviour::Hang));
    }
}

#[test]
fn an_absent_receiver_costs_nothing_but_spans() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        nobody_waits_for(&Receiver::absent(protocol));
    }
}

#[test]
fn a_busy_receiver_is_asked_again_when_it_says() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let receiver = Receiver::start(protocol, Behaviour::BusyOnce);
        let telemetry = Telemetry::start(&config(&receiver), "1").unwrap();
        span(&telemetry, telemetry.host(), ids(1, 2, 0));
        eventually("it has come at the second try", || {
            telemetry.counts(Signal::Traces).sent == 1
        });
        let seen = receiver.seen();
        let [first, second] = seen.times[..] else {
            panic!("{:?}", seen.times)
        };
        let waited = second - first;
        assert!(waited >= receiver::RETRY_AFTER, "{protocol:?}: {waited:?}");
    }
}

#[test]
fn what_is_refused_is_not_sent_again() {
    let receiver = Receiver::start(Protocol::Http, Behaviour::Refuse);
    let telemetry = Telemetry::start(&config(&receiver), "1").unwrap();
    span(&telemetry, telemetry.host(), ids(1, 2, 0));
    eventually("it is lost", || telemetry.counts(Signal::Traces).lost == 1);
    telemetry.stop(PATIENCE);
    assert_eq!(receiver.seen().times.len(), 1);
}

#[test]
fn what_is_rejected_in_part_is_counted() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let receiver = Receiver::start(protocol, Behaviour::RejectOne);
        let telemetry = Telemetry::start(&config(&receiver), "1").unwrap();
        for id in 1..=3 {
            span(&telemetry, telemetry.host(), ids(1, id, 0));
        }
        telemetry.stop(PATIENCE);
        let counts = telemetry.counts(Signal::Traces);
        assert_eq!(counts.sent + counts.lost, 3, "{counts:?}");
        assert!(counts.lost >= 1, "{counts:?}");
    }
}

#[test]
fn what_waits_is_sent_at_the_end() {
    let receiver = Receiver::start(Protocol::Http, Behaviour::Take);
    let config = Config {
        batch_ms: 3_600_000,
        batch_max: 7,
        ..config(&receiver)
    };
    let telemetry = Telemetry::start(&config, "1").unwrap();
    flood(&telemetry, 100);
    telemetry.stop(PATIENCE);
    assert_eq!(receiver.seen().spans().len(), 100);
}

#[test]
fn a_span_that_is_dropped_was_cancelled() {
    let telemetry = Telemetry::start(&Config::default(), "1").unwrap();
    drop(telemetry.begin(telemetry.host(), ids(9, 1, 0), Kind::Internal, "x"));
    let trace = telemetry.recent_trace(9);
    assert_eq!(trace[0].attribute("error.type"), Some(&"cancelled".into()));
    assert!(matches!(trace[0].status, Status::Error(_)));
}

#[test]
fn what_is_not_sampled_is_nowhere() {
    let telemetry = Telemetry::start(&Config::default(), "1").unwrap();
    let ids = Ids {
        sampled: false,
        ..ids(9, 1, 0)
    };
    let span = telemetry.begin(telemetry.host(), ids, Kind::Internal, "x");
    assert!(!span.is_recorded());
    span.end();
    assert!(telemetry.recent_trace(9).is_empty());
}

#[test]
fn followers_hear_lines_as_they_come() {
    let telemetry = Telemetry::start(&Config::default(), "1").unwrap();
    line(&telemetry, "before");
    let mut follower = telemetry.follow_logs();
    line(&telemetry, "after");
    assert_eq!(follower.try_recv().unwrap().1.body, "after");
    follower.try_recv().unwrap_err();
}

/// Says what a span costs, to whoever runs it with `--nocapture` and optimised.
#[test]
fn a_span_costs_little() {
    let telemetry = Telemetry::start(&Config::default(), "1").unwrap();
    flood(&telemetry, 20_000);
    let took = flood(&telemetry, 200_000);
    println!("{} ns per span, kept in memory", took.as_nanos() / 200_000);
    let receiver = Receiver::start(Protocol::Http, Behaviour::Take);
    let telemetry = Telemetry::start(&config(&receiver), "1").unwrap();
    flood(&telemetry, 20_000);
    let took = flood(&telemetry, 200_000);
    println!("{} ns per span, and sent", took.as_nanos() / 200_000);
}
