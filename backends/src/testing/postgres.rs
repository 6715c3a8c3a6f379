//! A PostgreSQL cluster of the tests' own.

use crate::sql::postgres::{Server, Settings};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::runtime::Handle;

/// The superuser that tests connect as.
const ADMIN: &str = "cluster_admin";
const PASSWORD: &str = "a password of the tests";
/// How long a server may take to answer.
const START_MAX: Duration = Duration::from_secs(60);
/// PostgreSQL refuses to run as root; these users exist on Debian, the first with its package.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// A running cluster. It stops when this process ends, however it ends.
#[derive(Debug)]
pub struct Cluster {
    programs: PathBuf,
    user: Option<&'static str>,
    folder: TempDir,
    port: u16,
    // Stops the server when its standard input closes.
    _watch: Child,
}

impl Cluster {
    /// The cluster of this process, for tests that do not harm it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A new cluster, for tests that stop it.
    pub fn start() -> Self {
        let programs = programs();
        let user = unprivileged();
        let folder = tempfile::tempdir().expect("a temporary directory");
        give(folder.path(), user);
        let port = super::free_port();
        let cluster = Self {
            _watch: watch(&programs, user, folder.path()),
            programs,
            user,
            folder,
            port,
        };
        cluster.initialise();
        cluster.resume();
        cluster
    }

    /// Where it is, with the superuser's password.
    pub fn url(&self) -> String {
        let password = PASSWORD.replace(' ', "%20");
        format!(
            "postgres://{ADMIN}:{password}@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }

    /// Settings to reach it by.
    pub fn settings(&self) -> Settings {
        Settings::new(self.url())
    }

    /// A server as a host has it. Its connections belong to the runtime that calls.
    pub async fn server(&self) -> Server {
        self.server_with(self.settings()).await
    }

    /// As [`Cluster::server`], with settings that differ.
    pub async fn server_with(&self, settings: Settings) -> Server {
        let server = Server::connect(settings, b"the tests' key", Handle::current()).await;
        server.unwrap_or_else(|error| panic!("{}", crate::sql::error::chain(&error)))
    }

    /// Runs statements in a database as the superuser, as somebody would who tampers with it.
    pub fn execute(&self, database: &str, statements: &str) {
        let url = self.url().replace("/postgres?", &format!("/{database}?"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        runtime.block_on(async {
            let connected = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
            let (client, connection) = connected.expect("the database is there");
            tokio::spawn(connection);
            let done = client.batch_execute(statements).await;
            done.unwrap_or_else(|error| panic!("{statements}: {error}"));
        });
    }

    /// Stops it as a crash would.
    pub fn kill(&self) {
        self.run("pg_ctl", &["stop", "-m", "immediate", "-w"]);
    }

    /// Starts it again, with its data, at the same port.
    pub fn resume(&self) {
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=300 \
             -c shared_buffers=32MB -c autovacuum=off -c log_min_messages=fatal",
            self.port
        );
        let log = self.folder.path().join("log");
        let log = log.to_str().expect("a temporary path is text");
        self.run("pg_ctl", &["start", "-w", "-o", &options, "-l", log]);
        let deadline = Instant::now() + START_MAX;
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again, speaking TLS with a certificate and its key, in PEM.
    pub fn speak_tls(&self, certificate: &str, key: &str) {
        let data = self.data();
        let files = [("server.crt", certificate), ("server.key", key)];
        for (name, content) in files {
            let path = data.join(name);
            fs::write(&path, content).expect("the folder is ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
                .expect("the file is ours");
            give(&path, self.user);
        }
        fs::write(data.join("postgresql.auto.conf"), "ssl = on\n").expect("the folder is ours");
        self.kill();
        self.resume();
    }

    /// Where it is, for whoever insists on TLS.
    pub fn tls_url(&self) -> String {
        let url = self.url().replace("127.0.0.1", "localhost");
        url.replace("sslmode=disable", "sslmode=require")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn initialise(&self) {
        let password = self.folder.path().join("password");
        fs::write(&password, PASSWORD).expect("the temporary directory is writable");
        give(&password, self.user);
        let password = format!("--pwfile={}", password.display());
        let user = format!("--username={ADMIN}");
        let words = [
            "--no-sync",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            &user,
            &password,
        ];
        self.run("initdb", &words);
    }

    fn run(&self, program: &str, words: &[&str]) {
        let mut command = as_user(self.user, &self.programs.join(program));
        command.arg("-D").arg(self.data()).args(words);
        command.current_dir(self.folder.path());
        // The server inherits what its starter has open; a pipe would never close.
        let output = fs::File::create(self.folder.path().join(program)).expect("a log file");
        command
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("a second handle"))
            .stdout(output);
        let status = command
            .status()
            .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
        let told = || fs::read_to_string(self.folder.path().join(program)).unwrap_or_default();
        let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        assert!(status.success(), "{program} failed: {}{}", told(), log());
    }
}

/// The folder of PostgreSQL's programs, newest first.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    let whole =
        |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("pg_ctl").is_file();
    folders.into_iter().find(whole).expect(
        "PostgreSQL is not installed: run `cargo xtask test`, which installs it, or `apt-get install postgresql`",
    )
}

/// The user to run as, where this process is root.
fn unprivileged() -> Option<&'static str> {
    let own = fs::metadata("/proc/self").expect("/proc is mounted").uid();
    (own == 0).then(|| {
        let known = |user: &&str| id_of(user).is_some();
        USERS
            .into_iter()
            .find(known)
            .expect("there is a user `postgres` or `nobody`")
    })
}

fn id_of(user: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let fields = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let mut found = fields.filter(|fields| fields.first() == Some(&user));
    let fields = found.next()?;
    Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}

fn give(path: &Path, user: Option<&str>) {
    if let Some((uid, gid)) = user.and_then(id_of) {
        chown(path, Some(uid), Some(gid)).expect("root may give files away");
    }
}

fn as_user(user: Option<&str>, program: &Path) -> Command {
    match user.and_then(id_of) {
        None => Command::new(program),
        Some((uid, gid)) => {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={uid}"))
                .arg(format!("--regid={gid}"));
            command.arg("--clear-groups").arg(program);
            command
        }
    }
}

/// A process that outlives this one by as long as it takes to stop the server and remove its files.
fn watch(programs: &Path, user: Option<&str>, folder: &Path) -> Child {
    let script = "trap '' INT TERM HUP; read ended; \"$0\" stop -D \"$1/data\" -m immediate >/dev/null 2>&1; rm -rf \"$1\"";
    let mut command = as_user(user, Path::new("/bin/sh"));
    command
        .args(["-c", script])
        .arg(programs.join("pg_ctl"))
        .arg(folder);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().expect("a shell")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(input) = &mut self._watch.stdin {
            // Where the shell is gone, so is what it watched.
            let _ = input.write_all(b"\n");
        }
        let _ = self._watch.wait();
    }
}
