//! Runs the real `exprsn` binary on a loopback address of its own, and speaks HTTP to it.
//!
//! Every platform gets its own address in 127.0.0.0/8, so tests run side by side on the services' usual ports.

use exprsn::{
    manifest::{MigrationFile, Migrations},
    pack::pack,
};
use exprsn_backends::testing::{RedisServer, postgres::Cluster};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, LazyLock, Mutex, OnceLock,
        atomic::{AtomicU8, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long a platform may take to become ready: a cold cache on a busy machine included.
const READY_MAX: Duration = Duration::from_secs(240);
/// How long anything else that is waited for may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test.
pub const EXPRSN: &str = env!("CARGO_BIN_EXE_exprsn");

/// Set to `production`, this variable has every platform that does not choose its own backends run on a PostgreSQL and a
/// Redis of its own: `cargo xtask test` runs the services' tests once like that.
const BACKENDS: &str = "EXPRSN_TEST_BACKENDS";

/// What kind of platform a test wants.
#[derive(Clone, Debug, Default)]
pub struct Setup<'a> {
    /// Short names of services from the checked-in platform.toml; empty is none of them.
    pub services: &'a [&'a str],
    /// Guests under `host/tests/guests`, each with every grant that it asks for.
    pub guests: &'a [&'a str],
    /// TOML added to the configuration.
    pub config: &'a str,
    /// Compiled code in the data directory, so that the first start compiles.
    pub own_cache: bool,
    /// On a PostgreSQL and a Redis of its own, whatever the environment says.
    pub production: bool,
    /// Meets other hosts, which join with [`Platform::beside`].
    pub meets: bool,
}

/// Short names of all services of the checked-in platform.toml.
pub static ALL: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let services = checked_in();
    let names = services["service"].as_table().expect("services").keys();
    names
        .map(|name| name.trim_start_matches("exprsn-").to_owned().leak() as &str)
        .collect()
});

/// The checked-in platform.toml.
fn checked_in() -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../platform.toml");
    let text = fs::read_to_string(path).expect("platform.toml");
    text.parse().expect("platform.toml parses")
}

/// A running platform.
pub struct Platform {
    pub address: String,
    pub data: PathBuf,
    pub config: PathBuf,
    own_cache: bool,
    running: Mutex<Option<Running>>,
    _folder: TempDir,
    servers: Option<Arc<Servers>>,
    /// The invitation that it starts with.
    invitation: Option<String>,
    /// Addresses of services that run on other hosts.
    elsewhere: Mutex<BTreeMap<String, String>>,
}

/// The servers of one platform.
pub struct Servers {
    pub postgres: Cluster,
    pub redis: Mutex<RedisServer>,
}

impl Servers {
    /// Starts them, where that is asked for.
    fn wanted(setup: &Setup<'_>) -> Option<Self> {
        let asked = std::env::var(BACKENDS).is_ok_and(|wanted| wanted == "production");
        (asked || setup.production || setup.meets).then(|| Self {
            postgres: Cluster::start(),
            redis: RedisServer::start().into(),
        })
    }

    fn config(&self) -> toml::Table {
        let text = format!(
            "[backends]\npostgres.url = {:?}\nredis.url = {:?}\n[capability]\nsql.backend = \"postgres\"\n\
             queue.backend = \"redis\"\ncache.backend = \"redis\"\n",
            self.postgres.url(),
            self.redis.lock().expect("the lock").url()
        );
        text.parse().expect("the servers' configuration parses")
    }
}

struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
}

/// A registered user with a live access token.
#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub token: String,
}

