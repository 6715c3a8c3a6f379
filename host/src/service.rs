//! Services and their versions: what is configured, what is live, and how the one replaces the other.

mod record;

use crate::{
    capability::{Grants, queue::EVENTS_PREFIX},
    component::ComponentFile,
    invocation::Trigger,
    manifest::{Manifest, RouteTable},
    name::ServiceName,
    store::{ServiceContext, StoreState},
    telemetry::{Outcome, ServiceMetrics},
    trigger::{event, http, job},
    withheld::Withheld,
};
use arc_swap::{ArcSwap, ArcSwapOption};
use prometheus_client::metrics::gauge::Gauge;
use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;
use wasmtime_wasi_http::handler::ProxyPre;

pub use record::{Policy, Record, Sample, verdict};

/// A loaded version of a service: compiled, linked, with its pools of instances.
pub struct Version {
    pub context: Arc<ServiceContext>,
    pub manifest: Manifest,
    pub grants: Grants,
    pub routes: RouteTable,
    pub digest: String,
    /// The schemas that it works with, by the number of their last migration.
    pub schemas: RangeInclusive<u32>,
    /// The serial number of the certificate with which it was admitted.
    pub serial: String,
    pub metrics: ServiceMetrics,
    /// How this version alone has done, for comparing it with another.
    pub record: Record,
    /// None where the component exports no HTTP handler.
    pub(crate) proxy: Option<ProxyPre<StoreState>>,
    pub(crate) worker: Option<job::WorkerPre>,
    pub(crate) subscriber: Option<event::SubscriberPre>,
    pub(crate) engine: wasmtime::Engine,
    pub(crate) mesh: Arc<crate::mesh::Mesh>,
    /// A pool for each core.
    pub(crate) pools: Vec<Arc<http::Pool>>,
    pub(crate) retirement: Retirement,
    /// Counts versions in memory, so that a leak shows.
    pub(crate) _loaded: Loaded,
}

impl Version {
    /// Lets idle instances go; those at work finish first, and streams end at `deadline`.
    pub fn retire(&self, deadline: Instant) {
        for pool in &self.pools {
            pool.close();
        }
        self.retirement.set(Some(deadline));
    }

    /// Takes a version back into service that was about to go.
    pub fn recall(&self) {
        self.retirement.set(None);
        for pool in &self.pools {
            pool.open();
        }
    }

    /// Counts the end of an invocation.
    pub fn ended(&self, trigger: Trigger, outcome: Outcome, took: Duration) {
        self.metrics.record(trigger, outcome, took);
        self.record.count(trigger, outcome, took);
    }
}

/// When the last streams of a version must end.
#[derive(Debug)]
pub(crate) struct Retirement(watch::Sender<Option<Instant>>);

impl Retirement {
    pub fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    fn set(&self, deadline: Option<Instant>) {
        self.0.send_replace(deadline);
    }

