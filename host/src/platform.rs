//! The platform from start to stop: boot → serve → drain.

mod load;

use crate::{
    ca::Authority,
    capability::{Boot, Capabilities, queue},
    clock,
    config::Config,
    cores::Cores,
    listener,
    mesh::Mesh,
    name::ServiceName,
    service::{Registry, Service, State, start_order},
    telemetry::{self, Metrics},
    trigger::dispatch::Dispatch,
};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix,
    sync::{oneshot, watch},
    task::JoinSet,
};
use wasmtime::{Result, bail, error::Context as _, format_err};

pub use load::Loader;

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
    /// Stop when stdin closes, which it does when whoever started this process ends.
    pub stop_with_stdin: bool,
}

/// Runs the platform until it is told to stop. Returns after draining.
pub fn run(options: Options) -> Result<()> {
    let started = Instant::now();
    let config = configured(&options)?;
    telemetry::init_logging(&config.platform);
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
    stdin_closed: Option<oneshot::Receiver<()>>,
}

impl Stop {
    fn listen(with_stdin: bool) -> Result<Self> {
        let listen = |kind| unix::signal(kind).context("listening for signals");
        Ok(Self {
            interrupt: listen(unix::SignalKind::interrupt())?,
            terminate: listen(unix::SignalKind::terminate())?,
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

/// A running platform.
pub struct Platform {
    config: Config,
    registry: Arc<Registry>,
    mesh: Arc<Mesh>,
    broker: Arc<queue::Broker>,
    loader: Arc<Loader>,
    cores: Arc<Cores>,
    stop: watch::Sender<bool>,
    listeners: std::sync::Mutex<JoinSet<()>>,
    consumers: std::sync::Mutex<Vec<queue::Consumer>>,
}

impl Platform {
    /// Connects the capabilities, then starts every service, group after group in the order of dependencies.
    async fn boot(
        mut config: Config,
        options: &Options,
        cores: Arc<Cores>,
        background: tokio::runtime::Handle,
    ) -> Result<Arc<Self>> {
        let files = load::read_all(&config, &options.components).await?;
        let order = start_order(&dependencies(&files)).map_err(|error| format_err!("{error}"))?;
        load::refuse_call_cycles(&files)?;
        let addresses = load::addresses(&config, &files)?;
        for (name, address) in &addresses {
            listener::probe(*address, name)?;
        }
        let registry = Arc::new(Registry::default());
        registry.set_start_order(order.clone());
        let configs = std::mem::take(&mut config.capability);
        let authority =
            Authority::open_with(&options.data, &config.platform.trust_domain, &configs.ca)?;
        authority.write_operator_token(clock::now_s())?;
        let broker = queue::Broker::open(&options.data, &background, &configs.queue)?;
        let boot = Boot {
            data: options.data.clone(),
            config: Arc::new(config.platform.clone()),
            background,
            metrics: Metrics::new(),
            authority: authority.clone(),
            broker: broker.clone(),
            registry: registry.clone(),
        };
        let capabilities = Capabilities::connect(&boot, configs).await?;
        let mesh = Mesh::new(registry.clone(), authority.clone(), &config.platform);
        let loader = Loader::new(
            &config,
            options,
            boot,
            (capabilities, mesh.clone()),
            cores.clone(),
            &files,
        )?;
        resolve_resources(&authority, &registry, config.platform.listen);
        let platform = Arc::new(Self {
            config,
            registry: registry.clone(),
            mesh,
            broker,
            loader: Arc::new(loader),
            cores,
            stop: watch::Sender::new(false),
            listeners: std::sync::Mutex::default(),
            consumers: std::sync::Mutex::default(),
        });
        tokio::spawn(withdraw_revoked(authority, registry));
        platform.start_all(files, order, &addresses).await?;
        Ok(platform)
    }

    async fn start_all(
        self: &Arc<Self>,
        files: load::Files,
        order: Vec<Vec<ServiceName>>,
        addresses: &BTreeMap<ServiceName, SocketAddr>,
    ) -> Result<()> {
        let mut files: BTreeMap<_, _> = files
            .into_iter()
            .map(|file| (file.manifest.name.clone(), file))
            .collect();
        for (name, file) in &files {
            self.registry
                .insert(Service::new(file, addresses[name].port(), clock::now_ms()));
        }
        let total = files.len();
        let mut done = 0;
        for group in order {
            let mut starting = JoinSet::new();
            for name in group {
                let file = files
                    .remove(&name)
                    .expect("the order names each service once");
                let (platform, address) = (self.clone(), addresses[&name]);
                starting.spawn(async move { platform.start(file, address).await });
            }
            while let Some(started) = starting.join_next().await {
                let (name, how) = started.context("a service's start panicked")??;
                done += 1;
                eprintln!("[{done}/{total}] {name} is live ({how})");
            }
        }
        Ok(())
    }

    /// Loads a service, checks its health, and lets it be reached.
    async fn start(
        self: Arc<Self>,
        file: crate::component::ComponentFile,
        address: SocketAddr,
    ) -> Result<(ServiceName, String)> {
        let begun = Instant::now();
        let name = file.manifest.name.clone();
        let service = self
            .registry
            .get(name.as_str())
            .context("the service is not in the registry")?;
        let (version, cached) = self
            .loader
            .load(file)
            .await
            .inspect_err(|error| service.set_state(State::Failed, Some(error.to_string())))?;
        self.check_health(&service, &version).await?;
        service.publish(version.clone());
        self.consume(&service).await?;
        self.listen(&service, address).await?;
        let how = if cached { "from the cache" } else { "compiled" };
        Ok((name, format!("{how}, {} ms", begun.elapsed().as_millis())))
    }

    /// Asks the new version for `/health` before anybody else can ask it for anything.
    async fn check_health(
        &self,
        service: &Arc<Service>,
        version: &Arc<crate::service::Version>,
    ) -> Result<()> {
        if version.proxy.is_none() {
            return Ok(());
        }
        let (mesh_version, limit) = (
            version.clone(),
            Duration::from_millis(self.config.platform.start_ms_max),
        );
        let asked = self
            .cores
            .spawn(async move { listener::internal_get(&mesh_version, "/health").await });
        let (status, body) = tokio::time::timeout(limit, asked)
            .await
            .map_err(|_| {
                format_err!(
                    "{} did not answer /health within start_ms_max",
                    service.name
                )
            })?
            .context("the health check panicked")?;
        if status.is_success() {
            return Ok(());
        }
        let body = String::from_utf8_lossy(&body[..body.len().min(500)]).into_owned();
        service.set_state(State::Unhealthy, Some(body.clone()));
        bail!(
            "{} is not healthy: /health answered {status}: {body}",
            service.name
        )
    }

    /// Lets the service's jobs and events come.
    async fn consume(&self, service: &Arc<Service>) -> Result<()> {
        self.broker
            .subscribe(&service.name, &service.manifest.subscriptions)
            .await?;
        let specs = queue::QueueSpec::of(&service.manifest);
        let handler = Arc::new(Dispatch {
            service: service.clone(),
            cores: self.cores.clone(),
            trust_domain: self.config.platform.trust_domain.clone(),
        });
        let consumer = self.broker.consume(&service.name, specs, handler).await?;
        self.consumers
            .lock()
            .expect("no holder of this lock panics")
            .push(consumer);
        Ok(())
    }

    /// Opens the service's port on every core.
    async fn listen(&self, service: &Arc<Service>, address: SocketAddr) -> Result<()> {
        let settings = listener::Settings {
            connections_max: self.config.platform.connections_max,
            header_read_max: Duration::from_millis(self.config.platform.header_read_ms_max),
        };
        for core in 0..self.cores.count() {
            let opened = self
                .cores
                .spawn_on(core, async move { listener::open(address) });
            let listener = opened.await.context("opening a listener panicked")??;
            let (service, mesh, stop) = (service.clone(), self.mesh.clone(), self.stop.subscribe());
            let accepting = self.cores.spawn_on(
                core,
                listener::accept(listener, service, mesh, settings.clone(), stop),
            );
            self.listeners
                .lock()
                .expect("no holder of this lock panics")
                .spawn(async move {
                    let _ = accepting.await;
                });
        }
        Ok(())
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
            "ready in {:.1} s: {} services, {what}http://{}:{address}",
            started.elapsed().as_secs_f64(),
            services.len(),
            self.config.platform.listen
        );
    }

    /// Finishes what is under way: listeners, then jobs, within `drain_ms_max`; then closes what is durable.
    async fn drain(&self) {
        let deadline = Instant::now() + Duration::from_millis(self.config.platform.drain_ms_max);
        for service in self.registry.all() {
            service.set_state(State::Draining, None);
        }
        self.stop.send_replace(true);
        let mut listeners = std::mem::take(
            &mut *self
                .listeners
                .lock()
                .expect("no holder of this lock panics"),
        );
        let consumers = std::mem::take(
            &mut *self
                .consumers
                .lock()
                .expect("no holder of this lock panics"),
        );
        let finished = async { while listeners.join_next().await.is_some() {} };
        let jobs = futures::future::join_all(
            consumers
                .into_iter()
                .map(|consumer| async move { consumer.drain(deadline).await }),
        );
        if tokio::time::timeout_at(deadline.into(), futures::future::join(finished, jobs))
            .await
            .is_err()
        {
            tracing::warn!("drain_ms_max has passed; connections still open are closed");
        }
        for service in self.registry.all() {
            service.withdraw(State::Stopped);
        }
        self.loader.close().await;
        self.broker.close().await;
    }
}

fn dependencies(files: &load::Files) -> BTreeMap<ServiceName, Vec<ServiceName>> {
    files
        .iter()
        .map(|file| (file.manifest.name.clone(), file.manifest.depends_on.clone()))
        .collect()
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
                service.withdraw(State::Stopped);
                service.set_state(
                    State::Failed,
                    Some("its certificate was revoked".to_owned()),
                );
            }
        }
    }
}
