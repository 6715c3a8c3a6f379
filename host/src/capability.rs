//! What the host can lend to a service: the trait of a capability and the one list of them.
//!
//! **Invariant:** an interface is in a service's linker only if its grant is approved; authority is absence, not an `if`.
//! Only scope (which queue, which topic, which host) is checked at call time.

use crate::{
    ca::Authority,
    config::{Backends, PlatformConfig},
    library::Library,
    manifest::Manifest,
    name::ServiceName,
    store::StoreState,
    telemetry::Metrics,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{future::Future, path::PathBuf, sync::Arc};
use wasmtime::{Result, component::Linker};

/// What capabilities find when the host starts.
pub struct Boot {
    /// The data directory; a capability keeps its files in a folder or file of its own name.
    pub data: PathBuf,
    pub config: Arc<PlatformConfig>,
    pub backends: Backends,
    /// Runs what belongs to no request: relays, compaction, key generation.
    pub background: tokio::runtime::Handle,
    pub metrics: Arc<Metrics>,
    /// Component files that may be admitted and loaded.
    pub library: Arc<Library>,
    /// The other hosts; none where this one is alone.
    pub cluster: Option<Arc<crate::cluster::Cluster>>,
    /// Keys, tokens, certificates.
    pub authority: Arc<Authority>,
    /// The way out of the platform; shared by `http` and `sockets`.
    pub egress: Arc<crate::mesh::Egress>,
    /// Jobs and events; shared by `queue`, `events` and the outbox of `sql`.
    pub broker: Arc<queue::Broker>,
    /// The platform itself, for those who may change it.
    pub control: Arc<crate::platform::Control>,
    /// What is running; filled when the platform has started.
    pub registry: Arc<crate::service::Registry>,
}

/// The service that something is lent to.
pub struct Borrower<'a> {
    pub name: &'a ServiceName,
    pub manifest: &'a Manifest,
    /// All approved grants: `sql` looks at `queue` and `events` for its outbox.
    pub grants: &'a Grants,
    /// The component's migrations, applied by `sql`.
    pub migrations: &'a crate::manifest::Migrations,
    /// Values of `wasi:config`, manifest's defaults and operator's merged.
    pub config: &'a std::collections::BTreeMap<String, String>,
}

/// An interface family that the host can lend.
pub trait Capability: Sized + Send + Sync + 'static {
    /// The operator's half: `[capability.<name>]` in platform.toml.
    type Config: DeserializeOwned + Default + Send;
    /// The developer's half: `[grants.<name>]` in component.toml.
    type Grant: DeserializeOwned + Serialize + Clone + std::fmt::Debug + Send + Sync + 'static;
    /// What one service version holds while it runs.
    type Lent: std::fmt::Debug + Send + Sync + 'static;

    /// Opens the backend, once, when the host starts. An error stops the start and names the key or file at fault.
    fn connect(boot: &Boot, config: Self::Config) -> impl Future<Output = Result<Self>> + Send;

    /// Adds the interfaces to the linker of one service version.
    fn link(linker: &mut Linker<StoreState>, grant: &Self::Grant) -> Result<()>;

    /// Prepares what a service version uses through its stores, once when it is loaded.
    fn lend(
        &self,
        borrower: &Borrower<'_>,
        grant: &Self::Grant,
    ) -> impl Future<Output = Result<Self::Lent>> + Send;
}

mod twin;
pub(crate) use twin::twin;

macro_rules! capabilities {
    ($($name:ident: $type:ident in [$($package:literal),+]),+ $(,)?) => {
        $(pub mod $name; pub use $name::$type;)+

        /// Names of all capabilities, alphabetical.
        pub const NAMES: &[&str] = &[$(stringify!($name)),+];

        /// The connected capabilities.
        pub struct Capabilities { $(pub $name: $type),+ }

        /// The operator's configuration of each.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Configs { $(pub $name: <$type as Capability>::Config),+ }

        impl Default for Configs {
            fn default() -> Self { Self { $($name: Default::default()),+ } }
        }

        /// A service's grants: what its manifest asks for, or what is approved of it.
        #[derive(Clone, Debug, Default, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Grants {
            $(#[serde(default, skip_serializing_if = "Option::is_none")] pub $name: Option<<$type as Capability>::Grant>),+
        }

        /// What a service version holds of each capability; none where nothing is granted.
        #[derive(Debug, Default)]
        pub struct Lent { $(pub $name: Option<<$type as Capability>::Lent>),+ }

        impl Capabilities {
            /// Connects all, in the order of the list.
            pub async fn connect(boot: &Boot, configs: Configs) -> Result<Self> {
                Ok(Self { $($name: <$type as Capability>::connect(boot, configs.$name).await?),+ })
            }

            /// Lends a service all that it is granted.
            pub async fn lend(&self, borrower: &Borrower<'_>) -> Result<Lent> {
                let mut lent = Lent::default();
                $(if let Some(grant) = &borrower.grants.$name {
                    lent.$name = Some(self.$name.lend(borrower, grant).await?);
                })+
                Ok(lent)
            }
        }

        impl Grants {
            /// Links the interfaces of all grants.
            pub fn link(&self, linker: &mut Linker<StoreState>) -> Result<()> {
                $(if let Some(grant) = &self.$name { <$type as Capability>::link(linker, grant)?; })+
                Ok(())
            }

            /// Names of the capabilities granted.
            pub fn names(&self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if self.$name.is_some() { names.push(stringify!($name)); })+
                names
            }

            /// Takes the grant of one capability over from others.
            pub fn take(&mut self, from: &Self, name: &str) {
                $(if name == stringify!($name) { self.$name = from.$name.clone(); })+
            }

            /// Keeps only what `keep` accepts by name.
            pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
                $(if !keep(stringify!($name)) { self.$name = None; })+
            }
        }

        /// The capability that lends the interface `import` (`exprsn:sql/database@1.0.0`), if one does.
        pub fn of_import(import: &str) -> Option<&'static str> {
            $($(if import.starts_with($package) { return Some(stringify!($name)); })+)+
            None
        }
    };
}

// Alphabetical; the only list.
capabilities! {
    blob: Blob in ["exprsn:blob/"],
    ca: Ca in ["exprsn:ca/"],
    cache: Cache in ["exprsn:cache/"],
    config: ConfigStore in ["wasi:config/"],
    events: Events in ["exprsn:events/"],
    http: Http in ["wasi:http/client", "wasi:http/outgoing-handler"],
    platform: Platform in ["exprsn:platform/"],
    queue: Queue in ["exprsn:queue/"],
    sockets: Sockets in ["exprsn:sockets/"],
    sql: Sql in ["exprsn:sql/"],
    telemetry: Telemetry in ["exprsn:telemetry/"],
}
