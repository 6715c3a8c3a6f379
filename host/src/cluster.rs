//! Several hosts as one platform: what they remember together, who is there, and the way from one to the other.
//!
//! Each host renews a lease and hears what is new in one round trip to PostgreSQL, several times a second. Nothing of this
//! is consensus of our own making: the server orders what is written, and a host that cannot reach it stops.
//!
//! **Invariant:** a host that has not heard from the platform for `deaf_ms_max` trusts nothing it knows: what is revoked is
//! refused everywhere within that time, or the host refuses everything.

mod config;
mod directory;
mod enrol;
mod identity;
mod listener;
mod memory;
mod metrics;
mod peer;
mod routes;
mod state;
mod wire;

pub use config::Config;
pub use directory::Directory;
pub use enrol::Invited;
pub use listener::accept;
pub use memory::{Kind, Memory};
pub use peer::{Peer, Reached};
pub use state::{HostState, Refused, ServiceState};
pub use wire::Envelope;

use crate::{
    ca::{self, Authority, Issuer},
    capability::sql,
    clock,
    config::Config as PlatformToml,
    telemetry::chain,
};
use enrol::Seat;
use exprsn_backends::shared::{Fact, Lease, Limits, Shared};
use identity::Identity;
use memory::Seal;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
};
use wasmtime::{Result, bail, ensure, error::Context as _};

/// Window of one stream between hosts, in bytes.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Window of one connection between hosts, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// How often what nobody needs any more is removed from the shared memory.
const TIDY_EVERY: Duration = Duration::from_secs(600);
/// The key of the fact that says whose memory it is.
const ROOT_KEY: &str = "root";

/// The name of the host whose authority's folder this is.
pub fn name_in(folder: &Path, config: &Config) -> Result<String> {
    identity::name(folder, config)
}

/// An address by which a program on the same machine reaches a listener.
pub fn reachable(listen: &str) -> String {
    match listen.parse::<std::net::SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => match address.is_ipv4() {
            true => format!("127.0.0.1:{}", address.port()),
            false => format!("[::1]:{}", address.port()),
        },
        _ => listen.to_owned(),
    }
}

/// What secrets in the shared memory are sealed with.
pub fn seal_file(data: &Path) -> PathBuf {
    data.join("ca").join(identity::SEAL_FILE)
}

/// What a host has of others before its authority is opened.
pub struct Opening {
    config: Config,
    name: String,
    shared: Shared,
    memory: Memory,
    facts: Vec<Fact>,
    revision: i64,
    seat: Option<Arc<Seat>>,
    data: PathBuf,
    trust_domain: String,
    /// Nobody has written anything yet.
    fresh: bool,
}

/// This host among the others.
pub struct Cluster {
    pub config: Config,
    pub name: String,
    shared: Shared,
    memory: Memory,
    identity: Arc<Identity>,
    seat: Option<Arc<Seat>>,
    authority: Arc<Authority>,
    directory: Directory,
    /// The last change that this host has taken in.
    revision: AtomicI64,
    /// When the last round trip that succeeded was begun, in milliseconds since `born`.
    heard_ms: AtomicU64,
    born: Instant,
    deaf: AtomicBool,
    /// This host's certificate was revoked.
    removed: AtomicBool,
    calls: metrics::Calls,
    draining: AtomicBool,
    /// Says what this host says of itself; set when the platform has started.
    describe: OnceLock<Box<dyn Fn() -> HostState + Send + Sync>>,
    /// What was heard and is not the authority's.
    heard: mpsc::UnboundedSender<Fact>,
    beats: watch::Sender<u64>,
}

