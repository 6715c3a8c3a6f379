//! The ways in which a guest's exports are called.

pub mod dispatch;
pub mod event;
pub mod http;
pub mod job;
pub mod turn;

use crate::{
    capability::queue::Failure,
    invocation::{Invocation, Trigger},
    mesh,
    panics::{Panicked, caught},
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
    let _alive = version.metrics.instance();
    let turns = version.pools[mesh::current_core()].turns();
    let called = caught(tokio::time::timeout_at(
        invocation.deadline.into(),
        turns.run(call(&mut store)),
    ))
    .await;
    let result = match called {
        Ok(Ok(Ok(answer))) => answer,
        Ok(Ok(Err(error))) => Err(fault(version, &store, &error)),
        Ok(Err(_)) => Err(fault(version, &store, &Late.into())),
        Err(panic) => Err(fault(version, &store, &panic.into())),
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
fn fault(version: &Version, store: &Store<StoreState>, error: &wasmtime::Error) -> Failure {
    let state = store.data();
    let limit = store::limit_of(state, error);
    let panicked = error.is::<Panicked>();
    if panicked {
        version.metrics.panics.inc();
    }
    let trace_id = format!("{:032x}", state.invocation.trace.trace_id);
    tracing::error!(service = %version.context.name, trigger = state.invocation.trigger.as_str(), trace_id, limit,
        error = chain(error), "an invocation failed");
    let reason = match limit {
        Some(limit) => format!("exceeded its limit {limit}"),
        None if panicked => "the host failed".to_owned(),
        None => chain(error).lines().next().unwrap_or("failed").to_owned(),
    };
    Failure::retry(reason)
}

/// The time for a job or an event has passed.
#[derive(Debug)]
struct Late;

impl std::fmt::Display for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it took longer than its time limit")
    }
}

impl std::error::Error for Late {}

#[cfg(test)]
mod tests;
