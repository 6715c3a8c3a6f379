//! What other hosts and programs add: passed on to those here who wait for jobs.

use super::{
    backend::{Backend, Result},
    broker::Broker,
};
use crate::telemetry::chain;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::watch;

/// The wait before the backend is asked again after it failed.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// Signals queues as the backend names them, until the broker has gone.
pub(super) async fn run(
    broker: Weak<Broker>,
    backend: Arc<dyn Backend>,
    mut watched: watch::Receiver<Vec<String>>,
) {
    loop {
        let queues = watched.borrow_and_update().clone();
        let woken = tokio::select! {
            woken = backend.wake(queues) => woken,
            changed = watched.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Some(broker) = broker.upgrade() else {
            return;
        };
        let failed = signal(&broker, woken);
        drop(broker);
        if failed {
            tokio::time::sleep(RETRY_WAIT).await;
        }
    }
}

/// Passes the news on; whether there was none to be had.
fn signal(broker: &Broker, woken: Result<Vec<String>>) -> bool {
    match woken {
        Ok(queues) => {
            queues.iter().for_each(|queue| broker.signal(queue));
            false
        }
        Err(error) => {
            tracing::warn!(
                error = chain(&error.into()),
                "cannot hear what other hosts add; trying again"
            );
            true
        }
    }
}
