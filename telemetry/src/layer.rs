//! The host's own log on its way to memory and collector: a layer beside the one that writes it to stderr.

use crate::{
    Telemetry,
    export::is_exporter,
    levels::GUEST,
    record::{Attributes, Line, Severity, Source, now_ns},
};
use std::{borrow::Cow, fmt, sync::Arc};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// Records each event of `tracing`, but those that services make, who record theirs themselves.
#[derive(Clone, Debug)]
pub struct Recording(pub Arc<Telemetry>);

impl<S: Subscriber> Layer<S> for Recording {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target() == GUEST || is_exporter() {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let host = self.0.host();
        let source = match fields.service {
            Some(name) if *name != *host.name => Source::new(&name, ""),
            _ => host.clone(),
        };
        self.0.log(Line {
            time_ns: now_ns(),
            severity: severity(*metadata.level()),
            source,
            target: Cow::Borrowed(metadata.target()),
            body: fields.message,
            attributes: fields.attributes,
            trace_id: fields.trace_id,
            span_id: 0,
        });
    }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::TRACE => Severity::Trace,
        Level::DEBUG => Severity::Debug,
        Level::INFO => Severity::Info,
        Level::WARN => Severity::Warn,
        Level::ERROR => Severity::Error,
    }
}

/// An event's fields, those apart that have a place of their own.
#[derive(Default)]
struct Fields {
    message: String,
    service: Option<String>,
    trace_id: u128,
    attributes: Attributes,
}

impl Fields {
    fn text(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = text,
            "service" => self.service = Some(text),
            "trace_id" => self.trace_id = u128::from_str_radix(&text, 16).unwrap_or_default(),
            name => self.attributes.push((name.into(), text.into())),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.attributes.push((field.name().into(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.attributes.push((field.name().into(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.attributes.push((field.name().into(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.attributes.push((field.name().into(), value.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn an_event_becomes_a_line_of_its_service_and_trace() {
        let telemetry = Telemetry::start(&Config::default(), "1").unwrap();
        let subscriber = tracing_subscriber::registry().with(Recording(telemetry.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let trace_id = format!("{:032x}", 7);
            tracing::warn!(
                service = "exprsn-a",
                trace_id,
                count = 3,
                "it {}",
                "happened"
            );
            tracing::info!(target: "guest", "a service's own");
            tracing::info!("the host's");
        });
        let lines = telemetry.recent_logs(None, 0);
        assert_eq!(lines.len(), 2);
        let line = &lines[0].1;
        assert_eq!((line.body.as_str(), line.trace_id), ("it happened", 7));
        assert_eq!(line.severity, Severity::Warn);
        assert_eq!(line.attributes, [("count".into(), 3i64.into())]);
        assert_eq!(telemetry.recent_logs(Some("exprsn-a"), 0).len(), 1);
        assert!(telemetry.recent_logs(None, lines[1].0).is_empty());
    }
}
