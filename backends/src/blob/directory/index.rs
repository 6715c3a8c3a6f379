//! Which containers and objects there are, in memory: what is listed, and what is counted.

use super::{PARTIAL, file};
use crate::{
    blob::{
        backend::{Place, Result, no_container},
        name::{ContainerName, ObjectName},
    },
    name::ServiceName,
};
use cap_fs_ext::DirExt as _;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _, FileType};
use std::{
    collections::BTreeMap,
    io,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

/// All of a service's containers.
pub(super) struct Index {
    containers: BTreeMap<ContainerName, Held>,
    objects: usize,
}

/// One container.
pub(super) struct Held {
    folder: Arc<Dir>,
    /// The bytes of each object's file.
    objects: BTreeMap<ObjectName, u64>,
}

impl Index {
    /// Reads the folder of a service. Blocks.
    pub fn read(root: &Dir, service: &ServiceName) -> io::Result<Self> {
        let mut containers = BTreeMap::new();
        for (name, kind) in entries(root)? {
            match ContainerName::parse(&name) {
                Ok(container) if kind.is_dir() => {
                    let held = Held::read(root.open_dir_nofollow(&name)?, service)?;
                    containers.insert(container, held);
                }
                _ if name == PARTIAL => {}
                _ => tracing::warn!(%service, name, "what is no container is left alone"),
            }
        }
        let objects = containers.values().map(|held| held.objects.len()).sum();
        Ok(Self {
            containers,
            objects,
        })
    }

    pub fn container(&self, container: &ContainerName) -> Result<&Held> {
        self.containers
            .get(container)
            .ok_or_else(|| no_container(container))
    }

    pub fn names(&self) -> impl Iterator<Item = &ContainerName> {
        self.containers.keys()
    }

    /// Objects in all containers.
    pub fn objects(&self) -> usize {
        self.objects
    }

    /// Bytes of all objects' files.
    pub fn bytes(&self) -> u64 {
        let files = self
            .containers
            .values()
            .flat_map(|held| held.objects.values());
        files.sum()
    }

    pub fn add(&mut self, container: &ContainerName, folder: Dir) {
        let held = Held {
            folder: Arc::new(folder),
            objects: BTreeMap::new(),
        };
        self.containers.insert(container.clone(), held);
    }

    /// Forgets a container that is empty.
    pub fn remove_container(&mut self, container: &ContainerName) {
        self.containers.remove(container);
    }

    /// Answers the bytes of the file that was replaced.
    pub fn insert(&mut self, place: &Place, bytes: u64) -> Option<u64> {
        let held = self.containers.get_mut(&place.container)?;
        let replaced = held.objects.insert(place.name.clone(), bytes);
        self.objects += usize::from(replaced.is_none());
        replaced
    }

    /// Answers the bytes of the object's file.
    pub fn remove(&mut self, place: &Place) -> Option<u64> {
        let held = self.containers.get_mut(&place.container)?;
        let removed = held.objects.remove(&place.name);
        self.objects -= usize::from(removed.is_some());
        removed
    }
}

impl Held {
    fn read(folder: Dir, service: &ServiceName) -> io::Result<Self> {
        let mut objects = BTreeMap::new();
        for (file_name, kind) in entries(&folder)? {
            match name_of(&folder, &file_name, kind) {
                Some(name) => {
                    let bytes = folder.symlink_metadata(&file_name)?.len();
                    objects.insert(name, bytes);
                }
                None => tracing::warn!(%service, file_name, "what is no object is left alone"),
            }
        }
        Ok(Self {
            folder: Arc::new(folder),
            objects,
        })
    }

    pub fn folder(&self) -> Arc<Dir> {
        self.folder.clone()
    }

    pub fn has(&self, name: &ObjectName) -> bool {
        self.objects.contains_key(name)
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// At most `limit` names after `after` that begin with `prefix`, and the last of them if there are more.
    pub fn names(
        &self,
        prefix: &str,
        after: Option<&ObjectName>,
        limit: usize,
    ) -> (Vec<ObjectName>, Option<ObjectName>) {
        let first = ObjectName::parse(prefix, usize::MAX).ok();
        let begin = match (after, &first) {
            (Some(after), Some(first)) if after < first => Included(first),
            (Some(after), _) => Excluded(after),
            (None, Some(first)) => Included(first),
            (None, None) => Unbounded,
        };
        let mut matching = self
            .objects
            .range::<ObjectName, _>((begin, Unbounded))
            .map(|(name, _)| name)
            .take_while(|name| name.as_str().starts_with(prefix));
        let names: Vec<_> = matching.by_ref().take(limit).cloned().collect();
        let next = matching.next().and_then(|_| names.last().cloned());
        (names, next)
    }
}

/// The object that a file is of; none where it is no file of ours.
fn name_of(folder: &Dir, file_name: &str, kind: FileType) -> Option<ObjectName> {
    if !kind.is_file() {
        return None;
    }
    if !ObjectName::is_digest(file_name) {
        return ObjectName::spelt(file_name);
    }
    let file = file::open(folder, file_name).ok()?;
    let name = file::read_info(&file).ok()?.name;
    (name.file_name() == file_name).then_some(name)
}

/// The entries of a folder; a name that is no text cannot be ours.
fn entries(folder: &Dir) -> io::Result<Vec<(String, FileType)>> {
    let mut found = Vec::new();
    for entry in folder.entries()? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.file_type()?));
        }
    }
    Ok(found)
}

/// Opens a folder in `parent`, creating it where absent; a symbolic link in its place is an error.
pub(super) fn folder(parent: &Dir, name: &str) -> io::Result<Dir> {
    match parent.create_dir_with(name, DirBuilder::new().mode(0o700)) {
        Ok(()) => file::sync(parent)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    parent.open_dir_nofollow(name)
}

/// Removes the files of a folder.
pub(super) fn empty(folder: &Dir) -> io::Result<()> {
    for (name, kind) in entries(folder)? {
        if !kind.is_dir() {
            folder.remove_file_or_symlink(&name)?;
        }
    }
    Ok(())
}
