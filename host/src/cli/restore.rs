//! `exprsn restore`: a backup becomes a data directory, and databases on a server, again.
//!
//! **Invariant:** nothing is written before every file of the backup has been found unchanged, and nothing that is there is
//! overwritten. A data directory that was restored in part says so, and no host starts on it.

use super::{
    backup::{
        Source,
        files::{self, MODE_BITS, RESTORING, about},
        manifest::{DATA, Digests, Manifest, POSTGRES, is_inside},
        postgres, private_folder, progress,
    },
    output::{CliError, Result, Style, print, print_json, size, span},
};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

/// What an empty data directory may hold: the lock, and what a file system of its own begins with.
const NOTHING: [&str; 2] = ["lock", "lost+found"];

/// Makes a data directory from a backup, and the platform's databases on [backends.postgres] where the backup has them.
///
/// Every file is checked first. The data directory must be empty and not in use, and the server must have none of the
/// databases. Run it as the user that the platform runs as; then start the platform.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn restore /var/backups/exprsn/2026-01-31 --data /var/lib/exprsn
  exprsn restore /mnt/copy --data data2 --config /etc/exprsn/platform.toml --json")]
pub struct RestoreArgs {
    /// The folder that `exprsn backup` made.
    #[arg(value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    target: Source,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

impl RestoreArgs {
    /// Runs the command.
    pub fn run(self) -> Result {
        let started = Instant::now();
        let data = &self.target.data;
        let lock = empty(data)?;
        let bar = progress();
        let digests = Digests::check(&self.from, |path| say(&bar, &format!("checking {path}")))?;
        let manifest = Manifest::read(&self.from)?;
        if !manifest.postgres.databases.is_empty() {
            self.restore_databases(&manifest, &bar)?;
        }
        let bytes = self.restore_files(&manifest, &digests, &bar)?;
        drop(lock);
        bar.finish_and_clear();
        self.show(&manifest, bytes, started.elapsed().as_secs_f64())
    }

    /// Makes the databases on the server.
    fn restore_databases(&self, manifest: &Manifest, bar: &ProgressBar) -> Result {
        let server = self.target.server()?.ok_or_else(|| {
            CliError::failed(
                "the backup has databases of a PostgreSQL server, and the configuration names none",
            )
            .remedy(
                "write [backends.postgres] url into the configuration, and name that with --config",
            )
        })?;
        let wanted = &manifest.postgres.databases;
        let there = server.databases()?;
        let taken: Vec<&String> = wanted.iter().filter(|name| there.contains(name)).collect();
        if !taken.is_empty() {
            return Err(CliError::failed(format!(
                "the server has these databases already: {taken:?}"
            ))
            .remedy("drop them, or name another server; nothing is overwritten"));
        }
        let roles = server.roles()?;
        for role in manifest
            .postgres
            .roles
            .iter()
            .filter(|role| !roles.contains(role))
        {
            server.create_role(role)?;
        }
        for database in wanted {
            say(bar, &format!("restoring {database}"));
            let archive = self.from.join(POSTGRES).join(postgres::file_name(database));
            let made = server
                .create_database(database)
                .and_then(|()| server.restore(database, &archive));
            made.map_err(|error| {
                let cause = format!("restoring the database {database}: {}", error.cause);
                CliError::failed(cause).remedy(format!(
                    "{}; before you try again, drop those of these databases that are there now: {wanted:?}",
                    error.remedy
                ))
            })?;
        }
        Ok(())
    }

    /// Puts the data directory together in a folder within it, and moves that into its place at the end.
    fn restore_files(
        &self,
        manifest: &Manifest,
        digests: &Digests,
        bar: &ProgressBar,
    ) -> Result<u64> {
        let data = &self.target.data;
        let draft = data.join(RESTORING);
        private_folder(&draft)?;
        for path in manifest.folders.keys() {
            private_folder(&inside(&draft, path)?)?;
        }
        let mut bytes = 0;
        for (path, mode) in &manifest.files {
            say(bar, &format!("restoring {path}"));
            let from = self.from.join(DATA).join(path);
            let to = inside(&draft, path)?;
            let (length, digest) =
                files::copy(&from, &to, mode & MODE_BITS).map_err(about("cannot restore", &to))?;
            if digests.of_data(path) != Some(digest.as_str()) {
                return Err(CliError::failed(format!(
                    "`{}` changed while it was restored",
                    from.display()
                ))
                .remedy(format!("empty `{}` and restore again", data.display())));
            }
            bytes += length;
        }
        for (path, mode) in manifest.folders.iter().rev() {
            let path = inside(&draft, path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & MODE_BITS))
                .map_err(about("cannot restore", &path))?;
        }
        publish(&draft, data).map_err(about("cannot finish", data))?;
        Ok(bytes)
    }

    fn show(&self, manifest: &Manifest, bytes: u64, seconds: f64) -> Result {
        let data = &self.target.data;
        if self.json {
            return print_json(&json!({
                "data": data,
                "bytes": bytes,
                "files": manifest.files.len(),
                "takenAtMs": manifest.taken_at_ms,
                "version": manifest.version,
                "postgres": manifest.postgres.databases,
                "seconds": seconds,
            }));
        }
        print(&format!(
            "{} `{}`: {} files, {}, {} databases on PostgreSQL in {}; start it with `exprsn up --data {}`",
            Style::stdout().green("restored"),
            data.display(),
            manifest.files.len(),
            size(bytes),
            manifest.postgres.databases.len(),
            span(seconds),
            data.display()
        ));
        Ok(())
    }
}

fn say(bar: &ProgressBar, what: &str) {
    bar.set_message(what.to_owned());
    bar.tick();
}

/// A path of the manifest, below a folder.
fn inside(folder: &Path, path: &str) -> Result<PathBuf> {
    if is_inside(path) {
        Ok(folder.join(path))
    } else {
        Err(CliError::failed(format!(
            "the backup names `{path}`, which is outside of a data directory"
        )))
    }
}

/// Makes the data directory, takes its lock, and refuses one that holds anything.
fn empty(data: &Path) -> Result<File> {
    fs::create_dir_all(data).map_err(|error| {
        about("cannot make the data directory", data)(error)
            .remedy("name a writable one with --data")
    })?;
    let lock = super::db::lock(data)?;
    let listed = fs::read_dir(data).map_err(about("cannot read", data))?;
    let names = listed.filter_map(|entry| Some(entry.ok()?.file_name()));
    let mut strangers = names.filter(|name| NOTHING.iter().all(|nothing| name != nothing));
    match strangers.next() {
        None => Ok(lock),
        Some(name) => Err(CliError::failed(format!(
            "the data directory `{}` is not empty: it holds {name:?}",
            data.display()
        ))
        .remedy("name an empty one with --data; nothing is overwritten")),
    }
}

/// Makes what was put together durable and moves it into its place. The draft goes last: a host refuses to start beside it.
fn publish(draft: &Path, data: &Path) -> std::io::Result<()> {
    rustix::fs::syncfs(File::open(draft)?)?;
    for entry in fs::read_dir(draft)? {
        let entry = entry?;
        fs::rename(entry.path(), data.join(entry.file_name()))?;
    }
    File::open(data)?.sync_all()?;
    fs::remove_dir(draft)?;
    File::open(data)?.sync_all()
}