impl Platform {
    /// A platform with all services, shared by the tests of this binary that do not harm it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Platform> = OnceLock::new();
        SHARED.get_or_init(|| {
            Self::start(&Setup {
                services: &ALL,
                ..Setup::default()
            })
        })
    }

    /// Starts a platform with an empty data directory and waits until it is ready.
    pub fn start(setup: &Setup<'_>) -> Self {
        let platform = Self::prepare(setup);
        platform.restart();
        platform
    }

    /// A platform that is configured but not started.
    pub fn prepare(setup: &Setup<'_>) -> Self {
        Self::prepare_at(
            &next_address(),
            setup,
            Servers::wanted(setup).map(Arc::new),
            None,
        )
    }

    /// Starts another host of the platform of `first`, on the same servers, and waits until it is ready.
    pub fn beside(first: &Self, setup: &Setup<'_>) -> Self {
        let host = Self::prepare_beside(first, setup);
        host.restart();
        host
    }

    /// Another host of the platform of `first`, with its invitation, that is configured but not started.
    pub fn prepare_beside(first: &Self, setup: &Setup<'_>) -> Self {
        let invited = first.cli(&["host", "invite"]);
        let token = String::from_utf8(invited.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned();
        let setup = Setup {
            meets: true,
            ..setup.clone()
        };
        Self::prepare_at(&next_address(), &setup, first.servers.clone(), Some(token))
    }

    fn prepare_at(
        address: &str,
        setup: &Setup<'_>,
        servers: Option<Arc<Servers>>,
        invitation: Option<String>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let address = address.to_owned();
        let config = folder.path().join("platform.toml");
        let text = configuration(setup, &address, servers.as_deref());
        fs::write(&config, text).expect("the configuration is written");
        let data = folder.path().join("data");
        Self {
            address,
            data,
            config,
            own_cache: setup.own_cache,
            running: Mutex::new(None),
            _folder: folder,
            servers,
            invitation,
            elsewhere: Mutex::default(),
        }
    }

    /// The same host with another invitation; empty is none.
    pub fn with_invitation(mut self, token: &str) -> Self {
        self.invitation = (!token.is_empty()).then(|| token.to_owned());
        self
    }

    /// Asks `host` for these services from now on, as a load balancer would.
    pub fn ask_elsewhere(&self, services: &[&str], host: &Self) {
        let mut elsewhere = self.elsewhere.lock().expect("the lock");
        for service in services {
            elsewhere.insert((*service).to_owned(), host.address.clone());
        }
    }

    /// Runs a command against this host and expects it to succeed.
    #[track_caller]
    pub fn cli(&self, arguments: &[&str]) -> std::process::Output {
        let output = self.try_cli(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// Runs a command against this host.
    pub fn try_cli(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = self.command(arguments);
        command
            .arg("--config")
            .arg(&self.config)
            .arg("--data")
            .arg(&self.data);
        command.stderr(Stdio::piped()).stdin(Stdio::null());
        command.output().expect("the command runs")
    }

    /// Tells other hosts that this one is reached by another address. Before its first start.
    pub fn advertise(&self, address: &str) {
        let text = fs::read_to_string(&self.config).expect("the configuration");
        let mut config: toml::Table = text.parse().expect("the configuration parses");
        let told: toml::Table = format!("[cluster]\naddress = \"{address}\"")
            .parse()
            .expect("an address");
        merge(&mut config, told);
        fs::write(&self.config, config.to_string()).expect("written");
    }

    /// Sends the host's process a signal: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.pid().to_string())
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// The servers that it runs on; none where everything is embedded.
    pub fn servers(&self) -> Option<&Servers> {
        self.servers.as_deref()
    }

    /// Starts the host on the present data directory and waits for the ready line.
    pub fn restart(&self) {
        if let Err(output) = self.try_restart() {
            panic!(
                "the platform did not become ready:\n{output}\n{}",
                self.log()
            );
        }
    }

    /// The same, answering what was printed when the host ends before it is ready.
    pub fn try_restart(&self) -> Result<(), String> {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the log opens");
        let mut child = self
            .command(&["up", "--stop-with-stdin"])
            .stderr(log)
            .spawn()
            .expect("the host starts");
        let stdin = child.stdin.take();
        let lines = lines(child.stdout.take().expect("stdout is piped"));
        let deadline = Instant::now() + READY_MAX;
        let mut printed = String::new();
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with("ready in ") => break,
                Ok(line) => printed.push_str(&line),
                Err(_) => {
                    let _ = child.kill();
                    let status = child.wait().expect("the host is waited for");
                    return Err(format!("{status}: {printed}"));
                }
            }
        }
        *self.running.lock().expect("the lock") = Some(Running { child, stdin });
        Ok(())
    }

    /// The program with this platform's configuration and data directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(EXPRSN);
        command.args(arguments);
        if arguments.first() == Some(&"up") {
            command.arg("--config").arg(&self.config);
            command.arg("--data").arg(&self.data);
            command.arg("--components").arg(built("components"));
            if !self.own_cache {
                command.arg("--cache").arg(cache());
            }
        }
        command
            .env_remove("AUTO_START_SERVICES")
            .env_remove("EXPRSN_JOIN")
            .env_remove("RUST_LOG");
        if let Some(invitation) = &self.invitation {
            command.env("EXPRSN_JOIN", invitation);
        }
        command.current_dir(self._folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    /// SIGKILL: nothing is finished, nothing is closed.
    pub fn kill(&self) {
        let mut running = self
            .running
            .lock()
            .expect("the lock")
            .take()
            .expect("the host runs");
        running.child.kill().expect("the host is killed");
        running.child.wait().expect("the host is waited for");
    }

    /// Asks the host to drain and waits for its end.
    pub fn stop(&self) -> ExitStatus {
        let mut running = self
            .running
            .lock()
            .expect("the lock")
            .take()
            .expect("the host runs");
        drop(running.stdin.take());
        running.child.wait().expect("the host is waited for")
    }

    /// Waits for the end of a host that something else has asked to stop.
    pub fn wait(&self) -> ExitStatus {
        let mut running = self
            .running
            .lock()
            .expect("the lock")
            .take()
            .expect("the host runs");
        running.child.wait().expect("the host is waited for")
    }

    /// The host's process id.
    pub fn pid(&self) -> u32 {
        self.running
            .lock()
            .expect("the lock")
            .as_ref()
            .expect("the host runs")
            .child
            .id()
    }

    fn log_path(&self) -> PathBuf {
        self._folder.path().join("host.log")
    }

    /// What the host has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The operator's token.
    pub fn operator(&self) -> String {
        fs::read_to_string(self.data.join("operator.token"))
            .expect("the operator's token")
            .trim()
            .to_owned()
    }

    /// A request to a service by its short name (or a guest by its full name).
    pub fn call(&self, service: &str, method: &str, path: &str) -> Call {
        Call::new(method, &format!("{}{path}", self.origin(service)))
    }

    /// `http://<address>:<port>` of a service.
    pub fn origin(&self, service: &str) -> String {
        let elsewhere = self.elsewhere.lock().expect("the lock");
        let address = elsewhere.get(service).unwrap_or(&self.address);
        format!("http://{address}:{}", port(service))
    }

    /// Registers a user of a name that nobody has and logs in.
    pub fn user(&self, name: &str) -> User {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let username = format!("{name}_{}", &unique[..12]);
        let account = serde_json::json!({
            "username": username,
            "email": format!("{username}@example.org"),
            "password": "correct horse battery staple 7",
        });
        let registered = self
            .call("auth", "POST", "/api/auth/register")
            .json(&account)
            .send()
            .expect_status(201);
        let login = serde_json::json!({ "identifier": username, "password": account["password"] });
        let answer = self
            .call("auth", "POST", "/api/auth/login")
            .json(&login)
            .send()
            .expect_status(200)
            .json();
        let id = registered.json();
        let id = id
            .pointer("/user/id")
            .or(id.pointer("/id"))
            .and_then(Value::as_str)
            .expect("the user's id")
            .to_owned();
        let token = answer["accessToken"]
            .as_str()
            .expect("an access token")
            .to_owned();
        User { id, token }
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.lock().expect("the lock").take() {
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(40).collect();
            eprintln!("--- the host's log, its last lines ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A request that is being put together.
pub struct Call {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    within: Duration,
}

impl Call {
    pub fn new(method: &str, url: &str) -> Self {
        Self {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            within: PATIENCE,
        }
    }

    /// Waits no longer than this for the whole answer.
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        let mut body = String::new();
        for (name, value) in fields {
            let encoded: String = value.bytes().fold(String::new(), |mut text, byte| {
                let _ = match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                        write!(text, "{}", byte as char)
                    }
                    other => write!(text, "%{other:02X}"),
                };
                text
            });
            let _ = write!(
                body,
                "{}{name}={encoded}",
                if body.is_empty() { "" } else { "&" }
            );
        }
        self.body("application/x-www-form-urlencoded", body)
    }

    pub fn body(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut call = self.header("content-type", content_type);
        call.body = body.into();
        call
    }

    /// Sends the request and reads the whole answer. Panics only where there is no answer.
    pub fn send(self) -> Answer {
        let described = format!("{} {}", self.method, self.url);
        self.try_send()
            .unwrap_or_else(|error| panic!("{described}: {error}"))
    }

    /// The same, for requests that may go without an answer.
    pub fn try_send(self) -> Result<Answer, ureq::Error> {
        let (status, headers, mut reader, described) = self.open()?;
        let mut body = Vec::new();
        reader.read_to_end(&mut body)?;
        Ok(Answer {
            status,
            headers,
            body,
            described,
        })
    }

    /// Sends the request and leaves the body to be read: for streams.
    #[allow(
        clippy::type_complexity,
        reason = "used in two places, and a name would say no more"
    )]
    pub fn open(self) -> Result<(u16, http::HeaderMap, Box<dyn Read + Send>, String), ureq::Error> {
        let described = format!("{} {}", self.method, self.url);
        let mut request = http::Request::builder()
            .method(self.method.as_str())
            .uri(&self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let bodiless = self.body.is_empty()
            && matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "DELETE");
        let bounded = agent();
        let response = if bodiless {
            let request = request.body(()).expect("a request");
            let request = bounded
                .configure_request(request)
                .timeout_global(Some(self.within))
                .build();
            bounded.run(request)?
        } else {
            let request = request.body(self.body).expect("a request");
            let request = bounded
                .configure_request(request)
                .timeout_global(Some(self.within))
                .build();
            bounded.run(request)?
        };
        let (parts, body) = response.into_parts();
        Ok((
            parts.status.as_u16(),
            parts.headers,
            Box::new(body.into_reader()),
            described,
        ))
    }
}

