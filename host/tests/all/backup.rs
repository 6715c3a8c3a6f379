//! A backup is taken under writes and restored elsewhere: what was acknowledged before it began is there, and nothing of it is
//! half. What is not whole, or would overwrite something, is refused.

use crate::{
    fanout::{follow, home, post, users},
    harness::{Platform, Setup, User, eventually},
};
use exprsn_backends::testing::postgres::Cluster;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Output,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

const FOLLOWERS: usize = 5;
/// Posts before the backup begins, and at most in all: a home timeline keeps more.
const POSTS_BEFORE: usize = 20;
const POSTS_MAX: usize = 400;
const PASSWORD: &str = "correct horse battery staple 7";

/// A command of the platform's on its configuration and on this data directory.
fn run(platform: &Platform, words: &[&str], data: &Path) -> Output {
    let mut command = platform.command(words);
    command.arg("--config").arg(&platform.config);
    command.arg("--data").arg(data).arg("--json");
    command.output().expect("it runs")
}

#[track_caller]
fn succeeds(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[track_caller]
fn refused(output: &Output, because: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains(because),
        "{error}"
    );
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// Somebody with a password.
fn register(platform: &Platform) -> String {
    let username = format!("u_{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let account = json!({ "username": username, "email": format!("{username}@example.org"), "password": PASSWORD });
    platform
        .call("auth", "POST", "/api/auth/register")
        .json(&account)
        .send()
        .expect_status(201);
    username
}

fn log_in(platform: &Platform, username: &str) {
    platform
        .call("auth", "POST", "/api/auth/login")
        .json(&json!({ "identifier": username, "password": PASSWORD }))
        .send()
        .expect_status(200);
}

/// Posts all the time until `during` has ended. Answers what was acknowledged before it began, and what it answers.
fn under_writes<T>(
    platform: &Platform,
    author: &User,
    during: impl FnOnce() -> T,
) -> (Vec<String>, T) {
    let (stop, acknowledged) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let count = acknowledged.lock().expect("the lock").len();
                    if count < POSTS_MAX {
                        let id = post(platform, author, "under writes").expect("taken");
                        acknowledged.lock().expect("the lock").push(id);
                    }
                }
            });
        }
        let before = eventually("some posts are there", || {
            let acknowledged = acknowledged.lock().expect("the lock");
            (acknowledged.len() >= POSTS_BEFORE).then(|| acknowledged.clone())
        });
        let answer = during();
        stop.store(true, Relaxed);
        (before, answer)
    })
}

/// What the author has posted, as the platform has it.
fn posted(platform: &Platform, author: &User, ids: &[String]) -> BTreeSet<String> {
    let there = |id: &&String| {
        let path = format!("/api/posts/{id}");
        let answer = platform.call("timeline", "GET", &path).token(&author.token);
        answer.send().status == 200
    };
    ids.iter().filter(there).cloned().collect()
}

/// Files of the authority, with their modes.
fn authority(data: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("ca")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(data.join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let (path, metadata) = (folder.join(entry.file_name()), entry.metadata());
            let metadata = metadata.expect("metadata");
            if metadata.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(entry.path()).expect("a file");
                found.push((path, metadata.mode() & 0o777, bytes));
            }
        }
    }
    found.sort();
    found
}

