//! The `platform` capability: what is running here, for the services that show or manage it.

mod control;

use super::{Boot, Borrower, Capability, queue::Broker};
use crate::{cluster::Cluster, platform::Control, service::Registry, store::StoreState, telemetry::Metrics};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wasmtime::{
    Result,
    component::{Accessor, HasSelf, Linker},
};

wasmtime::component::bindgen!({
    path: "../wit",
    world: "exprsn:platform/imports",
    imports: { default: store | trappable },
});

use exprsn::platform::{metrics, queues, registry, types};

/// Nothing to configure.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// `[grants.platform]`: which of it may be read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grant {
    /// Services and their order of starting.
    pub read: bool,
    /// Metrics of the whole host.
    pub metrics: bool,
    /// Queues of all services.
    pub queues: bool,
    /// Which version of a service runs.
    pub control: bool,
}

/// The capability.
pub struct Platform {
    registry: Arc<Registry>,
    cluster: Option<Arc<Cluster>>,
    metrics: Arc<Metrics>,
    broker: Arc<Broker>,
    control: Arc<Control>,
}

/// What one service version holds.
pub struct Lent {
    grant: Grant,
    registry: Arc<Registry>,
    cluster: Option<Arc<Cluster>>,
    metrics: Arc<Metrics>,
    broker: Arc<Broker>,
    control: Arc<Control>,
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent").field("grant", &self.grant).finish_non_exhaustive()
    }
}

impl Capability for Platform {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(boot: &Boot, _config: Config) -> Result<Self> {
        Ok(Self {
            registry: boot.registry.clone(),
            cluster: boot.cluster.clone(),
            metrics: boot.metrics.clone(),
            broker: boot.broker.clone(),
            control: boot.control.clone(),
        })
    }

    fn link(linker: &mut Linker<StoreState>, _grant: &Grant) -> Result<()> {
        types::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        exprsn::platform::control::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        registry::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        metrics::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        queues::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)
    }

    async fn lend(&self, _borrower: &Borrower<'_>, grant: &Grant) -> Result<Lent> {
        Ok(Lent {
            grant: grant.clone(),
            registry: self.registry.clone(),
            cluster: self.cluster.clone(),
            metrics: self.metrics.clone(),
            broker: self.broker.clone(),
            control: self.control.clone(),
        })
    }
}

impl types::Host for StoreState {}
impl registry::Host for StoreState {}
impl metrics::Host for StoreState {}
impl queues::Host for StoreState {}

fn denied(what: &str) -> types::Error {
    types::Error::AccessDenied(format!("write {what} = true under [grants.platform] in component.toml"))
}

fn held<T>(accessor: &Accessor<T, HasSelf<StoreState>>) -> Arc<crate::store::ServiceContext> {
    accessor.with(|mut access| access.get().service.clone())
}

/// What the grant lends, while it is in force and has what `may` looks for, which is called `what` in the manifest.
fn lent<'a>(
    context: &'a crate::store::ServiceContext,
    what: &str,
    may: impl FnOnce(&Grant) -> bool,
) -> Result<&'a Lent, types::Error> {
    context.check("platform", what).map_err(types::Error::AccessDenied)?;
    let lent = context.lent.platform.as_ref().expect("a grant in force is lent");
    if may(&lent.grant) { Ok(lent) } else { Err(denied(what)) }
}

impl<T: Send + 'static> registry::HostWithStore<T> for HasSelf<StoreState> {
    async fn services(accessor: &Accessor<T, Self>) -> Result<Result<Vec<registry::Service>, types::Error>> {
        let context = held(accessor);
        Ok(lent(&context, "read", |grant| grant.read).map(Lent::services))
    }

    async fn start_order(accessor: &Accessor<T, Self>) -> Result<Result<Vec<Vec<String>>, types::Error>> {
        let context = held(accessor);
        let names = |group: &Vec<crate::name::ServiceName>| group.iter().map(ToString::to_string).collect();
        Ok(lent(&context, "read", |grant| grant.read).map(|lent| lent.registry.start_order().iter().map(names).collect()))
    }
}

