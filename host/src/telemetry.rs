//! Traces, metrics and logs of the host. How they are kept and sent is `exprsn-telemetry`'s.
//!
//! Hot paths hold their counters ([`ServiceMetrics`]) and touch nothing but atomics.

mod guests;
mod line;
pub mod recent;
pub mod spans;

use crate::{
    config::{Config, LogFormat},
    invocation::TraceContext,
    name::ServiceName,
};
use exprsn_telemetry::{LevelControl, Recording, Severity, Signal, Telemetry};
use guests::Guests;
use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, LabelSetEncoder,
        text::{encode_eof, encode_registry},
    },
    metrics::{
        counter::{ConstCounter, Counter},
        exemplar::HistogramWithExemplars,
        family::Family,
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};
use std::{
    fmt,
    io::IsTerminal as _,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, SystemTime},
};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};
use wasmtime::format_err;

/// How long the end of the process waits for what is not yet sent.
const FLUSH_MAX: Duration = Duration::from_secs(3);

static TELEMETRY: OnceLock<Arc<Telemetry>> = OnceLock::new();
static LEVELS: OnceLock<Arc<LevelControl>> = OnceLock::new();

/// Starts recording, and logging to stderr, as the configuration says. `RUST_LOG` goes before `log_filter`.
pub fn init(config: &Config) -> wasmtime::Result<()> {
    let settings = config.telemetry.clone().with_environment();
    let started =
        settings.and_then(|settings| Telemetry::start(&settings, env!("CARGO_PKG_VERSION")));
    let started = started.map_err(|error| format_err!("{error}"))?;
    // A second call (in tests) keeps the first.
    let recording = TELEMETRY.get_or_init(|| started).clone();
    log(&config.platform, recording)
}

/// Where everything is recorded; before [`init`], as in unit tests, in memory only.
pub fn telemetry() -> &'static Arc<Telemetry> {
    TELEMETRY.get_or_init(|| {
        Telemetry::start(&exprsn_telemetry::Config::default(), "")
            .expect("nothing is asked of anybody by default")
    })
}

/// Sends what is not yet sent. For the end of the process.
pub fn flush() {
    telemetry().stop(FLUSH_MAX);
}

/// The filter of the log that is in force.
pub fn filter() -> String {
    LEVELS
        .get()
        .map(|levels| levels.filter())
        .unwrap_or_default()
}

/// Filters the log by `text` from now on: `info,exprsn=debug`, and `exprsn-timeline=debug` for one service's own lines.
pub fn set_filter(text: &str) -> Result<(), String> {
    let levels = LEVELS.get().ok_or("there is no log yet")?;
    levels.set_filter(text)?;
    tracing::info!(filter = text, "the log is filtered anew");
    Ok(())
}

/// Whether a service's own line is written.
pub fn admits(service: &ServiceName, severity: Severity) -> bool {
    LEVELS
        .get()
        .is_none_or(|levels| levels.admits(service.as_str(), severity))
}

fn log(config: &crate::config::PlatformConfig, telemetry: Arc<Telemetry>) -> wasmtime::Result<()> {
    let from_environment = std::env::var("RUST_LOG").ok();
    let asked = from_environment.iter().map(|text| ("RUST_LOG", text));
    let asked = asked.chain([("[platform] log_filter", &config.log_filter)]);
    let (name, text) = asked
        .into_iter()
        .find(|(_, text)| !text.is_empty())
        .unwrap_or(("", &config.log_filter));
    let (filter, levels) = exprsn_telemetry::filtering(if text.is_empty() { "info" } else { text })
        .map_err(|error| format_err!("{name}: {error}"))?;
    let _ = LEVELS.set(levels);
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(Recording(telemetry));
    let layer = tracing_subscriber::fmt::layer().with_writer(line::one_line_each);
    // A second call (in tests) keeps the first subscriber.
    let _ = match config.log_format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry
            .with(layer.with_ansi(std::io::stderr().is_terminal()))
            .try_init(),
    };
    Ok(())
}

/// An error with all its causes on one line.
pub fn chain(error: &wasmtime::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InvocationLabels {
    service: String,
    trigger: &'static str,
    outcome: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Labels by which OpenTelemetry's conventions tell requests apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HttpLabels {
    pub service: Arc<str>,
    pub http_request_method: &'static str,
    pub http_route: String,
    pub http_response_status_code: u16,
    pub url_scheme: &'static str,
}

/// The same for jobs and events.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    service: Arc<str>,
    messaging_system: &'static str,
    messaging_operation_name: &'static str,
    messaging_destination_name: String,
    error_type: &'static str,
}

/// The trace in which something was measured. Written out only when somebody asks for metrics.
#[derive(Clone, Copy, Debug)]
struct Exemplar(TraceContext);

impl EncodeLabelSet for Exemplar {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let labels = [
            ("trace_id", format!("{:032x}", self.0.trace_id)),
            ("span_id", format!("{:016x}", self.0.span_id)),
        ];
        labels.encode(encoder)
    }
}

