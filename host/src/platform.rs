//! The platform from start to stop: boot → serve → drain.

mod load;
mod restore;
mod serve;
mod swap;
mod together;
mod watch;

use crate::{
    ca::{self, Authority},
    capability::{Boot, Capabilities, Configs, queue},
    clock,
    cluster::{self, Cluster, Refused},
    component::ComponentFile,
    config::Config,
    cores::Cores,
    deployments::Deployments,
    listener,
    manifest::Manifest,
    mesh::{Egress, Mesh, Policies, Resolver, Rules},
    name::ServiceName,
    panics,
    service::{Registry, Service, State, start_order},
    telemetry::{self, Metrics},
    tls::Tls,
};
use std::{
    collections::BTreeMap,
    fs,
    io::IsTerminal as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};
use tokio::{
    signal::unix,
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use wasmtime::{Result, bail, error::Context as _, format_err};

pub use load::Loader;
use restore::Planned;
pub use swap::{Change, ChangeError, Changed};

/// Threads for what belongs to no request: compilation, relays, dispatching.
const BACKGROUND_THREADS: usize = 2;

/// The service behind the address in the ready line.
const GATEWAY: &str = "exprsn-nexus";

/// What `exprsn up` was asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    pub config: PathBuf,
    pub data: PathBuf,
    /// The folder of components.
    pub components: PathBuf,
    /// The folder of compiled code; none is `cache` in the data directory.
    pub cache: Option<PathBuf>,
    /// Services to run, by full or short name; none is all that are configured.
    pub services: Option<Vec<String>>,
    /// The names come from `AUTO_START_SERVICES`, which may name services that are not installed.
    pub services_from_env: bool,
    /// An invitation of another host.
    pub join: Option<String>,
    /// Stop when stdin closes, which it does when whoever started this process ends.
    pub stop_with_stdin: bool,
}

/// Runs the platform until it is told to stop. Returns after draining.
pub fn run(options: Options) -> Result<()> {
    let started = Instant::now();
    let config = configured(&options)?;
    telemetry::init(&config)?;
    panics::log_all();
    let _lock = own(&options.data)?;
    let cores = Arc::new(Cores::start(config.platform.cores)?);
    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(BACKGROUND_THREADS)
        .thread_name("background")
        .enable_all()
        .build()
        .context("starting the background runtime")?;
    let result = background.block_on(async {
        let mut stop = Stop::listen(options.stop_with_stdin)?;
        let platform = tokio::select! {
            platform = Platform::boot(config, &options, cores.clone(), background.handle().clone()) => platform?,
            () = stop.asked() => return Ok(()),
        };
        platform.announce(started);
        stop.asked().await;
        tracing::info!("stopping: what is under way is finished first; ask again to stop at once");
        tokio::select! {
            () = platform.drain() => {}
            () = stop.asked() => tracing::warn!("stopped at once; unfinished jobs run again at the next start"),
        }
        Ok(())
    });
    background.shutdown_timeout(Duration::from_secs(2));
    telemetry::flush();
    result
}

fn configured(options: &Options) -> Result<Config> {
    let mut config = Config::read(&options.config)?;
    match &options.services {
        Some(names) if options.services_from_env => config.select(&installed(&config, names))?,
        Some(names) => config.select(names)?,
        None => {}
    }
    config.service.retain(|_, service| service.enabled);
    if config.service.is_empty() {
        bail!(
            "no service is configured to run: write [service.<name>] in `{}`",
            options.config.display()
        );
    }
    Ok(config)
}

/// The names that are configured; the others are only warned about.
fn installed(config: &Config, names: &[String]) -> Vec<String> {
    let known = |name: &&String| {
        ServiceName::parse_short(name.trim()).is_ok_and(|name| config.service.contains_key(&name))
    };
    let (known, unknown): (Vec<_>, Vec<_>) = names.iter().partition(known);
    if !unknown.is_empty() {
        eprintln!(
            "AUTO_START_SERVICES names services that are not in platform.toml, left out: {unknown:?}"
        );
    }
    known.into_iter().cloned().collect()
}