fn agent() -> &'static ureq::Agent {
    static AGENT: OnceLock<ureq::Agent> = OnceLock::new();
    AGENT.get_or_init(|| {
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(PATIENCE))
            .max_redirects(0)
            .build()
            .into()
    })
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
    described: String,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.described, self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.described, self.text());
        self
    }

    /// Expects a problem document (RFC 9457) that mentions `text`.
    #[track_caller]
    pub fn expect_problem(self, status: u16, text: &str) -> Self {
        let answer = self.expect_status(status);
        assert_eq!(
            answer.header("content-type"),
            "application/problem+json",
            "{}",
            answer.described
        );
        assert_eq!(answer.json()["status"], status, "{}", answer.text());
        assert!(
            answer.text().contains(text),
            "{}: no `{text}` in {}",
            answer.described,
            answer.text()
        );
        answer
    }
}

/// Asks again and again until `probe` answers something; fails, saying `what`, when patience ends.
#[track_caller]
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder of built components: `components` or `guests` in the target directory.
pub fn built(folder: &str) -> PathBuf {
    let target = Path::new(EXPRSN)
        .ancestors()
        .nth(2)
        .expect("the binary lies in <target>/<profile>");
    let built = target.join(folder);
    let flag = if folder == "guests" { " --guests" } else { "" };
    assert!(
        built.is_dir(),
        "`{}` is not there: run `cargo xtask build-components{flag}` first",
        built.display()
    );
    built
}