type Traced<L> =
    Family<L, HistogramWithExemplars<Exemplar>, fn() -> HistogramWithExemplars<Exemplar>>;

/// One of the counts of what was recorded.
type Count = fn(&exprsn_telemetry::Counts) -> u64;

/// Every metric of the host, and those that services make.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Metrics by OpenTelemetry's conventions, whose names have no prefix.
    standard: Registry,
    http: Traced<HttpLabels>,
    messages: Histograms<MessageLabels>,
    invocations: Family<InvocationLabels, Counter>,
    durations: Histograms<ServiceLabel>,
    instances: Family<ServiceLabel, Gauge>,
    shed: Family<ServiceLabel, Counter>,
    versions: Family<ServiceLabel, Gauge>,
    host_panics: Family<ServiceLabel, Counter>,
    guests: Guests,
}

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The caller's fault (4xx).
    Refused,
    /// Ours or the service's (5xx, traps, failed jobs).
    Failure,
}

/// The counters of one service, found once.
#[derive(Clone, Debug)]
pub struct ServiceMetrics {
    outcomes: [[Counter; 3]; 3],
    pub duration: Histogram,
    pub instances: Gauge,
    pub shed: Counter,
    /// Panics of the host while it worked for the service.
    pub panics: Counter,
    http: Traced<HttpLabels>,
    messages: Histograms<MessageLabels>,
}

/// An instance that is alive, until dropped.
#[derive(Debug)]
pub struct Instance(Gauge);

impl Drop for Instance {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl ServiceMetrics {
    /// Counts an invocation's end.
    pub fn record(
        &self,
        trigger: crate::invocation::Trigger,
        outcome: Outcome,
        duration: Duration,
    ) {
        self.outcomes[trigger as usize][outcome as usize].inc();
        self.duration.observe(duration.as_secs_f64());
    }

    /// Measures a request's answer, with the trace where that is recorded.
    pub fn answered(&self, labels: &HttpLabels, took: Duration, trace: TraceContext) {
        let traced = trace.sampled.then_some(Exemplar(trace));
        let now = trace.sampled.then(SystemTime::now);
        self.http
            .get_or_create(labels)
            .observe(took.as_secs_f64(), traced, now);
    }

