//! Metrics of the service; Prometheus shows them under the service's name.

use crate::bindings::exprsn::telemetry::metrics;

/// Adds to the counter `exprsn_service_<name>_total`.
pub fn count(name: &str, by: u64, attributes: &[(&str, &str)]) {
    metrics::counter_add(name, by, &owned(attributes));
}

/// Records one measurement in the unit that the name ends with: `delivery_seconds`.
pub fn observe(name: &str, value: f64, attributes: &[(&str, &str)]) {
    metrics::histogram_record(name, value, &owned(attributes));
}

fn owned(attributes: &[(&str, &str)]) -> Vec<(String, String)> {
    attributes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
