//! `exprsn db`: the databases of services and their migrations.

use super::output::{CliError, Failure, Result, Style, Table, print, print_json};
use crate::{
    capability::sql::{Backend, Store, migrate},
    component::ComponentFile,
    config::Config,
    name::ServiceName,
};
use clap::{Args, Subcommand};
use exprsn_backends::sql::Database;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Handle;

/// How long `status` tries to open a database that the platform is writing to, in milliseconds.
const BUSY_MS_MAX: u64 = 5_000;

/// Databases of the services.
#[derive(Subcommand, Debug)]
pub enum DbCommand {
    Create(CreateArgs),
    Migrate(MigrateArgs),
    Status(StatusArgs),
}

/// Creates the services' databases: on PostgreSQL with their roles and rights. `exprsn up` does the same at start.
///
/// What is there already is left as it is; rights and passwords of roles are set again.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn db create
  exprsn db create --services timeline --json")]
pub struct CreateArgs {
    #[command(flatten)]
    databases: Databases,
}

/// Applies pending migrations, each in a transaction of its own. `exprsn up` does the same at start.
///
/// The platform must not be running on the data directory, unless the databases are on a server: there one host at a
/// time migrates.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn db migrate
  exprsn db migrate --services timeline,herald --json")]
pub struct MigrateArgs {
    #[command(flatten)]
    databases: Databases,
}

/// Shows which migrations each database has and which are pending. Changes nothing.
///
/// Exit code 1 where a migration is pending, or the past of a database does not fit its component.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn db status
  exprsn db status --json | jq '.[] | select(.pending != [])'")]
pub struct StatusArgs {
    #[command(flatten)]
    databases: Databases,
}

/// Which databases.
#[derive(Args, Debug)]
struct Databases {
    /// The operator's configuration.
    #[arg(
        long,
        value_name = "FILE",
        env = "EXPRSN_CONFIG",
        default_value = "platform.toml"
    )]
    config: PathBuf,
    /// The platform's data directory.
    #[arg(long, value_name = "DIR", env = "EXPRSN_DATA", default_value = "data")]
    data: PathBuf,
    /// The folder of components, which carry their migrations.
    #[arg(
        long,
        value_name = "DIR",
        env = "EXPRSN_COMPONENTS",
        default_value = "target/components"
    )]
    components: PathBuf,
    /// Only these services, by full or short name.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    services: Option<Vec<String>>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// A service that has a database.
struct Subject {
    name: ServiceName,
    file: ComponentFile,
}

impl DbCommand {
    /// Runs the command.
    pub async fn run(self) -> Result {
        match self {
            Self::Create(command) => command.run().await,
            Self::Migrate(command) => command.run().await,
            Self::Status(command) => command.run().await,
        }
    }
}

impl CreateArgs {
    async fn run(self) -> Result {
        let (config, subjects) = self.databases.read()?;
        let _lock = self.databases.prepare(&config)?;
        let store = self.databases.store(&config).await?;
        for subject in &subjects {
            store.open(&subject.name).await?.close().await;
        }
        let names: Vec<&ServiceName> = subjects.iter().map(|subject| &subject.name).collect();
        if self.databases.json {
            return print_json(&names);
        }
        for name in names {
            print(&format!(
                "{name}: {}",
                Style::stdout().green("has its database")
            ));
        }
        Ok(())
    }
}

impl MigrateArgs {
    async fn run(self) -> Result {
        let (config, subjects) = self.databases.read()?;
        let _lock = self.databases.prepare(&config)?;
        let store = self.databases.store(&config).await?;
        let mut done = Vec::new();
        for subject in &subjects {
            let database = store.open(&subject.name).await?;
            let migrations = &subject.file.migrations;
            let applied = database
                .migrate(&migrations.files, migrations.range())
                .await
                .map_err(wasmtime::Error::from)?;
            done.push((subject.name.clone(), applied));
        }
        self.show(&done)
    }

    fn show(&self, done: &[(ServiceName, Vec<String>)]) -> Result {
        if self.databases.json {
            let done: Vec<Value> = done
                .iter()
                .map(|(name, applied)| json!({ "service": name, "applied": applied }))
                .collect();
            return print_json(&done);
        }
        let style = Style::stdout();
        for (name, applied) in done {
            match applied.as_slice() {
                [] => print(&format!("{name}: {}", style.dim("up to date"))),
                applied => print(&format!(
                    "{name}: {} {}",
                    style.green("applied"),
                    applied.join(", ")
                )),
            }
        }
        Ok(())
    }
}

impl StatusArgs {
    async fn run(self) -> Result {
        let (config, subjects) = self.databases.read()?;
        let store = self.databases.store(&config).await?;
        let mut states = Vec::new();
        for subject in &subjects {
            states.push(self.state(&store, subject).await);
        }
        if self.databases.json {
            print_json(&states)?;
        } else {
            print(&render(&states, Style::stdout()));
        }
        let wrong = |state: &&Value| {
            !state["error"].is_null()
                || state["pending"]
                    .as_array()
                    .is_some_and(|all| !all.is_empty())
        };
        match states.iter().filter(wrong).count() {
            0 => Ok(()),
            count => Err(CliError::failed(format!(
                "{count} of {} databases are not up to date",
                states.len()
            ))
            .remedy(
                "stop the platform and run `exprsn db migrate`, or start it: it migrates by itself",
            )),
        }
    }

