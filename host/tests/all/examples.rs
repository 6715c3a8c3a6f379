//! Extensions as third parties write them: each is made by `exprsn new extension`, built, signed and installed by the commands
//! of its own README, called, and revoked.
//!
//! What the languages' tools install and build stays in `<target>/tmp/extensions`, so a second run is quick.

use crate::harness::{Call, EXPRSN, Platform, Setup, User};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    env, fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A platform of its own for each: every README has its publisher trusted as `me`.
fn start() -> Platform {
    Platform::start(&Setup {
        services: &["ca", "setup", "auth"],
        ..Setup::default()
    })
}

/// An extension's project, in a folder that outlives the test.
pub struct Workshop {
    pub folder: PathBuf,
    pub name: &'static str,
    pub port: u16,
    _alone: MutexGuard<'static, ()>,
}

impl Workshop {
    pub fn rust() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        Self::make("rust", "guestbook", 3031, &ALONE)
    }

    fn javascript() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        Self::make("javascript", "bookmarks", 3032, &ALONE)
    }

    fn python() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        Self::make("python", "statuspage", 3033, &ALONE)
    }

    /// Has `exprsn new extension` write the project. A file that is there as it should be keeps its time: what was built of
    /// it is up to date.
    fn make(language: &str, name: &'static str, port: u16, alone: &'static Mutex<()>) -> Self {
        let alone = alone.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("extensions")
            .join(language);
        let fresh = tempfile::tempdir().expect("a temporary directory");
        let project = fresh.path().join(name);
        let made = Command::new(EXPRSN)
            .args(["new", "extension", name, "--language", language, "--into"])
            .arg(&project)
            .output()
            .expect("exprsn runs");
        assert!(made.status.success(), "{made:?}");
        for (file, bytes) in files(&project) {
            let path = folder.join(file);
            if fs::read(&path).ok().as_ref() != Some(&bytes) {
                fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                fs::write(path, bytes).expect("written");
            }
        }
        Self {
            folder,
            name,
            port,
            _alone: alone,
        }
    }

    /// Runs the commands of a section of the README.
    fn follow(&self, platform: &Platform, section: &str, skip: impl Fn(&str) -> bool) {
        let readme = fs::read_to_string(self.folder.join("README.md")).expect("a README");
        let commands: Vec<String> = commands(&readme, section)
            .into_iter()
            .filter(|command| !skip(command))
            .collect();
        let script = commands.join("\n");
        let mut shell = Command::new("sh");
        shell.args(["-exc", &script]).current_dir(&self.folder);
        let done = surroundings(&mut shell, platform)
            .output()
            .expect("a shell runs");
        assert!(
            done.status.success(),
            "{} of {}:\n{}{}",
            section,
            self.folder.join("README.md").display(),
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        );
    }

    /// Builds, signs and installs as the README says. What was built of exactly these sources is not built again.
    fn install(&self, platform: &Platform) {
        let stamp = self.folder.join(".built");
        let sources = digest(&self.folder);
        if fs::read_to_string(&stamp).ok().as_ref() != Some(&sources) {
            self.follow(platform, "Build", |_| false);
            fs::write(&stamp, digest(&self.folder)).expect("written");
        }
        // A key is made once: a component signed by the same key has the same digest, and its compiled code is found again.
        let has_key = self.folder.join("publisher.pem").is_file();
        self.follow(platform, "Ship and install", |command| {
            has_key && command.contains("keygen")
        });
    }

    fn call(&self, platform: &Platform, method: &str, path: &str) -> Call {
        let origin = format!("http://{}:{}", platform.address, self.port);
        Call::new(method, &format!("{origin}{path}"))
    }
}

/// What a person's shell has: the programs on PATH, and where the platform is.
pub fn surroundings<'a>(command: &'a mut Command, platform: &Platform) -> &'a mut Command {
    let exprsn = Path::new(EXPRSN).parent().expect("a folder").to_owned();
    let mut path = vec![exprsn];
    // Where the default toolchain cannot build components, `cargo xtask test` names a folder with a cargo that can.
    path.extend(env::var_os("EXPRSN_WASM_CARGO").map(PathBuf::from));
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    for (name, _) in env::vars_os() {
        // Set by the cargo that runs the tests; a build in it would not be a stranger's.
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO") && name != "CARGO_HOME" || name == "LD_LIBRARY_PATH" {
            command.env_remove(name);
        }
    }
    let folder = platform.data.parent().expect("the platform's folder");
    command
        .env("PATH", env::join_paths(path).expect("paths without colons"))
        .env("EXPRSN_CONFIG", folder.join("platform.toml"))
        .env("EXPRSN_DATA", &platform.data)
        .stdin(Stdio::null())
}

