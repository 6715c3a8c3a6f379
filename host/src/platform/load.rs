//! From configured services to versions that can run: approved, compiled, admitted, lent, linked.

use crate::{
    allowance::Allowance,
    approval::{self, Approved, Unapproved},
    ca::{Candidate, ComponentCertificate, Decided},
    capability::{Boot, Borrower, Capabilities, Grants},
    component::{Cache, ComponentFile},
    config::{Config, Limits, PlatformConfig, ServiceConfig},
    cores::Cores,
    engine,
    library::Library,
    manifest::{Manifest, RouteTable},
    mesh::{ActAs, Mesh},
    name::ServiceName,
    service::{Loaded, Record, Retirement, Version, start_order},
    store::{ServiceContext, StoreState},
    trigger::{self, http::Pool},
    withheld::InForce,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, LazyLock},
    time::Instant,
};
use tokio::sync::Semaphore;
use wasmtime::{
    Engine, Result, bail,
    component::{Component, InstancePre, Linker},
    ensure,
    error::Context as _,
    format_err,
};
use wasmtime_wasi_http::{WasiHttp, WasiHttpView as _, handler::ProxyPre};

/// Components compiled at once: each takes a core and much memory.
const COMPILATIONS_MAX: usize = 2;

/// The unit in which WebAssembly measures memories.
const WASM_PAGE_BYTES: u64 = 64 << 10;

/// What platform.toml says of a service that was installed.
static NOTHING: LazyLock<ServiceConfig> = LazyLock::new(ServiceConfig::default);

/// The components of all services that run.
pub type Files = Vec<ComponentFile>;

/// Reads every configured component and checks what can be checked without running it.
pub async fn read_all(config: &Config, folder: &Path) -> Result<Files> {
    let mut files = Vec::new();
    for (name, service) in &config.service {
        // A section without a component is about one that was installed.
        if service.component.is_empty() {
            continue;
        }
        let path = folder.join(&service.component);
        let mut file = tokio::task::spawn_blocking(move || ComponentFile::read(&path))
            .await
            .context("reading a component")??;
        ensure!(
            file.manifest.name == *name,
            "[service.{name}] names component `{}`, which is {}",
            file.path.display(),
            file.manifest.name
        );
        file.check_requests()
            .with_context(|| format!("{name} cannot be loaded"))?;
        approve(&file, service)?.restrict(&mut file.manifest);
        files.push(file);
    }
    Ok(files)
}

/// What the operator approves of what the manifest asks for. A request without an answer does not load.
fn approve(file: &ComponentFile, service: &ServiceConfig) -> Result<Approved> {
    approval::approve(file, &service.grants).map_err(|unapproved| {
        let name = &file.manifest.name;
        let remedy = match &unapproved {
            Unapproved::Unanswered(names) => format!(
                ": write {} = \"as-requested\" into `grants` of [service.{name}] in platform.toml",
                names.join(" = \"as-requested\", ")
            ),
            Unapproved::Authority => String::new(),
            _ => format!(": see `grants` of [service.{name}] in platform.toml"),
        };
        format_err!("{name} cannot be loaded: {unapproved}{remedy}")
    })
}

/// The address of a service beside those that have their `placed`. Two services on one port, a port that somebody else
/// listens on, and a circle of calls or dependencies are errors.
pub fn place(
    config: &Config,
    manifest: &Manifest,
    placed: &[(super::restore::Planned, SocketAddr)],
) -> Result<SocketAddr> {
    let name = &manifest.name;
    let address = address(&config.platform, manifest)?;
    if let Some((other, _)) = placed.iter().find(|(_, taken)| *taken == address) {
        let other = &other.file.manifest.name;
        bail!("{name} and {other} both want port {}", address.port());
    }
    let others = placed.iter().map(|(other, _)| &other.file.manifest);
    let all: Vec<&Manifest> = others.chain([manifest]).collect();
    refuse_call_cycles(&all)?;
    super::start_order_of(&all)?;
    crate::listener::probe(address, name)?;
    Ok(address)
}

