//! An object on its way into the directory: a file in the folder of partial ones until it is renamed.

use super::{Directory, file, shared::Shared};
use crate::{
    blob::backend::{Error, Info, New, Place, Quota, Result, Writer, away},
    clock,
};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, future::BoxFuture};
use std::{
    fs::File,
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard},
};

/// Bytes that are gathered before they are written to the file.
const GATHERED_BYTES: usize = 256 << 10;

/// What a write has come to.
pub(super) struct Partial {
    directory: Directory,
    place: Place,
    new: New,
    /// Content taken so far, in bytes.
    taken: u64,
    /// Not in the file yet.
    gathered: BytesMut,
    /// One use at a time; what is slow is done on a thread of the disk's, which may outlive this.
    open: Arc<Mutex<OpenFile>>,
}

/// A file in the folder of partial ones. Dropped before it is renamed, it goes, and what it takes is given back.
struct OpenFile {
    directory: Directory,
    file: File,
    sha256: Context,
    /// None once it is renamed.
    name: Option<String>,
    /// Bytes that it is counted with.
    reserved: u64,
}

impl Partial {
    pub fn new(directory: Directory, place: Place, new: New, name: String, file: File) -> Self {
        let open = OpenFile {
            directory: directory.clone(),
            file,
            sha256: Context::new(&SHA256),
            name: Some(name),
            reserved: 0,
        };
        Self {
            directory,
            place,
            new,
            taken: 0,
            gathered: BytesMut::new(),
            open: Arc::new(Mutex::new(open)),
        }
    }

    /// Counts the chunk in before it is kept anywhere.
    fn take(&mut self, chunk: &[u8]) -> Result<()> {
        let bytes = chunk.len() as u64;
        let size = self.taken.saturating_add(bytes);
        if self.new.size.is_some_and(|told| size > told) {
            return Err(wrong_size(self.new.size, "more"));
        }
        check_object_bytes(&self.directory.shared.quota, size)?;
        locked(&self.open).reserve(bytes)?;
        self.taken = size;
        self.gathered.extend_from_slice(chunk);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let (bytes, open) = (self.gathered.split().freeze(), self.open.clone());
        self.directory
            .on_disk("writing an object", move |_| locked(&open).append(&bytes))
            .await
    }

    async fn finish(mut self) -> Result<Info> {
        if self.new.size.is_some_and(|told| told != self.taken) {
            return Err(wrong_size(self.new.size, "less"));
        }
        self.flush().await?;
        let (place, new, open) = (self.place.clone(), self.new.clone(), self.open.clone());
        let size = self.taken;
        self.directory
            .on_disk("committing an object", move |shared| {
                locked(&open).commit(shared, place, new, size)
            })
            .await
    }
}

fn locked(open: &Mutex<OpenFile>) -> MutexGuard<'_, OpenFile> {
    open.lock().expect("no holder of this lock panics")
}

impl OpenFile {
    fn reserve(&mut self, bytes: u64) -> Result<()> {
        self.directory.shared.reserve(bytes)?;
        self.reserved += bytes;
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(away("writing an object"))?;
        self.sha256.update(bytes);
        Ok(())
    }

    /// Describes the object, makes the file durable, and lets it show.
    fn commit(&mut self, shared: &Shared, place: Place, new: New, size: u64) -> Result<Info> {
        let modified_ms = clock::now_ms();
        let (description, sha256) = file::description(
            &place.name,
            new.content_type.clone(),
            self.sha256.clone().finish(),
            modified_ms,
        );
        self.reserve(description.len() as u64)?;
        self.file
            .write_all(&description)
            .and_then(|()| self.file.sync_all())
            .map_err(away("committing an object"))?;
        let name = self.name.as_deref().expect("it is committed once");
        let folder = shared.show(&place, &new, name, self.reserved)?;
        // It shows: what follows can only be told, not undone.
        self.name = None;
        self.reserved = 0;
        file::sync(&folder).map_err(away("committing an object"))?;
        Ok(Info {
            name: place.name,
            size,
            content_type: new.content_type,
            etag: sha256.clone(),
            sha256: Some(sha256),
            modified_ms,
        })
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.directory.shared.release(self.reserved);
        if let Some(name) = self.name.take() {
            self.directory.discard(name);
        }
    }
}

/// The content is longer or shorter than was told.
fn wrong_size(told: Option<u64>, how: &str) -> Error {
    Error::Invalid(format!(
        "the content has {how} than the {} bytes that were announced",
        told.unwrap_or_default()
    ))
}

/// Refuses an object that is too large.
pub(super) fn check_object_bytes(quota: &Quota, size: u64) -> Result<()> {
    let max = quota.object_bytes_max;
    if size <= max {
        return Ok(());
    }
    Err(Error::LimitExceeded(format!(
        "the object has more than {max} bytes, and object_bytes_max is {max}"
    )))
}

impl Writer for Partial {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<()>> {
        async move {
            self.take(&chunk)?;
            if self.gathered.len() >= GATHERED_BYTES {
                self.flush().await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Info>> {
        self.finish().boxed()
    }
}
