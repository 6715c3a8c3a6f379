//! What all calls of one service share: where its keys are, what they take, and who may change one now.

use super::{
    client::{Answer, Client, Fault, Request},
    key::{self, CONTAINERS},
    xml::{self, Page},
};
use crate::{
    blob::{
        backend::{Error, Info, Place, Quota, Result, Usage, no_container},
        name::ContainerName,
    },
    name::ServiceName,
};
use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};
use tokio::{runtime::Handle, sync::RwLock};

/// Locks that objects share by their keys' hashes.
const LOCKS: usize = 64;
/// Keys on one page, which is the most that S3 gives.
pub(super) const PAGE_KEYS: usize = 1_000;

/// One service's objects.
pub(super) struct Shared {
    pub client: Arc<Client>,
    pub service: ServiceName,
    /// Begins all keys of the service; ends in `/`.
    root: String,
    pub quota: Quota,
    /// Where tasks run that outlive the call that began them.
    pub threads: Handle,
    counts: Mutex<Counts>,
    /// Held alone while a container goes, so that no write of this host ends in one that has gone.
    pub containers: RwLock<()>,
    /// Held while an object is replaced or deleted, so that this host counts each of them once.
    locks: [tokio::sync::Mutex<()>; LOCKS],
}

/// What the service's objects take.
#[derive(Debug)]
struct Counts {
    stored: u64,
    objects: usize,
    /// Bytes of what is being written.
    reserved: u64,
    counted: Instant,
    /// A count is under way.
    counting: bool,
}

impl Shared {
    /// Counts what is there.
    pub async fn open(
        client: Arc<Client>,
        prefix: &str,
        service: &ServiceName,
        quota: Quota,
        threads: Handle,
    ) -> Answer<Self> {
        let root = match prefix {
            "" => format!("{service}/"),
            prefix => format!("{prefix}/{service}/"),
        };
        let (stored, objects) = count(&client, &root).await?;
        Ok(Self {
            client,
            service: service.clone(),
            root,
            quota,
            threads,
            counts: Mutex::new(Counts {
                stored,
                objects,
                reserved: 0,
                counted: Instant::now(),
                counting: false,
            }),
            containers: RwLock::new(()),
            locks: std::array::from_fn(|_| tokio::sync::Mutex::default()),
        })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("no holder of this lock panics")
    }

    /// What says that a container is there.
    pub fn marker(&self, container: &ContainerName) -> String {
        format!("{}{container}", self.markers())
    }

    pub fn markers(&self) -> String {
        format!("{}{CONTAINERS}/", self.root)
    }

    /// What begins the keys of a container.
    pub fn folder(&self, container: &ContainerName) -> String {
        format!("{}{container}/", self.root)
    }

    pub fn key(&self, place: &Place) -> String {
        self.folder(&place.container) + &key::of_name(&place.name)
    }

    /// What is at a place now.
    pub async fn stat(&self, place: &Place) -> Answer<Option<Info>> {
        self.client.stat(self.key(place), &place.name).await
    }

    /// Fails where the container is not there.
    pub async fn require(&self, container: &ContainerName, doing: &'static str) -> Result<()> {
        let there = self.client.is_there(self.marker(container)).await;
        match there.map_err(|fault| fault.into_error(doing))? {
            true => Ok(()),
            false => Err(no_container(container)),
        }
    }

    /// The container is there; also what is at the place.
    pub async fn now(&self, place: &Place, doing: &'static str) -> Result<Option<Info>> {
        let stat = async {
            let stat = self.stat(place).await;
            stat.map_err(|fault| fault.into_error(doing))
        };
        let ((), now) = futures::try_join!(self.require(&place.container, doing), stat)?;
        Ok(now)
    }

    pub async fn lock(&self, key: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let slot = usize::try_from(hasher.finish() % LOCKS as u64).expect("there are few locks");
        self.locks[slot].lock().await
    }

    /// Whether one more object may be written where there is `now`.
    pub fn check_objects(&self, now: Option<&Info>) -> Result<()> {
        let max = self.quota.objects_max;
        if now.is_some() || self.counts().objects < max {
            return Ok(());
        }
        Err(Error::LimitExceeded(format!(
            "the service has {max} objects, and objects_max is {max}"
        )))
    }