/// The address that a manifest's port stands for.
pub fn address(config: &PlatformConfig, manifest: &Manifest) -> Result<SocketAddr> {
    let port = config.port_offset.checked_add(manifest.port);
    let port = port.ok_or_else(|| {
        format_err!(
            "{}: port {} plus [platform] port_offset is beyond 65535",
            manifest.name,
            manifest.port
        )
    })?;
    Ok(SocketAddr::new(config.listen, port))
}

/// Refuses services whose declared calls form a circle. A gateway, which calls anything for its users, is left out.
pub fn refuse_call_cycles(manifests: &[&Manifest]) -> Result<()> {
    let calls = |manifest: &Manifest| {
        let calls = manifest.grants.http.iter().flat_map(|http| &http.call);
        let named = calls.filter(|call| call.act_as == ActAs::Service);
        named
            .filter_map(|call| ServiceName::parse(&call.service).ok())
            .collect()
    };
    let graph = manifests
        .iter()
        .map(|manifest| (manifest.name.clone(), calls(manifest)))
        .collect();
    start_order(&graph)
        .map(drop)
        .map_err(|error| format_err!("[grants.http] call: {error}"))
}

/// Turns component files into versions.
pub struct Loader {
    engine: Engine,
    cache: Cache,
    boot: Boot,
    capabilities: Capabilities,
    mesh: Arc<Mesh>,
    cores: Arc<Cores>,
    services: BTreeMap<ServiceName, ServiceConfig>,
    host_limits: toml::Table,
    compilations: Semaphore,
}

impl Loader {
    /// Creates the engine and starts its clock. A service in `files` that asks for more than its pool has is an error.
    pub fn new(
        config: &Config,
        options: &super::Options,
        boot: Boot,
        (capabilities, mesh): (Capabilities, Arc<Mesh>),
        cores: Arc<Cores>,
        files: &[&ComponentFile],
    ) -> Result<Self> {
        for file in files {
            let service = config.service.get(&file.manifest.name);
            let service = service.unwrap_or(&NOTHING);
            limits((&config.platform, &config.limits), file, service)?;
        }
        let engine = engine::running(&config.platform)?;
        engine::tick(&engine)?;
        let folder = options
            .cache
            .clone()
            .unwrap_or_else(|| boot.data.join("cache"));
        let cache = Cache::open(&folder, &engine)?;
        Ok(Self {
            engine,
            cache,
            boot,
            capabilities,
            mesh,
            cores,
            services: config.service.clone(),
            host_limits: config.limits.clone(),
            compilations: Semaphore::new(COMPILATIONS_MAX),
        })
    }

    /// Closes the services' databases.
    pub async fn close(&self) {
        self.capabilities.sql.close().await;
    }

    /// Loads a version. Says whether its code was in the cache.
    pub async fn load(&self, file: ComponentFile) -> Result<(Arc<Version>, bool)> {
        let name = file.manifest.name.clone();
        let loaded = self.load_checked(file).await;
        loaded.with_context(|| format!("{name} cannot be loaded"))
    }

    async fn load_checked(&self, file: ComponentFile) -> Result<(Arc<Version>, bool)> {
        let service = self.configured(&file.manifest.name);
        let approved = approve(&file, service)?;
        let serial = self.admit(&file, &approved).await?;
        self.build(file, approved, serial).await
    }

    /// Loads a version that was admitted by decision, with the grants in its certificate.
    pub async fn load_admitted(
        &self,
        file: ComponentFile,
        certificate: &ComponentCertificate,
    ) -> Result<(Arc<Version>, bool)> {
        let name = file.manifest.name.clone();
        let load = async {
            file.check_requests()?;
            let approved = Approved::certified(&file, &certificate.grants)
                .map_err(|error| format_err!("{error}"))?;
            self.build(file, approved, certificate.serial.clone()).await
        };
        load.await
            .with_context(|| format!("{name} cannot be loaded"))
    }

