//! The `blob` capability: objects of any size in containers, in a directory of the host's or a bucket of S3.
//!
//! **Invariant:** a service reaches its own containers only, by names that never become paths. What was acknowledged is
//! on disk, or in the bucket; what was not finished leaves nothing to be seen.

mod asked;
mod caller;
pub(crate) mod convert;
mod host;
mod store;
mod stream;
mod twin;

pub use exprsn_backends::blob::{backend, name};
pub use store::S3Server;

use super::{Boot, Borrower, Capability};
use crate::{
    name::{ServiceName, matches},
    store::StoreState,
};
use backend::{Backend, Quota};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use store::Store;
use tokio::{
    runtime::Handle,
    sync::{Mutex, Semaphore},
};
use wasmtime::{
    Result,
    component::{HasSelf, Linker},
    ensure,
};

wasmtime::component::bindgen!({
    path: "../wit/deps/exprsn-blob",
    world: "exprsn:blob/imports",
    imports: { default: trappable },
    require_store_data_send: true,
});

use exprsn::blob::{containers, objects, streams, types};

/// `[capability.blob]`: where objects are kept, and how much one service may use. Each field's name carries its unit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub backend: Kind,
    /// One object.
    pub object_bytes_max: u64,
    /// All objects of a service, what describes them included.
    pub total_bytes_max: u64,
    /// Objects of a service.
    pub objects_max: usize,
    /// Its containers.
    pub containers_max: usize,
    /// An object's name.
    pub name_bytes_max: usize,
    /// What one call reads or writes without a stream.
    pub value_bytes_max: u64,
    /// Objects on one page of a list.
    pub list_max: usize,
    /// Streams of a service that are open at once.
    pub streams_max: usize,
    /// Accesses to the disk of one service that are under way at once; further ones wait.
    pub operations_max: usize,
}

/// What keeps the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Files in the data directory.
    Directory,
    /// The bucket of `[backends.s3]`, for all hosts together.
    S3,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Kind::Directory,
            object_bytes_max: 5 << 30,
            total_bytes_max: 64 << 30,
            objects_max: 100_000,
            containers_max: 100,
            name_bytes_max: 1_024,
            value_bytes_max: 8 << 20,
            list_max: 1_000,
            streams_max: 64,
            operations_max: 16,
        }
    }
}

impl Config {
    /// Names the first limit that would let nothing through.
    fn check(&self) -> Result<()> {
        let limits = [
            ("object_bytes_max", self.object_bytes_max),
            ("total_bytes_max", self.total_bytes_max),
            ("objects_max", self.objects_max as u64),
            ("containers_max", self.containers_max as u64),
            ("name_bytes_max", self.name_bytes_max as u64),
            ("value_bytes_max", self.value_bytes_max),
            ("list_max", self.list_max as u64),
            ("streams_max", self.streams_max as u64),
            ("operations_max", self.operations_max as u64),
        ];
        let zero = limits.into_iter().find(|(_, value)| *value == 0);
        ensure!(
            zero.is_none(),
            "[capability.blob] {} is 0; it must be at least 1",
            zero.unwrap_or_default().0
        );
        ensure!(
            self.name_bytes_max <= NAME_BYTES_LIMIT,
            "[capability.blob] name_bytes_max is {}; no backend keeps names of more than {NAME_BYTES_LIMIT} bytes",
            self.name_bytes_max
        );
        Ok(())
    }

    fn quota(&self) -> Quota {
        Quota {
            object_bytes_max: self.object_bytes_max,
            total_bytes_max: self.total_bytes_max,
            objects_max: self.objects_max,
            containers_max: self.containers_max,
        }
    }
}

/// Longest name that every backend can keep (S3's limit), in bytes.
pub const NAME_BYTES_LIMIT: usize = 1_024;

/// `[grants.blob]`: containers, or prefixes of their names that end in `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grant {
    /// Whose objects may be read and listed.
    pub read: Vec<String>,
    /// Which may be created and deleted, and whose objects may be written and deleted.
    pub write: Vec<String>,
}

/// What a call needs of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Read,
    Write,
    /// To know of it.
    Either,
}

