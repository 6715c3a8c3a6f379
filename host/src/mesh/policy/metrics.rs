//! What operators see of calls between services: how they end, what was repeated, turned away or answered from memory.

use crate::{name::ServiceName, telemetry::Metrics};
use exprsn_policies::State;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lane {
    from: String,
    target: String,
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pair {
    from: String,
    target: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    from: String,
    target: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    from: String,
    target: String,
    reason: &'static str,
}

/// The metrics of all calls.
#[derive(Clone, Debug, Default)]
pub struct CallMetrics {
    breakers: Family<Lane, Gauge>,
    retries: Family<Pair, Counter>,
    rejected: Family<Rejected, Counter>,
    fallbacks: Family<Pair, Counter>,
    calls: Family<Ended, Counter>,
}

/// Why a call was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    CircuitOpen,
    BulkheadFull,
    Shed,
}

impl Reason {
    /// The name in metrics, and the kind of the problem.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CircuitOpen => "circuit-open",
            Self::BulkheadFull => "bulkhead-full",
            Self::Shed => "shed",
        }
    }
}

/// How a call ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Success,
    /// The caller's fault (4xx), or a word of the operator.
    Refused,
    /// The target's.
    Failure,
    /// It was not made.
    Rejected,
    /// The target failed or was not asked, and an earlier answer was given again.
    Fallback,
}

/// The counters of one lane, found once.
#[derive(Debug)]
pub struct LaneMetrics {
    pub breaker: Gauge,
    pub retries: Counter,
    pub fallbacks: Counter,
    rejected: [Counter; 3],
    ends: [Counter; 5],
}

impl LaneMetrics {
    /// Counts a call that was not made.
    pub fn reject(&self, reason: Reason) {
        self.rejected[reason as usize].inc();
    }

    /// Counts a call.
    pub fn end(&self, end: End) {
        self.ends[end as usize].inc();
    }
}

/// The value of `mesh_breaker_state`.
pub fn value(state: State) -> i64 {
    match state {
        State::Closed => 0,
        State::HalfOpen => 1,
        State::Open => 2,
    }
}

impl CallMetrics {
    /// The counters of calls of `from` to a route of `target`.
    pub fn lane(&self, from: &ServiceName, target: &ServiceName, route: &str) -> LaneMetrics {
        let (from, target) = (from.to_string(), target.to_string());
        let pair = Pair {
            from: from.clone(),
            target: target.clone(),
        };
        let rejected = [Reason::CircuitOpen, Reason::BulkheadFull, Reason::Shed].map(|reason| {
            let labels = Rejected {
                from: from.clone(),
                target: target.clone(),
                reason: reason.as_str(),
            };
            self.rejected.get_or_create(&labels).clone()
        });
        let ends = ["success", "refused", "failure", "rejected", "fallback"].map(|outcome| {
            let labels = Ended {
                from: from.clone(),
                target: target.clone(),
                outcome,
            };
            self.calls.get_or_create(&labels).clone()
        });
        let lane = Lane {
            from,
            target,
            route: route.to_owned(),
        };
        LaneMetrics {
            breaker: self.breakers.get_or_create(&lane).clone(),
            retries: self.retries.get_or_create(&pair).clone(),
            fallbacks: self.fallbacks.get_or_create(&pair).clone(),
            rejected,
            ends,
        }
    }

    /// Has them among the host's metrics.
    pub fn register(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            registry.register(
                "mesh_breaker_state",
                "What a caller's breaker does with calls to a target: 0 closed, 1 half-open, 2 open",
                self.breakers.clone(),
            );
            registry.register(
                "mesh_retries",
                "Attempts of calls between services beyond the first",
                self.retries.clone(),
            );
            registry.register(
                "mesh_rejected",
                "Calls between services that were not made, by reason",
                self.rejected.clone(),
            );
            registry.register(
                "mesh_fallbacks",
                "Calls between services that were answered from memory because the target failed",
                self.fallbacks.clone(),
            );
            registry.register(
                "mesh_calls",
                "Calls between services, by how they ended",
                self.calls.clone(),
            );
        });
    }
}