    async fn build(
        &self,
        mut file: ComponentFile,
        approved: Approved,
        serial: String,
    ) -> Result<(Arc<Version>, bool)> {
        approved.restrict(&mut file.manifest);
        let service = self.configured(&file.manifest.name);
        // Before anything is compiled.
        limits((&self.boot.config, &self.host_limits), &file, service)?;
        let (component, cached) = {
            let _turn = self
                .compilations
                .acquire()
                .await
                .context("the host is stopping")?;
            self.cache
                .get(&self.engine, &file, &self.boot.config)
                .await?
        };
        let linker = self.linker(&approved.linked(&file))?;
        let pre = linker
            .instantiate_pre(&component)
            .context("linking it to what it was granted")?;
        let version = self
            .assemble(file, service, (approved, serial), &pre)
            .await?;
        Ok((Arc::new(version), cached))
    }

    /// What platform.toml says of a service; nothing of one that was installed.
    fn configured(&self, name: &ServiceName) -> &ServiceConfig {
        self.services.get(name).unwrap_or(&NOTHING)
    }

    pub fn background(&self) -> &tokio::runtime::Handle {
        &self.boot.background
    }

    /// Component files by digest.
    pub fn library(&self) -> &Arc<Library> {
        &self.boot.library
    }

    /// Computes the order of starting anew from what runs now.
    pub fn resolve_start_order(&self) {
        let registry = &self.boot.registry;
        let described: Vec<_> = registry
            .all()
            .iter()
            .map(|service| service.described())
            .collect();
        let manifests: Vec<&Manifest> = described.iter().map(|one| &one.manifest).collect();
        match super::start_order_of(&manifests) {
            Ok(order) => registry.set_start_order(order),
            Err(error) => tracing::error!("the order of starting is unknown: {error}"),
        }
    }

    /// Asks the certificate authority; nothing runs without its certificate, whose serial number this answers.
    async fn admit(&self, file: &ComponentFile, approved: &Approved) -> Result<String> {
        let candidate = Candidate::new(file, approved, Decided::Configuration)?;
        Ok(self.boot.authority.admit_as(candidate).await?.serial)
    }

    /// Only what is granted is in the linker, and WASI's baseline, behind which there is nothing.
    fn linker(&self, grants: &Grants) -> Result<Linker<StoreState>> {
        let mut linker = Linker::new(&self.engine);
        // The p2 `exit` of the first call and the p3 interfaces are distinct versions: nothing is shadowed.
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::bindings::http::types::add_to_linker::<_, WasiHttp>(
            &mut linker,
            StoreState::http,
        )?;
        let options = wasmtime_wasi_http::p2::bindings::http::types::LinkOptions::default();
        wasmtime_wasi_http::p2::bindings::http::types::add_to_linker::<_, WasiHttp>(
            &mut linker,
            &options,
            StoreState::http,
        )?;
        grants.link(&mut linker)?;
        Ok(linker)
    }

    async fn assemble(
        &self,
        file: ComponentFile,
        service: &ServiceConfig,
        (approved, serial): (Approved, String),
        pre: &InstancePre<StoreState>,
    ) -> Result<Version> {
        let name = file.manifest.name.clone();
        let host = (&*self.boot.config, &self.host_limits);
        let limits = limits(host, &file, service)?;
        require(pre.component(), &limits)?;
        let mut values = file.manifest.config.clone();
        values.extend(service.config.clone());
        let borrower = Borrower {
            name: &name,
            manifest: &file.manifest,
            grants: &approved.grants,
            migrations: &file.migrations,
            config: &values,
        };
        let lent = self.capabilities.lend(&borrower).await?;
        let context = Arc::new(ServiceContext {
            name: name.clone(),
            version: file.manifest.version.clone(),
            source: exprsn_telemetry::Source::new(name.as_str(), &file.manifest.version),
            allowance: Allowance::new(&limits),
            limits,
            lent,
            in_force: InForce::new(
                name.clone(),
                approved.refused,
                self.boot.authority.withheld().of(&name),
            ),
            started: Instant::now(),
        });
        Ok(Version {
            routes: RouteTable::new(&file.manifest.routes)
                .map_err(|error| format_err!("{error}"))?,
            metrics: self.boot.metrics.service(&name),
            proxy: proxy(pre, &file.exports)?,
            worker: trigger::job::worker(pre, &file.exports)?,
            subscriber: trigger::event::subscriber(pre, &file.exports)?,
            engine: self.engine.clone(),
            mesh: self.mesh.clone(),
            schemas: file.migrations.range(),
            record: Record::new(),
            retirement: Retirement::new(),
            _loaded: Loaded::new(self.boot.metrics.versions(&name)),
            pools: pools(&context.limits, self.cores.count()),
            digest: file.digest,
            serial,
            manifest: file.manifest,
            grants: approved.grants,
            context,
        })
    }
}