impl Opening {
    /// Enrols where this host has not yet, and reads what the platform remembers; none where one host is alone.
    pub async fn open(
        config: &PlatformToml,
        data: &Path,
        join: Option<&str>,
    ) -> Result<Option<Self>> {
        let cluster = &config.cluster;
        if cluster.listen.is_empty() {
            ensure!(
                join.is_none(),
                "an invitation was given, and [cluster] listen is empty: write the address that other hosts reach this one by"
            );
            return Ok(None);
        }
        cluster.check(config)?;
        let folder = data.join("ca");
        let invitation = match join {
            Some(token) => Some(token.to_owned()),
            None => cluster.invitation()?,
        };
        let joined = ca::pki::has_joined(&folder);
        if let Some(token) =
            invitation.filter(|_| !joined && !folder.join(ca::pki::ROOT_FILE).exists())
        {
            enrol::enrol(&folder, &config.platform.trust_domain, &token, cluster).await?;
        }
        let (seal, name) = identity::prepare(&folder, cluster)?;
        let background = Handle::current();
        let connect = || sql::server(&config.backends.postgres, data, &background);
        let server = sql::patiently(connect).await?;
        let limits = Limits {
            call_max: Duration::from_millis(cluster.deaf_ms_max * 4 / 5),
            component_bytes_max: usize::try_from(crate::component::COMPONENT_BYTES_MAX)
                .unwrap_or(usize::MAX),
        };
        let shared = Shared::open(&server, limits)
            .await
            .context("opening the memory that hosts share")?;
        let (facts, revision) = shared.all(clock::now_s()).await?;
        let memory = Memory::new(
            shared.clone(),
            Seal::new(&seal)?,
            Handle::current(),
            Duration::from_millis(cluster.deaf_ms_max),
        );
        let is_root = |fact: &Fact| Kind::parse(&fact.kind) == Some(Kind::Platform);
        let fresh = !facts.iter().any(is_root);
        let seat = ca::pki::has_joined(&folder).then(|| Seat::new(shared.clone(), cluster));
        Ok(Some(Self {
            config: cluster.clone(),
            name,
            shared,
            memory,
            facts,
            revision,
            seat,
            data: data.to_owned(),
            trust_domain: config.platform.trust_domain.clone(),
            fresh,
        }))
    }

    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What the authority takes over.
    pub fn together(&self) -> ca::Together {
        ca::Together {
            memory: Some(self.memory.clone()),
            issuer: self.seat.clone().map(|seat| seat as Arc<dyn Issuer>),
            facts: self.facts.clone(),
        }
    }

    /// What is heard and is not the authority's, from the first fact on.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// Becomes a host of the platform, whose authority it is or has joined. Takes in all that is remembered.
    pub async fn join(
        self,
        authority: &Arc<Authority>,
    ) -> Result<(Arc<Cluster>, mpsc::UnboundedReceiver<Fact>)> {
        self.own(authority).await?;
        for fact in &self.facts {
            authority.hear(fact, clock::now_s()).await?;
        }
        let folder = self.data.join("ca");
        let identity = Identity::open(
            &folder,
            authority,
            &self.config,
            &self.name,
            &self.trust_domain,
        )?;
        if let Some(seat) = &self.seat {
            seat.show(identity.clone());
        }
        let (heard, hearing) = mpsc::unbounded_channel();

        let cluster = Arc::new(Cluster {
            directory: Directory::new(&self.config, &self.name, identity.clone()),
            config: self.config,
            name: self.name,
            shared: self.shared,
            memory: self.memory,
            identity,
            seat: self.seat,
            authority: authority.clone(),
            revision: AtomicI64::new(self.revision),
            heard_ms: AtomicU64::new(0),
            born: Instant::now(),
            deaf: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            calls: metrics::Calls::default(),
            draining: AtomicBool::new(false),
            describe: OnceLock::new(),
            heard,
            beats: watch::Sender::new(0),
        });
        Ok((cluster, hearing))
    }

    /// Makes the memory this platform's where it is nobody's; refuses that of another platform.
    async fn own(&self, authority: &Authority) -> Result<()> {
        let root = authority.root().pem.as_bytes().to_vec();
        if self.fresh && authority.issues() {
            self.memory.tell_all(authority.everything().await?).await?;
        }
        let owner = self
            .shared
            .create(Kind::Platform.as_str(), ROOT_KEY, root.clone())
            .await?;
        if owner != root {
            bail!(
                "[backends.postgres] is the memory of another platform: join that one with an invitation (`exprsn host invite` \
                 on its first host, then `exprsn up --join TOKEN` here with an empty data directory), or name another server"
            );
        }
        Ok(())
    }
}

impl Cluster {
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Whether this host has not heard from the platform for too long.
    pub fn is_deaf(&self) -> bool {
        self.since_heard() > Duration::from_millis(self.config.deaf_ms_max)
            || self.removed.load(Ordering::Acquire)
    }

