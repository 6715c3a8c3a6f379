//! What surrounds a service's versions: its port, its queues and subscriptions, its health.

use super::Platform;
use crate::{
    capability::queue,
    listener,
    name::ServiceName,
    service::{Service, Version},
    trigger::dispatch::Dispatch,
};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};
use wasmtime::{Result, bail, error::Context as _, format_err};

/// What of a running service has to be ended with it.
pub(super) struct Attended {
    /// The queues that it works on, as its version declares them.
    specs: Vec<queue::QueueSpec>,
    consumer: queue::Consumer,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
}

impl Attended {
    /// Accepts nothing more, and waits for what is under way until `deadline`.
    pub async fn drain(mut self, deadline: Instant) {
        self.stop.send_replace(true);
        let connections = async { while self.listeners.join_next().await.is_some() {} };
        let connections = tokio::time::timeout_at(deadline.into(), connections);
        let (closed, ()) = tokio::join!(connections, self.consumer.drain(deadline));
        if closed.is_err() {
            tracing::warn!("drain_ms_max has passed; connections still open are closed");
        }
    }
}

impl Platform {
    /// Asks a version for `/health` before anybody else can ask it for anything. The error tells what it answered.
    pub(super) async fn check_health(&self, version: &Arc<Version>) -> Result<()> {
        if version.proxy.is_none() {
            return Ok(());
        }
        let name = &version.context.name;
        let limit = Duration::from_millis(self.config.platform.start_ms_max);
        let asked = version.clone();
        let asked = self
            .cores
            .spawn(async move { listener::internal_get(&asked, "/health").await });
        let (status, body) = tokio::time::timeout(limit, asked)
            .await
            .map_err(|_| format_err!("{name} did not answer /health within start_ms_max"))?
            .context("the health check panicked")?;
        if status.is_success() {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
        bail!("{name} is not healthy: /health answered {status}: {body}")
    }

    /// Lets jobs, events and connections come to a service that has just become live.
    pub(super) async fn attend(
        &self,
        service: &Arc<Service>,
        version: &Version,
        address: SocketAddr,
    ) -> Result<()> {
        let wanted = &version.manifest.subscriptions;
        self.broker.subscribe(&service.name, wanted).await?;
        let specs = queue::QueueSpec::of(&version.manifest);
        let consumer = self.consume(service, specs.clone()).await?;
        let stop = watch::Sender::new(false);
        let listeners = self.listen(service, address, &stop).await?;
        let attended = Attended {
            specs,
            consumer,
            stop,
            listeners,
        };
        self.attended().insert(service.name.clone(), attended);
        Ok(())
    }

    /// Follows a version's queues and subscriptions, where they differ from those of the version before it.
    pub(super) async fn follow(&self, service: &Arc<Service>, version: &Version) -> Result<()> {
        let wanted = &version.manifest.subscriptions;
        self.broker.subscribe(&service.name, wanted).await?;
        let specs = queue::QueueSpec::of(&version.manifest);
        let unchanged = |attended: &Attended| attended.specs == specs;
        if self.attended().get(&service.name).is_none_or(unchanged) {
            return Ok(());
        }
        let mut consumer = self.consume(service, specs.clone()).await?;
        if let Some(attended) = self.attended().get_mut(&service.name) {
            std::mem::swap(&mut attended.consumer, &mut consumer);
            attended.specs = specs;
        }
        let deadline = self.drain_deadline();
        tokio::spawn(async move { consumer.drain(deadline).await });
        Ok(())
    }

    async fn consume(
        &self,
        service: &Arc<Service>,
        specs: Vec<queue::QueueSpec>,
    ) -> Result<queue::Consumer> {
        let handler = Arc::new(Dispatch {
            service: service.clone(),
            cores: self.cores.clone(),
            trust_domain: self.config.platform.trust_domain.clone(),
        });
        Ok(self.broker.consume(&service.name, specs, handler).await?)
    }

    /// Opens the service's port on every core.
    async fn listen(
        &self,
        service: &Arc<Service>,
        address: SocketAddr,
        stop: &watch::Sender<bool>,
    ) -> Result<JoinSet<()>> {
        let settings = listener::Settings {
            connections_max: self.config.platform.connections_max,
            header_read_max: Duration::from_millis(self.config.platform.header_read_ms_max),
            tls: self.tls.clone(),
        };
        let mut listeners = JoinSet::new();
        for core in 0..self.cores.count() {
            let opened = self
                .cores
                .spawn_on(core, async move { listener::open(address) });
            let listener = opened.await.context("opening a listener panicked")??;
            let (service, mesh) = (service.clone(), self.mesh.clone());
            let accepting =
                listener::accept(listener, service, mesh, settings.clone(), stop.subscribe());
            let accepting = self.cores.spawn_on(core, accepting);
            listeners.spawn(async move {
                let _ = accepting.await;
            });
        }
        Ok(listeners)
    }

    /// What has to be ended with a service; none if it is not attended to.
    pub(super) fn dismiss(&self, name: &ServiceName) -> Option<Attended> {
        self.attended().remove(name)
    }

    /// Until when what is under way may go on from now.
    pub(super) fn drain_deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.config.platform.drain_ms_max)
    }
}