    /// Resolves when the version has retired and its time is over.
    pub async fn over(&self) {
        let mut deadline = self.0.subscribe();
        loop {
            let until = *deadline.borrow_and_update();
            let changed = match until {
                None => deadline.changed().await,
                Some(until) => tokio::select! {
                    () = tokio::time::sleep_until(until.into()) => return,
                    changed = deadline.changed() => changed,
                },
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

/// One version in memory, counted while it lives.
#[derive(Debug)]
pub(crate) struct Loaded(Gauge);

impl Loaded {
    pub fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Where a service stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Live,
    Unhealthy,
    Draining,
    Failed,
    Stopped,
}

impl State {
    /// The name on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Live => "live",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// What a service is known as while no version of it is live: its newest manifest.
#[derive(Clone, Debug)]
pub struct Described {
    pub manifest: Manifest,
    pub digest: String,
}

/// The versions that answer now.
pub struct Serving {
    pub current: Arc<Version>,
    pub canary: Option<Canary>,
}

/// A version on trial with a share of the invocations.
pub struct Canary {
    pub version: Arc<Version>,
    /// 1 to 99.
    pub percent: u8,
    turns: AtomicU64,
}

impl Canary {
    /// Whether the next invocation is the canary's: `percent` of a hundred, spread evenly.
    fn takes_next(&self) -> bool {
        let percent = u64::from(self.percent);
        let turn = self.turns.fetch_add(1, Relaxed) % 100;
        (turn + 1) * percent / 100 > turn * percent / 100
    }
}

/// A configured or installed service.
pub struct Service {
    pub name: ServiceName,
    /// The port that it listens on, offset included.
    pub port: u16,
    /// Milliseconds since the Unix epoch when the host started it.
    pub started_at_ms: i64,
    described: ArcSwap<Described>,
    serving: ArcSwapOption<Serving>,
    state: Mutex<(State, Option<String>)>,
    /// Told when it may have become able, or unable, to take jobs.
    withheld: Arc<Withheld>,
    /// Held while versions change: one change at a time.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

impl Service {
    /// A service that is not live yet.
    pub fn new(
        file: &ComponentFile,
        port: u16,
        started_at_ms: i64,
        withheld: Arc<Withheld>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: file.manifest.name.clone(),
            port,
            started_at_ms,
            described: ArcSwap::from_pointee(Described {
                manifest: file.manifest.clone(),
                digest: file.digest.clone(),
            }),
            serving: ArcSwapOption::empty(),
            state: Mutex::new((State::Starting, None)),
            withheld,
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// The manifest and digest of the current version, or of the one that was to become it.
    pub fn described(&self) -> Arc<Described> {
        self.described.load_full()
    }

    /// The version that answers now, a canary aside.
    pub fn live(&self) -> Option<Arc<Version>> {
        Some(self.serving.load().as_ref()?.current.clone())
    }

    /// The version on trial and its share in percent.
    pub fn canary(&self) -> Option<(Arc<Version>, u8)> {
        let serving = self.serving.load();
        let canary = serving.as_ref()?.canary.as_ref()?;
        Some((canary.version.clone(), canary.percent))
    }

    /// The version for the next invocation.
    pub fn pick(&self) -> Option<Arc<Version>> {
        let serving = self.serving.load();
        let serving = serving.as_ref()?;
        let version = match &serving.canary {
            Some(canary) if canary.takes_next() => &canary.version,
            _ => &serving.current,
        };
        Some(version.clone())
    }

    /// Makes `version` the one that answers and ends a trial. Answers the former one, which has not been retired.
    pub fn publish(&self, version: Arc<Version>) -> Option<Arc<Version>> {
        self.described.store(Arc::new(Described {
            manifest: version.manifest.clone(),
            digest: version.digest.clone(),
        }));
        let next = Serving {
            current: version,
            canary: None,
        };
        let former = self.serving.swap(Some(Arc::new(next)));
        self.set_state(State::Live, None);
        Some(former?.current.clone())
    }

    /// Gives `percent` of the invocations to `version`, or with none ends the trial. False if nothing is live.
    pub fn set_canary(&self, canary: Option<(Arc<Version>, u8)>) -> bool {
        let Some(current) = self.live() else {
            return false;
        };
        self.serving.store(Some(Arc::new(Serving {
            current,
            canary: canary.map(|(version, percent)| Canary {
                version,
                percent,
                turns: AtomicU64::new(0),
            }),
        })));
        true
    }

    /// Takes the service off: new requests are answered 503, those begun have until `deadline`.
    pub fn withdraw(&self, state: State, reason: Option<String>, deadline: Instant) {
        let former = self.serving.swap(None);
        self.set_state(state, reason);
        if let Some(former) = former {
            former.current.retire(deadline);
            if let Some(canary) = &former.canary {
                canary.version.retire(deadline);
            }
        }
    }

    /// Whether jobs of `queue` (or deliveries of events) may be begun now.
    pub fn may_take(&self, queue: &str) -> bool {
        let Some(version) = self.live() else {
            return false;
        };
        let check = |kind, scope: &str| version.context.check(kind, scope).is_ok();
        if queue.starts_with(EVENTS_PREFIX) {
            let mut topics = version.manifest.subscriptions.iter();
            return check("events", "") && topics.all(|wanted| check("events", &wanted.topic));
        }
        check("queue", queue)
    }

    /// Changes whenever [`Service::may_take`] may answer something else.
    pub fn gate(&self) -> watch::Receiver<()> {
        self.withheld.changes()
    }

    /// Where the service stands, and why it is not live.
    pub fn state(&self) -> (State, Option<String>) {
        self.state
            .lock()
            .expect("no holder of this lock panics")
            .clone()
    }

    /// Says where the service stands.
    pub fn set_state(&self, state: State, reason: Option<String>) {
        *self.state.lock().expect("no holder of this lock panics") = (state, reason);
        self.withheld.announce();
    }
}

/// Every configured service, by name and by port.
#[derive(Default)]
pub struct Registry {
    services: ArcSwap<BTreeMap<ServiceName, Arc<Service>>>,
    start_order: RwLock<Vec<Vec<ServiceName>>>,
}

impl Registry {
    /// Adds a service; one of the same name is replaced.
    pub fn insert(&self, service: Arc<Service>) {
        self.services.rcu(|services| {
            let mut services = BTreeMap::clone(services);
            services.insert(service.name.clone(), service.clone());
            services
        });
    }

    /// Adds a service unless there is one of its name. Says whether it did.
    pub fn insert_new(&self, service: Arc<Service>) -> bool {
        let before = self.services.rcu(|services| {
            let mut services = BTreeMap::clone(services);
            services
                .entry(service.name.clone())
                .or_insert_with(|| service.clone());
            services
        });
        !before.contains_key(&service.name)
    }

    /// The service called `name`.
    pub fn get(&self, name: &str) -> Option<Arc<Service>> {
        let services = self.services.load();
        services
            .iter()
            .find(|(known, _)| known.as_str() == name)
            .map(|(_, service)| service.clone())
    }

    /// The service that listens on `port`.
    pub fn by_port(&self, port: u16) -> Option<Arc<Service>> {
        self.services
            .load()
            .values()
            .find(|service| service.port == port)
            .cloned()
    }

    /// All services, sorted by name.
    pub fn all(&self) -> Vec<Arc<Service>> {
        self.services.load().values().cloned().collect()
    }

    /// Takes a service out; none if there is none of that name.
    pub fn remove(&self, name: &ServiceName) -> Option<Arc<Service>> {
        let before = self.services.rcu(|services| {
            let mut services = BTreeMap::clone(services);
            services.remove(name);
            services
        });
        before.get(name).cloned()
    }

    /// Groups of names in the order of starting; empty before the platform has computed it.
    pub fn start_order(&self) -> Vec<Vec<ServiceName>> {
        let order = self.start_order.read();
        order.expect("no holder of this lock panics").clone()
    }

    /// Says in which order services start.
    pub fn set_start_order(&self, order: Vec<Vec<ServiceName>>) {
        let mut known = self.start_order.write();
        **known.as_mut().expect("no holder of this lock panics") = order;
    }
}

/// Groups services so that each comes after all that it depends on.
///
/// What does not run here is left out of account: another host may run it. Fails with the cycle spelled out (`a → b → a`).
pub fn start_order(
    dependencies: &BTreeMap<ServiceName, Vec<ServiceName>>,
) -> Result<Vec<Vec<ServiceName>>, String> {
    let mut waiting: BTreeMap<_, _> = dependencies.clone();
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let ready: Vec<_> = waiting
            .iter()
            .filter(|(_, wanted)| wanted.iter().all(|wanted| !waiting.contains_key(wanted)))
            .map(|(name, _)| name.clone())
            .collect();
        if ready.is_empty() {
            return Err(format!(
                "services depend on each other in a circle: {}",
                cycle(&waiting)
            ));
        }
        waiting.retain(|name, _| !ready.contains(name));
        order.push(ready);
    }
    Ok(order)
}

fn cycle(waiting: &BTreeMap<ServiceName, Vec<ServiceName>>) -> String {
    let mut path: Vec<&ServiceName> = waiting.keys().take(1).collect();
    loop {
        let last = path[path.len() - 1];
        let Some(next) = waiting[last]
            .iter()
            .find(|wanted| waiting.contains_key(*wanted))
        else {
            return last.to_string();
        };
        if let Some(start) = path.iter().position(|seen| *seen == next) {
            path.push(next);
            return path[start..]
                .iter()
                .map(|name| name.as_str())
                .collect::<Vec<_>>()
                .join(" → ");
        }
        path.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> BTreeMap<ServiceName, Vec<ServiceName>> {
        let name = |text: &&str| ServiceName::parse(text).unwrap();
        edges
            .iter()
            .map(|(from, to)| (name(from), to.iter().map(name).collect()))
            .collect()
    }

    #[test]
    fn dependencies_start_first() {
        let order = start_order(&graph(&[
            ("a", &["b"]),
            ("b", &["c"]),
            ("c", &[]),
            ("d", &["c"]),
        ]))
        .unwrap();
        assert_eq!(format!("{order:?}"), "[[c], [b, d], [a]]");
    }

    #[test]
    fn a_cycle_is_named() {
        let error =
            start_order(&graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])])).unwrap_err();
        assert!(error.ends_with("b → c → b"), "{error}");
        assert!(start_order(&graph(&[("a", &["elsewhere"])])).is_ok());
    }
}
