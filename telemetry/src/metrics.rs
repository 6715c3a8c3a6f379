//! From the host's registry to OTLP: its text is read, and each series becomes a data point of the source that it is about.

use crate::{
    exposition::{self, Exemplar, Family, Sample},
    otlp::{scope, text},
    record::Source,
    resource::Process,
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Exemplar as ExemplarMessage, Gauge, Histogram, HistogramDataPoint,
        Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, metric,
        number_data_point,
    },
};
use std::collections::BTreeMap;

/// The label that names the service which a series is about.
const SERVICE: &str = "service";

/// Names of OpenTelemetry's conventions, as Prometheus spells them and as OTLP does.
const METRICS: [(&str, &str); 3] = [
    (
        "http_server_request_duration_seconds",
        "http.server.request.duration",
    ),
    (
        "http_client_request_duration_seconds",
        "http.client.request.duration",
    ),
    (
        "messaging_process_duration_seconds",
        "messaging.process.duration",
    ),
];

/// The attributes of these.
const ATTRIBUTES: [(&str, &str); 10] = [
    ("error_type", "error.type"),
    ("http_request_method", "http.request.method"),
    ("http_response_status_code", "http.response.status_code"),
    ("http_route", "http.route"),
    ("messaging_destination_name", "messaging.destination.name"),
    ("messaging_operation_name", "messaging.operation.name"),
    ("messaging_operation_type", "messaging.operation.type"),
    ("messaging_system", "messaging.system"),
    ("server_address", "server.address"),
    ("url_scheme", "url.scheme"),
];

/// A request with all metrics of an exposition, and how many data points it has. `times` are the start of the process and
/// now.
pub(crate) fn request(
    process: &Process,
    host: &Source,
    exposition: &str,
    times: (u64, u64),
) -> (ExportMetricsServiceRequest, u64) {
    let mut points = 0;
    let mut by_service: BTreeMap<String, Vec<Metric>> = BTreeMap::new();
    for family in exposition::parse(exposition) {
        for (service, samples) in of_services(&family) {
            if let Some((metric, count)) = metric(&family, &samples, times) {
                points += count as u64;
                by_service.entry(service).or_default().push(metric);
            }
        }
    }
    let resource_metrics = by_service.into_iter().map(|(service, metrics)| {
        let source = match service.as_str() {
            "" => host.clone(),
            name => Source {
                name: name.into(),
                version: "".into(),
            },
        };
        ResourceMetrics {
            resource: Some(process.resource(&source)),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope()),
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }
    });
    let request = ExportMetricsServiceRequest {
        resource_metrics: resource_metrics.collect(),
    };
    (request, points)
}

/// A family's samples by service; the host's own under the empty name.
fn of_services(family: &Family) -> BTreeMap<String, Vec<&Sample>> {
    let mut services: BTreeMap<String, Vec<&Sample>> = BTreeMap::new();
    for sample in &family.samples {
        let label = sample.labels.iter().find(|(name, _)| name == SERVICE);
        let service = label.map(|(_, value)| value.clone()).unwrap_or_default();
        services.entry(service).or_default().push(sample);
    }
    services
}

fn metric(family: &Family, samples: &[&Sample], times: (u64, u64)) -> Option<(Metric, usize)> {
    let (data, points) = match family.kind.as_str() {
        "counter" => {
            let data_points: Vec<_> = samples.iter().map(|one| number_point(one, times)).collect();
            let points = data_points.len();
            let sum = Sum {
                data_points,
                aggregation_temporality: AggregationTemporality::Cumulative as i32,
                is_monotonic: true,
            };
            (metric::Data::Sum(sum), points)
        }
        "gauge" | "unknown" => {
            let data_points: Vec<_> = samples.iter().map(|one| number_point(one, times)).collect();
            let points = data_points.len();
            (metric::Data::Gauge(Gauge { data_points }), points)
        }
        "histogram" => {
            let data_points = histogram_points(&family.name, samples, times);
            let points = data_points.len();
            let histogram = Histogram {
                data_points,
                aggregation_temporality: AggregationTemporality::Cumulative as i32,
            };
            (metric::Data::Histogram(histogram), points)
        }
        _ => return None,
    };
    let standard = METRICS.iter().find(|(name, _)| *name == family.name);
    let metric = Metric {
        name: standard.map_or_else(|| family.name.clone(), |(_, name)| (*name).to_owned()),
        description: family.help.clone(),
        unit: unit(&family.name).to_owned(),
        data: Some(data),
        ..Metric::default()
    };
    Some((metric, points))
}

/// The unit by the name's end, in UCUM as OTLP wants it.
fn unit(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        Some("ms") => "ms",
        _ => "1",
    }
}

fn number_point(sample: &Sample, (start_ns, now_ns): (u64, u64)) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(&sample.labels),
        start_time_unix_nano: start_ns,
        time_unix_nano: now_ns,
        exemplars: sample.exemplar.iter().map(exemplar_message).collect(),
        value: Some(number_data_point::Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    }
}

