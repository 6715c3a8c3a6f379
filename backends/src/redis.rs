//! A Redis server: one connection for all short commands, made anew when it is lost, and connections apart for what blocks.
//!
//! **Invariant:** what could not be asked is an error at once; nothing waits for a server that is away.
//!
//! What is acknowledged is as durable as the server makes it: an operator who wants no acknowledged job lost when the
//! machine fails sets `appendonly yes` and `appendfsync always`.

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, FromRedisValue, IntoConnectionInfo,
    RedisError, RedisResult, ScriptInvocation, TlsCertificates,
    aio::{MultiplexedConnection, PubSub},
};
use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};
use tokio::sync::Mutex;

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long a server may take to answer what does not block.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Certificates of a connection by TLS, in PEM.
#[derive(Default)]
pub struct Tls {
    /// Those that the server is trusted by; none is the system's.
    pub trusted: Option<Vec<u8>>,
    /// What is shown to the server: a certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// A server. Commands of all tasks share one connection.
pub struct Redis {
    client: Client,
    shared: Mutex<Shared>,
    closed: AtomicBool,
}

/// The connection, and how many were made: who finds one lost forgets that one and no later one.
#[derive(Default)]
struct Shared {
    connection: Option<MultiplexedConnection>,
    made: u64,
}

impl Redis {
    /// A server by its URL, `redis://[user:password@]host[:port][/database]`, or `rediss://` for TLS with the system's
    /// certificates. Connects when it is first asked.
    pub fn new(url: impl IntoConnectionInfo) -> RedisResult<Self> {
        Ok(Self::on(Client::open(url)?))
    }

    /// A server by its `rediss://` URL, trusted by and shown other certificates.
    pub fn with_tls(url: impl IntoConnectionInfo, tls: Tls) -> RedisResult<Self> {
        let certificates = TlsCertificates {
            client_tls: tls
                .identity
                .map(|(client_cert, client_key)| ClientTlsConfig {
                    client_cert,
                    client_key,
                }),
            root_cert: tls.trusted,
        };
        Ok(Self::on(Client::build_with_tls(url, certificates)?))
    }

    fn on(client: Client) -> Self {
        Self {
            client,
            shared: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// Runs a script. Asked again once where the connection was lost, so the script must bear to run twice.
    pub async fn invoke<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> RedisResult<T> {
        match self.try_invoke(script).await {
            Err((_, true)) => self.invoke_once(script).await,
            answer => answer.map_err(|(error, _)| error),
        }
    }

    /// Runs a script that must not run twice. Where the connection is lost meanwhile, nobody knows whether it ran.
    pub async fn invoke_once<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> RedisResult<T> {
        self.try_invoke(script).await.map_err(|(error, _)| error)
    }

    /// Runs a command that may run twice. Asked again once where the connection was lost.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self.try_command(command).await {
            Err((_, true)) => self.command(command).await,
            answer => answer.map_err(|(error, _)| error),
        }
    }

    /// Runs a command that must not run twice.
    pub async fn command<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        self.try_command(command).await.map_err(|(error, _)| error)
    }

    /// Also answers whether asking again makes sense.
    async fn try_invoke<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, (RedisError, bool)> {
        let (mut connection, made) = self.connection().await.map_err(|error| (error, false))?;
        match script.invoke_async(&mut connection).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.forget_lost(error, made).await),
        }
    }

    async fn try_command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, (RedisError, bool)> {
        let (mut connection, made) = self.connection().await.map_err(|error| (error, false))?;
        match command.query_async(&mut connection).await {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.forget_lost(error, made).await),
        }
    }

    /// A connection of its own, for commands that wait at the server for up to `wait`.
    pub async fn blocking(&self, wait: Duration) -> RedisResult<MultiplexedConnection> {
        self.ensure_open()?;
        self.connect(wait + ANSWER_MAX).await
    }

    /// A connection of its own, for what is published.
    pub(crate) async fn subscriber(&self) -> RedisResult<PubSub> {
        self.ensure_open()?;
        let connecting = tokio::time::timeout(CONNECT_MAX, self.client.get_async_pubsub());
        connecting.await.unwrap_or_else(|_| {
            let late = "connecting took too long";
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, late).into())
        })
    }

    /// Lets the connection go; whatever is asked afterwards fails.
    pub async fn close(&self) {
        self.closed.store(true, Relaxed);
        self.shared.lock().await.connection = None;
    }

    async fn connection(&self) -> RedisResult<(MultiplexedConnection, u64)> {
        self.ensure_open()?;
        // Those who come while it is made wait for the same one.
        let mut shared = self.shared.lock().await;
        if let Some(connection) = &shared.connection {
            return Ok((connection.clone(), shared.made));
        }
        let connection = self.connect(ANSWER_MAX).await?;
        shared.connection = Some(connection.clone());
        shared.made += 1;
        Ok((connection, shared.made))
    }

    async fn connect(&self, answer_max: Duration) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_MAX))
            .set_response_timeout(Some(answer_max));
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    /// Forgets a connection that failed. Also answers whether it was lost before an answer came, so that asking again makes
    /// sense.
    async fn forget_lost(&self, error: RedisError, made: u64) -> (RedisError, bool) {
        if !error.is_io_error() && !error.is_unrecoverable_error() {
            return (error, false);
        }
        let mut shared = self.shared.lock().await;
        if shared.made == made {
            shared.connection = None;
        }
        let again = !error.is_timeout();
        (error, again)
    }

    fn ensure_open(&self) -> RedisResult<()> {
        if self.closed.load(Relaxed) {
            return Err(std::io::Error::new(
                std::io::ErrorKind::NotConnected,
                "the connection to Redis is closed",
            )
            .into());
        }
        Ok(())
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The connection's password stays out of logs.
        f.debug_struct("Redis")
            .field(
                "address",
                &self.client.get_connection_info().addr().to_string(),
            )
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::RedisServer;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    /// An authority's certificate, and a certificate and key that it signed, in PEM.
    pub(crate) fn certificates() -> [String; 3] {
        let mut params = CertificateParams::new([]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &authority).unwrap();
        [authority.pem(), leaf.pem(), key.serialize_pem()]
    }

    #[tokio::test]
    async fn tls_trusts_what_it_is_told_to_and_shows_who_it_is() {
        let pem = certificates();
        let server = RedisServer::start_with_tls(&pem);
        let [trusted, certificate, key] = pem.map(String::into_bytes);
        let tls = |trusted: &[u8], identity| Tls {
            trusted: Some(trusted.to_vec()),
            identity,
        };
        let ping = async |tls| {
            let redis = Redis::with_tls(server.tls_url(), tls).unwrap();
            redis.query::<String>(&redis::cmd("PING")).await
        };
        let identity = Some((certificate, key));
        assert_eq!(ping(tls(&trusted, identity.clone())).await.unwrap(), "PONG");
        assert!(
            ping(tls(&trusted, None)).await.is_err(),
            "the server asks for a certificate"
        );
        let [stranger, ..] = certificates();
        assert!(ping(tls(stranger.as_bytes(), identity)).await.is_err());
    }

    #[test]
    fn a_password_is_not_printed() {
        let redis = Redis::new("redis://user:secret@localhost:6379/0").unwrap();
        let shown = format!("{redis:?}");
        assert!(
            shown.contains("localhost") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
