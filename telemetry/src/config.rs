//! `[telemetry]` of platform.toml, and OpenTelemetry's standard variables of the environment, which go before it.

use crate::sampler::Sampler;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[telemetry]`. Not printable, because headers may hold a password.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The collector, such as `http://localhost:4318`; empty sends nothing. `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: String,
    /// `http/protobuf` or `grpc`. `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub protocol: Protocol,
    /// Sent along, as `name=value,name=value`. `OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: String,
    /// `none` or `gzip`. `OTEL_EXPORTER_OTLP_COMPRESSION`.
    pub compression: Compression,
    /// A PEM file of certificates that the collector is trusted by, beside the public ones. `OTEL_EXPORTER_OTLP_CERTIFICATE`.
    pub ca_file: String,
    /// What is sent.
    pub signals: Vec<Signal>,
    /// The host's `service.name`. `OTEL_SERVICE_NAME`.
    pub service_name: String,
    /// `service.namespace` of the host and its services.
    pub service_namespace: String,
    /// Which traces are recorded. `OTEL_TRACES_SAMPLER`.
    pub sampler: Sampler,
    /// The share of traces that begin here and are recorded. `OTEL_TRACES_SAMPLER_ARG`.
    pub sample_ratio: f64,
    /// How long the collector may take to answer. `OTEL_EXPORTER_OTLP_TIMEOUT`.
    pub timeout_ms_max: u64,
    /// How long one batch is tried again; then it is lost.
    pub retry_ms_max: u64,
    /// How long a record waits for its batch to fill.
    pub batch_ms: u64,
    /// Records of one batch.
    pub batch_max: usize,
    /// Spans, and again lines, that wait to be sent; further ones are dropped and counted.
    pub queue_max: usize,
    /// How often metrics are sent. `OTEL_METRIC_EXPORT_INTERVAL`.
    pub metrics_ms: u64,
    /// Spans kept in memory to be looked at.
    pub recent_spans_max: usize,
    /// Lines of the log kept in memory to be looked at.
    pub recent_logs_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            protocol: Protocol::Http,
            headers: String::new(),
            compression: Compression::None,
            ca_file: String::new(),
            signals: vec![Signal::Traces, Signal::Metrics, Signal::Logs],
            service_name: "exprsn-host".to_owned(),
            service_namespace: "exprsn".to_owned(),
            sampler: Sampler::ParentRatio,
            sample_ratio: 1.0,
            timeout_ms_max: 10_000,
            retry_ms_max: 60_000,
            batch_ms: 1_000,
            batch_max: 512,
            queue_max: 8_192,
            metrics_ms: 60_000,
            recent_spans_max: 10_000,
            recent_logs_max: 10_000,
        }
    }
}

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Protocol {
    #[serde(rename = "http/protobuf")]
    Http,
    #[serde(rename = "grpc")]
    Grpc,
}

/// How requests are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Gzip,
}