impl Lent {
    /// Services of this host, and those that run on others only.
    fn services(&self) -> Vec<registry::Service> {
        let mut services: Vec<_> =
            self.registry.all().iter().map(|service| describe(service)).collect();
        let elsewhere = self.cluster.as_ref().map(|cluster| cluster.directory().elsewhere());
        for (host, one) in elsewhere.into_iter().flatten() {
            match services.iter_mut().find(|known| known.name == one.name) {
                // Where one replica is live the service is.
                Some(known) if known.state != registry::ServiceState::Live && one.state == "live" => {
                    *known = describe_elsewhere(&host, one);
                }
                Some(_) => {}
                None => services.push(describe_elsewhere(&host, one)),
            }
        }
        services
    }
}

fn describe_elsewhere(host: &str, one: crate::cluster::ServiceState) -> registry::Service {
    registry::Service {
        state: match one.state.as_str() {
            "starting" => registry::ServiceState::Starting,
            "live" => registry::ServiceState::Live,
            "unhealthy" => registry::ServiceState::Unhealthy,
            "draining" => registry::ServiceState::Draining,
            "stopped" => registry::ServiceState::Stopped,
            _ => registry::ServiceState::Failed,
        },
        name: one.name,
        version: one.version,
        description: one.description,
        reason: one.reason,
        digest: one.digest,
        host: host.to_owned(),
        port: one.port,
        depends_on: one.depends_on,
        grants: one.grants,
        started_at: one.started_at,
        instances: one.instances,
        invocations: one.invocations,
        failures: one.failures,
    }
}

fn describe(service: &crate::service::Service) -> registry::Service {
    use crate::service::State;
    let (state, reason) = service.state();
    let live = service.live();
    let described = service.described();
    let (manifest, digest) = (&described.manifest, &described.digest);
    let (invocations, failures) = live.as_ref().map_or((0, 0), |version| version.metrics.totals());
    registry::Service {
        name: service.name.to_string(),
        version: manifest.version.clone(),
        description: manifest.description.clone(),
        state: match state {
            State::Starting => registry::ServiceState::Starting,
            State::Live => registry::ServiceState::Live,
            State::Unhealthy => registry::ServiceState::Unhealthy,
            State::Draining => registry::ServiceState::Draining,
            State::Failed => registry::ServiceState::Failed,
            State::Stopped => registry::ServiceState::Stopped,
        },
        reason,
        digest: digest.clone(),
        host: "localhost".to_owned(),
        port: service.port,
        depends_on: manifest.depends_on.iter().map(ToString::to_string).collect(),
        grants: live.as_ref().map(|version| version.grants.names()).unwrap_or_default().into_iter().map(Into::into).collect(),
        started_at: service.started_at_ms,
        instances: live.as_ref().map_or(0, |version| u32::try_from(version.metrics.instances.get()).unwrap_or(0)),
        invocations,
        failures,
    }
}

impl<T: Send + 'static> metrics::HostWithStore<T> for HasSelf<StoreState> {
    async fn exposition(accessor: &Accessor<T, Self>) -> Result<Result<String, types::Error>> {
        let context = held(accessor);
        Ok(lent(&context, "metrics", |grant| grant.metrics).map(|lent| lent.metrics.exposition()))
    }
}

impl<T: Send + 'static> queues::HostWithStore<T> for HasSelf<StoreState> {
    async fn queues(accessor: &Accessor<T, Self>) -> Result<Result<Vec<queues::Queue>, types::Error>> {
        let context = held(accessor);
        let lent = match lent(&context, "queues", |grant| grant.queues) {
            Ok(lent) => lent,
            Err(error) => return Ok(Err(error)),
        };
        let summaries = match lent.broker.queues().await {
            Ok(summaries) => summaries,
            Err(error) => {
                tracing::error!(%error, "queues could not be listed");
                return Ok(Err(types::Error::Unavailable("queues cannot be read now".to_owned())));
            }
        };
        Ok(Ok(summaries
            .into_iter()
            .map(|queue| queues::Queue {
                name: queue.name,
                service: queue.service,
                waiting: queue.counts.waiting,
                delayed: queue.counts.delayed,
                prioritized: queue.counts.prioritized,
                active: queue.counts.active,
                completed: queue.counts.completed,
                failed: queue.counts.failed,
                paused: queue.counts.paused,
            })
            .collect()))
    }
}
