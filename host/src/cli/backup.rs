//! `exprsn backup`: a copy of everything that cannot be made anew, taken while the platform runs.
//!
//! ```text
//! DIR/data/…            the data directory: databases as they were at one moment, keys, components, objects
//! DIR/postgres/*.dump   one archive of pg_dump for each of the platform's databases on a server
//! DIR/backup.json       what it is: when it was taken, by which version, modes of files, names of databases
//! DIR/SHA256SUMS        digests of all of these, as `sha256sum` writes and checks them
//! ```
//!
//! **Invariant:** `DIR` appears whole or not at all: it is written under another name and renamed at the end.

pub mod files;
pub mod manifest;
pub mod postgres;
mod snapshot;

use super::output::{CliError, Result, Style, print, print_json, size, span};
use crate::{clock, config::Config};
use clap::Args;
use files::{Entry, about};
use indicatif::{ProgressBar, ProgressDrawTarget};
use manifest::{DATA, Digests, Dumps, MANIFEST_FILE, Manifest, POSTGRES};
use serde_json::json;
use std::{
    fs::{self, DirBuilder, File},
    io::IsTerminal as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

/// Copies everything that cannot be made anew into a new folder, while the platform runs or while it is stopped.
///
/// From the data directory: the databases as they were at one moment, the certificate authority and all other keys,
/// components and objects. With [backends.postgres]: the platform's databases on that server, by pg_dump, each as it was at
/// a moment of its own. Not in it: what is on Redis or in an S3 bucket, and platform.toml.
///
/// The folder holds private keys. It is closed to other users; encrypt it before it leaves this machine.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn backup /var/backups/exprsn/2026-01-31
  exprsn backup /mnt/copy --data /var/lib/exprsn --config /etc/exprsn/platform.toml --json
  sha256sum -c SHA256SUMS          in the folder: whether it is still what was written")]
pub struct BackupArgs {
    /// The folder to make. It must not be there yet.
    #[arg(value_name = "DIR")]
    into: PathBuf,
    #[command(flatten)]
    source: Source,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// What is copied, or what a copy becomes.
#[derive(Args, Debug)]
pub struct Source {
    /// The platform's configuration, which says whether there is a PostgreSQL server.
    #[arg(
        long,
        value_name = "FILE",
        env = "EXPRSN_CONFIG",
        default_value = "platform.toml"
    )]
    pub config: PathBuf,
    /// The platform's data directory.
    #[arg(long, value_name = "DIR", env = "EXPRSN_DATA", default_value = "data")]
    pub data: PathBuf,
}

impl Source {
    /// The PostgreSQL server that the configuration names.
    pub fn server(&self) -> Result<Option<postgres::Server>> {
        let config = if self.config.exists() {
            Config::read(&self.config)?
        } else {
            Config::default()
        };
        postgres::Server::of(&config.backends.postgres)
    }
}

impl BackupArgs {
    /// Runs the command.
    pub fn run(self) -> Result {
        let started = Instant::now();
        let server = self.source.server()?;
        let draft = Draft::begin(&self.into, &self.source.data)?;
        let bar = progress();
        let mut writing = Writing {
            into: draft.path.clone(),
            digests: Digests::default(),
            bytes: 0,
            bar,
        };
        let postgres = match &server {
            None => Dumps::default(),
            Some(server) => writing.dump(server)?,
        };
        let manifest = writing.copy(&self.source.data, postgres)?;
        writing.finish(&manifest)?;
        draft.publish(&self.into)?;
        writing.bar.finish_and_clear();
        self.show(&manifest, writing.bytes, started.elapsed().as_secs_f64())
    }

    fn show(&self, manifest: &Manifest, bytes: u64, seconds: f64) -> Result {
        let databases = &manifest.databases;
        let dumped = &manifest.postgres.databases;
        if self.json {
            return print_json(&json!({
                "path": self.into,
                "bytes": bytes,
                "files": manifest.files.len(),
                "databases": databases,
                "postgres": dumped,
                "seconds": seconds,
            }));
        }
        print(&format!(
            "{} `{}`: {} files, {}, {} databases{} in {}",
            Style::stdout().green("backed up into"),
            self.into.display(),
            manifest.files.len(),
            size(bytes),
            databases.len(),
            if dumped.is_empty() {
                String::new()
            } else {
                format!(" and {} on PostgreSQL", dumped.len())
            },
            span(seconds)
        ));
        print(
            &Style::stdout().dim("it holds private keys: encrypt it before it leaves this machine"),
        );
        Ok(())
    }
}

/// The folder under its preliminary name. Dropped before it is published, it goes.
struct Draft {
    path: PathBuf,
    published: bool,
}

