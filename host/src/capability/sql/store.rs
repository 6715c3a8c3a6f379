//! Where databases are: a folder of files, or a server.

use super::{Backend, Config, PostgresServer};
use crate::{name::ServiceName, waiting};
use exprsn_backends::sql::{
    Database, Limits,
    migrate::Engine,
    postgres::{self, Server},
    sqlite,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::runtime::Handle;
use wasmtime::{Result, error::Context as _};

/// Bytes of the key that passwords of roles are derived from, where the administrator has no password.
const KEY_BYTES: usize = 32;

/// What has the services' databases.
pub struct Store {
    limits: Limits,
    engine: Kept,
}

enum Kept {
    /// In this data directory.
    Files(PathBuf),
    Server(Box<Server>),
}

/// The file of a service's database.
pub fn path(data: &Path, service: &ServiceName) -> PathBuf {
    data.join("sql").join(format!("{service}.db"))
}

/// The server itself, for what the host keeps there.
pub async fn server(server: &PostgresServer, data: &Path, background: &Handle) -> Result<Server> {
    reach(data, &Config::default(), server, background).await
}

async fn reach(
    data: &Path,
    config: &Config,
    server: &PostgresServer,
    background: &Handle,
) -> Result<Server> {
    let settings = server.settings(config)?;
    let make = || Ok(rand::random::<[u8; KEY_BYTES]>().to_vec());
    std::fs::create_dir_all(data).with_context(|| format!("creating `{}`", data.display()))?;
    // Hosts of one platform derive the same passwords.
    let shared = crate::cluster::seal_file(data);
    let path = match shared.exists() {
        true => shared,
        false => data.join("postgres.key"),
    };
    let key = crate::ca::secret_file(&path, make)?;
    Ok(Server::connect(settings, &key, background.clone()).await?)
}

/// Connects, and waits for a server that is away.
pub async fn patiently<T, F>(connect: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    waiting::patiently("PostgreSQL", connect, is_absence).await
}

/// Whether an error says that nobody was there.
fn is_absence(error: &wasmtime::Error) -> bool {
    error.chain().any(postgres::is_absence)
}

impl Store {
    /// Reaches the server, if it is one. An error names the key at fault.
    pub async fn connect(
        data: &Path,
        config: &Config,
        server: &PostgresServer,
        background: &Handle,
    ) -> Result<Self> {
        config.check()?;
        let engine = match config.backend {
            Backend::Sqlite => Kept::Files(data.to_owned()),
            Backend::Postgres => {
                let server = reach(data, config, server, background).await?;
                Kept::Server(Box::new(server))
            }
        };
        Ok(Self {
            limits: config.into(),
            engine,
        })
    }

    /// Which migrations it takes.
    pub fn engine(&self) -> Engine {
        match self.engine {
            Kept::Files(_) => Engine::Sqlite,
            Kept::Server(_) => Engine::Postgres,
        }
    }

    /// Opens a service's database, creating it where absent.
    pub async fn open(&self, service: &ServiceName) -> Result<Arc<dyn Database>> {
        let opening = || format!("opening the database of {service}");
        match &self.engine {
            Kept::Files(data) => {
                let (path, limits, name) = (path(data, service), self.limits, service.clone());
                let open = move || sqlite::open(&path, &name, limits);
                let opened = tokio::task::spawn_blocking(open).await;
                Ok(Arc::new(
                    opened.with_context(opening)?.with_context(opening)?,
                ))
            }
            Kept::Server(server) => Ok(Arc::new(
                server
                    .open(service, self.limits)
                    .await
                    .with_context(opening)?,
            )),
        }
    }

    /// Opens a service's database to look at it; none if there is none.
    pub async fn look(&self, service: &ServiceName) -> Result<Option<Arc<dyn Database>>> {
        match &self.engine {
            Kept::Files(data) if !path(data, service).exists() => Ok(None),
            Kept::Files(_) => self.open(service).await.map(Some),
            Kept::Server(server) if server.has(service).await? => {
                Ok(Some(Arc::new(server.open_existing(service, self.limits))))
            }
            Kept::Server(_) => Ok(None),
        }
    }
}
