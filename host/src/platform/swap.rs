//! Changing a service's version while it serves: swap, canary, promotion, rollback, installation, removal.
//!
//! Blue and green: the new version is loaded and asked for its health beside the old one; then a pointer moves. What
//! the old version has begun it finishes. No request fails and no job is lost, whatever becomes of the new version.
//!
//! **Invariant:** one change of a service at a time, and each is on record with its outcome.
//! **Invariant:** what runs was admitted: the certificate is asked for at every change.

use super::{Platform, watch::Watch};
use crate::{
    ca::ComponentCertificate,
    clock,
    component::ComponentFile,
    deployments::{Action, Deployment, Target},
    listener,
    manifest::Manifest,
    name::ServiceName,
    service::{Service, State, Version},
    telemetry::chain,
};
use serde::Serialize;
use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use wasmtime::{Result, format_err};

/// How often a service that is taken off is looked at until it has come to rest.
const REST_TICK: Duration = Duration::from_millis(5);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Change {
    /// Who asks: `operator:local`, `user:<id>`, or `host`.
    pub by: String,
    /// The share of invocations of a canary, 1 to 99; none moves all at once.
    pub percent: Option<u8>,
    /// Takes the old version off before the new one is loaded: for migrations that the old one cannot bear.
    pub restart: bool,
}

/// What came of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    pub service: String,
    pub action: &'static str,
    /// `live`, `trial` or `removed`.
    pub outcome: &'static str,
    pub version: String,
    pub digest: String,
    /// The digest that ran before.
    pub former: Option<String>,
    /// Whether compiled code was in the cache.
    pub cached: bool,
    /// Milliseconds from asking to being live.
    pub took_ms: u64,
}

/// Why nothing was changed. The old version serves on.
#[derive(Debug)]
pub enum ChangeError {
    /// There is no such service or no former version.
    NotFound(String),
    /// The present state does not allow it.
    Conflict(String),
    /// The component cannot take the place: not admitted, not compatible, or not healthy.
    Refused(wasmtime::Error),
    /// The host's own fault.
    Fault(wasmtime::Error),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(text) | Self::Conflict(text) => f.write_str(text),
            Self::Refused(error) | Self::Fault(error) => f.write_str(&chain(error)),
        }
    }
}

impl std::error::Error for ChangeError {}

type Outcome = Result<Changed, ChangeError>;

/// A version that is ready to serve.
struct Ready {
    version: Arc<Version>,
    cached: bool,
}

impl Platform {
    /// Gives a service another version, or starts a service that does not run yet.
    pub async fn swap(
        self: &Arc<Self>,
        name: &ServiceName,
        digest: &str,
        change: &Change,
    ) -> Outcome {
        let action = match change.percent {
            Some(_) => Action::Canary,
            None => Action::Swap,
        };
        match self.registry.get(name.as_str()) {
            Some(service) => self.change(&service, digest, change, action).await,
            None if self.runs_elsewhere(name).is_some() => {
                self.change_elsewhere(name, digest, change, action).await
            }
            None => self.install(name, digest, change).await,
        }
    }

    /// Returns to the version that was live before the current one.
    pub async fn rollback(self: &Arc<Self>, name: &ServiceName, change: &Change) -> Outcome {
        let before = async |current: &str| {
            let before = self.deployments.before(name, current).await;
            let before = before.map_err(|error| ChangeError::Fault(error.into()))?;
            before.ok_or_else(|| {
                ChangeError::NotFound(format!("{name} has had no other version to return to"))
            })
        };
        if let Some(there) = self.runs_elsewhere(name) {
            let before = before(&there.digest).await?;
            return self
                .change_elsewhere(name, &before, change, Action::Rollback)
                .await;
        }
        let service = self.known(name)?;
        let before = before(&service.described().digest.clone()).await?;
        self.change(&service, &before, change, Action::Rollback)
            .await
    }

