//! Changes of breakers as events: `platform.breaker.changed`, for whoever subscribes to it.
//!
//! Their source is `platform`, which stands for the host: every event has the name of a service as its source, and none of
//! the platform's services is called so. The caller's name would say that it published what it knows nothing of.

use crate::{
    capability::{events::Event, queue::Broker},
    name::ServiceName,
};
use exprsn_policies::Transition;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::mpsc;

/// The topic.
pub const TOPIC: &str = "platform.breaker.changed";
/// Whom these events come from.
const SOURCE: &str = "platform";
/// Changes that wait to be announced; more at once are in the log and the metrics alone.
const WAITING_MAX: usize = 1_024;

/// A change of the breaker of one caller's calls to a route of one target.
#[derive(Clone, Debug)]
pub struct Change {
    pub from: ServiceName,
    pub target: ServiceName,
    pub route: Arc<str>,
    pub transition: Transition,
    pub at_ms: i64,
}

pub type Sender = mpsc::Sender<Change>;
pub type Receiver = mpsc::Receiver<Change>;

/// What takes changes, and what they come out of.
pub fn channel() -> (Sender, Receiver) {
    mpsc::channel(WAITING_MAX)
}

/// Logs a change and passes it on. Never waits: a call is under way.
pub fn tell(changes: &Sender, change: Change) {
    let Transition {
        from,
        to,
        calls,
        failures,
    } = change.transition;
    tracing::warn!(service = %change.from, target = %change.target, route = %change.route, from = from.as_str(),
        to = to.as_str(), calls, failures, "a circuit breaker changed");
    if changes.try_send(change).is_err() {
        tracing::debug!("the change of a circuit breaker is not announced");
    }
}

/// Publishes changes as they come.
pub async fn run(mut changes: Receiver, broker: Arc<Broker>) {
    while let Some(change) = changes.recv().await {
        if let Err(error) = broker.publish(event(&change)).await {
            tracing::warn!(%error, target = %change.target, "the change of a circuit breaker could not be announced");
        }
    }
}

fn event(change: &Change) -> Event {
    let data = json!({
        "caller": change.from.as_str(),
        "target": change.target.as_str(),
        "route": &*change.route,
        "from": change.transition.from,
        "to": change.transition.to,
        "calls": change.transition.calls,
        "failures": change.transition.failures,
    });
    Event {
        id: uuid::Uuid::now_v7().to_string(),
        source: ServiceName::parse(SOURCE).expect("it is a name"),
        topic: TOPIC.to_owned(),
        subject: Some(change.target.to_string()),
        time: change.at_ms,
        data: data.to_string(),
        trace: None,
    }
}
