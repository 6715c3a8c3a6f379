//! Who is there: the hosts with a lease, what runs on each, and which of them a call goes to.

use super::{Config, HostState, Peer, ServiceState, identity::Identity};
use crate::name::ServiceName;
use arc_swap::ArcSwap;
use exprsn_backends::shared::Lease;
use std::{collections::BTreeMap, sync::Arc};

/// The other hosts, and this one as they see it.
pub struct Directory {
    own: String,
    config: Config,
    identity: Arc<Identity>,
    known: ArcSwap<Known>,
}

#[derive(Default)]
struct Known {
    /// By name; this host is not among them.
    peers: BTreeMap<String, Arc<Peer>>,
    /// Replicas of each service on other hosts, by the service's name.
    by_service: BTreeMap<String, Vec<Arc<Peer>>>,
    by_port: BTreeMap<u16, String>,
    /// Every host that has a lease, this one included.
    hosts: Vec<(String, String, Arc<HostState>)>,
}

impl Directory {
    pub(super) fn new(config: &Config, own: &str, identity: Arc<Identity>) -> Self {
        Self {
            own: own.to_owned(),
            config: config.clone(),
            identity,
            known: ArcSwap::default(),
        }
    }

    /// Takes in who has a lease now.
    pub(super) fn update(&self, leases: &[Lease]) {
        let before = self.known.load();
        let mut known = Known::default();
        for lease in leases {
            let state = Arc::new(HostState::parse(&lease.state));
            known
                .hosts
                .push((lease.host.clone(), lease.address.clone(), state.clone()));
            if lease.host == self.own {
                continue;
            }
            let peer = before
                .peers
                .get(&lease.host)
                .filter(|peer| peer.address == lease.address)
                .cloned();
            let peer = peer.unwrap_or_else(|| {
                Arc::new(Peer::new(
                    &lease.host,
                    &lease.address,
                    &self.config,
                    self.identity.clone(),
                ))
            });
            for service in state.services.iter().filter(|one| one.state == "live") {
                known
                    .by_service
                    .entry(service.name.clone())
                    .or_default()
                    .push(peer.clone());
                known.by_port.insert(service.port, service.name.clone());
            }
            peer.hear(&state);
            known.peers.insert(lease.host.clone(), peer);
        }
        self.known.store(Arc::new(known));
    }

    /// Whether another host has `service` live.
    pub fn has(&self, service: &ServiceName) -> bool {
        self.known.load().by_service.contains_key(service.as_str())
    }

    /// The service that other hosts have under this name.
    pub fn find(&self, name: &str) -> Option<ServiceName> {
        let known = self.known.load();
        let (name, _) = known.by_service.get_key_value(name)?;
        ServiceName::parse(name).ok()
    }

    /// The service that listens on this port of other hosts.
    pub fn by_port(&self, port: u16) -> Option<ServiceName> {
        let known = self.known.load();
        ServiceName::parse(known.by_port.get(&port)?).ok()
    }

    /// Hosts to try for a call of `service`, the best first: those that answer, by what is under way there. Hosts that
    /// failed lately come last, so that a call fails only if all do.
    pub fn candidates(&self, service: &ServiceName) -> Vec<Arc<Peer>> {
        let known = self.known.load();
        let Some(peers) = known.by_service.get(service.as_str()) else {
            return Vec::new();
        };
        let mut peers = peers.clone();
        peers.sort_by_cached_key(|peer| peer.rank());
        peers
    }

    /// Every host that has a lease: its name, its address and what it says of itself.
    pub fn hosts(&self) -> Vec<(String, String, Arc<HostState>)> {
        self.known.load().hosts.clone()
    }

    /// What other hosts say of services, one entry for each host that runs it.
    pub fn elsewhere(&self) -> Vec<(String, ServiceState)> {
        let known = self.known.load();
        let others = known.hosts.iter().filter(|(name, ..)| *name != self.own);
        others
            .flat_map(|(name, _, state)| {
                state
                    .services
                    .iter()
                    .map(move |one| (name.clone(), one.clone()))
            })
            .collect()
    }
}
