//! What a service's folder and its index are asked and told, together. Everything here may wait for the disk.

use super::{
    file,
    index::{self, Index},
    writer::check_object_bytes,
};
use crate::{
    blob::{
        backend::{Error, Info, Listing, New, Place, Quota, Result, away},
        name::{ContainerName, ObjectName},
    },
    name::ServiceName,
};
use cap_std::fs::Dir;
use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// One service's objects, on disk and in memory.
pub(super) struct Shared {
    pub service: ServiceName,
    pub root: Dir,
    pub partial: Dir,
    pub quota: Quota,
    pub index: Mutex<Index>,
    /// Bytes of all files, partial ones included.
    pub bytes: AtomicU64,
}

impl Shared {
    pub fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("no holder of this lock panics")
    }

    /// Counts bytes in before they are written.
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        let max = self.quota.total_bytes_max;
        let more = |now: u64| now.checked_add(bytes).filter(|sum| *sum <= max);
        match self.bytes.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Ok(()),
            Err(now) => Err(Error::LimitExceeded(format!(
                "the service's objects have {now} bytes, {bytes} more do not fit, and total_bytes_max is {max}"
            ))),
        }
    }

    pub fn release(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    /// Opens an object that the index has.
    pub fn open(&self, place: &Place) -> Result<(File, Info)> {
        let folder = {
            let index = self.index();
            let held = index.container(&place.container)?;
            if !held.has(&place.name) {
                return Err(place.missing());
            }
            held.folder()
        };
        self.open_in(&folder, place)
    }

    fn open_in(&self, folder: &Dir, place: &Place) -> Result<(File, Info)> {
        let opened = file::open(folder, &place.name.file_name()).and_then(|file| {
            let info = file::read_info_of(&place.name, &file)?;
            Ok((file, info))
        });
        opened.map_err(|source| match source.kind() {
            // Deleted since the index was asked; if the index still has it, somebody else removed the file.
            io::ErrorKind::NotFound if !self.has(place) => place.missing(),
            _ => away("reading an object")(source),
        })
    }

    fn has(&self, place: &Place) -> bool {
        let index = self.index();
        index
            .container(&place.container)
            .is_ok_and(|held| held.has(&place.name))
    }

    pub fn create(&self, place: &Place, new: &New) -> Result<(String, File)> {
        if let Some(size) = new.size {
            check_object_bytes(&self.quota, size)?;
        }
        {
            let index = self.index();
            let held = index.container(&place.container)?;
            self.check(&index, held, place, new)?;
        }
        let file_name = uuid::Uuid::new_v4().simple().to_string();
        let file = file::create(&self.partial, &file_name).map_err(away("beginning an object"))?;
        Ok((file_name, file))
    }

    /// Whether the object may be written as things are.
    fn check(&self, index: &Index, held: &index::Held, place: &Place, new: &New) -> Result<()> {
        let there = held.has(&place.name);
        let max = self.quota.objects_max;
        if !there && index.objects() >= max {
            return Err(Error::LimitExceeded(format!(
                "the service has {max} objects, and objects_max is {max}"
            )));
        }
        let Some(condition) = &new.condition else {
            return Ok(());
        };
        let now = match there {
            true => Some(self.open_now(&held.folder(), place)?),
            false => None,
        };
        condition.check(place, now.as_ref())
    }

    fn open_now(&self, folder: &Dir, place: &Place) -> Result<Info> {
        file::open(folder, &place.name.file_name())
            .and_then(|file| file::read_info_of(&place.name, &file))
            .map_err(away("reading an object"))
    }

    /// Puts a finished file in its place, and answers the folder whose entries are to be flushed.
    pub fn show(&self, place: &Place, new: &New, partial: &str, bytes: u64) -> Result<Arc<Dir>> {
        let mut index = self.index();
        let held = index.container(&place.container)?;
        self.check(&index, held, place, new)?;
        let folder = held.folder();
        self.partial
            .rename(partial, &folder, place.name.file_name())
            .map_err(away("committing an object"))?;
        let replaced = index.insert(place, bytes);
        self.release(replaced.unwrap_or_default());
        Ok(folder)
    }

    pub fn create_container(&self, container: &ContainerName) -> Result<()> {
        let doing = "creating a container";
        let mut index = self.index();
        if index.container(container).is_ok() {
            return Ok(());
        }
        let max = self.quota.containers_max;
        if index.names().count() >= max {
            return Err(Error::LimitExceeded(format!(
                "the service has {max} containers, and containers_max is {max}"
            )));
        }
        let folder = index::folder(&self.root, container.as_str()).map_err(away(doing))?;
        file::sync(&self.root).map_err(away(doing))?;
        index.add(container, folder);
        Ok(())
    }

    pub fn delete_container(&self, container: &ContainerName) -> Result<()> {
        let doing = "deleting a container";
        let mut index = self.index();
        let not_empty = || {
            Error::Conflict(format!(
                "container `{container}` is not empty; delete its objects first"
            ))
        };
        if !index.container(container)?.is_empty() {
            return Err(not_empty());
        }
        match self.root.remove_dir(container.as_str()) {
            Ok(()) => {}
            // Something that is no object of ours.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                return Err(not_empty());
            }
            Err(error) => return Err(away(doing)(error)),
        }
        index.remove_container(container);
        drop(index);
        file::sync(&self.root).map_err(away(doing))
    }

    pub fn delete(&self, place: &Place) -> Result<()> {
        let doing = "deleting an object";
        let mut index = self.index();
        let held = index.container(&place.container)?;
        if !held.has(&place.name) {
            return Ok(());
        }
        let folder = held.folder();
        match folder.remove_file(place.name.file_name()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(away(doing)(error));
            }
            _ => self.release(index.remove(place).unwrap_or_default()),
        }
        drop(index);
        file::sync(&folder).map_err(away(doing))
    }

    pub fn list(
        &self,
        container: &ContainerName,
        prefix: &str,
        after: Option<&ObjectName>,
        limit: usize,
    ) -> Result<Listing> {
        let (folder, names, next) = {
            let index = self.index();
            let held = index.container(container)?;
            let (names, next) = held.names(prefix, after, limit);
            (held.folder(), names, next)
        };
        let mut objects = Vec::with_capacity(names.len());
        for name in names {
            let place = Place {
                container: container.clone(),
                name,
            };
            match self.open_in(&folder, &place) {
                Ok((_, info)) => objects.push(info),
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Listing { objects, next })
    }
}
