//! The directory backend: a folder for each container, a file for each object, and an index of both in memory.
//!
//! ```text
//! <data>/blob/<service>/_partial/<random>           being written; emptied when the directory is opened
//! <data>/blob/<service>/<container>/<encoded name>  an object, as `file.rs` says
//! ```
//!
//! **Invariants**
//! - The files are the truth; the index is read from them when the directory is opened, and says what is listed and counted.
//! - Every path is one file name relative to an open folder, and symbolic links are never followed.
//! - No access to the disk happens on a thread that serves requests.

mod file;
mod index;
mod shared;
mod writer;

use super::{
    backend::{
        Backend, Content, Info, Listing, New, Place, Quota, Range, Result, Usage, Writer, away,
        copy_through,
    },
    name::{ContainerName, ObjectName},
};
use crate::name::ServiceName;
use bytes::Bytes;
use cap_std::fs::Dir;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use index::Index;
use shared::Shared;
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::{runtime::Handle, sync::Semaphore};
use writer::Partial;

/// Bytes read from a file at a time.
const CHUNK_BYTES: u64 = 256 << 10;
/// The folder of what is being written. No container has its name.
const PARTIAL: &str = "_partial";

/// The objects of one service. Clones are the same.
#[derive(Clone)]
pub struct Directory {
    shared: Arc<Shared>,
    /// Threads that may wait for the disk.
    threads: Handle,
    /// How many of them this service has at once.
    turns: Arc<Semaphore>,
}

impl Directory {
    /// Opens a service's folder in `data`, creating it where absent, and reads what is there. Blocks.
    ///
    /// What an earlier host left half written is removed; what is no object of ours is left alone and never listed.
    pub fn open(
        data: &Dir,
        service: &ServiceName,
        quota: Quota,
        threads: Handle,
        operations_max: usize,
    ) -> Result<Self> {
        let doing = "opening the service's objects";
        let root = index::folder(data, service.as_str()).map_err(away(doing))?;
        let partial = index::folder(&root, PARTIAL).map_err(away(doing))?;
        index::empty(&partial).map_err(away(doing))?;
        let index = Index::read(&root, service).map_err(away(doing))?;
        let bytes = AtomicU64::new(index.bytes());
        Ok(Self {
            shared: Arc::new(Shared {
                service: service.clone(),
                root,
                partial,
                quota,
                index: Mutex::new(index),
                bytes,
            }),
            threads,
            turns: Arc::new(Semaphore::new(operations_max)),
        })
    }

    /// Does `work` on a thread that may wait for the disk, once it is this service's turn.
    async fn on_disk<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let shared = self.shared.clone();
        let done = self.threads.spawn_blocking(move || {
            let _turn = turn;
            work(&shared)
        });
        done.await
            .unwrap_or_else(|gone| Err(away(doing)(io::Error::other(gone))))
    }

    /// Removes a partial file, without anybody waiting for it.
    fn discard(&self, file_name: String) {
        let shared = self.shared.clone();
        self.threads.spawn_blocking(move || {
            if let Err(error) = shared.partial.remove_file(file_name) {
                // The folder is emptied when it is opened next.
                tracing::warn!(service = %shared.service, %error, "a partial object stays behind");
            }
        });
    }

    /// The chunks of an open file from `at` to `end`.
    fn content(&self, file: File, at: u64, end: u64) -> Content {
        let begun = (self.clone(), Arc::new(file), at);
        stream::try_unfold(begun, move |(directory, file, at)| async move {
            let length = CHUNK_BYTES.min(end - at);
            if length == 0 {
                return Ok(None);
            }
            let source = file.clone();
            let chunk = directory
                .on_disk("reading an object", move |_| {
                    read_chunk(&source, at, length)
                })
                .await?;
            Ok(Some((chunk, (directory, file, at + length))))
        })
        .boxed()
    }
}

fn read_chunk(file: &File, at: u64, length: u64) -> Result<Bytes> {
    let length = usize::try_from(length).expect("a chunk fits in memory");
    let mut chunk = vec![0; length];
    file.read_exact_at(&mut chunk, at)
        .map_err(away("reading an object"))?;
    Ok(chunk.into())
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("service", &self.shared.service)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

impl Backend for Directory {
    fn create_container(&self, container: &ContainerName) -> BoxFuture<'_, Result<()>> {
        let container = container.clone();
        self.on_disk("creating a container", move |shared| {
            shared.create_container(&container)
        })
        .boxed()
    }

    fn delete_container(&self, container: &ContainerName) -> BoxFuture<'_, Result<()>> {
        let container = container.clone();
        self.on_disk("deleting a container", move |shared| {
            shared.delete_container(&container)
        })
        .boxed()
    }

    fn containers(&self) -> BoxFuture<'_, Result<Vec<ContainerName>>> {
        self.on_disk("listing containers", |shared| {
            Ok(shared.index().names().cloned().collect())
        })
        .boxed()
    }

    fn info(&self, place: &Place) -> BoxFuture<'_, Result<Info>> {
        let place = place.clone();
        self.on_disk("reading an object", move |shared| {
            Ok(shared.open(&place)?.1)
        })
        .boxed()
    }

    fn read(&self, place: &Place, range: Range) -> BoxFuture<'_, Result<(Info, Content)>> {
        let place = place.clone();
        async move {
            let opened = self.on_disk("reading an object", move |shared| shared.open(&place));
            let (file, info) = opened.await?;
            let (at, end) = range.within(info.size)?;
            Ok((info, self.content(file, at, end)))
        }
        .boxed()
    }

    fn write(&self, place: &Place, new: New) -> BoxFuture<'_, Result<Box<dyn Writer>>> {
        let (place, directory) = (place.clone(), self.clone());
        self.on_disk("beginning an object", move |shared| {
            let (file_name, file) = shared.create(&place, &new)?;
            let partial = Partial::new(directory, place, new, file_name, file);
            Ok(Box::new(partial) as Box<dyn Writer>)
        })
        .boxed()
    }

    fn list(
        &self,
        container: &ContainerName,
        prefix: &str,
        after: Option<&ObjectName>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Listing>> {
        let (container, prefix, after) = (container.clone(), prefix.to_owned(), after.cloned());
        self.on_disk("listing objects", move |shared| {
            shared.list(&container, &prefix, after.as_ref(), limit)
        })
        .boxed()
    }

    fn delete(&self, place: &Place) -> BoxFuture<'_, Result<()>> {
        let place = place.clone();
        self.on_disk("deleting an object", move |shared| shared.delete(&place))
            .boxed()
    }

    fn copy(&self, from: &Place, to: &Place) -> BoxFuture<'_, Result<Info>> {
        let (from, to) = (from.clone(), to.clone());
        async move { copy_through(self, &from, &to).await }.boxed()
    }

    fn usage(&self) -> Usage {
        Usage {
            bytes: self.shared.bytes.load(Relaxed),
            objects: self.shared.index().objects(),
        }
    }
}

#[cfg(test)]
mod tests;
