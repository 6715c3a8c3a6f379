//! An S3 server of the tests' own: moto, which knows signatures, uploads of parts, conditions and pages of keys.
//!
//! What it lacks: `If-Match` when an upload of parts is completed (the check before it stands in), and disks.

use crate::blob::s3::{Limits, Settings};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock},
    time::Duration,
};
use tempfile::TempDir;

/// The packages that are installed, for these tests alone, each of one version.
const PACKAGES: &str = include_str!("s3_server.txt");
const BUCKET: &str = "the-tests";

/// A running server with one bucket. What it keeps goes with it, when it is dropped or this process ends.
#[derive(Debug)]
pub struct S3Server {
    port: u16,
    child: Child,
    talk: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    keys: [String; 2],
    folder: TempDir,
    tls: bool,
}

impl S3Server {
    /// Starts a server on a free port and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it cannot be started; the message says what to install.
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// Starts a server that speaks TLS with a certificate that the authority signed, all in PEM.
    ///
    /// # Panics
    ///
    /// As [`S3Server::start`].
    pub fn start_with_tls(pem: &[String; 3]) -> Self {
        Self::start_with(Some(pem))
    }

    fn start_with(pem: Option<&[String; 3]>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let [authority, certificate, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| {
            let path = folder.path().join(name);
            path.to_str().expect("a temporary path is text").to_owned()
        });
        let files = match pem {
            None => [String::new(), String::new()],
            Some([trusted, shown, secret]) => {
                for (path, content) in
                    [(&authority, trusted), (&certificate, shown), (&key, secret)]
                {
                    fs::write(path, content).expect("the folder is ours");
                }
                [certificate, key]
            }
        };
        let port = super::free_port();
        let mut child = spawn(port, &files, folder.path());
        let input = child.stdin.take().expect("it is piped");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut server = Self {
            port,
            child,
            talk: Mutex::new((input, output)),
            keys: Default::default(),
            folder,
            tls: pem.is_some(),
        };
        let keys = server.tell("open");
        server.keys = serde_json::from_str(&keys).expect("an access key and its secret");
        server
    }

    /// Stops to listen; what it keeps stays.
    pub fn leave(&self) {
        self.tell("close");
    }

    /// Listens again, at the same port.
    pub fn come_back(&self) {
        self.tell("open");
    }

    fn tell(&self, word: &str) -> String {
        let mut talk = self.talk.lock().expect("no holder of this lock panics");
        let mut answer = String::new();
        let told = writeln!(talk.0, "{word}").and_then(|()| talk.1.read_line(&mut answer));
        assert!(
            told.is_ok() && !answer.is_empty(),
            "the S3 server of the tests has ended; what it said is above"
        );
        answer
    }

    /// Settings to reach it by.
    pub fn settings(&self) -> Settings {
        let (scheme, host) = match self.tls {
            true => ("https", "localhost"),
            false => ("http", "127.0.0.1"),
        };
        let [access_key, secret_key] = self.keys.clone();
        Settings {
            endpoint: format!("{scheme}://{host}:{}", self.port),
            region: "us-east-1".to_owned(),
            bucket: BUCKET.to_owned(),
            prefix: "platform/objects".to_owned(),
            path_style: true,
            access_key,
            secret_key,
            session_token: None,
            ca_file: self.tls.then(|| self.folder.path().join("ca.pem")),
            limits: Limits {
                backoff: Duration::from_millis(10),
                ..Limits::default()
            },
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, files: &[String; 2], folder: &Path) -> Child {
    static PACKAGES: OnceLock<PathBuf> = OnceLock::new();
    Command::new("python3")
        .env("PYTHONPATH", PACKAGES.get_or_init(packages))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("AWS_PROFILE")
        .args(["-c", include_str!("s3_server.py")])
        .args([&port.to_string(), BUCKET])
        .args(files)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("python3 cannot be started: {error}"))
}

/// Installs the server once, in the folder of what is built; another process may do so too.
fn packages() -> PathBuf {
    let program = std::env::current_exe().expect("the tests' program");
    let target = program
        .ancestors()
        .nth(3)
        .expect("it is in the target folder");
    let folder = target.join("tmp/moto-5.2.1");
    if folder.is_dir() {
        return folder;
    }
    let fresh = target.join(format!("tmp/moto-{}", std::process::id()));
    let installed = Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
        ])
        .args(["--target".as_ref(), fresh.as_os_str()])
        .args(PACKAGES.split_ascii_whitespace())
        .stdin(Stdio::null())
        .status();
    assert!(
        installed.is_ok_and(|status| status.success()),
        "the S3 server of the tests cannot be installed: `apt-get install python3 python3-pip`, and see that \
         `python3 -m pip install` reaches a package index"
    );
    if fs::rename(&fresh, &folder).is_err() {
        let _ = fs::remove_dir_all(&fresh);
    }
    assert!(
        folder.is_dir(),
        "another process has installed it meanwhile"
    );
    folder
}