    async fn state(&self, store: &Store, subject: &Subject) -> Value {
        let migrations = &subject.file.migrations;
        let state = match self.look(store, subject).await {
            Ok(Some(database)) => database
                .status(&migrations.files, migrations.range())
                .await
                .map_err(wasmtime::Error::from),
            // Looking must not make a database.
            Ok(None) => migrate::status_of_none(&migrations.files, store.engine())
                .map_err(wasmtime::Error::from),
            Err(error) => Err(error),
        };
        let name = subject.name.as_str();
        match state {
            Ok(state) => {
                let applied = state
                    .applied
                    .iter()
                    .map(|done| json!({ "name": done.name, "appliedAt": done.applied_at }));
                json!({ "service": name, "applied": applied.collect::<Vec<_>>(), "pending": state.pending, "error": null })
            }
            Err(error) => {
                json!({ "service": name, "applied": [], "pending": [], "error": crate::telemetry::chain(&error) })
            }
        }
    }
}

impl StatusArgs {
    /// Opens a database that the running platform may just be writing to; none if there is none.
    async fn look(
        &self,
        store: &Store,
        subject: &Subject,
    ) -> wasmtime::Result<Option<Arc<dyn Database>>> {
        let deadline = Instant::now() + Duration::from_millis(BUSY_MS_MAX);
        loop {
            match store.look(&subject.name).await {
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                looked => return looked,
            }
        }
    }
}

fn is_busy(error: &wasmtime::Error) -> bool {
    crate::telemetry::chain(error).contains("database is locked")
}

impl Databases {
    /// Where the databases are.
    async fn store(&self, config: &Config) -> Result<Store> {
        let (sql, server) = (&config.capability.sql, &config.backends.postgres);
        Ok(Store::connect(&self.data, sql, server, &Handle::current()).await?)
    }

    /// Makes the data directory and, where the databases are files in it, locks it.
    fn prepare(&self, config: &Config) -> Result<Option<fs::File>> {
        fs::create_dir_all(&self.data).map_err(|error| {
            CliError::failed(format!(
                "cannot use data directory `{}`: {error}",
                self.data.display()
            ))
            .remedy("name a writable one with --data")
        })?;
        match config.capability.sql.backend {
            Backend::Sqlite => lock(&self.data).map(Some),
            Backend::Postgres => Ok(None),
        }
    }

    /// The configuration, and the services with a database.
    fn read(&self) -> Result<(Config, Vec<Subject>)> {
        let mut config = Config::read(&self.config)?;
        if let Some(names) = &self.services {
            config.select(names)?;
        }
        let mut subjects = Vec::new();
        for (name, service) in config.service.iter().filter(|(_, service)| service.enabled) {
            let file = ComponentFile::read(&self.components.join(&service.component))?;
            if file.manifest.grants.sql.is_some() {
                subjects.push(Subject {
                    name: name.clone(),
                    file,
                });
            }
        }
        Ok((config, subjects))
    }
}

/// Takes the data directory's lock, as the platform does.
pub fn lock(data: &Path) -> Result<fs::File> {
    let path = data.join("lock");
    let refused = |error: std::io::Error| {
        CliError::failed(format!("cannot use `{}`: {error}", path.display()))
            .remedy("name a writable data directory with --data")
    };
    let lock = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(refused)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(CliError::failed(format!(
            "the platform is running on data directory `{}`",
            data.display()
        ))
        .remedy("stop it first; it applies pending migrations by itself when it starts")
        .code(Failure::Failed)),
        Err(fs::TryLockError::Error(error)) => Err(refused(error)),
    }
}

fn render(states: &[Value], style: Style) -> String {
    let mut table = Table::new(&["DATABASE", "APPLIED", "LAST", "PENDING"], &[1], style);
    for state in states {
        let applied = state["applied"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let pending: Vec<&str> = state["pending"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let last = applied
            .last()
            .and_then(|last| last["name"].as_str())
            .unwrap_or("-");
        let pending = match (state["error"].as_str(), pending.as_slice()) {
            (Some(error), _) => style.red(error),
            (None, []) => style.green("none"),
            (None, pending) => style.yellow(&pending.join(", ")),
        };
        table.row([
            state["service"].as_str().unwrap_or_default().to_owned(),
            applied.len().to_string(),
            last.to_owned(),
            pending,
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_is_pending_and_what_is_wrong() {
        let states = [
            json!({ "service": "exprsn-ca", "applied": [{ "name": "0001_init" }], "pending": [], "error": null }),
            json!({ "service": "exprsn-auth", "applied": [], "pending": ["0001_init", "0002_more"], "error": null }),
            json!({ "service": "exprsn-x", "applied": [], "pending": [], "error": "migration `0001_init` has changed" }),
        ];
        let text = render(&states, Style::stdout());
        assert!(
            text.contains("0001_init  none")
                && text.contains("0001_init, 0002_more")
                && text.contains("has changed"),
            "{text}"
        );
    }

    #[test]
    fn a_running_platform_is_not_migrated_beneath() {
        let data = tempfile::tempdir().unwrap();
        let held = lock(data.path()).unwrap();
        let error = lock(data.path()).unwrap_err();
        assert!(error.to_string().contains("stop it first"), "{error}");
        drop(held);
        assert!(lock(data.path()).is_ok());
    }
}