    /// Whether this host is about to stop.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn since_heard(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Ordering::Acquire));
        self.born.elapsed().saturating_sub(heard)
    }

    /// The last change that this host has taken in.
    pub fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Counts how calls to other hosts end.
    pub fn calls(&self) -> &metrics::Calls {
        &self.calls
    }

    /// Shows this in the host's metrics.
    pub fn measure(self: &Arc<Self>, metrics: &crate::telemetry::Metrics) {
        metrics.register(|registry| metrics::register(self, registry));
    }

    /// Says how to find out what this host says of itself.
    pub fn describe_with(&self, describe: impl Fn() -> HostState + Send + Sync + 'static) {
        let _ = self.describe.set(Box::new(describe));
    }

    /// Counts round trips: whoever waits for what other hosts say looks again after each.
    pub fn beats(&self) -> watch::Receiver<u64> {
        self.beats.subscribe()
    }

    /// Renews the lease and hears what is new until it is dropped.
    pub async fn keep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_millis(self.config.heartbeat_ms));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tidied = Instant::now();
        loop {
            tick.tick().await;
            self.beat().await;
            if tidied.elapsed() > TIDY_EVERY {
                tidied = Instant::now();
                if let Err(error) = self.shared.tidy(clock::now_s()).await {
                    tracing::warn!(%error, "the shared memory could not be tidied");
                }
            }
        }
    }

    /// Looks between beats whether hearing has stopped: a beat may take as long as deafness needs.
    pub async fn listen_to_silence(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_millis(self.config.heartbeat_ms));
        loop {
            tick.tick().await;
            self.notice_deafness();
        }
    }

    /// One round trip.
    pub async fn beat(&self) {
        let begun = self.born.elapsed();
        let lease = self.lease();
        let since = self.revision.load(Ordering::Acquire);
        match self
            .shared
            .beat(lease.as_ref(), self.config.lease_ms, since)
            .await
        {
            Ok(heard) => {
                self.directory.update(&heard.hosts);
                for fact in &heard.facts {
                    self.take_in(fact).await;
                }
                // The memory was restored from an earlier state: everything is new.
                if heard.revision < since {
                    self.revision.store(0, Ordering::Release);
                } else if !heard.more {
                    let heard_ms = u64::try_from(begun.as_millis()).unwrap_or(u64::MAX);
                    self.heard_ms.store(heard_ms, Ordering::Release);
                }
                self.beats.send_modify(|beats| *beats += 1);
            }
            Err(error) => tracing::debug!(%error, "this host did not hear from the platform"),
        }
        self.notice_deafness();
    }

    /// Shows this host's certificate to the one that signs, and keeps it good until dropped.
    pub async fn keep_certified(self: Arc<Self>) {
        enrol::keep_certified(self.identity.clone(), self.seat.clone()).await;
    }

    /// Where other hosts' connections are accepted.
    pub fn listen_address(&self) -> Result<std::net::SocketAddr> {
        self.config.listen_address()
    }

    fn lease(&self) -> Option<Lease> {
        if self.identity.is_removed() {
            return None;
        }
        let mut state = self.describe.get()?();
        state.revision = self.revision.load(Ordering::Acquire);
        state.draining = self.is_draining();
        state.seat = self.authority.issues();
        Some(Lease {
            host: self.name.clone(),
            address: self.config.advertised(),
            state: serde_json::to_string(&state).expect("a state is text and numbers"),
        })
    }

    async fn take_in(&self, fact: &Fact) {
        if let Err(error) = self.authority.hear(fact, clock::now_s()).await {
            // What cannot be kept is in force all the same, or of no account.
            tracing::error!(
                kind = fact.kind,
                key = fact.key,
                error = chain(&error),
                "what was heard could not be kept"
            );
        }
        let _ = self.heard.send(fact.clone());
        self.revision.fetch_max(fact.revision, Ordering::AcqRel);
    }

    /// Stops trusting what this host knows, or begins to trust it again.
    fn notice_deafness(&self) {
        self.removed
            .store(self.identity.is_removed(), Ordering::Release);
        let deaf = self.is_deaf();
        if self.deaf.swap(deaf, Ordering::AcqRel) == deaf {
            return;
        }
        self.authority.withheld().set_deaf(deaf);
        match deaf {
            true if self.identity.is_removed() => tracing::error!(
                "this host was removed from the platform, and answers nothing any more; to come back it needs an empty data \
                 directory and another invitation"
            ),
            true => tracing::error!(
                deaf_ms_max = self.config.deaf_ms_max,
                "this host does not hear from the platform, and answers nothing until it does: is PostgreSQL reachable?"
            ),
            false => tracing::info!("this host hears from the platform again"),
        }
    }

    /// Tells the others that this host takes nothing new.
    pub async fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.beat().await;
    }

    /// Gives the lease up.
    pub async fn leave(&self) {
        if let Err(error) = self.shared.leave(&self.name).await {
            tracing::warn!(%error, "the lease was not given up; it expires by itself");
        }
        self.shared.close().await;
    }

    /// Keeps the component for hosts that have no file of it.
    pub async fn offer(&self, digest: &str, bytes: &[u8]) -> Result<()> {
        if !self.shared.has_component(digest).await? {
            self.shared.put_component(digest, bytes).await?;
        }
        Ok(())
    }
}
