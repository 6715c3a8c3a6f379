//! Metrics that services make, each service within its own number of series.

use super::{Histograms, latency_histogram};
use crate::name::ServiceName;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Mutex,
};

/// Attributes of one series that are kept.
const ATTRIBUTES_MAX: usize = 8;
/// Bytes of an attribute's value that are kept.
const VALUE_BYTES_MAX: usize = 128;

type Labels = Vec<(String, String)>;

/// The metrics of all services. Names are shared, series are not: each carries its service's name.
#[derive(Debug, Default)]
pub(super) struct Guests(Mutex<Made>);

#[derive(Debug, Default)]
struct Made {
    counters: HashMap<String, Family<Labels, Counter>>,
    histograms: HashMap<String, Histograms<Labels>>,
    series: HashMap<ServiceName, HashSet<(String, Labels)>>,
}

impl Guests {
    /// The counter of a series; none where the name is not one or the service has as many series as it may.
    pub(super) fn counter(
        &self,
        registry: &Mutex<Registry>,
        service: &ServiceName,
        series_max: usize,
        (name, attributes): (&str, &[(String, String)]),
    ) -> Option<Counter> {
        let mut made = self.0.lock().expect("no holder of this lock panics");
        let labels = made.admit(service, series_max, name, attributes)?;
        let family = made.counters.entry(name.to_owned()).or_insert_with(|| {
            let family = Family::default();
            register(registry, name, "Counted by a service", &family);
            family
        });
        Some(family.get_or_create(&labels).clone())
    }

    /// The same for a histogram.
    pub(super) fn histogram(
        &self,
        registry: &Mutex<Registry>,
        service: &ServiceName,
        series_max: usize,
        (name, attributes): (&str, &[(String, String)]),
    ) -> Option<Histogram> {
        let mut made = self.0.lock().expect("no holder of this lock panics");
        let labels = made.admit(service, series_max, name, attributes)?;
        let family = made.histograms.entry(name.to_owned()).or_insert_with(|| {
            let family = Family::new_with_constructor(latency_histogram as fn() -> Histogram);
            register(registry, name, "Measured by a service", &family);
            family
        });
        Some(family.get_or_create(&labels).clone())
    }
}

impl Made {
    /// The labels of a series that the service has or may still make.
    fn admit(
        &mut self,
        service: &ServiceName,
        series_max: usize,
        name: &str,
        attributes: &[(String, String)],
    ) -> Option<Labels> {
        if !is_metric_name(name) {
            return None;
        }
        let series = self.series.entry(service.clone()).or_default();
        let key = (name.to_owned(), labels(service, attributes));
        if !series.contains(&key) {
            if series.len() >= series_max {
                return None;
            }
            if series.len() + 1 == series_max {
                tracing::warn!(%service, series_max, "the service has as many metrics as metric_series_max allows; further ones are dropped");
            }
            series.insert(key.clone());
        }
        Some(key.1)
    }
}

fn register<M>(registry: &Mutex<Registry>, name: &str, help: &str, family: &M)
where
    M: Clone + prometheus_client::registry::Metric,
{
    let mut registry = registry.lock().expect("no holder of this lock panics");
    registry.register(format!("service_{name}"), help, family.clone());
}

fn labels(service: &ServiceName, attributes: &[(String, String)]) -> Labels {
    let mut labels = vec![("service".to_owned(), service.to_string())];
    let named = attributes
        .iter()
        .filter(|(name, _)| is_metric_name(name) && name != "service");
    labels.extend(named.take(ATTRIBUTES_MAX).map(|(name, value)| {
        let end = value.floor_char_boundary(VALUE_BYTES_MAX);
        (name.clone(), value[..end].to_owned())
    }));
    labels.sort();
    labels.dedup_by(|a, b| a.0 == b.0);
    labels
}

fn is_metric_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= 64
        && name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_lowercase())
        && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use crate::{name::ServiceName, telemetry::Metrics};

    #[test]
    fn a_flood_of_series_is_dropped_and_takes_none_of_anothers() {
        let metrics = Metrics::new();
        let name = |text| ServiceName::parse(text).unwrap();
        let (flooding, calm) = (name("exprsn-a"), name("exprsn-b"));
        for index in 0..1_000 {
            let attributes = [("id".to_owned(), index.to_string())];
            let counter = format!("flood_{}", index % 20);
            metrics.guest_count(&flooding, 10, &counter, 1, &attributes);
            metrics.guest_observe(&flooding, 10, "flood_seconds", 1.0, &attributes);
        }
        metrics.guest_count(&calm, 10, "calm", 3, &[]);
        let text = metrics.exposition();
        let of_flood = text
            .lines()
            .filter(|line| line.contains("_total{") && line.contains("exprsn-a"))
            .count();
        assert!((1..=10).contains(&of_flood), "{text}");
        assert!(
            text.contains(r#"exprsn_service_calm_total{service="exprsn-b"} 3"#),
            "{text}"
        );
    }

    #[test]
    fn attributes_are_cut_and_cannot_name_another_service() {
        let metrics = Metrics::new();
        let service = ServiceName::parse("exprsn-a").unwrap();
        let attributes = [
            ("service".to_owned(), "exprsn-b".to_owned()),
            ("twice".to_owned(), "1".to_owned()),
            ("twice".to_owned(), "2".to_owned()),
            ("long".to_owned(), "ü".repeat(1_000)),
        ];
        metrics.guest_count(&service, 10, "made", 1, &attributes);
        let text = metrics.exposition();
        let line = text
            .lines()
            .find(|line| line.starts_with("exprsn_service_made_total"))
            .expect("the series is there");
        assert!(!line.contains("exprsn-b") && line.len() < 400, "{line}");
        assert_eq!(line.matches("twice").count(), 1, "{line}");
    }
}
