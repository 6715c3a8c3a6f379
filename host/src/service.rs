//! Services and their versions: what is configured, what is live, and how the one replaces the other.

use crate::{
    capability::Grants,
    component::ComponentFile,
    manifest::{Manifest, RouteTable},
    name::ServiceName,
    store::{ServiceContext, StoreState},
    telemetry::ServiceMetrics,
    trigger::{event, http, job},
};
use arc_swap::{ArcSwap, ArcSwapOption};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
};
use wasmtime_wasi_http::handler::ProxyPre;

/// A loaded version of a service: compiled, linked, with its pools of instances.
pub struct Version {
    pub context: Arc<ServiceContext>,
    pub manifest: Manifest,
    pub grants: Grants,
    pub routes: RouteTable,
    pub digest: String,
    /// The serial number of the certificate with which it was admitted.
    pub serial: String,
    pub metrics: ServiceMetrics,
    /// None where the component exports no HTTP handler.
    pub(crate) proxy: Option<ProxyPre<StoreState>>,
    pub(crate) worker: Option<job::WorkerPre<StoreState>>,
    pub(crate) subscriber: Option<event::SubscriberPre<StoreState>>,
    pub(crate) engine: wasmtime::Engine,
    pub(crate) mesh: Arc<crate::mesh::Mesh>,
    /// A pool for each core.
    pub(crate) pools: Vec<Arc<http::Pool>>,
}

impl Version {
    /// Lets idle instances go; those at work finish first.
    pub fn retire(&self) {
        for pool in &self.pools {
            pool.close();
        }
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

/// A configured service.
pub struct Service {
    pub name: ServiceName,
    pub manifest: Manifest,
    pub digest: String,
    /// The port that it listens on, offset included.
    pub port: u16,
    /// Milliseconds since the Unix epoch when the host started it.
    pub started_at_ms: i64,
    live: ArcSwapOption<Version>,
    state: Mutex<(State, Option<String>)>,
}

impl Service {
    /// A service that is not live yet.
    pub fn new(file: &ComponentFile, port: u16, started_at_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            name: file.manifest.name.clone(),
            manifest: file.manifest.clone(),
            digest: file.digest.clone(),
            port,
            started_at_ms,
            live: ArcSwapOption::empty(),
            state: Mutex::new((State::Starting, None)),
        })
    }

    /// The version that answers now.
    pub fn live(&self) -> Option<Arc<Version>> {
        self.live.load_full()
    }

    /// Makes `version` the one that answers; the former one serves what it has begun and goes.
    pub fn publish(&self, version: Arc<Version>) {
        if let Some(former) = self.live.swap(Some(version)) {
            former.retire();
        }
        self.set_state(State::Live, None);
    }

    /// Takes the service off: new requests are answered 503.
    pub fn withdraw(&self, state: State) {
        if let Some(former) = self.live.swap(None) {
            former.retire();
        }
        self.set_state(state, None);
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
    }
}

/// Every configured service, by name and by port.
#[derive(Default)]
pub struct Registry {
    services: ArcSwap<BTreeMap<ServiceName, Arc<Service>>>,
    start_order: OnceLock<Vec<Vec<ServiceName>>>,
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

    /// Groups of names in the order of starting; empty before the platform has computed it.
    pub fn start_order(&self) -> &[Vec<ServiceName>] {
        self.start_order
            .get()
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Fixes the order of starting, once.
    pub fn set_start_order(&self, order: Vec<Vec<ServiceName>>) {
        let _ = self.start_order.set(order);
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
