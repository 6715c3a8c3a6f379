//! The ways in which a guest's exports are called.

pub mod dispatch;
pub mod event;
pub mod http;
pub mod job;

use crate::{
    capability::queue::Failure,
    invocation::{Invocation, Trigger},
    service::Version,
    store::{self, StoreState},
    telemetry::{Outcome, chain},
};
use std::{sync::Arc, time::Instant};
use wasmtime::Store;

/// Runs `call` with a fresh store until the invocation's deadline, and counts how it ended.
async fn run_fresh<R>(
    version: &Arc<Version>,
    trigger: Trigger,
    invocation: Arc<Invocation>,
    call: impl AsyncFnOnce(&mut Store<StoreState>) -> wasmtime::Result<Result<R, Failure>>,
) -> Result<R, Failure> {
    let started = Instant::now();
    let mut store = store::new(version, invocation.clone());
    version.metrics.instances.inc();
    let called = tokio::time::timeout_at(invocation.deadline.into(), call(&mut store)).await;
    version.metrics.instances.dec();
    let result = match called {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(fault(version, &store, &chain(&error))),
        Err(_) => Err(fault(version, &store, "it took longer than its time limit")),
    };
    let outcome = if result.is_ok() {
        Outcome::Success
    } else {
        Outcome::Failure
    };
    version.ended(trigger, outcome, started.elapsed());
    result
}

/// Logs a fault of the guest or the host. It may pass, so another attempt is made.
fn fault(version: &Version, store: &Store<StoreState>, error: &str) -> Failure {
    let state = store.data();
    let (limit, trace_id) = (
        state.budget.exceeded,
        format!("{:032x}", state.invocation.trace.trace_id),
    );
    tracing::error!(service = %version.context.name, trigger = state.invocation.trigger.as_str(), trace_id, limit, error,
        "an invocation failed");
    let reason = match limit {
        Some(limit) => format!("exceeded its limit {limit}"),
        None => error.lines().next().unwrap_or("failed").to_owned(),
    };
    Failure::retry(reason)
}