/// Creates the data directory and takes its lock, so that two hosts cannot share it by mistake.
fn own(data: &Path) -> Result<fs::File> {
    let refused = |error: std::io::Error| {
        format_err!(
            "cannot use data directory `{}`: {error}; name a writable one with --data",
            data.display()
        )
    };
    fs::create_dir_all(data).map_err(refused)?;
    let lock = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data.join("lock"))
        .map_err(refused)?;
    match lock.try_lock() {
        Ok(()) if data.join(crate::cli::RESTORING).exists() => {
            bail!(
                "data directory `{0}` was restored in part only: empty it and run `exprsn restore` again, or remove \
                 `{0}/{1}` if you know better",
                data.display(),
                crate::cli::RESTORING
            )
        }
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => {
            bail!(
                "another host is running on data directory `{}`: stop it, or name another with --data",
                data.display()
            )
        }
        Err(fs::TryLockError::Error(error)) => Err(refused(error)),
    }
}

/// What asks the host to stop: SIGINT, SIGTERM, or the end of stdin where that was agreed.
struct Stop {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    /// A service manager's word to look at configuration again must not end the host, also where nothing follows files. A
    /// terminal that closes ends it as ever.
    _hangup: Option<unix::Signal>,
    stdin_closed: Option<oneshot::Receiver<()>>,
}

impl Stop {
    fn listen(with_stdin: bool) -> Result<Self> {
        let listen = |kind| unix::signal(kind).context("listening for signals");
        Ok(Self {
            interrupt: listen(unix::SignalKind::interrupt())?,
            terminate: listen(unix::SignalKind::terminate())?,
            _hangup: (!std::io::stdin().is_terminal())
                .then(|| listen(unix::SignalKind::hangup()))
                .transpose()?,
            stdin_closed: with_stdin.then(end_of_stdin).transpose()?,
        })
    }