impl Draft {
    fn begin(into: &Path, data: &Path) -> Result<Self> {
        if into.symlink_metadata().is_ok() {
            return Err(
                CliError::failed(format!("`{}` is already there", into.display()))
                    .remedy("name a folder that is not: each backup is one of its own"),
            );
        }
        let Some(name) = into.file_name() else {
            return Err(CliError::failed(format!(
                "`{}` names no folder",
                into.display()
            )));
        };
        let data = data.canonicalize().map_err(|error| {
            about("cannot find the data directory", data)(error)
                .remedy("name the platform's with --data")
        })?;
        let parent = match into.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(about("cannot make", parent))?;
        let parent = parent
            .canonicalize()
            .map_err(about("cannot find", parent))?;
        if parent.starts_with(&data) {
            return Err(CliError::failed(format!(
                "`{}` lies in the data directory itself",
                into.display()
            ))
            .remedy("name a folder elsewhere, best on another disk"));
        }
        let random = rand::random::<u32>();
        let path = parent.join(format!(".{}.{random:08x}.partial", name.to_string_lossy()));
        private_folder(&path)?;
        Ok(Self {
            path,
            published: false,
        })
    }

    /// Makes it durable, then visible.
    fn publish(mut self, into: &Path) -> Result {
        let sync = || {
            rustix::fs::syncfs(File::open(&self.path)?)?;
            fs::rename(&self.path, into)?;
            File::open(self.path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        sync().map_err(about("cannot finish", into))?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A backup that is being written.
struct Writing {
    into: PathBuf,
    digests: Digests,
    bytes: u64,
    bar: ProgressBar,
}

impl Writing {
    /// Has pg_dump write each of the platform's databases.
    fn dump(&mut self, server: &postgres::Server) -> Result<Dumps> {
        let folder = self.into.join(POSTGRES);
        private_folder(&folder)?;
        let databases = server.databases()?;
        for database in &databases {
            self.say(&format!("dumping {database}"));
            let name = postgres::file_name(database);
            let path = folder.join(&name);
            server.dump(database, &path)?;
            let (bytes, digest) = files::digest(&path).map_err(about("cannot read", &path))?;
            self.bytes += bytes;
            self.digests.add(format!("{POSTGRES}/{name}"), digest);
        }
        Ok(Dumps {
            roles: server.roles()?,
            databases,
        })
    }

    /// Copies the data directory.
    fn copy(&mut self, data: &Path, postgres: Dumps) -> Result<Manifest> {
        let mut manifest = Manifest::new(clock::now_ms(), postgres);
        private_folder(&self.into.join(DATA))?;
        let found = files::walk(data)?;
        let databases: Vec<&Entry> = found.iter().filter(|entry| entry.is_database()).collect();
        self.say("taking all databases at one moment");
        let snapshots = snapshot::freeze(data, &databases)?;
        for entry in found.iter().filter(|entry| entry.folder) {
            private_folder(&self.into.join(DATA).join(&entry.path))?;
            manifest.folders.insert(entry.path.clone(), entry.mode);
        }
        for (entry, snapshot) in databases.iter().zip(snapshots) {
            self.say(&entry.path);
            let path = self.into.join(DATA).join(&entry.path);
            let (bytes, digest) = snapshot.write(&path)?;
            self.add(&mut manifest, entry, bytes, digest);
            manifest.databases.push(entry.path.clone());
        }
        for entry in found
            .iter()
            .filter(|entry| !entry.folder && !entry.is_database())
        {
            self.say(&entry.path);
            let from = data.join(&entry.path);
            let to = self.into.join(DATA).join(&entry.path);
            match files::copy(&from, &to, entry.mode) {
                Ok((bytes, digest)) => self.add(&mut manifest, entry, bytes, digest),
                // Objects and components come and go while the platform runs.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(about("cannot copy", &from)(error)),
            }
        }
        Ok(manifest)
    }

    fn add(&mut self, manifest: &mut Manifest, entry: &Entry, bytes: u64, digest: String) {
        self.bytes += bytes;
        manifest.files.insert(entry.path.clone(), entry.mode);
        self.digests.add(format!("{DATA}/{}", entry.path), digest);
    }

    /// Writes what it is, and the digests.
    fn finish(&mut self, manifest: &Manifest) -> Result {
        let digest = manifest.write(&self.into)?;
        self.digests.add(MANIFEST_FILE.to_owned(), digest);
        self.digests.write(&self.into)
    }

    fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.tick();
    }
}

/// A line that says what is being done, on a terminal; nothing elsewhere.
pub fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// Makes a folder that only its owner can enter.
pub fn private_folder(path: &Path) -> Result {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| {
        about("cannot make the folder", path)(error).remedy("name a place that can be written to")
    })
}