impl Grant {
    fn covers(&self, need: Need, container: &str) -> bool {
        let among =
            |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, container));
        match need {
            Need::Read => among(&self.read),
            Need::Write => among(&self.write),
            Need::Either => among(&self.read) || among(&self.write),
        }
    }

    /// Whether a container may be used so; the error says which grant is missing and where it is written.
    fn allow(&self, need: Need, container: &str) -> Result<(), types::Error> {
        if self.covers(need, container) {
            return Ok(());
        }
        let list = match need {
            Need::Write => "write",
            Need::Read | Need::Either => "read",
        };
        Err(types::Error::AccessDenied(format!(
            "container `{container}` is not granted: add \"{container}\" to `{list}` under [grants.blob] in component.toml"
        )))
    }
}

/// The `blob` capability.
pub struct Blob {
    store: Store,
    config: Arc<Config>,
    /// Threads that may wait for the disk, and where what outlives a call goes on.
    threads: Handle,
    /// Objects of the services that have asked; versions of a service share them.
    open: Mutex<HashMap<ServiceName, Open>>,
}

/// The objects of a service, open until the host ends.
#[derive(Clone, Debug)]
struct Open {
    backend: Arc<dyn Backend>,
    /// One permit for each stream that may be open.
    streams: Arc<Semaphore>,
}

/// What one service version holds.
#[derive(Clone, Debug)]
pub struct Lent {
    service: ServiceName,
    grant: Arc<Grant>,
    config: Arc<Config>,
    open: Open,
}

/// The folder of all services' objects.
pub fn path(data: &Path) -> PathBuf {
    data.join("blob")
}

impl Blob {
    async fn open(&self, service: &ServiceName) -> Result<Open> {
        let mut open = self.open.lock().await;
        if let Some(open) = open.get(service) {
            return Ok(open.clone());
        }
        let backend = self
            .store
            .open(service, &self.config, &self.threads)
            .await?;
        let opened = Open {
            backend,
            streams: Arc::new(Semaphore::new(self.config.streams_max)),
        };
        open.insert(service.clone(), opened.clone());
        Ok(opened)
    }
}

impl Capability for Blob {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(boot: &Boot, config: Config) -> Result<Self> {
        config.check()?;
        Ok(Self {
            store: Store::new(&boot.data, &config, &boot.backends.s3)?,
            config: Arc::new(config),
            threads: boot.background.clone(),
            open: Mutex::default(),
        })
    }

    fn link(linker: &mut Linker<StoreState>, _grant: &Grant) -> Result<()> {
        types::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        containers::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        objects::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        streams::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        twin::link(linker)
    }

    async fn lend(&self, borrower: &Borrower<'_>, grant: &Grant) -> Result<Lent> {
        Ok(Lent {
            service: borrower.name.clone(),
            grant: Arc::new(grant.clone()),
            config: self.config.clone(),
            open: self.open(borrower.name).await?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_toml_documents_every_limit_with_its_default() {
        let text = include_str!("../../../../platform.toml");
        let (_, section) = text.split_once("\n[capability.blob]").expect("a section");
        let section = section.split("\n[").next().expect("its end");
        for (key, value) in toml::Table::try_from(Config::default()).unwrap() {
            let line = format!("\n# {key} = {value} ");
            assert!(
                section.contains(&line),
                "add `{}` to [capability.blob] in platform.toml",
                line.trim()
            );
        }
    }

    #[test]
    fn limits_of_nothing_are_refused_by_name() {
        let config: Config = toml::from_str("streams_max = 0").unwrap();
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("streams_max is 0"), "{error}");
        let config: Config = toml::from_str("name_bytes_max = 1025").unwrap();
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("more than 1024 bytes"), "{error}");
        assert!(Config::default().check().is_ok());
    }

    #[test]
    fn denials_say_what_to_add_where() {
        let grant = Grant {
            read: vec!["avatars".to_owned()],
            write: vec!["tmp-*".to_owned()],
        };
        for (need, container) in [
            (Need::Read, "avatars"),
            (Need::Write, "tmp-1"),
            (Need::Either, "avatars"),
            (Need::Either, "tmp-"),
        ] {
            assert!(grant.covers(need, container), "{need:?} {container}");
        }
        for (need, container, remedy) in [
            (Need::Write, "avatars", "add \"avatars\" to `write`"),
            (Need::Read, "tmp-1", "add \"tmp-1\" to `read`"),
            (Need::Read, "avatars2", "add \"avatars2\" to `read`"),
            (Need::Either, "tmp", "add \"tmp\" to `read`"),
        ] {
            let denied = grant.allow(need, container);
            assert!(
                matches!(&denied, Err(types::Error::AccessDenied(text)) if text.contains(remedy)),
                "{need:?} {container}"
            );
        }
    }
}