/// What OpenTelemetry tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// Its name in configuration, paths and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// Looks a variable of the environment up.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// The configuration with what the process's environment says.
    pub fn with_environment(self) -> Result<Self, String> {
        self.overlaid(&|name| std::env::var(name).ok())
    }

    /// The configuration with what `lookup` says. An empty variable says nothing, as the specification has it.
    fn overlaid(mut self, lookup: Lookup<'_>) -> Result<Self, String> {
        let said = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let exporter = |suffix: &str| said(&format!("OTEL_EXPORTER_OTLP_{suffix}"));
        set(&mut self.endpoint, exporter("ENDPOINT"));
        set(&mut self.headers, exporter("HEADERS"));
        set(&mut self.ca_file, exporter("CERTIFICATE"));
        set(&mut self.service_name, said("OTEL_SERVICE_NAME"));
        if let Some(protocol) = exporter("PROTOCOL") {
            self.protocol = match protocol.as_str() {
                "http/protobuf" => Protocol::Http,
                "grpc" => Protocol::Grpc,
                other => {
                    return Err(unknown(
                        "OTEL_EXPORTER_OTLP_PROTOCOL",
                        other,
                        "http/protobuf, grpc",
                    ));
                }
            };
        }
        if let Some(compression) = exporter("COMPRESSION") {
            self.compression = match compression.as_str() {
                "none" => Compression::None,
                "gzip" => Compression::Gzip,
                other => {
                    return Err(unknown(
                        "OTEL_EXPORTER_OTLP_COMPRESSION",
                        other,
                        "none, gzip",
                    ));
                }
            };
        }
        if let Some(sampler) = said("OTEL_TRACES_SAMPLER") {
            let known = "always_on, always_off, traceidratio, and each with parentbased_ before it";
            self.sampler = Sampler::parse(&sampler)
                .ok_or_else(|| unknown("OTEL_TRACES_SAMPLER", &sampler, known))?;
        }
        number(&mut self.sample_ratio, "OTEL_TRACES_SAMPLER_ARG", &said)?;
        number(
            &mut self.timeout_ms_max,
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            &said,
        )?;
        number(&mut self.metrics_ms, "OTEL_METRIC_EXPORT_INTERVAL", &said)?;
        if said("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            self.endpoint.clear();
        }
        Ok(self)
    }

    /// Headers by name, their values decoded.
    pub(crate) fn header_pairs(&self) -> Result<Vec<(String, String)>, String> {
        pairs(&self.headers)
            .ok_or_else(|| "[telemetry] headers must be like `name=value,name=value`".to_owned())
    }

    pub(crate) fn sends(&self, signal: Signal) -> bool {
        !self.endpoint.is_empty() && self.signals.contains(&signal)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms_max)
    }
}

/// Attributes that `OTEL_RESOURCE_ATTRIBUTES` adds to every resource.
pub(crate) fn resource_attributes() -> Vec<(String, String)> {
    let said = std::env::var("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    pairs(&said).unwrap_or_default()
}

fn set(field: &mut String, said: Option<String>) {
    if let Some(value) = said {
        *field = value;
    }
}

fn number<N: std::str::FromStr>(
    field: &mut N,
    name: &str,
    said: &dyn Fn(&str) -> Option<String>,
) -> Result<(), String> {
    if let Some(value) = said(name) {
        let parsed = value.trim().parse();
        *field = parsed.map_err(|_| format!("{name} is `{value}`, which is no such number"))?;
    }
    Ok(())
}

fn unknown(name: &str, value: &str, known: &str) -> String {
    format!("{name} is `{value}`; there are: {known}")
}

/// `name=value,name=value`, percent-decoded; none where it is not of that form.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let entries = text.split(',').map(str::trim).filter(|one| !one.is_empty());
    entries
        .map(|entry| {
            let (name, value) = entry.split_once('=')?;
            Some((name.trim().to_owned(), decoded(value.trim())?))
        })
        .collect()
}

/// Undoes percent-encoding; none where a `%` is not followed by two digits, or the result is no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = after;
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaid(variables: &[(&str, &str)]) -> Result<Config, String> {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::default().overlaid(&lookup)
    }

    #[test]
    fn standard_variables_go_before_the_file() {
        let config = overlaid(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%2Cb, x=y"),
            ("OTEL_SERVICE_NAME", "mine"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_METRIC_EXPORT_INTERVAL", ""),
        ]);
        let config = config.unwrap();
        assert_eq!(config.endpoint, "http://collector:4317");
        assert_eq!(config.protocol, Protocol::Grpc);
        assert_eq!(config.service_name, "mine");
        assert!((config.sample_ratio - 0.25).abs() < f64::EPSILON);
        assert_eq!(config.metrics_ms, 60_000);
        let headers = config.header_pairs().unwrap();
        let expected = [("api-key", "a,b"), ("x", "y")].map(|(n, v)| (n.into(), v.into()));
        assert_eq!(headers, expected);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "half"),
        ] {
            let error = overlaid(&[(name, value)]).err().expect(value);
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        assert_eq!(pairs("no pair"), None);
        assert_eq!(decoded("%4"), None);
    }

    #[test]
    fn it_can_be_switched_off_from_outside() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
            ("OTEL_SDK_DISABLED", "true"),
        ];
        assert!(!overlaid(&variables).unwrap().sends(Signal::Traces));
    }
}
