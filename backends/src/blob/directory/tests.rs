//! The directory backend's own: what is on disk, and what a crash or a hand in the folder does.

use super::{
    super::backend::Error,
    super::conformance::{self, QUOTA, collect, get, name, new, place, put, write},
    *,
};
use bytes::Bytes;
use cap_std::ambient_authority;
use std::{fs, os::unix::fs::symlink, path::PathBuf};
use tempfile::TempDir;

/// A service's folder, and a backend on it.
struct Disk {
    folder: TempDir,
    directory: Directory,
}

fn open(folder: &TempDir) -> Result<Directory> {
    let data = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
    let service = ServiceName::parse("exprsn-a").unwrap();
    Directory::open(&data, &service, QUOTA, Handle::current(), 4)
}

fn disk() -> Disk {
    let folder = tempfile::tempdir().unwrap();
    let directory = open(&folder).unwrap();
    Disk { folder, directory }
}

impl Disk {
    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("exprsn-a").join(path)
    }

    /// As after a crash: whatever the old one knew is gone.
    fn reopen(&mut self) {
        self.directory = open(&self.folder).unwrap();
    }

    fn partial(&self) -> usize {
        fs::read_dir(self.path(PARTIAL)).unwrap().count()
    }

    /// Waits until no work is under way, whether or not anybody waits for it.
    async fn until_it_rests(&self) {
        let _all = self.directory.turns.acquire_many(4).await.unwrap();
        while self.partial() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let disk = disk();
    conformance::run(&disk.directory).await;
    disk.until_it_rests().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_when_opened_again() {
    let mut disk = disk();
    disk.directory.create_container(&name("a")).await.unwrap();
    let long = "ü".repeat(500);
    let written = [
        put(&disk.directory, "a", "x", b"1").await,
        put(&disk.directory, "a", &long, &[5; 400_000]).await,
    ];
    let usage = disk.directory.usage();
    disk.reopen();
    assert_eq!(disk.directory.usage(), usage);
    for info in written {
        let at = place("a", info.name.as_str());
        assert_eq!(disk.directory.info(&at).await.unwrap(), info);
    }
    let content = get(&disk.directory, &place("a", &long), Range::default()).await;
    assert!(content.unwrap() == [5; 400_000]);
    disk.directory.delete(&place("a", "x")).await.unwrap();
    disk.reopen();
    assert_eq!(disk.directory.usage().objects, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_half_written_is_gone_when_opened_again() {
    let mut disk = disk();
    disk.directory.create_container(&name("a")).await.unwrap();
    let at = place("a", "x");
    let mut writer = disk.directory.write(&at, new()).await.unwrap();
    writer.write(Bytes::from(vec![1; 1 << 20])).await.unwrap();
    assert_eq!(disk.partial(), 1);
    // As in a crash, nothing is tidied up.
    std::mem::forget(writer);
    disk.reopen();
    assert_eq!(
        (disk.partial(), disk.directory.usage()),
        (0, Usage::default())
    );
    assert!(matches!(
        disk.directory.info(&at).await,
        Err(Error::NotFound(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_nobody_waits_for_counts_once() {
    let disk = disk();
    disk.directory.create_container(&name("a")).await.unwrap();
    for number in 0..20 {
        let at = place("a", &number.to_string());
        let mut writer = disk.directory.write(&at, new()).await.unwrap();
        writer.write(Bytes::from(vec![1; 10_000])).await.unwrap();
        let mut commit = writer.commit();
        // Begun, then dropped.
        let _ = futures::poll!(&mut commit);
        drop(commit);
    }
    disk.until_it_rests().await;
    let counted = disk.directory.usage();
    let again = open(&disk.folder).unwrap().usage();
    assert_eq!(counted, again, "what is counted is what is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_and_strange_files_in_the_folder_do_no_harm() {
    let mut disk = disk();
    disk.directory.create_container(&name("a")).await.unwrap();
    put(&disk.directory, "a", "x", b"mine").await;
    let secret = disk.folder.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    // As an object, as a container, as the folder of another service's objects, and things that are none of ours.
    symlink(&secret, disk.path("a/linked")).unwrap();
    symlink(&secret, disk.path("linked")).unwrap();
    symlink(disk.folder.path(), disk.path("outside")).unwrap();
    fs::write(disk.path("a/Not Ours"), "?").unwrap();
    fs::write(disk.path("a/damaged"), "no description").unwrap();
    fs::create_dir(disk.path("a/folder")).unwrap();
    disk.reopen();
    let directory = &disk.directory;
    assert_eq!(directory.containers().await.unwrap(), [name("a")]);
    let linked = place("a", "linked");
    assert!(matches!(
        directory.info(&linked).await,
        Err(Error::NotFound(_))
    ));
    let damaged = directory
        .read(&place("a", "damaged"), Range::default())
        .await;
    assert!(matches!(damaged, Err(Error::Away { .. })));
    // A link that takes an object's place while the host runs.
    fs::remove_file(disk.path("a/x")).unwrap();
    symlink(&secret, disk.path("a/x")).unwrap();
    let swapped = directory.read(&place("a", "x"), Range::default()).await;
    assert!(matches!(swapped, Err(Error::Away { .. })));
    put(directory, "a", "x", b"written over the link").await;
    put(directory, "a", "linked", b"likewise").await;
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    directory.delete(&place("a", "x")).await.unwrap();
    assert!(secret.is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_a_link_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), folder.path().join("exprsn-a")).unwrap();
    assert!(matches!(open(&folder), Err(Error::Away { .. })));
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_objects_file_is_damage() {
    let disk = disk();
    disk.directory.create_container(&name("a")).await.unwrap();
    put(&disk.directory, "a", "x", b"1").await;
    put(&disk.directory, "a", "y", b"2").await;
    fs::copy(disk.path("a/x"), disk.path("a/y")).unwrap();
    let swapped = disk.directory.info(&place("a", "y")).await;
    assert!(matches!(swapped, Err(Error::Away { .. })), "{swapped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_gone_is_away_and_comes_to_no_harm() {
    let disk = disk();
    disk.directory.create_container(&name("a")).await.unwrap();
    put(&disk.directory, "a", "x", b"1").await;
    let usage = disk.directory.usage();
    fs::remove_dir_all(disk.path(PARTIAL)).unwrap();
    let refused = write(&disk.directory, &place("a", "y"), new(), b"2").await;
    assert!(matches!(refused, Err(Error::Away { .. })), "{refused:?}");
    let refused = disk.directory.create_container(&name("b")).await;
    assert!(refused.is_ok(), "only what is being written is away");
    let (_, content) = disk
        .directory
        .read(&place("a", "x"), Range::default())
        .await
        .unwrap();
    assert_eq!(collect(content).await.unwrap(), b"1");
    assert_eq!(disk.directory.usage(), usage);
}