    /// Changes a service here, then waits until the other hosts that run it have followed; if one cannot, all return.
    async fn change(
        self: &Arc<Self>,
        service: &Arc<Service>,
        digest: &str,
        change: &Change,
        action: Action,
    ) -> Outcome {
        let changed = {
            let _turn = service.changing.lock().await;
            self.replace(service, digest, change, action).await?
        };
        let target = self.deployments.target(&service.name).await;
        let target = target.map_err(|error| ChangeError::Fault(error.into()))?;
        let Some(target) = target.filter(|_| self.others().is_some()) else {
            return Ok(changed);
        };
        match self.everywhere(&service.name, &target).await {
            Ok(()) => Ok(changed),
            Err(reason) => {
                self.take_back(&service.name, changed.former.as_deref(), &reason)
                    .await;
                Err(ChangeError::Refused(format_err!("{reason}")))
            }
        }
    }

    /// The same for a version that another host has made the service's.
    pub(super) async fn follow_version(
        self: &Arc<Self>,
        service: &Arc<Service>,
        digest: &str,
        change: &Change,
        action: Action,
    ) -> Result<(), ChangeError> {
        let followed = self
            .try_replace(
                service,
                digest,
                change,
                (action, Instant::now()),
                Told::ByOthers,
            )
            .await;
        followed.map(drop)
    }

    /// Gives a canary everything.
    pub async fn promote(self: &Arc<Self>, name: &ServiceName, change: &Change) -> Outcome {
        let begun = Instant::now();
        if let Some(there) = self.runs_elsewhere(name) {
            let (trial, _) = there.trial.ok_or_else(|| no_trial(name))?;
            return self
                .change_elsewhere(name, &trial, change, Action::Promote)
                .await;
        }
        let service = self.known(name)?;
        let _turn = service.changing.lock().await;
        let (version, _) = service.canary().ok_or_else(|| no_trial(name))?;
        let ready = Ready {
            version,
            cached: true,
        };
        self.go_live(
            &service,
            ready,
            change,
            (Action::Promote, begun),
            Told::ToOthers,
        )
        .await
    }

    /// Ends a canary; the current version has everything again.
    pub async fn abort(self: &Arc<Self>, name: &ServiceName, change: &Change) -> Outcome {
        let begun = Instant::now();
        if let Some(there) = self.runs_elsewhere(name) {
            there.trial.ok_or_else(|| no_trial(name))?;
            return self
                .change_elsewhere(name, &there.digest, change, Action::Abort)
                .await;
        }
        let service = self.known(name)?;
        let _turn = service.changing.lock().await;
        let (trial, _) = service.canary().ok_or_else(|| no_trial(name))?;
        service.set_canary(None);
        trial.retire(self.drain_deadline());
        let live = service.live().ok_or_else(|| no_trial(name))?;
        let former = Some(trial.digest.clone());
        self.noted(&live, former, change, (Action::Abort, begun), "live")
            .await
    }

    /// Takes an installed service off for good.
    pub async fn remove(self: &Arc<Self>, name: &ServiceName, change: &Change) -> Outcome {
        let begun = Instant::now();
        let service = self.known(name)?;
        if self.configured.contains_key(name) {
            return Err(ChangeError::Conflict(format!(
                "{name} is configured in platform.toml: write `enabled = false` there and restart"
            )));
        }
        let _turn = service.changing.lock().await;
        self.refuse_dependants(name)?;
        let described = service.described();
        service.withdraw(State::Stopped, None, self.drain_deadline());
        if let Some(attended) = self.dismiss(name) {
            attended.drain(self.drain_deadline()).await;
        }
        if let Err(error) = self.broker.subscribe(name, &[]).await {
            return Err(ChangeError::Fault(error.into()));
        }
        self.registry.remove(name);
        let changed = changed(
            (name, &described.manifest, &described.digest),
            None,
            (Action::Remove, begun),
            "removed",
        );
        self.record(name, &changed, change, None, None).await?;
        Ok(changed)
    }

    /// What a service has run as, newest first.
    pub async fn history(&self, name: &ServiceName) -> Result<Vec<Deployment>, ChangeError> {
        let history = self.deployments.history(name).await;
        history.map_err(|error| ChangeError::Fault(error.into()))
    }

    /// The canary of a service and its share in percent.
    pub fn trial(&self, name: &ServiceName) -> Result<Option<(Arc<Version>, u8)>, ChangeError> {
        Ok(self.known(name)?.canary())
    }