/// Histograms by their labels: each one's buckets, sum and count are lines of their own.
fn histogram_points(
    family: &str,
    samples: &[&Sample],
    (start_ns, now_ns): (u64, u64),
) -> Vec<HistogramDataPoint> {
    let mut points: Vec<(Vec<(String, String)>, HistogramDataPoint)> = Vec::new();
    for sample in samples {
        let mut labels = sample.labels.clone();
        let bound = labels.iter().position(|(name, _)| name == "le");
        let bound = bound.map(|index| labels.remove(index).1);
        let index = points.iter().position(|(known, _)| *known == labels);
        let index = index.unwrap_or_else(|| {
            let point = HistogramDataPoint {
                attributes: attributes(&labels),
                start_time_unix_nano: start_ns,
                time_unix_nano: now_ns,
                ..HistogramDataPoint::default()
            };
            points.push((labels, point));
            points.len() - 1
        });
        let point = &mut points[index].1;
        match (sample.name.strip_prefix(family), bound) {
            (Some("_sum"), _) => point.sum = Some(sample.value),
            (Some("_count"), _) => point.count = whole(sample.value),
            (Some("_bucket"), Some(bound)) => add_bucket(point, &bound, sample),
            _ => {}
        }
    }
    points.into_iter().map(|(_, point)| point).collect()
}

/// Prometheus' buckets count all that is less, OTLP's what no lesser one counts.
fn add_bucket(point: &mut HistogramDataPoint, bound: &str, sample: &Sample) {
    let before: u64 = point.bucket_counts.iter().sum();
    point
        .bucket_counts
        .push(whole(sample.value).saturating_sub(before));
    if let Some(bound) = bound.parse().ok().filter(|bound: &f64| bound.is_finite()) {
        point.explicit_bounds.push(bound);
    }
    point
        .exemplars
        .extend(sample.exemplar.iter().map(exemplar_message));
}

fn exemplar_message(exemplar: &Exemplar) -> ExemplarMessage {
    let id = |name: &str| {
        let found = exemplar.labels.iter().find(|(known, _)| known == name);
        let digits = found.map(|(_, value)| value.as_str()).unwrap_or_default();
        bytes_of_hex(digits).unwrap_or_default()
    };
    ExemplarMessage {
        time_unix_nano: whole(exemplar.time.unwrap_or_default() * 1e9),
        span_id: id("span_id"),
        trace_id: id("trace_id"),
        value: Some(exemplar::Value::AsDouble(exemplar.value)),
        ..ExemplarMessage::default()
    }
}

fn bytes_of_hex(digits: &str) -> Option<Vec<u8>> {
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect()
}

fn attributes(labels: &[(String, String)]) -> Vec<KeyValue> {
    let own = labels
        .iter()
        .filter(|(name, value)| name != SERVICE && !value.is_empty());
    own.map(|(name, value)| {
        let standard = ATTRIBUTES.iter().find(|(known, _)| known == name);
        text(standard.map_or(name.as_str(), |(_, name)| name), value)
    })
    .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts are whole and not negative; what is neither becomes the nearest that is"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn series_become_points_of_their_service_by_standard_names() {
        let text = "# HELP http_server_request_duration_seconds Took.\n# TYPE http_server_request_duration_seconds histogram\n\
            http_server_request_duration_seconds_sum{service=\"exprsn-a\",http_route=\"/x\"} 0.5\n\
            http_server_request_duration_seconds_count{service=\"exprsn-a\",http_route=\"/x\"} 3\n\
            http_server_request_duration_seconds_bucket{le=\"0.1\",service=\"exprsn-a\",http_route=\"/x\"} 1 # {trace_id=\"0a0b\",span_id=\"0c\"} 0.07 5.0\n\
            http_server_request_duration_seconds_bucket{le=\"+Inf\",service=\"exprsn-a\",http_route=\"/x\"} 3\n\
            # HELP exprsn_jobs Jobs.\n# TYPE exprsn_jobs counter\nexprsn_jobs_total 7\n# EOF\n";
        let process = Process::new(&Config::default());
        let host = Source::new("exprsn-host", "1");
        let (request, points) = super::request(&process, &host, text, (1, 2));
        assert_eq!(points, 2);
        let [of_host, of_service] = &request.resource_metrics[..] else {
            panic!("{request:?}")
        };
        assert_eq!(of_host.scope_metrics[0].metrics[0].name, "exprsn_jobs");
        let metric = &of_service.scope_metrics[0].metrics[0];
        assert_eq!(
            (metric.name.as_str(), metric.unit.as_str()),
            ("http.server.request.duration", "s")
        );
        let Some(metric::Data::Histogram(histogram)) = &metric.data else {
            panic!("{metric:?}")
        };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, &point.bucket_counts[..]), (3, &[1, 2][..]));
        assert_eq!(point.explicit_bounds, [0.1]);
        assert_eq!(point.attributes, [super::text("http.route", "/x")]);
        assert_eq!(point.exemplars[0].trace_id, [0x0a, 0x0b]);
    }
}