/// The commands in the `console` block below a heading: lines that begin with `$ `, with what continues them.
fn commands(readme: &str, heading: &str) -> Vec<String> {
    let section = readme
        .split("\n## ")
        .find_map(|section| section.strip_prefix(heading))
        .unwrap_or_else(|| panic!("the README has no section `{heading}`"));
    let block = section
        .split_once("```console\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .unwrap_or_else(|| panic!("the section `{heading}` has no commands"))
        .0;
    let mut commands: Vec<String> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push(command.to_owned()),
            (None, Some(last)) => {
                last.push('\n');
                last.push_str(line);
            }
            (None, None) => panic!("`{line}` is no command"),
        }
    }
    commands
}

/// The files of a project, without what its tools write.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    const TOOLS: [&str; 4] = ["target", "node_modules", ".venv", "__pycache__"];
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                folders.extend(Some(path).filter(|_| !TOOLS.contains(&name.as_str())));
            } else {
                let inner = path.strip_prefix(folder).expect("below it").to_owned();
                found.insert(inner, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// Of the sources, the interfaces and the host's own packing.
fn digest(folder: &Path) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    let made = |path: &Path| {
        let name = path.to_string_lossy();
        name.ends_with(".wasm")
            || name.starts_with("publisher.")
            || name == ".built"
            || name == "package-lock.json"
    };
    files(folder)
        .iter()
        .filter(|(path, _)| !made(path))
        .for_each(|file| file.hash(&mut hasher));
    format!("{:016x}", hasher.finish())
}

fn exprsn(platform: &Platform, arguments: &[&str]) {
    let mut command = Command::new(EXPRSN);
    let done = surroundings(command.args(arguments), platform)
        .output()
        .expect("exprsn runs");
    assert!(done.status.success(), "{arguments:?}: {done:?}");
}

/// Withholds a grant, sees that `denied` says so, gives it back, and sees that `granted` works as before.
fn revoked_and_restored(
    workshop: &Workshop,
    platform: &Platform,
    grant: &str,
    denied: impl FnOnce(),
    granted: impl FnOnce(),
) {
    exprsn(
        platform,
        &["component", "revoke", workshop.name, "--grant", grant],
    );
    denied();
    exprsn(
        platform,
        &["component", "restore", workshop.name, "--grant", grant],
    );
    granted();
}

/// Takes everything from it, then takes it off.
fn uninstalled(workshop: &Workshop, platform: &Platform) {
    exprsn(platform, &["component", "revoke", workshop.name]);
    workshop
        .call(platform, "GET", "/health")
        .send()
        .expect_status(503);
    let path = format!("/api/services/{}", workshop.name);
    let removed = platform
        .call("setup", "DELETE", &path)
        .token(&platform.operator())
        .send();
    assert!((200..300).contains(&removed.status), "{}", removed.text());
    let gone = workshop.call(platform, "GET", "/health").try_send();
    assert!(
        gone.is_err() || gone.is_ok_and(|answer| answer.status >= 500),
        "it does not answer any more"
    );
}

fn items(answer: &Value) -> &[Value] {
    answer.as_array().expect("a list")
}

#[test]
fn a_guestbook_in_rust_keeps_entries_and_asks_for_names() {
    let (workshop, platform) = (Workshop::rust(), &start());
    workshop.install(platform);
    let ada = platform.user("ada");
    let sign = |user: &User, text: &str| {
        workshop
            .call(platform, "POST", "/api/entries")
            .token(&user.token)
            .json(&json!({ "text": text }))
            .send()
    };
    let entries = || {
        workshop
            .call(platform, "GET", "/api/entries")
            .send()
            .expect_status(200)
            .json()
    };
    let signed = sign(&ada, "I was here").expect_status(201).json();
    // The name comes from exprsn-auth: the component was told an id only.
    assert!(
        signed["author"]
            .as_str()
            .is_some_and(|name| name.starts_with("ada")),
        "{signed}"
    );
    assert_eq!(items(&entries())[0], signed);
    sign(&ada, "").expect_problem(422, "1 to 500");
    workshop
        .call(platform, "POST", "/api/entries")
        .json(&json!({ "text": "x" }))
        .send()
        .expect_status(401);

    let denied = |grant: &str| {
        revoked_and_restored(
            &workshop,
            platform,
            grant,
            || drop(sign(&ada, "denied").expect_problem(403, "access-denied")),
            || drop(sign(&ada, "granted again").expect_status(201)),
        );
    };
    denied("sql");
    denied("call:exprsn-auth");
    // The event is part of the transaction: without it there is no entry either.
    denied("events:guestbook.signed");
    assert!(!entries().to_string().contains("denied"), "{}", entries());
    uninstalled(&workshop, platform);
}

#[test]
fn bookmarks_in_javascript_fetch_titles() {
    let (workshop, platform) = (Workshop::javascript(), &start());
    workshop.install(platform);
    let ada = platform.user("ada");
    let page = Page::open("<html><title> A page </title></html>");
    let add = |url: &str| {
        workshop
            .call(platform, "POST", "/api/links")
            .token(&ada.token)
            .json(&json!({ "url": url }))
            .send()
    };
    let list = || {
        workshop
            .call(platform, "GET", "/api/links")
            .token(&ada.token)
            .send()
    };
    let added = add(&page.url("/a")).expect_status(201).json();
    assert_eq!(added["title"], "A page");
    assert_eq!(items(&list().expect_status(200).json())[0], added);
    add("ftp://example.org").expect_problem(422, "http");
    // Another port of the same machine is in the grant, another scheme and address is not.
    add("http://169.254.169.254/latest").expect_problem(502, "egress");

    revoked_and_restored(
        &workshop,
        platform,
        "sql",
        || drop(list().expect_problem(403, "access-denied")),
        || drop(list().expect_status(200)),
    );
    let origin = page.url("");
    revoked_and_restored(
        &workshop,
        platform,
        &format!("egress:{origin}"),
        || drop(add(&page.url("/b")).expect_problem(502, "egress")),
        || drop(add(&page.url("/c")).expect_status(201)),
    );
    uninstalled(&workshop, platform);
}

#[test]
fn a_status_page_in_python_asks_how_all_are() {
    let (workshop, platform) = (Workshop::python(), &start());
    workshop.install(platform);
    let ada = platform.user("ada");
    let check = || {
        workshop
            .call(platform, "POST", "/api/checks")
            .token(&ada.token)
            .send()
    };
    let uptime = || workshop.call(platform, "GET", "/api/uptime").send();
    let seen = check().expect_status(201).json();
    assert!(seen["services"].as_u64() >= Some(3), "{seen}");
    let found = uptime().expect_status(200).json();
    let auth = items(&found)
        .iter()
        .find(|row| row["service"] == "exprsn-auth")
        .unwrap_or_else(|| panic!("{found}"));
    assert_eq!(auth["healthyPercent"], 100.0, "{auth}");
    let checks = auth["checks"].clone();

    revoked_and_restored(
        &workshop,
        platform,
        "call:exprsn-setup",
        || drop(check().expect_problem(403, "access-denied")),
        || drop(uptime().expect_status(200)),
    );
    revoked_and_restored(
        &workshop,
        platform,
        "events:statuspage.checked",
        || drop(check().expect_problem(403, "access-denied")),
        || drop(uptime().expect_status(200)),
    );
    let found = uptime().expect_status(200).json();
    let auth = items(&found)
        .iter()
        .find(|row| row["service"] == "exprsn-auth");
    // A check that could not be announced was not written down either.
    assert_eq!(auth.expect("it is there")["checks"], checks);
    revoked_and_restored(
        &workshop,
        platform,
        "sql",
        || drop(uptime().expect_problem(403, "access-denied")),
        || drop(uptime().expect_status(200)),
    );
    uninstalled(&workshop, platform);
}

/// A page on this machine, outside the platform.
struct Page {
    port: u16,
}

impl Page {
    fn open(html: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    head.push(byte[0]);
                }
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{html}",
                    html.len()
                );
                // A client that has gone is its own affair.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { port }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}
