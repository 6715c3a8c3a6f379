//! What happened lately, from memory: for commands and consoles.

use super::telemetry;
use exprsn_telemetry::{Line, Numbered, Span};
use std::sync::Arc;
use tokio::sync::broadcast;

/// What is known yet of a trace, in the order in which its spans ended.
pub fn trace(trace_id: u128) -> Vec<Arc<Span>> {
    telemetry().recent_trace(trace_id)
}

/// Spans that ended after the one with number `after`; 0 is all that are kept.
pub fn spans(after: u64) -> Vec<Numbered<Span>> {
    telemetry().recent_spans(after)
}

/// Lines of the log of one service, by its full name, or of all, after the one with number `after`.
pub fn logs(service: Option<&str>, after: u64) -> Vec<Numbered<Line>> {
    telemetry().recent_logs(service, after)
}

/// Lines from now on, of all services.
pub fn follow() -> broadcast::Receiver<Numbered<Line>> {
    telemetry().follow_logs()
}