    pub fn check_bytes(&self, size: u64) -> Result<()> {
        let max = self.quota.object_bytes_max;
        if size <= max {
            return Ok(());
        }
        Err(Error::LimitExceeded(format!(
            "the object has more than {max} bytes, and object_bytes_max is {max}"
        )))
    }

    /// An object has gone.
    pub fn removed(&self, size: u64) {
        let mut counts = self.counts();
        counts.stored = counts.stored.saturating_sub(size);
        counts.objects = counts.objects.saturating_sub(1);
    }

    pub fn usage(&self) -> Usage {
        let counts = self.counts();
        Usage {
            bytes: counts.stored + counts.reserved,
            objects: counts.objects,
        }
    }

    /// Begins to count anew what other hosts have written too, where the last count is old.
    pub fn recount(self: &Arc<Self>) {
        {
            let mut counts = self.counts();
            if counts.counting || counts.counted.elapsed() < self.client.limits.recount {
                return;
            }
            counts.counting = true;
        }
        let shared = self.clone();
        self.threads.spawn(async move {
            let counted = count(&shared.client, &shared.root).await;
            let mut counts = shared.counts();
            (counts.counting, counts.counted) = (false, Instant::now());
            match counted {
                Ok((stored, objects)) => (counts.stored, counts.objects) = (stored, objects),
                Err(fault) => {
                    tracing::warn!(service = %shared.service, %fault, "objects were not counted anew");
                }
            }
        });
    }
}

/// Bytes counted in before they are written; given back when dropped.
pub(super) struct Reserved {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Reserved {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, bytes: 0 }
    }

    pub fn add(&mut self, bytes: u64) -> Result<()> {
        let max = self.shared.quota.total_bytes_max;
        let mut counts = self.shared.counts();
        let now = counts.stored + counts.reserved;
        if now.saturating_add(bytes) > max {
            return Err(Error::LimitExceeded(format!(
                "the service's objects have {now} bytes, {bytes} more do not fit, and total_bytes_max is {max}"
            )));
        }
        counts.reserved += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// They are an object now, in place of what was there.
    pub fn settle(mut self, replaced: Option<&Info>) {
        let mut counts = self.shared.counts();
        let bytes = std::mem::take(&mut self.bytes);
        counts.reserved -= bytes;
        counts.stored = (counts.stored + bytes).saturating_sub(replaced.map_or(0, |i| i.size));
        counts.objects += usize::from(replaced.is_none());
        drop(counts);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shared.counts().reserved -= self.bytes;
    }
}

/// Asks for a page of keys.
pub(super) async fn page(
    client: &Client,
    prefix: &str,
    after: &str,
    token: Option<&str>,
    keys: usize,
) -> Answer<Page> {
    let mut query = vec![
        ("list-type", "2".to_owned()),
        ("max-keys", keys.min(PAGE_KEYS).to_string()),
        ("prefix", prefix.to_owned()),
    ];
    match token {
        Some(token) => query.push(("continuation-token", token.to_owned())),
        None if after.is_empty() => {}
        None => query.push(("start-after", after.to_owned())),
    }
    // Signatures are made of queries in order.
    query.sort_unstable();
    let request = Request {
        query,
        repeatable: true,
        ..Request::default()
    };
    let (_, document) = client.ask(&request).await?;
    xml::page(&document)
        .ok_or_else(|| Fault::Lost(io::Error::other("what the server says is no list of keys")))
}

/// Bytes and number of all objects below `root`.
async fn count(client: &Client, root: &str) -> Answer<(u64, usize)> {
    let (mut bytes, mut objects, mut token) = (0, 0, None);
    loop {
        let page = page(client, root, "", token.as_deref(), PAGE_KEYS).await?;
        for entry in &page.contents {
            let inside = entry.key.strip_prefix(root);
            let parts = inside.and_then(|inside| inside.split_once('/'));
            if parts.is_some_and(|(folder, end)| folder != CONTAINERS && key::named(end).is_some())
            {
                bytes += entry.size;
                objects += 1;
            }
        }
        token = page.next_continuation_token;
        if !page.is_truncated || token.is_none() {
            return Ok((bytes, objects));
        }
    }
}
