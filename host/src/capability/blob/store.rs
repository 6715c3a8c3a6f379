//! Where objects are: folders of the data directory, or a bucket of an S3 server.

use super::{Config, Kind, path};
use crate::{config::or_environment, name::ServiceName};
use cap_std::{ambient_authority, fs::Dir};
use exprsn_backends::blob::{
    backend::Backend,
    directory::Directory,
    s3::{Limits, Server, Settings},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::runtime::Handle;
use wasmtime::{Result, ensure, error::Context as _};

/// `[backends.s3]`. Not printable, because it holds a secret. Values of the form `$NAME` are what the environment's
/// variable of that name holds.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct S3Server {
    /// `https://host[:port]`, or `$NAME`.
    pub endpoint: String,
    pub region: String,
    /// It has to exist.
    pub bucket: String,
    /// Begins all keys; `<prefix>/<service>/…`. Empty is none.
    pub prefix: String,
    /// The bucket in the path, as MinIO, Garage and Ceph have it; otherwise in the host's name, as AWS has it.
    pub path_style: bool,
    /// Or `$NAME`.
    pub access_key: String,
    /// Or `$NAME`.
    pub secret_key: String,
    /// Of temporary credentials, or `$NAME`; empty is none.
    pub session_token: String,
    /// A PEM file of certificates that the server is trusted by; empty is the public ones.
    pub ca_file: String,
    /// How long connecting may take.
    pub connect_ms_max: u64,
    /// How long a request may take until its answer begins, what it sends included.
    pub answer_ms_max: u64,
    /// How long the next bytes of an object may take.
    pub idle_ms_max: u64,
    /// How often a request that may be repeated is sent in all.
    pub attempts_max: u32,
    /// The wait before it is sent again; it doubles each time.
    pub backoff_ms: u64,
    /// Memory of a stream that is being written: larger objects are sent in parts of so many bytes.
    pub part_bytes: usize,
    /// How often what other hosts have written is counted.
    pub recount_ms: u64,
}

impl Default for S3Server {
    fn default() -> Self {
        let limits = Limits::default();
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            bucket: String::new(),
            prefix: "exprsn".to_owned(),
            path_style: true,
            access_key: String::new(),
            secret_key: String::new(),
            session_token: String::new(),
            ca_file: String::new(),
            connect_ms_max: ms(limits.connect),
            answer_ms_max: ms(limits.answer),
            idle_ms_max: ms(limits.idle),
            attempts_max: limits.attempts_max,
            backoff_ms: ms(limits.backoff),
            part_bytes: limits.part_bytes,
            recount_ms: ms(limits.recount),
        }
    }
}

impl S3Server {
    /// How the server is reached.
    fn settings(&self) -> Result<Settings> {
        ensure!(
            !self.endpoint.is_empty(),
            "[capability.blob] backend is \"s3\", and there is no server: write its endpoint, bucket and keys into \
             [backends.s3] in platform.toml"
        );
        let session_token = or_environment("backends.s3", "session_token", &self.session_token)?;
        Ok(Settings {
            endpoint: or_environment("backends.s3", "endpoint", &self.endpoint)?,
            region: self.region.clone(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            path_style: self.path_style,
            access_key: or_environment("backends.s3", "access_key", &self.access_key)?,
            secret_key: or_environment("backends.s3", "secret_key", &self.secret_key)?,
            session_token: (!session_token.is_empty()).then_some(session_token),
            ca_file: (!self.ca_file.is_empty()).then(|| self.ca_file.clone().into()),
            limits: Limits {
                connect: Duration::from_millis(self.connect_ms_max),
                answer: Duration::from_millis(self.answer_ms_max),
                idle: Duration::from_millis(self.idle_ms_max),
                attempts_max: self.attempts_max,
                backoff: Duration::from_millis(self.backoff_ms),
                part_bytes: self.part_bytes,
                recount: Duration::from_millis(self.recount_ms),
            },
        })
    }
}

/// What has the services' objects.
pub(super) enum Store {
    /// In this data directory.
    Directory(PathBuf),
    Bucket(Server),
}

impl Store {
    /// The store, not yet asked anything. An error names the key at fault.
    pub fn new(data: &Path, config: &Config, server: &S3Server) -> Result<Self> {
        Ok(match config.backend {
            Kind::Directory => Self::Directory(path(data)),
            Kind::S3 => Self::Bucket(Server::new(&server.settings()?)?),
        })
    }

    /// A service's objects; what is there is counted.
    pub async fn open(
        &self,
        service: &ServiceName,
        config: &Arc<Config>,
        threads: &Handle,
    ) -> Result<Arc<dyn Backend>> {
        match self {
            Self::Directory(folder) => {
                let (name, folder, config) = (service.clone(), folder.clone(), config.clone());
                let handle = threads.clone();
                let opening = threads
                    .spawn_blocking(move || open_directory(&folder, &name, &config, handle));
                let directory = opening.await.context("opening objects panicked")??;
                Ok(Arc::new(directory))
            }
            Self::Bucket(server) => {
                let opened = server.open(service, config.quota(), threads.clone()).await;
                let about = || format!("opening the objects of {service} in [backends.s3]");
                Ok(Arc::new(opened.with_context(about)?))
            }
        }
    }
}

fn open_directory(
    path: &Path,
    service: &ServiceName,
    config: &Config,
    threads: Handle,
) -> Result<Directory> {
    let about = || {
        format!(
            "opening the objects in `{}`",
            path.join(service.as_str()).display()
        )
    };
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(about)?;
    let data = Dir::open_ambient_dir(path, ambient_authority()).with_context(about)?;
    Directory::open(
        &data,
        service,
        config.quota(),
        threads,
        config.operations_max,
    )
    .with_context(about)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> S3Server {
        S3Server {
            endpoint: "https://localhost:9000".to_owned(),
            bucket: "objects".to_owned(),
            access_key: "key".to_owned(),
            secret_key: "secret".to_owned(),
            ..S3Server::default()
        }
    }

    fn error(server: &S3Server) -> String {
        let config = Config {
            backend: Kind::S3,
            ..Config::default()
        };
        let store = Store::new(Path::new("/nowhere"), &config, server);
        store.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_server_that_is_not_there_is_named_with_the_remedy() {
        assert_eq!(error(&server()), "");
        assert!(error(&S3Server::default()).contains("[backends.s3]"));
        let unset = S3Server {
            secret_key: "$EXPRSN_NO_SUCH_VARIABLE".to_owned(),
            ..server()
        };
        let told = error(&unset);
        assert!(
            told.contains("secret_key") && told.contains("EXPRSN_NO_SUCH_VARIABLE"),
            "{told}"
        );
        let unnamed = S3Server {
            bucket: String::new(),
            ..server()
        };
        assert!(error(&unnamed).contains("bucket"));
    }

    #[test]
    fn platform_toml_documents_every_key_with_its_default() {
        let text = include_str!("../../../../platform.toml");
        let (_, section) = text.split_once("\n[backends.s3]").expect("a section");
        let section = section.split("\n[").next().expect("its end");
        for (key, value) in toml::Table::try_from(S3Server::default()).unwrap() {
            let line = format!("\n# {key} = {value} ");
            assert!(
                section.contains(&line),
                "add `{}` to [backends.s3] in platform.toml",
                line.trim()
            );
        }
    }
}
