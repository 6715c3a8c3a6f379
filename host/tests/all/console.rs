//! The console in a real headless Chromium: `host/tests/console/console.mjs` signs in, watches, retries, swaps and revokes.
//!
//! Its packages are pinned by the lock file beside it. Screenshots are left in `target/console`; those of the README are they.

use crate::harness::{Platform, Setup, built};
use exprsn_backends::testing::node_packages;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const PASSWORD: &str = "correct horse battery staple 7";

/// The folder with the driver and its packages, installed once.
fn driver() -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console");
    node_packages(&from, &folder, &["console.mjs"]);
    folder
}

/// exprsn-pulse with one more custom section: the same service with another digest.
fn another_pulse(folder: &Path) -> PathBuf {
    let mut bytes =
        fs::read(built("components").join("exprsn-pulse.wasm")).expect("exprsn-pulse is built");
    let section = b"\x07consoleagain";
    bytes.push(0);
    bytes.push(u8::try_from(section.len()).expect("it is short"));
    bytes.extend_from_slice(section);
    let path = folder.join("another-pulse.wasm");
    fs::write(&path, bytes).expect("it is written");
    path
}

fn start() -> Platform {
    // The browser finds the platform's address under the name localhost, for which the console's client is registered.
    let config = r#"
        [service.exprsn-auth.config]
        issuer = "http://localhost:3001"
        admin_emails = "console@example.org"
    "#;
    Platform::start(&Setup {
        services: &["ca", "setup", "auth", "timeline", "pulse"],
        guests: &["broker"],
        config,
        ..Setup::default()
    })
}

#[test]
fn a_browser_watches_and_manages_the_platform() {
    let (platform, driver) = (start(), driver());
    let account = json!({ "username": "console_admin", "email": "console@example.org", "password": PASSWORD });
    let registered = platform
        .call("auth", "POST", "/api/auth/register")
        .json(&account);
    registered.send().expect_status(201);
    let author = platform.user("author");
    let screenshots = built("components").with_file_name("console");
    fs::create_dir_all(&screenshots).expect("a folder");
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let task = json!({
        "address": platform.address,
        "setup": "http://localhost:3015",
        "broker": platform.origin("broker"),
        "timeline": platform.origin("timeline"),
        "user": { "name": "console_admin", "password": PASSWORD },
        "author": author.token,
        "reader": author.token,
        "swap": { "service": "exprsn-pulse", "file": another_pulse(scratch.path()) },
        "screenshots": screenshots,
    });
    let file = scratch.path().join("task.json");
    fs::write(&file, task.to_string()).expect("the task is written");
    let output = Command::new("node")
        .arg("console.mjs")
        .arg(&file)
        .current_dir(&driver)
        .output()
        .expect("node can be started: install Node.js 20 or later");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}{}\na screenshot is in {}",
        text(&output.stdout),
        text(&output.stderr),
        screenshots.display()
    );
}

/// Without a browser: what the console's routes ask for.
#[test]
fn the_consoles_routes_need_an_administrator() {
    let platform = start();
    let author = platform.user("author");
    let routes = [
        ("GET", "/api/jobs"),
        ("GET", "/api/queues/broker-work/jobs"),
        ("POST", "/api/queues/broker-work/jobs/1/retry"),
        ("DELETE", "/api/queues/broker-work/jobs/1"),
        ("POST", "/api/queues/broker-work/pause"),
        ("POST", "/api/queues/broker-work/resume"),
        ("GET", "/api/metrics"),
        ("GET", "/api/ca/components"),
        ("POST", "/api/ca/components"),
        ("POST", "/api/ca/components/files"),
        ("POST", "/api/ca/components/exprsn-pulse/revocations"),
        ("DELETE", "/api/ca/components/exprsn-pulse/revocations"),
        ("GET", "/api/ca/certificates"),
        ("POST", "/api/ca/certificates/1/revoke"),
        ("GET", "/api/ca/audit"),
        ("GET", "/api/ca/audit/verify"),
    ];
    for (method, path) in routes {
        let call = || platform.call("setup", method, path);
        call().send().expect_status(401);
        call().token(&author.token).send().expect_status(403);
    }
    // Nobody but a service writes into the audit log, an operator neither.
    let note = json!({ "action": "queue.paused", "subject": "a" });
    let call = || platform.call("ca", "POST", "/api/audit").json(&note);
    call().send().expect_status(401);
    call().token(&author.token).send().expect_status(403);
    call().token(&platform.operator()).send().expect_status(403);
}