    /// The service that is meant: by its full name, or by its short one where nothing runs under that.
    pub fn name(&self, text: &str) -> Result<ServiceName, String> {
        let full = ServiceName::parse(text)?;
        let short = ServiceName::parse_short(text)?;
        let elsewhere = |name: &ServiceName| self.runs_elsewhere(name).is_some();
        let runs =
            |name: &ServiceName| self.registry.get(name.as_str()).is_some() || elsewhere(name);
        Ok(if !runs(&full) && runs(&short) {
            short
        } else {
            full
        })
    }

    /// What runs what belongs to no request.
    pub(crate) fn background(&self) -> &tokio::runtime::Handle {
        self.loader.background()
    }

    fn known(&self, name: &ServiceName) -> Result<Arc<Service>, ChangeError> {
        self.registry
            .get(name.as_str())
            .ok_or_else(|| ChangeError::NotFound(format!("no service `{name}` runs here")))
    }

    /// This platform, for a task of its own.
    pub(super) fn myself(&self) -> Option<Arc<Self>> {
        self.control.platform()
    }

    fn refuse_dependants(&self, name: &ServiceName) -> Result<(), ChangeError> {
        let needs = |service: &Arc<Service>| service.described().manifest.depends_on.contains(name);
        match self.registry.all().into_iter().find(needs) {
            Some(other) => Err(ChangeError::Conflict(format!(
                "{} depends on {name}: remove it first",
                other.name
            ))),
            None => Ok(()),
        }
    }

    /// Replaces the version of a service whose turn to change it is.
    async fn replace(
        self: &Arc<Self>,
        service: &Arc<Service>,
        digest: &str,
        change: &Change,
        action: Action,
    ) -> Outcome {
        let begun = Instant::now();
        let outcome = self
            .try_replace(service, digest, change, (action, begun), Told::ToOthers)
            .await;
        if let Err(error) = &outcome {
            self.note_failure(service, digest, change, action, error)
                .await;
        }
        outcome
    }