/// The limits of a service, all within what the host's pool has.
fn limits(
    (platform, host): (&PlatformConfig, &toml::Table),
    file: &ComponentFile,
    service: &ServiceConfig,
) -> Result<Limits> {
    let name = &file.manifest.name;
    let factor_max = platform.asked_limits_factor_max;
    let limits = Limits::of_service(host, &file.manifest.limits, &service.limits, factor_max)
        .map_err(|error| format_err!("{name}: {error}"))?;
    let within = |limit: &str, asked: usize, pool: usize| {
        ensure!(
            asked <= pool,
            "{name} asks for {limit} = {asked}, and this host has at most {pool}: lower it in [service.{name}.limits], or \
             raise [platform] pool_{limit} in platform.toml and start the host anew"
        );
        Ok(())
    };
    within(
        "memory_bytes_max",
        limits.memory_bytes_max,
        platform.pool_memory_bytes_max,
    )?;
    within(
        "table_elements_max",
        limits.table_elements_max,
        platform.pool_table_elements_max,
    )?;
    Ok(limits)
}

/// Refuses a component that could never be instantiated within its limits. What it does later is bounded by its store.
fn require(component: &Component, limits: &Limits) -> Result<()> {
    let Some(needs) = component.resources_required() else {
        bail!("it wants core modules from outside, which this host does not give");
    };
    let bytes = needs.max_initial_memory_size.unwrap_or(0);
    for (what, needed, limit, max) in [
        (
            "memories",
            needs.num_memories as usize,
            "memories_max",
            limits.memories_max,
        ),
        (
            "tables",
            needs.num_tables as usize,
            "tables_max",
            limits.tables_max,
        ),
        (
            "elements in a table",
            saturated(needs.max_initial_table_size.unwrap_or(0)),
            "table_elements_max",
            limits.table_elements_max,
        ),
        (
            "bytes of memory at its start",
            saturated(bytes.saturating_mul(WASM_PAGE_BYTES)),
            "memory_bytes_max",
            limits.memory_bytes_max,
        ),
    ] {
        ensure!(
            needed <= max,
            "it needs {needed} {what}, and its limit {limit} is {max}"
        );
    }
    Ok(())
}

fn saturated(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// The service's invocations are shared out evenly between the cores.
fn pools(limits: &Limits, cores: usize) -> Vec<Arc<Pool>> {
    let share = |total: usize| total.div_ceil(cores).max(1);
    (0..cores)
        .map(|_| {
            Pool::new(
                share(limits.invocations_max),
                share(limits.waiting_max),
                limits.waiting_ms_max,
            )
        })
        .collect()
}

/// The HTTP handler of either version of WASI; none where the component exports none.
fn proxy(
    pre: &InstancePre<StoreState>,
    exports: &[String],
) -> Result<Option<ProxyPre<StoreState>>> {
    let exported = |prefix: &str| exports.iter().any(|export| export.starts_with(prefix));
    if exported("wasi:http/handler@0.3") {
        return Ok(Some(ProxyPre::P3(
            wasmtime_wasi_http::p3::bindings::ServicePre::new(pre.clone())?,
        )));
    }
    if exported("wasi:http/incoming-handler@0.2") {
        return Ok(Some(ProxyPre::P2(
            wasmtime_wasi_http::p2::bindings::ProxyPre::new(pre.clone())?,
        )));
    }
    Ok(None)
}
