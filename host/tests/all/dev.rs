//! The development loop: a saved source goes live, a broken one is told and harms nobody.

use crate::{
    examples::{Workshop, surroundings},
    harness::{Call, EXPRSN, Platform, Setup, built, lines},
};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// How long a round may take: the first build in Rust and compilation on a busy machine included.
const ROUND_MAX: Duration = Duration::from_secs(400);

/// `exprsn dev --json`, its lines read.
struct Dev {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Dev {
    fn begin(platform: &Platform, folder: &Path) -> Self {
        let mut command = Command::new(EXPRSN);
        command.arg("dev").arg(folder).arg("--json");
        let mut child = surroundings(&mut command, platform)
            .stdout(Stdio::piped())
            .spawn()
            .expect("exprsn runs");
        let lines = lines(child.stdout.take().expect("stdout is piped"));
        Self { child, lines }
    }

    /// The next event that is not `unchanged`: a build may touch a source of its own, such as a lock file.
    fn event(&self) -> Value {
        loop {
            let line = self.lines.recv_timeout(ROUND_MAX).expect("a line in time");
            let event: Value = serde_json::from_str(&line).expect("a line of JSON");
            if event["event"] != "unchanged" {
                return event;
            }
        }
    }

    #[track_caller]
    fn expect(&self, kind: &str) -> Value {
        let event = self.event();
        assert_eq!(event["event"], kind, "{event}");
        event
    }

    /// Ctrl-C.
    fn interrupt(mut self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &pid]).status();
        assert!(sent.expect("kill is there").success());
        let status = self.child.wait().expect("it is waited for");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_saved_source_goes_live_and_a_broken_one_harms_nobody() {
    let workshop = Workshop::rust();
    let platform = Platform::start(&Setup {
        services: &["ca", "setup"],
        ..Setup::default()
    });
    let health = || {
        let url = format!("http://{}:{}/health", platform.address, workshop.port);
        Call::new("GET", &url).send().expect_status(200).json()
    };
    let source = workshop.folder.join("src/lib.rs");
    let original = fs::read_to_string(&source).expect("a source");
    let edition = |edition: &str| {
        let healthy = r#""status": "healthy""#;
        let edited = original.replace(healthy, &format!(r#"{healthy}, "edition": {edition}"#));
        assert_ne!(edited, original, "the source has its health check");
        fs::write(&source, edited).expect("written");
    };

    let dev = Dev::begin(&platform, &workshop.folder);
    let watching = dev.expect("watching");
    assert!(
        watching["build"]
            .as_str()
            .is_some_and(|build| build.starts_with("cargo build"))
    );
    let first = dev.expect("live");
    assert_eq!(
        (&first["name"], health()["edition"].is_null()),
        (&"guestbook".into(), true)
    );

    edition("2");
    let second = dev.expect("live");
    assert_eq!(health()["edition"], 2);
    assert_ne!(first["digest"], second["digest"]);
    let ms = |name: &str| {
        second[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {second}"))
    };
    assert!(ms("totalMs") >= ms("buildMs"), "{second}");

    edition("\"unclosed");
    let failed = dev.expect("failed");
    assert_eq!(failed["stage"], "build", "{failed}");
    assert!(
        failed["cause"]
            .as_str()
            .is_some_and(|cause| cause.contains("error")),
        "{failed}"
    );
    assert_eq!(health()["edition"], 2, "the version before goes on serving");

    edition("3");
    dev.expect("live");
    assert_eq!(health()["edition"], 3);
    dev.interrupt();
    fs::write(&source, original).expect("written");
}

#[test]
fn an_error_of_the_manifest_is_told_once_and_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let write =
        |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    write("component.toml", "name = \"x\"\nversion = \"1\"\nprot = 1");
    let done = Command::new(EXPRSN)
        .args(["dev", "--once", "--build", "true", "--component", "x.wasm"])
        .arg(folder.path())
        .output()
        .expect("exprsn runs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(
        said.contains("prot") && said.contains("component.toml"),
        "{said}"
    );
}

#[test]
fn a_platforms_own_service_is_swapped_with_its_own_grants() {
    // What `cargo xtask dev` does with a service that it has built.
    let platform = Platform::start(&Setup {
        services: &["ca", "setup"],
        ..Setup::default()
    });
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = tempfile::tempdir().expect("a folder");
    let manifest =
        fs::read_to_string(root.join("components/setup/component.toml")).expect("a manifest");
    let newer = manifest.replacen("version = \"1.0.0\"", "version = \"1.0.1\"", 1);
    assert_ne!(manifest, newer);
    fs::write(folder.path().join("component.toml"), newer).expect("written");
    let component = folder.path().join("exprsn-setup.wasm");
    let mut pack = Command::new(EXPRSN);
    pack.args(["component", "pack"])
        .arg(built("components").join("exprsn-setup.wasm"))
        .arg("--manifest")
        .arg(folder.path().join("component.toml"))
        .arg("--migrations")
        .arg(root.join("migrations/setup"))
        .arg("--output")
        .arg(&component);
    assert!(pack.status().expect("exprsn runs").success());
    let mut dev = Command::new(EXPRSN);
    dev.args(["dev", "--json", "--built"])
        .arg(&component)
        .args(["15", "12"]);
    let done = surroundings(&mut dev, &platform)
        .output()
        .expect("exprsn runs");
    assert!(done.status.success(), "{done:?}");
    let live: Value = serde_json::from_slice(&done.stdout).expect("an event");
    assert_eq!(
        (&live["event"], &live["version"]),
        (&"live".into(), &"1.0.1".into()),
        "{live}"
    );
    assert!(
        live["totalMs"].as_u64() >= Some(15) && live["buildMs"] == 12,
        "{live}"
    );
}
