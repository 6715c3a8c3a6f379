//! Logs and metrics of the host.
//!
//! Hot paths hold their counters ([`ServiceMetrics`]) and touch nothing but atomics.

mod guests;
mod line;

use crate::{
    config::{LogFormat, PlatformConfig},
    name::ServiceName,
};
use guests::Guests;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::{
    io::IsTerminal as _,
    sync::{Arc, Mutex},
    time::Duration,
};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Starts logging to stderr, as the configuration says. `RUST_LOG` goes before `log_filter`.
pub fn init_logging(config: &PlatformConfig) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&config.log_filter))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(line::one_line_each);
    // A second call (in tests) keeps the first subscriber.
    let _ = match config.log_format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        LogFormat::Text => registry
            .with(layer.with_ansi(std::io::stderr().is_terminal()))
            .try_init(),
    };
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

/// Every metric of the host, and those that services make.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
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
        Arc::new(Self {
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
        encode(&mut text, &registry).expect("writing to a string does not fail");
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
