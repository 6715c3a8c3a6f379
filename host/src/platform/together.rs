//! The platform on several hosts: what this one says of itself, and how its services follow what others have changed.
//!
//! **Invariant:** what a service is to run as is one fact for all hosts; each brings its own service there by the same
//! means as an operator would, so that no request fails on the way.

use super::{
    Platform,
    swap::{Change, ChangeError, Changed, changed},
};
use crate::{
    cluster::{Cluster, HostState, Kind, Refused, ServiceState},
    deployments::{Action, Deployment, Target},
    name::ServiceName,
    service::{Service, State},
    telemetry::chain,
};
use exprsn_backends::shared::Fact;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use wasmtime::{Result, error::Context as _, format_err};

impl Platform {
    /// What this host says of itself.
    pub(super) fn state(&self) -> HostState {
        let services: Vec<ServiceState> = self
            .registry
            .all()
            .iter()
            .map(|one| self.state_of(one))
            .collect();
        HostState {
            load: services.iter().map(|one| one.instances).sum(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at_ms,
            services,
            ..HostState::default()
        }
    }

    fn state_of(&self, service: &Service) -> ServiceState {
        let (state, reason) = service.state();
        let (live, described) = (service.live(), service.described());
        let totals = live.as_ref().map(|version| version.metrics.totals());
        let (invocations, failures) = totals.unwrap_or_default();
        let refused = self.refused.lock().expect("no holder of this lock panics");
        ServiceState {
            name: service.name.to_string(),
            port: service.port,
            version: described.manifest.version.clone(),
            description: described.manifest.description.clone(),
            digest: described.digest.clone(),
            configured: self.configured_digest(&service.name),
            trial: service
                .canary()
                .map(|(trial, percent)| (trial.digest.clone(), percent)),
            refused: refused.get(&service.name).cloned(),
            state: state.as_str().to_owned(),
            reason,
            depends_on: described
                .manifest
                .depends_on
                .iter()
                .map(ToString::to_string)
                .collect(),
            grants: live.as_ref().map_or_else(Vec::new, |version| {
                version
                    .grants
                    .names()
                    .into_iter()
                    .map(str::to_owned)
                    .collect()
            }),
            started_at: service.started_at_ms,
            instances: live.as_ref().map_or(0, |version| {
                u32::try_from(version.metrics.instances.get()).unwrap_or(0)
            }),
            invocations,
            failures,
        }
    }

    /// Follows what other hosts change, until the platform is dropped.
    pub(super) async fn hear(
        platform: std::sync::Weak<Self>,
        mut facts: mpsc::UnboundedReceiver<Fact>,
    ) {
        while let Some(fact) = facts.recv().await {
            let Some(platform) = platform.upgrade() else {
                return;
            };
            match Kind::parse(&fact.kind) {
                Some(Kind::Deployment) => platform.hear_deployment(&fact).await,
                Some(Kind::History) => {
                    if let Err(error) = platform.deployments.hear_history(&fact).await {
                        tracing::error!(
                            error = chain(&error),
                            "an entry of a service's history was not kept"
                        );
                    }
                }
                _ => {}
            }
        }
    }

    async fn hear_deployment(self: &Arc<Self>, fact: &Fact) {
        let heard = async {
            let name = ServiceName::parse(&fact.key).map_err(|error| format_err!("{error}"))?;
            let mut target = Target::of(fact)?;
            if let Some(target) = &mut target {
                // A restart compares with this host's own file.
                target.configured = self.configured_digest(&name);
            }
            self.deployments.keep(&name, target.as_ref()).await?;
            Ok::<_, wasmtime::Error>((name, target))
        };
        match heard.await {
            Ok((name, Some(target))) => {
                let platform = self.clone();
                self.background()
                    .spawn(async move { platform.converge(&name, target).await });
            }
            Ok((_, None)) => {}
            Err(error) => tracing::error!(
                service = fact.key,
                error = chain(&error),
                "a change was not understood"
            ),
        }
    }

    /// Brings this host's version of a service to what all hosts are to run.
    async fn converge(self: Arc<Self>, name: &ServiceName, target: Target) {
        let Some(service) = self.registry.get(name.as_str()) else {
            return;
        };
        let _turn = service.changing.lock().await;
        // A later change may have come while this one waited for its turn.
        let newest = self.deployments.target(name).await.ok().flatten();
        if newest.is_some_and(|newest| newest.id != target.id) {
            return;
        }
        let change = Change {
            by: target.by.clone(),
            percent: target.trial.as_ref().map(|(_, percent)| *percent),
            restart: target.restart,
        };
        let outcome = self.step(&service, &target, &change).await;
        let mut refused = self.refused.lock().expect("no holder of this lock panics");
        match outcome {
            Ok(()) => drop(refused.remove(name)),
            Err(error) => {
                tracing::error!(service = %name, digest = target.digest, reason = %error, "this host cannot follow the others");
                let reason = error.to_string();
                refused.insert(
                    name.clone(),
                    Refused {
                        deployment: target.id,
                        reason,
                    },
                );
            }
        }
    }

    async fn step(
        self: &Arc<Self>,
        service: &Arc<Service>,
        target: &Target,
        change: &Change,
    ) -> Result<(), ChangeError> {
        let live = service.live().map(|live| live.digest.clone());
        let trial = service.canary().map(|(trial, _)| trial);
        if let Some((digest, _)) = &target.trial {
            if trial.is_some_and(|trial| trial.digest == *digest) {
                return Ok(());
            }
            return self
                .follow_version(service, digest, change, Action::Canary)
                .await;
        }
        if let Some(trial) = trial {
            let promoted = trial.digest == target.digest;
            service.set_canary(None);
            if promoted {
                return self
                    .follow_version(service, &target.digest, change, Action::Promote)
                    .await;
            }
            trial.retire(self.drain_deadline());
        }
        match live.as_deref() == Some(target.digest.as_str()) {
            true => Ok(()),
            false => {
                self.follow_version(service, &target.digest, change, Action::Swap)
                    .await
            }
        }
    }

    /// Whether a change is to be told to other hosts, and can be.
    pub(super) fn others(&self) -> Option<&Arc<Cluster>> {
        self.mesh.cluster.as_ref()
    }

    /// Keeps the configured components for hosts that return to them, or change them from afar.
    pub(super) async fn offer_files(&self) {
        let Some(cluster) = self.others() else { return };
        for (name, (_, digest)) in &self.configured {
            let (library, wanted) = (self.loader.library().clone(), digest.clone());
            let read = tokio::task::spawn_blocking(move || library.get(&wanted)).await;
            let offered = match read {
                Ok(Ok(file)) => cluster.offer(digest, &file.bytes).await,
                Ok(Err(error)) => Err(error),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = offered {
                tracing::warn!(service = %name, error = chain(&error), "a component was not kept for other hosts");
            }
        }
    }

    /// The component with this digest, from the memory that hosts share where this one has no file of it.
    pub(super) async fn fetch(&self, digest: &str) -> Result<()> {
        fetch(self.loader.library(), self.others(), digest).await
    }

    /// Changes a service that runs on other hosts only, and waits until it does there.
    pub(super) async fn change_elsewhere(
        self: &Arc<Self>,
        name: &ServiceName,
        digest: &str,
        change: &Change,
        action: Action,
    ) -> Result<Changed, ChangeError> {
        let begun = Instant::now();
        let (file, _) = self.admitted(name, digest).await?;
        let there = self.runs_elsewhere(name);
        let configured = there.as_ref().and_then(|one| one.configured.clone());
        let former = there.map(|one| one.digest);
        if former.as_deref() == Some(digest) && matches!(action, Action::Swap | Action::Rollback) {
            return Err(ChangeError::Conflict(format!(
                "{name} runs this component already (sha256:{digest})"
            )));
        }
        let trial = change.percent.filter(|_| action == Action::Canary);
        let target = match (trial, &former) {
            (Some(percent), Some(live)) => Target::trial(live, digest, percent, change),
            _ => Target::live(digest, configured, change),
        };
        let outcome = if trial.is_some() { "trial" } else { "live" };
        let done = changed(
            (name, &file.manifest, digest),
            former.clone(),
            (action, begun),
            outcome,
        );
        let entry = Deployment::of(&done, change, None);
        let told = self
            .deployments
            .record(name, entry, Some(target.clone()))
            .await;
        told.map_err(ChangeError::Fault)?;
        match self.everywhere(name, &target).await {
            Ok(()) => Ok(Changed {
                took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                ..done
            }),
            Err(reason) => {
                self.take_back(name, former.as_deref(), &reason).await;
                Err(ChangeError::Refused(format_err!("{reason}")))
            }
        }
    }

    /// Returns all hosts to what ran before a change that one of them could not follow.
    pub(super) async fn take_back(&self, name: &ServiceName, former: Option<&str>, reason: &str) {
        let Some(former) = former else { return };
        let change = Change {
            by: "host".to_owned(),
            percent: None,
            restart: false,
        };
        tracing::error!(service = %name, to = former, reason, "rolled back on all hosts");
        let target = Target::live(former, self.configured_digest(name), &change);
        let entry = Deployment::returned(former, &change, reason);
        if let Err(error) = self
            .deployments
            .record(name, entry, Some(target.clone()))
            .await
        {
            tracing::error!(error = chain(&error), "a rollback could not be recorded");
        }
        // This host follows as the others do.
        if let Some(platform) = self.myself() {
            platform.converge(name, target).await;
        }
    }

    /// What another host says of a service that this one does not run.
    pub(super) fn runs_elsewhere(&self, name: &ServiceName) -> Option<ServiceState> {
        if self.registry.get(name.as_str()).is_some() {
            return None;
        }
        let elsewhere = self.others()?.directory().elsewhere();
        let mut found = elsewhere.into_iter().map(|(_, one)| one);
        found.find(|one| one.name == name.as_str())
    }

    /// Waits until every other host that runs the service has followed. The error says which one has not, and why.
    pub(super) async fn everywhere(
        &self,
        name: &ServiceName,
        target: &Target,
    ) -> Result<(), String> {
        let Some(cluster) = self.others() else {
            return Ok(());
        };
        let limit = Duration::from_millis(self.config.platform.start_ms_max);
        // Whoever has come since the last round trip counts too.
        cluster.beat().await;
        let mut beats = cluster.beats();
        let deadline = Instant::now() + limit;
        loop {
            let behind = behind(cluster, name, target)?;
            let Some(behind) = behind else { return Ok(()) };
            let beat = tokio::time::timeout_at(deadline.into(), beats.changed()).await;
            if !matches!(beat, Ok(Ok(()))) {
                return Err(format!(
                    "host {behind} has not followed within start_ms_max; `exprsn host list` shows what it runs"
                ));
            }
        }
    }
}

/// A host that has not followed yet; the error is that of one which cannot.
fn behind(
    cluster: &Cluster,
    name: &ServiceName,
    target: &Target,
) -> Result<Option<String>, String> {
    let wanted_trial = target.trial.as_ref().map(|(digest, _)| digest);
    for (host, one) in cluster.directory().elsewhere() {
        if one.name != name.as_str() || matches!(one.state.as_str(), "draining" | "stopped") {
            continue;
        }
        if let Some(refused) = one
            .refused
            .filter(|refused| refused.deployment == target.id)
        {
            return Err(format!("host {host} cannot run it: {}", refused.reason));
        }
        let trial = one.trial.as_ref().map(|(digest, _)| digest);
        if one.digest != target.digest || trial != wanted_trial || one.state != State::Live.as_str()
        {
            return Ok(Some(host));
        }
    }
    Ok(None)
}

/// Takes a component from the memory that hosts share into the library, where it is not there.
pub(super) async fn fetch(
    library: &Arc<crate::library::Library>,
    cluster: Option<&Arc<Cluster>>,
    digest: &str,
) -> Result<()> {
    let (Some(cluster), false) = (cluster, library.lists(digest)) else {
        return Ok(());
    };
    let Some(bytes) = cluster.shared().component(digest).await? else {
        return Ok(());
    };
    let (library, wanted) = (library.clone(), digest.to_owned());
    let taken = tokio::task::spawn_blocking(move || library.put(bytes)).await;
    let taken = taken.context("taking a component in")??;
    wasmtime::ensure!(
        taken.digest == wanted,
        "the memory that hosts share has other bytes for sha256:{wanted}"
    );
    Ok(())
}
