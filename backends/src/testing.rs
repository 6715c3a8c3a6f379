//! Servers for tests: processes of their own, gone when the tests end.

#[cfg(any(test, feature = "testing"))]
pub mod postgres;
#[cfg(any(test, feature = "testing"))]
pub mod s3;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// Copies `files` with `package.json` and its lock from a folder of the sources into `folder`, and installs the packages
/// there where they are not, or are others. Panics where npm is absent or fails.
pub fn node_packages(from: &Path, folder: &Path, files: &[&str]) {
    std::fs::create_dir_all(folder).expect("a folder");
    let locked = folder.join("package-lock.json");
    let installed = std::fs::read(&locked).ok();
    for name in ["package.json", "package-lock.json"].iter().chain(files) {
        std::fs::copy(from.join(name), folder.join(name)).expect("a file of the driver");
    }
    if installed != std::fs::read(&locked).ok() || !folder.join("node_modules").is_dir() {
        let npm = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .status()
            .expect("npm can be started: install Node.js 20 or later");
        assert!(npm.success(), "npm ci failed in {}", folder.display());
    }
}

/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(20);

/// A Redis server that keeps what it acknowledges, in a folder that goes with it. It ends when this is dropped.
#[derive(Debug)]
pub struct RedisServer {
    child: Option<Child>,
    /// Kills the server when its standard input closes: as this process ends, however it ends.
    watch: Option<Child>,
    port: u16,
    /// Where it listens for TLS, if it does.
    tls_port: Option<u16>,
    folder: PathBuf,
}

impl RedisServer {
    /// Starts a server on a free port and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it cannot be started; the message says what to install.
    pub fn start() -> Self {
        let mut server = Self::prepared();
        server.restart();
        server
    }

    /// Starts a server that also speaks TLS to those who show a certificate of the same authority.
    ///
    /// # Panics
    ///
    /// As [`RedisServer::start`].
    pub fn start_with_tls([authority, certificate, key]: &[String; 3]) -> Self {
        let mut server = Self::prepared();
        let files = [
            ("ca.pem", authority),
            ("cert.pem", certificate),
            ("key.pem", key),
        ];
        for (name, pem) in files {
            std::fs::write(server.folder.join(name), pem).expect("the folder is ours");
        }
        server.tls_port = Some(free_port());
        server.restart();
        server
    }

    fn prepared() -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Relaxed);
        let name = format!("exprsn-redis-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder for the server's files");
        Self {
            child: None,
            watch: None,
            port: free_port(),
            tls_port: None,
            folder,
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where it listens for TLS.
    ///
    /// # Panics
    ///
    /// If it was started without.
    pub fn tls_url(&self) -> String {
        let port = self.tls_port.expect("started with TLS");
        format!("rediss://localhost:{port}")
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server as a fault would.
    pub fn kill(&mut self) {
        // First: it must not kill whoever gets the server's number later.
        if let Some(mut watch) = self.watch.take() {
            watch.kill().expect("the shell can be killed");
            watch.wait().expect("the shell ends");
        }
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server can be killed");
            child.wait().expect("the server ends");
        }
    }

    /// Starts it again, on its files and port.
    pub fn restart(&mut self) {
        self.kill();
        let mut child = spawn(&self.folder, self.port, self.tls_port);
        let deadline = Instant::now() + START_MAX;
        while !answers(self.port) {
            if let Ok(Some(status)) = child.try_wait() {
                let mut said = String::new();
                let output = child.stdout.as_mut();
                output.map(|output| output.read_to_string(&mut said));
                panic!("redis-server ended with {status}: {said}");
            }
            assert!(Instant::now() < deadline, "redis-server does not answer");
            thread::sleep(Duration::from_millis(10));
        }
        self.watch = Some(watch(&child, &self.folder));
        self.child = Some(child);
    }
}

/// A shell that outlives this process by as long as it takes to kill the server and remove its files.
fn watch(server: &Child, folder: &Path) -> Child {
    let script = "trap '' INT TERM HUP; read ended; kill -9 \"$0\"; rm -rf \"$1\"";
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", script, &server.id().to_string()])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().expect("a shell")
}

fn spawn(folder: &Path, port: u16, tls_port: Option<u16>) -> Child {
    let mut command = Command::new("redis-server");
    if let Some(port) = tls_port {
        command.args(["--tls-port", &port.to_string()]);
        for (option, file) in [
            ("ca-cert", "ca.pem"),
            ("cert", "cert.pem"),
            ("key", "key.pem"),
        ] {
            command
                .arg(format!("--tls-{option}-file"))
                .arg(folder.join(file));
        }
    }
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
        .arg("--dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "redis-server cannot be started ({error}); `cargo xtask test` installs it, and so does \
                 `apt-get install redis-server`"
            )
        })
}

/// Whether the server is up and has read its files.
fn answers(port: u16) -> bool {
    let mut answer = [0; 5];
    TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .and_then(|mut stream| {
            stream.write_all(b"PING\r\n")?;
            stream.read_exact(&mut answer)
        })
        .is_ok_and(|()| &answer == b"+PONG")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        // What is left of a test's folder harms nobody.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