/// A guest packed anew: its manifest with `changes` (each of which must apply), its migrations and `more`.
pub fn repacked(guest: &str, changes: &[(&str, &str)], more: &[(&str, &str)]) -> Vec<u8> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/guests")
        .join(guest);
    let manifest = fs::read_to_string(source.join("component.toml")).expect("a manifest");
    let manifest = changes.iter().fold(manifest, |text, (from, to)| {
        assert!(
            text.contains(from),
            "no `{from}` in the manifest of {guest}"
        );
        text.replace(from, to)
    });
    let mut files: Vec<MigrationFile> = Vec::new();
    for entry in fs::read_dir(source.join("migrations"))
        .into_iter()
        .flatten()
    {
        let path = entry.expect("an entry").path();
        files.push(MigrationFile {
            name: path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned(),
            sql: fs::read_to_string(&path).expect("a migration"),
        });
    }
    files.extend(more.iter().map(|(name, sql)| MigrationFile {
        name: (*name).to_owned(),
        sql: (*sql).to_owned(),
    }));
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let component = fs::read(built("guests").join(format!("exprsn-{guest}.wasm"))).expect("built");
    let migrations = Migrations {
        files,
        schema: None,
    };
    pack(&component, &manifest, &migrations).expect("it packs")
}

/// Compiled code, shared by all platforms of a test run.
fn cache() -> PathBuf {
    Path::new(EXPRSN)
        .ancestors()
        .nth(2)
        .expect("the binary lies in <target>/<profile>")
        .join("test-cache")
}