/// Takes a backup of a platform under writes, restores it with `elsewhere` having changed the configuration in between, and
/// looks at what is there.
fn there_and_back(setup: &Setup<'_>, elsewhere: impl FnOnce(&Platform)) {
    let mut platform = Platform::start(setup);
    let folder = tempfile::tempdir().expect("a folder");
    let [backup, restored] = ["backup", "restored"].map(|name| folder.path().join(name));
    let somebody = register(&platform);
    let mut users = users(&platform, FOLLOWERS + 1);
    let author = users.pop().expect("an author");
    follow(&platform, &users, &author);

    let (before, report) = under_writes(&platform, &author, || {
        let data = platform.data.clone();
        run(&platform, &["backup", text(&backup)], &data)
    });
    let report = succeeds(&report);
    assert!(report["files"].as_u64() > Some(5), "{report}");
    let mode = fs::metadata(&backup).expect("it is there").mode();
    assert_eq!(mode & 0o777, 0o700, "others may not look into it");
    let keys = authority(&platform.data);
    assert!(platform.stop().success());

    elsewhere(&platform);
    let report = succeeds(&run(&platform, &["restore", text(&backup)], &restored));
    assert!(report["files"].as_u64() > Some(5), "{report}");
    assert_eq!(authority(&restored), keys, "the authority is the same one");
    platform.data = restored;
    platform.restart();

    log_in(&platform, &somebody);
    let there = posted(&platform, &author, &before);
    assert_eq!(there, before.iter().cloned().collect(), "posts are missing");
    for follower in &users {
        eventually("every post is in every home timeline", || {
            let found = home(&platform, follower);
            assert!(found.values().all(|times| *times == 1), "{found:?}");
            before.iter().all(|id| found.contains_key(id)).then_some(())
        });
    }
    let more = post(&platform, &author, "after all that").expect("taken");
    eventually("it goes on", || {
        home(&platform, &users[0]).contains_key(&more).then_some(())
    });
}

#[test]
fn embedded_backends_are_copied_at_one_moment_and_restored() {
    let setup = Setup {
        services: &["ca", "setup", "auth", "timeline"],
        ..Setup::default()
    };
    there_and_back(&setup, |_| {});
}

#[test]
fn databases_on_postgresql_are_restored_onto_another_server() {
    let setup = Setup {
        services: &["ca", "setup", "auth", "timeline"],
        production: true,
        ..Setup::default()
    };
    let another = Cluster::start();
    there_and_back(&setup, |platform| {
        let first = &platform.servers().expect("it runs on servers").postgres;
        let config = fs::read_to_string(&platform.config).expect("the configuration");
        assert!(config.contains(&first.url()));
        let config = config.replace(&first.url(), &another.url());
        fs::write(&platform.config, config).expect("written");
        first.kill();
    });
}

#[test]
fn what_is_not_whole_or_would_overwrite_is_refused() {
    let mut platform = Platform::start(&Setup {
        services: &["ca"],
        ..Setup::default()
    });
    let folder = tempfile::tempdir().expect("a folder");
    let [backup, empty, full] = ["backup", "empty", "full"].map(|name| folder.path().join(name));
    let data = platform.data.clone();
    succeeds(&run(&platform, &["backup", text(&backup)], &data));

    let again = run(&platform, &["backup", text(&backup)], &data);
    refused(&again, "already there");
    let within = run(&platform, &["backup", text(&data.join("backup"))], &data);
    refused(&within, "in the data directory itself");
    let nowhere = run(
        &platform,
        &["backup", text(&empty)],
        &folder.path().join("x"),
    );
    refused(&nowhere, "--data");
    assert!(!empty.exists(), "what fails leaves nothing");

    let restore = |data: &Path| run(&platform, &["restore", text(&backup)], data);
    refused(&restore(&data), "the platform is running");
    fs::create_dir(&full).expect("a folder");
    fs::write(full.join("something"), "of value").expect("written");
    refused(&restore(&full), "not empty");

    let root = backup.join("data/ca/root.pem");
    let mut bytes = fs::read(&root).expect("the root");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&root, &bytes).expect("changed");
    refused(&restore(&empty), "has changed since it was written");
    bytes[middle] ^= 1;
    fs::write(&root, &bytes).expect("changed back");
    succeeds(&restore(&empty));
    refused(&restore(&empty), "not empty");

    fs::create_dir(empty.join("restoring")).expect("a folder");
    assert!(platform.stop().success());
    platform.data = empty;
    assert!(platform.try_restart().is_err());
    let log = platform.log();
    assert!(log.contains("restored in part only"), "{log}");
}