    /// Measures an attempt of a job or the delivery of an event; `error_type` is empty where it succeeded.
    pub fn processed(
        &self,
        service: &ServiceName,
        destination: String,
        error_type: &'static str,
        took: Duration,
    ) {
        let labels = MessageLabels {
            service: service.as_str().into(),
            messaging_system: spans::MESSAGING,
            messaging_operation_name: "process",
            messaging_destination_name: destination,
            error_type,
        };
        self.messages
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// Counts an instance for as long as the value lives, however that ends.
    pub fn instance(&self) -> Instance {
        self.instances.inc();
        Instance(self.instances.clone())
    }

    /// Invocations so far, and how many of them failed.
    pub fn totals(&self) -> (u64, u64) {
        let all = self.outcomes.iter().flatten().map(Counter::get).sum();
        (
            all,
            self.outcomes
                .iter()
                .map(|by| by[Outcome::Failure as usize].get())
                .sum(),
        )
    }
}

fn latency_histogram() -> Histogram {
    Histogram::new([
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
        5.0, 10.0,
    ])
}

/// The bounds that the conventions advise, in seconds.
fn traced_histogram() -> HistogramWithExemplars<Exemplar> {
    let bounds = [
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ];
    HistogramWithExemplars::new(bounds.into_iter())
}

/// What became of spans and lines, looked at when metrics are asked for.
#[derive(Debug)]
struct Sent;

impl Collector for Sent {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let counts = Signal::ALL.map(|signal| (signal.as_str(), telemetry().counts(signal)));
        let metrics: [(_, _, Count); 3] = [
            (
                "telemetry_sent",
                "Records that the collector took",
                |counts| counts.sent,
            ),
            (
                "telemetry_dropped",
                "Records dropped because too many waited to be sent",
                |counts| counts.dropped,
            ),
            (
                "telemetry_lost",
                "Records that the collector did not take",
                |counts| counts.lost,
            ),
        ];
        for (name, help, count) in metrics {
            let counter = ConstCounter::new(0u64);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            Self::series(metric, &counts, count)?;
        }
        Ok(())
    }
}

impl Sent {
    fn series(
        mut metric: prometheus_client::encoding::MetricEncoder<'_>,
        counts: &[(&'static str, exprsn_telemetry::Counts)],
        count: fn(&exprsn_telemetry::Counts) -> u64,
    ) -> fmt::Result {
        for (signal, counts) in counts {
            let labels = [("signal", *signal)];
            ConstCounter::new(count(counts)).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Metrics {
    /// The host's metrics, all at zero.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("exprsn");
        let invocations = Family::default();
        let durations = Family::new_with_constructor(latency_histogram as fn() -> Histogram);
        let (instances, shed) = (Family::default(), Family::default());
        let host_panics = Family::default();
        registry.register(
            "invocations",
            "Invocations of services by trigger and outcome",
            invocations.clone(),
        );
        registry.register(
            "invocation_duration_seconds",
            "Time from admission to response head",
            durations.clone(),
        );
        registry.register("instances", "Instances alive", instances.clone());
        registry.register(
            "shed",
            "Invocations answered 503 because too many were waiting",
            shed.clone(),
        );
        let versions = Family::default();
        registry.register(
            "versions",
            "Versions of a service in memory: one, and more while others drain or are on trial",
            versions.clone(),
        );
        registry.register(
            "host_panics",
            "Panics of the host while it worked for a service",
            host_panics.clone(),
        );
        registry.register_collector(Box::new(Sent));
        let mut standard = Registry::default();
        let http = Family::new_with_constructor(
            traced_histogram as fn() -> HistogramWithExemplars<Exemplar>,
        );
        standard.register_with_unit(
            "http_server_request_duration",
            "Duration of HTTP server requests, to the response's head",
            Unit::Seconds,
            http.clone(),
        );
        let messages = Family::new_with_constructor(latency_histogram as fn() -> Histogram);
        standard.register_with_unit(
            "messaging_process_duration",
            "Duration of processing a job or an event",
            Unit::Seconds,
            messages.clone(),
        );
        Arc::new(Self {
            standard,
            http,
            messages,
            versions,
            registry: Mutex::new(registry),
            invocations,
            durations,
            instances,
            shed,
            host_panics,
            guests: Guests::default(),
        })
    }

    /// The counters of `service`.
    pub fn service(&self, service: &ServiceName) -> ServiceMetrics {
        let label = ServiceLabel {
            service: service.to_string(),
        };
        let outcome = |trigger, outcome| {
            let labels = InvocationLabels {
                service: service.to_string(),
                trigger,
                outcome,
            };
            self.invocations.get_or_create(&labels).clone()
        };
        let outcomes = ["http", "job", "event"]
            .map(|trigger| ["success", "refused", "failure"].map(|name| outcome(trigger, name)));
        ServiceMetrics {
            outcomes,
            duration: self.durations.get_or_create(&label).clone(),
            instances: self.instances.get_or_create(&label).clone(),
            shed: self.shed.get_or_create(&label).clone(),
            panics: self.host_panics.get_or_create(&label).clone(),
            http: self.http.clone(),
            messages: self.messages.clone(),
        }
    }

    /// Counts the versions of `service` that are in memory.
    pub fn versions(&self, service: &ServiceName) -> Gauge {
        let label = ServiceLabel {
            service: service.to_string(),
        };
        self.versions.get_or_create(&label).clone()
    }

    /// Lets a module register metrics of its own.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().expect("no holder of this lock panics"));
    }

    /// Adds to a counter that a service made, unless it has `series_max` series already.
    pub fn guest_count(
        &self,
        service: &ServiceName,
        series_max: usize,
        name: &str,
        by: u64,
        attributes: &[(String, String)],
    ) {
        let registry = &self.registry;
        if let Some(counter) =
            self.guests
                .counter(registry, service, series_max, (name, attributes))
        {
            counter.inc_by(by);
        }
    }

    /// Records a measurement that a service made, unless it has `series_max` series already.
    pub fn guest_observe(
        &self,
        service: &ServiceName,
        series_max: usize,
        name: &str,
        value: f64,
        attributes: &[(String, String)],
    ) {
        let registry = &self.registry;
        if let Some(histogram) =
            self.guests
                .histogram(registry, service, series_max, (name, attributes))
        {
            histogram.observe(value);
        }
    }

    /// All metrics in the OpenMetrics text format.
    pub fn exposition(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().expect("no holder of this lock panics");
        let written = encode_registry(&mut text, &registry)
            .and_then(|()| encode_registry(&mut text, &self.standard))
            .and_then(|()| encode_eof(&mut text));
        written.expect("writing to a string does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invocation::Trigger;

    #[test]
    fn exposition_shows_what_was_counted() {
        let metrics = Metrics::new();
        let name = ServiceName::parse("exprsn-a").unwrap();
        metrics
            .service(&name)
            .record(Trigger::Job, Outcome::Failure, Duration::from_millis(2));
        metrics.guest_count(
            &name,
            10,
            "posts",
            2,
            &[("kind".to_owned(), "te\"xt".to_owned())],
        );
        metrics.guest_count(&name, 10, "Bad Name", 2, &[]);
        let text = metrics.exposition();
        assert!(
            text.contains(
                r#"exprsn_invocations_total{service="exprsn-a",trigger="job",outcome="failure"} 1"#
            ),
            "{text}"
        );
        assert!(
            text.contains(r#"exprsn_service_posts_total{kind="te\"xt",service="exprsn-a"} 2"#),
            "{text}"
        );
        assert!(
            !text.contains("Bad Name") && text.ends_with("# EOF\n"),
            "{text}"
        );
        assert_eq!(metrics.service(&name).totals(), (1, 1));
    }
}
