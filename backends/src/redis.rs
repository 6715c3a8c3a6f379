//! A Redis server: one connection for all short commands, made anew when it is lost, and connections apart for what blocks.
//!
//! **Invariant:** what could not be asked is an error at once; nothing waits for a server that is away.
//!
//! What is acknowledged is as durable as the server makes it: an operator who wants no acknowledged job lost when the
//! machine fails sets `appendonly yes` and `appendfsync always`.

use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, IntoConnectionInfo, RedisError,
    RedisResult, ScriptInvocation, aio::MultiplexedConnection,
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
    /// A server by its URL, `redis://[user:password@]host[:port][/database]`. Connects when it is first asked.
    pub fn new(url: impl IntoConnectionInfo) -> RedisResult<Self> {
        Ok(Self {
            client: Client::open(url)?,
            shared: Mutex::default(),
            closed: AtomicBool::new(false),
        })
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