    async fn asked(&mut self) {
        let closed = async {
            match self.stdin_closed.as_mut() {
                Some(closed) => drop(closed.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = closed => self.stdin_closed = None,
        }
    }
}

/// Resolves when stdin has ended. A thread of its own reads, since a runtime would wait for the read at its end.
fn end_of_stdin() -> Result<oneshot::Receiver<()>> {
    let (ended, end) = oneshot::channel();
    let read = move || {
        // An error is an end too.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    };
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(read)
        .context("starting the thread that watches stdin")?;
    Ok(end)
}

/// The way from a capability to the platform, which comes to be after it.
#[derive(Default)]
pub struct Control(OnceLock<Weak<Platform>>);

impl Control {
    /// The platform; none before it has started and while it stops.
    pub fn platform(&self) -> Option<Arc<Platform>> {
        self.0.get()?.upgrade()
    }
}

/// A running platform.
pub struct Platform {
    config: Config,
    /// Paths and digests of the files in the folder of components.
    configured: BTreeMap<ServiceName, (PathBuf, String)>,
    deployments: Deployments,
    registry: Arc<Registry>,
    mesh: Arc<Mesh>,
    broker: Arc<queue::Broker>,
    loader: Arc<Loader>,
    cores: Arc<Cores>,
    tls: Option<Arc<Tls>>,
    control: Arc<Control>,
    started_at_ms: i64,
    /// What this host was to run as others do, and could not.
    refused: std::sync::Mutex<BTreeMap<ServiceName, Refused>>,
    /// Ends the listener for other hosts.
    closing: tokio::sync::watch::Sender<bool>,
    /// What accepts other hosts.
    hosts: std::sync::Mutex<JoinSet<()>>,
    attended: std::sync::Mutex<BTreeMap<ServiceName, serve::Attended>>,
}

impl Platform {
    /// Connects the capabilities, then starts every service, group after group in the order of dependencies.
    async fn boot(
        mut config: Config,
        options: &Options,
        cores: Arc<Cores>,
        background: tokio::runtime::Handle,
    ) -> Result<Arc<Self>> {
        let known = Known::recall(&config, options).await?;
        let configs = std::mem::take(&mut config.capability);
        let boot = known.boot(&config, &configs, options, background).await?;
        let policies = calls(&config, &boot.metrics, &boot.broker)?;
        let control = boot.control.clone();
        let capabilities = Capabilities::connect(&boot, configs).await?;
        let (registry, broker) = (boot.registry.clone(), boot.broker.clone());
        let mesh = Mesh::new(
            registry.clone(),
            known.authority.clone(),
            known.cluster.clone(),
            policies,
            &config.platform,
        );
        let files: Vec<&ComponentFile> = known.planned.iter().map(|(one, _)| &one.file).collect();
        let reach = (capabilities, mesh.clone());
        let loader = Loader::new(&config, options, boot, reach, cores.clone(), &files)?;
        resolve_resources(&known.authority, &registry, config.platform.listen);
        let platform = Arc::new(Self {
            config,
            configured: known.configured,
            deployments: known.deployments,
            registry: registry.clone(),
            mesh,
            broker,
            loader: Arc::new(loader),
            cores,
            tls: known.tls.clone(),
            control: control.clone(),
            started_at_ms: clock::now_ms(),
            refused: std::sync::Mutex::default(),
            closing: tokio::sync::watch::Sender::new(false),
            hosts: std::sync::Mutex::default(),
            attended: std::sync::Mutex::default(),
        });
        let _ = control.0.set(Arc::downgrade(&platform));
        tokio::spawn(withdraw_revoked(known.authority, registry));
        if let Some(tls) = known.tls {
            tokio::spawn(tls.keep());
        }
        let hosts = platform.meet_others(known.cluster, known.hearing).await?;
        platform.start_all(known.planned).await?;
        platform.keep_files();
        *platform.hosts() = hosts;
        if let Some(cluster) = platform.others() {
            // Others know of what is live here before anybody is told that it is ready.
            cluster.beat().await;
        }
        Ok(platform)
    }

    /// Lets other hosts come, and goes on hearing from them, from before the first service starts.
    async fn meet_others(
        self: &Arc<Self>,
        cluster: Option<Arc<Cluster>>,
        hearing: Option<Hearing>,
    ) -> Result<JoinSet<()>> {
        let mut accepting = JoinSet::new();
        let (Some(cluster), Some(hearing)) = (cluster, hearing) else {
            return Ok(accepting);
        };
        let described = Arc::downgrade(self);
        cluster.describe_with(move || {
            described
                .upgrade()
                .map_or_else(Default::default, |platform| platform.state())
        });
        let address = cluster.listen_address()?;
        for core in 0..self.cores.count() {
            let opened = self
                .cores
                .spawn_on(core, async move { listener::open(address) });
            let opened = opened.await.context("opening a listener panicked")?;
            let opened = opened.context("[cluster] listen")?;
            let accept = cluster::accept(
                opened,
                cluster.clone(),
                self.mesh.clone(),
                self.closing.subscribe(),
            );
            let running = self.cores.spawn_on(core, accept);
            accepting.spawn(async move { drop(running.await) });
        }
        cluster.beat().await;
        tokio::spawn(cluster.clone().keep());
        tokio::spawn(cluster.clone().listen_to_silence());
        tokio::spawn(cluster.keep_certified());
        tokio::spawn(Self::hear(Arc::downgrade(self), hearing));
        Ok(accepting)
    }

    fn hosts(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.hosts.lock().expect("no holder of this lock panics")
    }

    /// Puts the configured files into the library, beside what is served.
    fn keep_files(self: &Arc<Self>) {
        let keeping = self.clone();
        tokio::spawn(async move {
            let platform = keeping.clone();
            let kept = tokio::task::spawn_blocking(move || {
                restore::keep(keeping.loader.library(), &keeping.configured);
            });
            // A panic in it is told by the runtime.
            let _ = kept.await;
            platform.offer_files().await;
        });
    }

    async fn start_all(self: &Arc<Self>, planned: Vec<(Planned, SocketAddr)>) -> Result<()> {
        for (one, address) in &planned {
            let withheld = self.mesh.authority.withheld().of(&one.file.manifest.name);
            let service = Service::new(&one.file, address.port(), clock::now_ms(), withheld);
            self.registry.insert(service);
        }
        self.loader.resolve_start_order();
        let total = planned.len();
        let mut waiting: BTreeMap<_, _> = planned
            .into_iter()
            .map(|(one, address)| (one.file.manifest.name.clone(), (one, address)))
            .collect();
        let mut done = 0;
        for group in self.registry.start_order() {
            let mut starting = JoinSet::new();
            for name in group {
                let (one, address) = waiting
                    .remove(&name)
                    .expect("the order names each service once");
                let platform = self.clone();
                starting.spawn(async move { platform.start(one, address).await });
            }
            while let Some(started) = starting.join_next().await {
                let (name, how) = started.context("a service's start panicked")??;
                done += 1;
                eprintln!("[{done}/{total}] {name} {how}");
            }
        }
        Ok(())
    }

    /// Starts a service and says how; one that was installed may fail without harm to the others.
    async fn start(
        self: Arc<Self>,
        planned: Planned,
        address: SocketAddr,
    ) -> Result<(ServiceName, String)> {
        let (name, installed) = (planned.file.manifest.name.clone(), planned.installed);
        match self.begin_planned(planned, address).await {
            Ok(how) => Ok((name, how)),
            Err(error) if installed => {
                tracing::error!(service = %name, error = telemetry::chain(&error), "an installed service does not start");
                Ok((name, "is not live; the log says why".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// Loads a service, checks its health, and lets it be reached.
    async fn begin_planned(&self, planned: Planned, address: SocketAddr) -> Result<String> {
        let begun = Instant::now();
        let name = planned.file.manifest.name.clone();
        let service = self
            .registry
            .get(name.as_str())
            .context("the service is not in the registry")?;
        let loaded = match &planned.certificate {
            Some(certificate) => self.loader.load_admitted(planned.file, certificate).await,
            None => self.loader.load(planned.file).await,
        };
        let (version, cached) = loaded
            .inspect_err(|error| service.set_state(State::Failed, Some(error.to_string())))?;
        self.check_health(&version).await.inspect_err(|error| {
            service.set_state(State::Unhealthy, Some(error.to_string()));
        })?;
        service.publish(version.clone());
        self.attend(&service, &version, address).await?;
        let how = if cached { "from the cache" } else { "compiled" };
        Ok(format!(
            "is live ({how}, {} ms)",
            begun.elapsed().as_millis()
        ))
    }

    fn attended(&self) -> std::sync::MutexGuard<'_, BTreeMap<ServiceName, serve::Attended>> {
        self.attended.lock().expect("no holder of this lock panics")
    }

    /// The ready line, for people and for programs that wait for it.
    fn announce(&self, started: Instant) {
        let services = self.registry.all();
        let gateway = services
            .iter()
            .find(|service| service.name.as_str() == GATEWAY);
        let address = gateway
            .or(services.first())
            .map_or(0, |service| service.port);
        let what = if gateway.is_some() { "gateway " } else { "" };
        println!(
            "ready in {:.1} s: {} services, {what}{}://{}:{address}",
            started.elapsed().as_secs_f64(),
            services.len(),
            self.config.tls.scheme(),
            self.config.platform.listen
        );
    }

    /// Finishes what is under way, within `drain_ms_max`; then closes what is durable.
    async fn drain(&self) {
        let deadline = self.drain_deadline();
        if let Some(cluster) = self.others() {
            cluster.begin_drain().await;
        }
        for service in self.registry.all() {
            service.set_state(State::Draining, None);
        }
        let attended = std::mem::take(&mut *self.attended());
        let draining = attended.into_values().map(|one| one.drain(deadline));
        futures::future::join_all(draining).await;
        for service in self.registry.all() {
            service.withdraw(State::Stopped, None, Instant::now());
        }
        if let Some(cluster) = self.others() {
            cluster.leave().await;
            self.closing.send_replace(true);
            let mut hosts = std::mem::take(&mut *self.hosts());
            let closed = async { while hosts.join_next().await.is_some() {} };
            let _ = tokio::time::timeout_at(deadline.into(), closed).await;
        }
        self.loader.close().await;
        self.broker.close().await;
    }
}

type Hearing = mpsc::UnboundedReceiver<exprsn_backends::shared::Fact>;
type Met = Option<(Arc<Cluster>, Hearing)>;

/// What this host knows before anything runs: its memory, its keys, the others, and what is to start.
struct Known {
    configured: BTreeMap<ServiceName, (PathBuf, String)>,
    deployments: Deployments,
    authority: Arc<Authority>,
    cluster: Option<Arc<Cluster>>,
    hearing: Option<Hearing>,
    tls: Option<Arc<Tls>>,
    planned: Vec<(Planned, SocketAddr)>,
}

impl Known {
    async fn recall(config: &Config, options: &Options) -> Result<Self> {
        let files = load::read_all(config, &options.components).await?;
        let configured = paths(&files);
        let opening = cluster::Opening::open(config, &options.data, options.join.as_deref());
        let opening = opening.await?;
        let shared = opening.as_ref().map(|opening| opening.memory().clone());
        let deployments = Deployments::open(&options.data, shared)?;
        if let Some(opening) = &opening {
            deployments.remember(opening.facts()).await?;
        }
        let (authority, met) = certified(config, options, opening).await?;
        let (cluster, hearing) = met.unzip();
        let tls = shown(config, &authority).await?;
        let memory = restore::Memory {
            deployments: &deployments,
            library: authority.library(),
            cluster: cluster.as_ref(),
            authority: &authority,
        };
        let planned = memory.plan(files, options.services.is_none()).await?;
        let planned = placed(config, planned)?;
        Ok(Self {
            configured,
            deployments,
            authority,
            cluster,
            hearing,
            tls,
            planned,
        })
    }

    /// What capabilities find when they are connected.
    async fn boot(
        &self,
        config: &Config,
        configs: &Configs,
        options: &Options,
        background: tokio::runtime::Handle,
    ) -> Result<Boot> {
        let redis = &config.backends.redis;
        let broker = queue::Broker::connect(&options.data, &background, &configs.queue, redis)?;
        broker.found().await?;
        let metrics = Metrics::new();
        broker.measure(&metrics);
        let gathered = metrics.clone();
        telemetry::telemetry().set_metrics(Box::new(move || gathered.exposition()));
        if let Some(cluster) = &self.cluster {
            cluster.measure(&metrics);
        }
        Ok(Boot {
            data: options.data.clone(),
            config: Arc::new(config.platform.clone()),
            backends: config.backends.clone(),
            background,
            metrics,
            authority: self.authority.clone(),
            egress: Egress::new(Resolver::system(), &config.platform.egress_ca_file)?,
            broker,
            registry: Arc::default(),
            library: self.authority.library().clone(),
            cluster: self.cluster.clone(),
            control: Arc::default(),
        })
    }
}

/// The certificate authority with the operator's answers, and the other hosts where there are any.
async fn certified(
    config: &Config,
    options: &Options,
    opening: Option<cluster::Opening>,
) -> Result<(Arc<Authority>, Met)> {
    let together = opening.as_ref().map(cluster::Opening::together);
    let (data, domain) = (options.data.clone(), config.platform.trust_domain.clone());
    let settings = config.capability.ca.clone();
    let open =
        move || Authority::open_together(&data, &domain, &settings, together.unwrap_or_default());
    let authority = tokio::task::spawn_blocking(open)
        .await
        .context("opening the authority panicked")??;
    wasmtime::ensure!(
        authority.issues()
            || !config
                .service
                .keys()
                .any(|name| name.as_str() == ca::CA_SERVICE),
        "{} runs on the host that holds the certificate authority's keys, and this one joined others: leave it out with \
         `--services` or `enabled = false`",
        ca::CA_SERVICE
    );
    authority.answer_with(&config.answers);
    authority.write_operator_token(clock::now_s())?;
    let met = match opening {
        Some(opening) => Some(opening.join(&authority).await?),
        None => None,
    };
    Ok((authority, met))
}

/// What calls between services go by, and who announces what changes there.
fn calls(config: &Config, metrics: &Metrics, broker: &Arc<queue::Broker>) -> Result<Arc<Policies>> {
    let rules = Rules::parse(&config.mesh).map_err(|error| format_err!("{error}"))?;
    let policies = Policies::new(rules, metrics);
    policies.announce(broker.clone());
    Ok(policies)
}

/// What listeners show; none where they speak in the clear.
async fn shown(config: &Config, authority: &Arc<Authority>) -> Result<Option<Arc<Tls>>> {
    let (tls, authority) = (config.tls.clone(), authority.clone());
    let listen = config.platform.listen;
    // Where another host signs, it is asked and waited for.
    tokio::task::spawn_blocking(move || Tls::open(&tls, &authority, listen))
        .await
        .context("opening [tls] panicked")?
}

/// Where each configured component lies, and its digest.
fn paths(files: &load::Files) -> BTreeMap<ServiceName, (PathBuf, String)> {
    let path = |file: &ComponentFile| (file.path.clone(), file.digest.clone());
    let name = |file: &ComponentFile| file.manifest.name.clone();
    files.iter().map(|file| (name(file), path(file))).collect()
}

/// Gives each component the address of its port. Circles and conflicts are errors; an installed component that brings
/// one is left out with a word in the log.
fn placed(config: &Config, planned: Vec<Planned>) -> Result<Vec<(Planned, SocketAddr)>> {
    let mut placed: Vec<(Planned, SocketAddr)> = Vec::new();
    for one in planned {
        match load::place(config, &one.file.manifest, &placed) {
            Ok(address) => placed.push((one, address)),
            Err(error) if one.installed => {
                tracing::error!(service = %one.file.manifest.name, error = telemetry::chain(&error),
                    "an installed service does not start");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(placed)
}

/// Groups services in the order of starting, from their declared dependencies. The error spells a circle out.
fn start_order_of(manifests: &[&Manifest]) -> Result<Vec<Vec<ServiceName>>> {
    let needs = |manifest: &&Manifest| (manifest.name.clone(), manifest.depends_on.clone());
    let graph = manifests.iter().map(needs).collect();
    start_order(&graph).map_err(|error| format_err!("{error}"))
}

/// Lets tokens name services by the address that they listen on: `http://localhost:3014/api/*`.
fn resolve_resources(authority: &Authority, registry: &Arc<Registry>, listen: std::net::IpAddr) {
    let registry = registry.clone();
    authority.resolve_with(Arc::new(move |address: &str| {
        let address: http::uri::Authority = address.parse().ok()?;
        let host = address.host().trim_start_matches('[').trim_end_matches(']');
        // Elsewhere on the internet the same port is somebody else's.
        let here = host == "localhost"
            || host
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback() || ip == listen);
        let by_port = || registry.by_port(address.port_u16().filter(|_| here)?);
        Some(registry.get(host).or_else(by_port)?.name.clone())
    }));
}

/// Takes a service off as soon as its certificate is revoked.
async fn withdraw_revoked(authority: Arc<Authority>, registry: Arc<Registry>) {
    let mut revocations = authority.revocations();
    while revocations.changed().await.is_ok() {
        for service in registry.all() {
            if service
                .live()
                .is_some_and(|version| authority.is_revoked(&version.serial))
            {
                tracing::warn!(service = %service.name, "its certificate was revoked; it is taken off");
                let reason = "its certificate was revoked".to_owned();
                service.withdraw(State::Failed, Some(reason), Instant::now());
            }
        }
    }
}
