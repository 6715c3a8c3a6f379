//! Telemetry of the Exprsn host: traces, metrics and logs, kept in memory for a while and sent to a collector by OTLP.
//!
//! **Invariant:** whoever records waits for nobody. A record goes into a ring and a queue, both bounded; where there is no
//! room, it is dropped and counted. Everything else (encoding, sending, trying again) is the exporter's, on a thread of its
//! own. A slow or absent collector costs nothing but spans.

mod config;
mod export;
mod exposition;
mod layer;
mod levels;
mod metrics;
mod otlp;
mod queue;
mod record;
mod resource;
mod ring;
mod sampler;
mod transport;

#[cfg(test)]
mod tests;

pub use config::{Compression, Config, Protocol, Signal};
pub use export::{Counts, Gather};
pub use exposition::to_prometheus;
pub use layer::Recording;
pub use levels::{GUEST, LevelControl, filtering};
pub use record::{Attributes, Ids, Kind, Line, Severity, Source, Span, Status, Value, now_ns};
pub use ring::Numbered;
pub use sampler::Sampler;

use export::{Exporter, Shared};
use ring::Ring;
use std::{borrow::Cow, sync::Arc, time::Duration};
use tokio::sync::broadcast;

/// Lines that a follower of the log may be behind before it misses some.
const FOLLOWED_MAX: usize = 1_024;

/// Where everything is recorded.
pub struct Telemetry {
    host: Arc<Source>,
    sampler: Sampler,
    sample_ratio: f64,
    spans: Ring<Span>,
    lines: Ring<Line>,
    followers: broadcast::Sender<Numbered<Line>>,
    shared: Arc<Shared>,
    sends_traces: bool,
    sends_logs: bool,
    /// None where nothing is sent.
    exporter: Option<Exporter>,
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Telemetry {
    /// Begins to record and, where there is an endpoint, to send. `version` is the host's.
    pub fn start(config: &Config, version: &str) -> Result<Arc<Self>, String> {
        if !(0.0..=1.0).contains(&config.sample_ratio) {
            return Err("[telemetry] sample_ratio must be between 0 and 1".to_owned());
        }
        let host = Source::new(&config.service_name, version);
        let shared = Arc::new(Shared::new(config, host.clone()));
        let exporter = match config.endpoint.as_str() {
            "" => None,
            _ => Some(Exporter::start(config, shared.clone())?),
        };
        Ok(Arc::new(Self {
            host,
            sampler: config.sampler,
            sample_ratio: config.sample_ratio,
            spans: Ring::new(config.recent_spans_max),
            lines: Ring::new(config.recent_logs_max),
            followers: broadcast::Sender::new(FOLLOWED_MAX),
            shared,
            sends_traces: config.sends(Signal::Traces),
            sends_logs: config.sends(Signal::Logs),
            exporter,
        }))
    }

    /// The host itself as a source.
    pub fn host(&self) -> &Arc<Source> {
        &self.host
    }

    /// Whether a trace is recorded whose caller, if there is one, said `parent`.
    pub fn samples(&self, parent: Option<bool>, trace_id: u128) -> bool {
        self.sampler.decide(parent, trace_id, self.sample_ratio)
    }

    /// Begins a span, which is recorded when it ends, however that happens.
    pub fn begin(
        self: &Arc<Self>,
        source: &Arc<Source>,
        ids: Ids,
        kind: Kind,
        name: impl Into<Cow<'static, str>>,
    ) -> Active {
        let wanted = ids.sampled && (self.sends_traces || self.spans.keeps());
        Active(wanted.then(|| {
            let span = Span::new(source.clone(), ids, kind, name);
            (self.clone(), Arc::new(span))
        }))
    }

    /// Records a span that has ended.
    fn record(&self, span: Arc<Span>) {
        if self.sends_traces {
            self.shared.spans.offer(span.clone());
        }
        self.spans.push(span);
    }

    /// Records a line of the log.
    pub fn log(&self, line: Line) {
        let line = Arc::new(line);
        if self.sends_logs {
            self.shared.lines.offer(line.clone());
        }
        let number = self.lines.push(line.clone());
        if self.followers.receiver_count() > 0 {
            // Whoever followed has just gone.
            let _ = self.followers.send((number, line));
        }
    }

    /// What is known yet of a trace, in the order in which its spans ended.
    pub fn recent_trace(&self, trace_id: u128) -> Vec<Arc<Span>> {
        let spans = self.spans.select(0, |span| span.trace_id == trace_id);
        spans.into_iter().map(|(_, span)| span).collect()
    }

    /// Spans that ended after the one with number `after`.
    pub fn recent_spans(&self, after: u64) -> Vec<Numbered<Span>> {
        self.spans.select(after, |_| true)
    }

    /// Lines of one service, or of all, after the one with number `after`.
    pub fn recent_logs(&self, service: Option<&str>, after: u64) -> Vec<Numbered<Line>> {
        self.lines.select(after, |line| {
            service.is_none_or(|service| *line.source.name == *service)
        })
    }

    /// Lines from now on. Whoever is too slow misses some, and is told how many.
    pub fn follow_logs(&self) -> broadcast::Receiver<Numbered<Line>> {
        self.followers.subscribe()
    }

    /// Says where metrics come from. The first word counts.
    pub fn set_metrics(&self, gather: Gather) {
        // Only tests make several registries in one process.
        let _ = self.shared.gather.set(gather);
    }

    /// What became of all records of one signal.
    pub fn counts(&self, signal: Signal) -> Counts {
        self.shared.counts(signal)
    }

    /// Records that were not kept in memory because it was being read.
    pub fn unkept(&self) -> u64 {
        self.spans.dropped() + self.lines.dropped()
    }

    /// Sends what waits, for at most `max`, and stops sending.
    pub fn stop(&self, max: Duration) {
        if let Some(exporter) = &self.exporter {
            exporter.stop(max);
        }
    }
}

/// A span under way, or none where its trace is not recorded. Dropped before its [`Active::end`] it was cancelled.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub struct Active(Option<(Arc<Telemetry>, Arc<Span>)>);

impl Active {
    /// No span.
    pub const NONE: Self = Self(None);

    /// The span, while nobody else has it; none where the trace is not recorded.
    fn span(&mut self) -> Option<&mut Span> {
        Arc::get_mut(&mut self.0.as_mut()?.1)
    }

    /// Whether it is recorded: what costs to find out need not be found out otherwise.
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Adds an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = self.span() {
            span.attributes.push((Cow::Borrowed(key), value.into()));
        }
    }

    /// Gives it another name.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(span) = self.span() {
            span.name = name.into();
        }
    }

    /// Says that it failed: `error.type`, and a description for whoever reads it.
    pub fn fail(&mut self, kind: impl Into<Value>, description: impl Into<Cow<'static, str>>) {
        if let Some(span) = self.span() {
            span.attributes
                .push((Cow::Borrowed("error.type"), kind.into()));
            span.status = Status::Error(description.into());
        }
    }

    /// Moves its beginning back, to when it was begun elsewhere. Nanoseconds since the Unix epoch.
    pub fn began_at(&mut self, start_ns: u64) {
        if let Some(span) = self.span() {
            span.move_start(start_ns);
        }
    }

    /// Ends and records it.
    pub fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if let Some((telemetry, mut span)) = self.0.take() {
            if let Some(span) = Arc::get_mut(&mut span) {
                span.end();
            }
            telemetry.record(span);
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.fail("cancelled", "");
            self.finish();
        }
    }
}
