//! Lanes: what the host remembers of the calls of one service to one target, or to a route of it with policies of its own.

use super::{
    announce::{self, Change},
    config::{Rules, Settings, TargetRules},
    metrics::{CallMetrics, LaneMetrics, value},
};
use crate::{clock, name::ServiceName};
use arc_swap::ArcSwap;
use exprsn_policies::{Breaker, Budget, Bulkhead, Shedder, Transition};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Instant,
};

/// Calls of one service to one target or route.
#[derive(Debug)]
pub struct Lane {
    pub route: Arc<str>,
    pub settings: Arc<Settings>,
    pub breaker: Breaker,
    pub bulkhead: Bulkhead,
    pub budget: Budget,
    /// Shared with all who call the target.
    pub shedder: Arc<Shedder>,
    pub metrics: LaneMetrics,
}

/// The lanes of one service's calls to one target.
struct Pair {
    rules: Arc<TargetRules>,
    lanes: Vec<Arc<Lane>>,
}

type ByCaller = HashMap<ServiceName, HashMap<ServiceName, Arc<Pair>>>;

/// All lanes of this host. They are made at the first call and kept: as many as services may call services.
pub struct Lanes {
    rules: Rules,
    /// Read by every call without a lock; replaced as a whole when a pair is new.
    pairs: ArcSwap<ByCaller>,
    targets: Mutex<HashMap<ServiceName, Arc<Shedder>>>,
    metrics: CallMetrics,
    changes: announce::Sender,
}

impl Lanes {
    pub fn new(rules: Rules, metrics: CallMetrics, changes: announce::Sender) -> Self {
        Self {
            rules,
            pairs: ArcSwap::default(),
            targets: Mutex::default(),
            metrics,
            changes,
        }
    }

    /// The lane of a call.
    pub fn of_call(
        &self,
        from: &ServiceName,
        target: &ServiceName,
        method: &str,
        path: &str,
    ) -> Arc<Lane> {
        let of = |pair: &Pair| pair.lanes[pair.rules.lane(method, path)].clone();
        let known = self.pairs.load();
        match known.get(from).and_then(|targets| targets.get(target)) {
            Some(pair) => of(pair),
            None => of(&self.add(from, target)),
        }
    }

    #[cold]
    fn add(&self, from: &ServiceName, target: &ServiceName) -> Arc<Pair> {
        // One at a time, so that no pair is made twice and one of them lost.
        let mut targets = self.targets.lock().expect("no holder of this lock panics");
        let known = self.pairs.load_full();
        if let Some(pair) = known.get(from).and_then(|targets| targets.get(target)) {
            return pair.clone();
        }
        let rules = self.rules.of_target(target);
        let shedder = targets
            .entry(target.clone())
            .or_insert_with(|| Arc::new(rules.lanes[0].1.shedder()));
        let lanes = rules
            .lanes
            .iter()
            .map(|(route, settings)| Arc::new(self.lane((from, target), route, settings, shedder)));
        let pair = Arc::new(Pair {
            lanes: lanes.collect(),
            rules: rules.clone(),
        });
        let mut more = ByCaller::clone(&known);
        more.entry(from.clone())
            .or_default()
            .insert(target.clone(), pair.clone());
        self.pairs.store(Arc::new(more));
        pair
    }

    fn lane(
        &self,
        (from, target): (&ServiceName, &ServiceName),
        route: &Arc<str>,
        settings: &Arc<Settings>,
        shedder: &Arc<Shedder>,
    ) -> Lane {
        let metrics = self.metrics.lane(from, target, route);
        let gauge = metrics.breaker.clone();
        let (from, target, changes) = (from.clone(), target.clone(), self.changes.clone());
        let told = (route.clone(), from, target);
        let listener = move |transition: Transition| {
            gauge.set(value(transition.to));
            let (route, from, target) = told.clone();
            let at_ms = clock::now_ms();
            let change = Change {
                from,
                target,
                route,
                transition,
                at_ms,
            };
            announce::tell(&changes, change);
        };
        Lane {
            route: route.clone(),
            settings: settings.clone(),
            breaker: Breaker::new(settings.breaker(), Instant::now(), listener),
            bulkhead: settings.bulkhead(),
            budget: Budget::new(settings.retry_percent, settings.retry_burst),
            shedder: shedder.clone(),
            metrics,
        }
    }

    /// Every lane with its caller and target, in no order.
    pub fn all(&self) -> Vec<(ServiceName, ServiceName, Arc<Lane>)> {
        let pairs = self.pairs.load();
        let mut all = Vec::new();
        for (from, targets) in pairs.iter() {
            for (target, pair) in targets {
                let lanes = pair.lanes.iter();
                all.extend(lanes.map(|lane| (from.clone(), target.clone(), lane.clone())));
            }
        }
        all
    }
}