    async fn try_replace(
        self: &Arc<Self>,
        service: &Arc<Service>,
        digest: &str,
        change: &Change,
        (action, begun): (Action, Instant),
        told: Told,
    ) -> Outcome {
        let name = &service.name;
        let old = service.live();
        if service.canary().is_some() {
            return Err(ChangeError::Conflict(format!(
                "a canary of {name} is on trial: promote or abort it first"
            )));
        }
        let (file, certificate) = self.admitted(name, digest).await?;
        // Admitted anew with other grants, the same bytes are another version.
        if old
            .as_ref()
            .is_some_and(|old| old.serial == certificate.serial)
        {
            return Err(ChangeError::Conflict(format!(
                "{name} runs this component already (sha256:{digest})"
            )));
        }
        self.check_place(service, &file.manifest)
            .map_err(ChangeError::Refused)?;
        if !change.restart
            && let Some(old) = &old
        {
            check_schema(old, &file).map_err(ChangeError::Refused)?;
        }
        let paused = old.as_ref().filter(|_| change.restart);
        if let Some(old) = paused {
            self.rest(service, old).await;
        }
        let ready = self.ready(file, &certificate).await;
        match (ready, paused) {
            (Ok(ready), _) => match change.percent {
                Some(percent) if action == Action::Canary => {
                    self.try_out(service, ready, percent, change, (begun, told))
                        .await
                }
                _ => {
                    self.go_live(service, ready, change, (action, begun), told)
                        .await
                }
            },
            (Err(error), Some(old)) => {
                old.recall();
                service.publish(old.clone());
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// The component with this digest and the certificate by which it was admitted as `name`.
    pub(super) async fn admitted(
        &self,
        name: &ServiceName,
        digest: &str,
    ) -> Result<(ComponentFile, ComponentCertificate), ChangeError> {
        self.fetch(digest).await.map_err(ChangeError::Fault)?;
        let (library, wanted) = (self.loader.library().clone(), digest.to_owned());
        let file = tokio::task::spawn_blocking(move || library.get(&wanted))
            .await
            .map_err(|error| ChangeError::Fault(error.into()))?
            .map_err(ChangeError::Refused)?;
        if file.manifest.name != *name {
            return Err(ChangeError::Refused(format_err!(
                "the component is {}, not {name}",
                file.manifest.name
            )));
        }
        if let Some(cluster) = self.others() {
            let offered = cluster.offer(digest, &file.bytes).await;
            offered.map_err(ChangeError::Fault)?;
        }
        let certificate = self.mesh.authority.admitted(name, digest).await;
        Ok((file, certificate.map_err(ChangeError::Refused)?))
    }

    /// Whether a component may take the place of a service among the others.
    fn check_place(&self, service: &Service, manifest: &Manifest) -> Result<()> {
        let port = self.config.platform.port_offset.checked_add(manifest.port);
        if port != Some(service.port) {
            return Err(format_err!(
                "it wants port {}, and {} listens on {}: a service keeps its port while it runs",
                manifest.port,
                service.name,
                service.port - self.config.platform.port_offset
            ));
        }
        self.check_calls(manifest)
    }

    /// Whether a component's declared calls and dependencies close a circle with those of the services that run.
    fn check_calls(&self, manifest: &Manifest) -> Result<()> {
        let described: Vec<_> = self.registry.all().iter().map(|s| s.described()).collect();
        let others = described.iter().map(|described| &described.manifest);
        let others = others.filter(|other| other.name != manifest.name);
        let all: Vec<&Manifest> = others.chain([manifest]).collect();
        super::load::refuse_call_cycles(&all)?;
        super::start_order_of(&all).map(drop)
    }

    /// Loads a version and asks for its health; nobody else reaches it yet.
    async fn ready(
        &self,
        file: ComponentFile,
        certificate: &ComponentCertificate,
    ) -> Result<Ready, ChangeError> {
        let loaded = self.loader.load_admitted(file, certificate).await;
        let (version, cached) = loaded.map_err(ChangeError::Refused)?;
        match self.check_health(&version).await {
            Ok(()) => Ok(Ready { version, cached }),
            Err(error) => {
                version.retire(Instant::now());
                Err(ChangeError::Refused(error))
            }
        }
    }

    /// Takes the old version off and waits until it has finished what it has begun.
    async fn rest(&self, service: &Service, old: &Version) {
        let deadline = self.drain_deadline();
        let reason = "its version is being replaced".to_owned();
        service.withdraw(State::Draining, Some(reason), deadline);
        let mut tick = tokio::time::interval(REST_TICK);
        while old.metrics.instances.get() > 0 && Instant::now() < deadline {
            tick.tick().await;
        }
    }

    /// Moves the pointer.
    async fn go_live(
        self: &Arc<Self>,
        service: &Arc<Service>,
        ready: Ready,
        change: &Change,
        (action, begun): (Action, Instant),
        told: Told,
    ) -> Outcome {
        let version = ready.version;
        let former = service.publish(version.clone());
        if let Some(former) = &former {
            former.retire(self.drain_deadline());
        }
        let followed = self.follow(service, &version).await;
        followed.map_err(ChangeError::Fault)?;
        self.loader.resolve_start_order();
        let digest = former.as_ref().map(|former| former.digest.clone());
        let mut changed = match told {
            Told::ToOthers => {
                self.noted(&version, digest, change, (action, begun), "live")
                    .await?
            }
            Told::ByOthers => of_version(&version, digest, (action, begun), "live"),
        };
        changed.cached = ready.cached;
        if let Some(former) = former {
            Watch::after_swap(service, version, former).start(self);
        }
        Ok(changed)
    }

    /// Gives a new version a share.
    async fn try_out(
        self: &Arc<Self>,
        service: &Arc<Service>,
        ready: Ready,
        percent: u8,
        change: &Change,
        (begun, told): (Instant, Told),
    ) -> Outcome {
        let name = &service.name;
        if !(1..=99).contains(&percent) {
            return Err(ChangeError::Conflict(format!(
                "{percent} % is no share for a canary; give 1 to 99"
            )));
        }
        let version = ready.version;
        if !service.set_canary(Some((version.clone(), percent))) {
            return Err(ChangeError::Conflict(format!("{name} is not live")));
        }
        let live = service.live().ok_or_else(|| no_trial(name))?;
        let former = Some(live.digest.clone());
        let done = (Action::Canary, begun);
        let mut changed = match told {
            Told::ToOthers => self.noted(&version, former, change, done, "trial").await?,
            Told::ByOthers => of_version(&version, former, done, "trial"),
        };
        changed.cached = ready.cached;
        Watch::of_canary(service, version, live).start(self);
        Ok(changed)
    }

    /// Starts a service that does not run yet.
    async fn install(
        self: &Arc<Self>,
        name: &ServiceName,
        digest: &str,
        change: &Change,
    ) -> Outcome {
        let begun = Instant::now();
        if change.percent.is_some() {
            return Err(ChangeError::NotFound(format!(
                "{name} does not run yet: start it before another version is tried out"
            )));
        }
        let (file, certificate) = self.admitted(name, digest).await?;
        self.check_calls(&file.manifest)
            .map_err(ChangeError::Refused)?;
        let address = self
            .free_address(name, &file.manifest)
            .map_err(ChangeError::Refused)?;
        let withheld = self.mesh.authority.withheld().of(name);
        let service = Service::new(&file, address.port(), clock::now_ms(), withheld);
        let _turn = service.changing.lock().await;
        if !self.registry.insert_new(service.clone()) {
            return Err(ChangeError::Conflict(format!("{name} is being started")));
        }
        match self.begin(&service, file, &certificate, address).await {
            Ok(ready) => {
                self.loader.resolve_start_order();
                let mut changed = self
                    .noted(&ready.version, None, change, (Action::Start, begun), "live")
                    .await?;
                changed.cached = ready.cached;
                Ok(changed)
            }
            Err(error) => {
                self.registry.remove(name);
                self.note_failure(&service, digest, change, Action::Start, &error)
                    .await;
                Err(error)
            }
        }
    }

    /// Loads an admitted service that is in the registry, and lets it be reached.
    async fn begin(
        &self,
        service: &Arc<Service>,
        file: ComponentFile,
        certificate: &ComponentCertificate,
        address: SocketAddr,
    ) -> Result<Ready, ChangeError> {
        let ready = self.ready(file, certificate).await?;
        service.publish(ready.version.clone());
        match self.attend(service, &ready.version, address).await {
            Ok(()) => Ok(ready),
            Err(error) => {
                service.withdraw(State::Failed, Some(chain(&error)), Instant::now());
                Err(ChangeError::Refused(error))
            }
        }
    }

    /// The address of a new service, which nobody else may have.
    fn free_address(&self, name: &ServiceName, manifest: &Manifest) -> Result<SocketAddr> {
        let address = super::load::address(&self.config.platform, manifest)?;
        if let Some(other) = self.registry.by_port(address.port()) {
            return Err(format_err!(
                "it wants port {}, on which {} listens",
                manifest.port,
                other.name
            ));
        }
        listener::probe(address, name)?;
        Ok(address)
    }

    /// Puts a change on record, and makes it what a restart starts where it is one.
    async fn noted(
        &self,
        version: &Version,
        former: Option<String>,
        change: &Change,
        done: (Action, Instant),
        outcome: &'static str,
    ) -> Outcome {
        let name = &version.context.name;
        let changed = of_version(version, former, done, outcome);
        let target = match (change.percent, &changed.former) {
            (Some(percent), Some(live)) if outcome == "trial" => {
                Target::trial(live, &version.digest, percent, change)
            }
            _ => Target::live(&version.digest, self.configured_digest(name), change),
        };
        self.record(name, &changed, change, None, Some(target))
            .await?;
        Ok(changed)
    }

    /// The digest of a service's file in the folder of components; none of one that was installed.
    pub(super) fn configured_digest(&self, name: &ServiceName) -> Option<String> {
        Some(self.configured.get(name)?.1.clone())
    }

    async fn record(
        &self,
        name: &ServiceName,
        changed: &Changed,
        change: &Change,
        reason: Option<String>,
        target: Option<Target>,
    ) -> Result<(), ChangeError> {
        tracing::info!(service = %name, action = changed.action, digest = changed.digest, by = change.by,
            took_ms = changed.took_ms, "a service was changed");
        let entry = Deployment::of(changed, change, reason);
        let recorded = self.deployments.record(name, entry, target).await;
        recorded.map_err(ChangeError::Fault)
    }

    async fn note_failure(
        &self,
        service: &Service,
        digest: &str,
        change: &Change,
        action: Action,
        error: &ChangeError,
    ) {
        tracing::warn!(service = %service.name, action = action.as_str(), digest, reason = %error,
            "a change was refused; what ran before runs on");
        let entry = Deployment {
            action: action.as_str().to_owned(),
            outcome: "failed".to_owned(),
            version: String::new(),
            digest: digest.to_owned(),
            former: service.live().map(|live| live.digest.clone()),
            reason: Some(error.to_string()),
            by: change.by.clone(),
            at: clock::now_ms(),
            took_ms: 0,
        };
        if let Err(error) = self.deployments.record(&service.name, entry, None).await {
            tracing::error!(
                error = chain(&error),
                "a refused change could not be recorded"
            );
        }
    }

    /// Returns from a version that does worse than the one before it, if it is still the one in question.
    pub(super) async fn roll_back_by_itself(
        &self,
        service: &Arc<Service>,
        (worse, old): (&Arc<Version>, &Arc<Version>),
        reason: &str,
    ) {
        let begun = Instant::now();
        let _turn = service.changing.lock().await;
        let is_canary = |(canary, _): &(Arc<Version>, u8)| Arc::ptr_eq(canary, worse);
        if service.canary().as_ref().is_some_and(is_canary) {
            service.set_canary(None);
        } else if service.live().is_some_and(|live| Arc::ptr_eq(&live, worse)) {
            old.recall();
            service.publish(old.clone());
            if let Err(error) = self.follow(service, old).await {
                tracing::error!(service = %service.name, error = chain(&error), "queues could not be followed");
            }
        } else {
            return;
        }
        worse.retire(self.drain_deadline());
        tracing::error!(service = %service.name, from = worse.digest, to = old.digest, reason, "rolled back");
        let former = Some(worse.digest.clone());
        let by = Change {
            by: "host".to_owned(),
            percent: None,
            restart: false,
        };
        let changed = changed(
            (&service.name, &old.manifest, &old.digest),
            former,
            (Action::AutoRollback, begun),
            "live",
        );
        let configured = self.configured_digest(&service.name);
        let target = Target::live(&old.digest, configured, &by);
        let reason = Some(reason.to_owned());
        let recorded = self.record(&service.name, &changed, &by, reason, Some(target));
        if let Err(error) = recorded.await {
            tracing::error!(%error, "a rollback could not be recorded");
        }
    }
}

/// Whether a change is this host's, or follows another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    ToOthers,
    ByOthers,
}

fn of_version(
    version: &Version,
    former: Option<String>,
    done: (Action, Instant),
    outcome: &'static str,
) -> Changed {
    let what = (
        &version.context.name,
        &version.manifest,
        version.digest.as_str(),
    );
    changed(what, former, done, outcome)
}

fn no_trial(name: &ServiceName) -> ChangeError {
    ChangeError::Conflict(format!("no canary of {name} is on trial"))
}

pub(super) fn changed(
    (name, manifest, digest): (&ServiceName, &Manifest, &str),
    former: Option<String>,
    (action, begun): (Action, Instant),
    outcome: &'static str,
) -> Changed {
    Changed {
        service: name.to_string(),
        action: action.as_str(),
        outcome,
        version: manifest.version.clone(),
        digest: digest.to_owned(),
        former,
        cached: true,
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

/// Whether the version that runs can go on while the new one's migrations are applied, and after a rollback.
fn check_schema(running: &Version, file: &ComponentFile) -> Result<()> {
    let (coming, range) = (file.migrations.newest(), &running.schemas);
    if coming <= *range.end() {
        return Ok(());
    }
    Err(format_err!(
        "its migrations bring the schema to {coming:04}, and the running version {} works with {:04} to {:04} ([schema] in its \
         component.toml): swap with --restart, which takes it off first",
        running.context.version,
        range.start(),
        range.end()
    ))
}
