//! From records to OTLP's messages.

use crate::{
    record::{Attributes, Kind, Line, Severity, Source, Span, Status, Value},
    resource::Process,
};
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    trace::v1::{ResourceSpans, ScopeSpans, Span as SpanMessage, Status as StatusMessage},
};
use std::sync::Arc;

/// The trace flag "sampled": only what is recorded is sent.
const SAMPLED: u32 = 1;

/// A request with these spans, those of one source together.
pub(crate) fn traces(process: &Process, spans: &[Arc<Span>]) -> ExportTraceServiceRequest {
    let groups = by_source(spans, |span| &span.source);
    let resource_spans = groups.into_iter().map(|(source, spans)| ResourceSpans {
        resource: Some(process.resource(source)),
        scope_spans: vec![ScopeSpans {
            scope: Some(scope()),
            spans: spans.into_iter().map(span_message).collect(),
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    });
    ExportTraceServiceRequest {
        resource_spans: resource_spans.collect(),
    }
}

/// A request with these lines, those of one source together.
pub(crate) fn logs(process: &Process, lines: &[Arc<Line>]) -> ExportLogsServiceRequest {
    let groups = by_source(lines, |line| &line.source);
    let resource_logs = groups.into_iter().map(|(source, lines)| ResourceLogs {
        resource: Some(process.resource(source)),
        scope_logs: vec![ScopeLogs {
            scope: Some(scope()),
            log_records: lines.into_iter().map(log_record).collect(),
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    });
    ExportLogsServiceRequest {
        resource_logs: resource_logs.collect(),
    }
}

/// Groups records by whom they are about, in the order of first appearance. There are few sources.
fn by_source<T>(
    records: &[Arc<T>],
    source: impl Fn(&T) -> &Arc<Source>,
) -> Vec<(&Source, Vec<&T>)> {
    let mut groups: Vec<(&Source, Vec<&T>)> = Vec::new();
    for record in records {
        let of = &**source(record);
        match groups.iter_mut().find(|(known, _)| *known == of) {
            Some((_, group)) => group.push(record),
            None => groups.push((of, vec![record])),
        }
    }
    groups
}

/// What made the records.
pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "exprsn".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn span_message(span: &Span) -> SpanMessage {
    use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
    let kind = match span.kind {
        Kind::Internal => SpanKind::Internal,
        Kind::Server => SpanKind::Server,
        Kind::Client => SpanKind::Client,
        Kind::Producer => SpanKind::Producer,
        Kind::Consumer => SpanKind::Consumer,
    };
    let status = match &span.status {
        Status::Unset => StatusMessage::default(),
        Status::Error(message) => StatusMessage {
            message: message.clone().into_owned(),
            code: StatusCode::Error as i32,
        },
    };
    SpanMessage {
        trace_id: span.trace_id.to_be_bytes().to_vec(),
        span_id: span.span_id.to_be_bytes().to_vec(),
        parent_span_id: span_id(span.parent_id),
        flags: SAMPLED,
        name: span.name.clone().into_owned(),
        kind: kind as i32,
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        attributes: attributes(&span.attributes),
        status: Some(status),
        ..SpanMessage::default()
    }
}

fn log_record(line: &Line) -> LogRecord {
    let (number, name) = match line.severity {
        Severity::Trace => (1, "TRACE"),
        Severity::Debug => (5, "DEBUG"),
        Severity::Info => (9, "INFO"),
        Severity::Warn => (13, "WARN"),
        Severity::Error => (17, "ERROR"),
    };
    let mut attributes = attributes(&line.attributes);
    attributes.push(text("log.target", &line.target));
    let trace_id = match line.trace_id {
        0 => Vec::new(),
        id => id.to_be_bytes().to_vec(),
    };
    LogRecord {
        time_unix_nano: line.time_ns,
        observed_time_unix_nano: line.time_ns,
        severity_number: number,
        severity_text: name.to_owned(),
        body: Some(string(&line.body)),
        attributes,
        trace_id,
        span_id: span_id(line.span_id),
        ..LogRecord::default()
    }
}

/// OTLP's bytes of a span's id: none for none.
fn span_id(id: u64) -> Vec<u8> {
    match id {
        0 => Vec::new(),
        id => id.to_be_bytes().to_vec(),
    }
}

fn attributes(attributes: &Attributes) -> Vec<KeyValue> {
    let message = |value: &Value| match value {
        Value::Text(text) => any_value::Value::StringValue(text.clone().into_owned()),
        Value::Shared(text) => any_value::Value::StringValue(text.to_string()),
        Value::Integer(number) => any_value::Value::IntValue(*number),
        Value::Number(number) => any_value::Value::DoubleValue(*number),
        Value::Truth(truth) => any_value::Value::BoolValue(*truth),
    };
    let pair = |(key, value): &(_, Value)| {
        let key: &std::borrow::Cow<'static, str> = key;
        KeyValue {
            key: key.clone().into_owned(),
            value: Some(AnyValue {
                value: Some(message(value)),
            }),
            ..KeyValue::default()
        }
    };
    attributes.iter().map(pair).collect()
}

fn string(text: &str) -> AnyValue {
    AnyValue {
        value: Some(any_value::Value::StringValue(text.to_owned())),
    }
}

/// An attribute that is a text.
pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(string(value)),
        ..KeyValue::default()
    }
}