/// The port of a service or guest, from its manifest.
pub fn port(service: &str) -> u64 {
    let manifest = manifest(service);
    u64::try_from(manifest["port"].as_integer().expect("a port")).expect("a port")
}

fn manifest(service: &str) -> toml::Table {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let candidates = [
        root.join("../components")
            .join(service)
            .join("component.toml"),
        root.join("tests/guests")
            .join(service)
            .join("component.toml"),
    ];
    let text = candidates
        .iter()
        .find_map(|path| fs::read_to_string(path).ok());
    text.unwrap_or_else(|| panic!("no component.toml of `{service}`"))
        .parse()
        .expect("a manifest")
}

/// A configuration with the services wanted, as the checked-in platform.toml has them, on an address of its own.
fn configuration(setup: &Setup<'_>, address: &str, servers: Option<&Servers>) -> String {
    let mut config = checked_in();
    let mut services = toml::Table::new();
    if let Some(checked_in) = config.get("service").and_then(toml::Value::as_table) {
        for name in setup.services {
            let name = format!("exprsn-{name}");
            services.insert(name.clone(), checked_in[&name].clone());
        }
    }
    for guest in setup.guests {
        let manifest = manifest(guest);
        let name = manifest["name"].as_str().expect("a name").to_owned();
        let asked = manifest
            .get("grants")
            .and_then(toml::Value::as_table)
            .cloned()
            .unwrap_or_default();
        let grants: toml::Table = asked
            .keys()
            .map(|key| (key.clone(), "as-requested".into()))
            .collect();
        let component = built("guests").join(format!("{name}.wasm"));
        let component = component.to_str().expect("a path").to_owned();
        let mut service = toml::Table::new();
        service.insert("component".to_owned(), component.into());
        service.insert("grants".to_owned(), grants.into());
        services.insert(name, service.into());
    }
    config.insert("service".to_owned(), services.into());
    if let Some(servers) = servers {
        merge(&mut config, servers.config());
    }
    if setup.meets {
        let cluster = format!("[cluster]\nlisten = \"{address}:3100\"");
        merge(&mut config, cluster.parse().expect("an address"));
    }
    merge(
        &mut config,
        setup
            .config
            .parse()
            .expect("the added configuration parses"),
    );
    let listen: toml::Table = format!("[platform]\nlisten = \"{address}\"")
        .parse()
        .expect("an address");
    merge(&mut config, listen);
    config.to_string()
}

fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// An address that no other platform of this machine's test runs has: the process id and a count.
fn next_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    format!(
        "127.{}.{}.{}",
        high.clamp(1, 254),
        low,
        NEXT.fetch_add(1, Relaxed)
    )
}

/// The lines of an output, as they come.
pub fn lines(output: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
