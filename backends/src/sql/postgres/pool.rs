//! Connections: made, pooled, lent to one call at a time, and never given back in the middle of something.

use super::settings::PoolLimits;
use deadpool::{
    Runtime,
    managed::{self, Metrics, Object, RecycleError, RecycleResult, Timeouts},
};
use lru::LruCache;
use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, task::AbortHandle};
use tokio_postgres::{Client, Config, Error as Fault, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Prepared statements kept by one connection.
const STATEMENTS_MAX: NonZeroUsize = NonZeroUsize::new(128).expect("not zero");
/// How long a rollback may take before its connection is given up.
const ROLL_BACK_MAX: Duration = Duration::from_secs(5);

/// How one role connects. Clones share the counters.
#[derive(Clone)]
pub struct Connector {
    pub config: Config,
    pub tls: MakeRustlsConnect,
    /// Where connections live: the runtime of the call that made one may end before it.
    pub background: Handle,
    pub counters: Arc<Counters>,
}

/// What has happened to connections.
#[derive(Debug, Default)]
pub struct Counters {
    pub opened: AtomicU64,
    pub timeouts: AtomicU64,
    pub cancelled: AtomicU64,
}

/// An open connection with the statements prepared on it.
pub struct Connection {
    pub client: Client,
    statements: LruCache<String, Statement>,
}

impl Connection {
    /// The statement, if it is prepared.
    pub fn prepared(&mut self, text: &str) -> Option<Statement> {
        self.statements.get(text).cloned()
    }

    /// Prepares a statement and keeps it.
    pub async fn prepare(&mut self, text: &str) -> Result<Statement, Fault> {
        let statement = self.client.prepare(text).await?;
        self.statements.put(text.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Lets go of a statement whose tables have changed.
    pub fn forget(&mut self, text: &str) {
        self.statements.pop(text);
    }
}

impl Connector {
    /// Connects. The connection's own task ends when the client drops.
    pub async fn connect(&self) -> Result<Connection, Fault> {
        let (client, _) = self.open().await?;
        Ok(Connection {
            client,
            statements: LruCache::new(STATEMENTS_MAX),
        })
    }

    /// As [`Connector::connect`], for whoever keeps statements elsewhere or ends the connection's task, and with it the
    /// connection, without waiting for the server.
    pub async fn open(&self) -> Result<(Client, AbortHandle), Fault> {
        let (config, tls) = (self.config.clone(), self.tls.clone());
        let connecting = self.background.spawn(async move {
            let (client, connection) = config.connect(tls).await?;
            // Its end is seen by whoever uses the client next.
            let task = tokio::spawn(async move { connection.await.map_err(drop) });
            Ok((client, task.abort_handle()))
        });
        let abort = AbortOnDrop(connecting.abort_handle());
        let opened = connecting.await.expect("connecting does not panic")?;
        drop(abort);
        self.counters.opened.fetch_add(1, Relaxed);
        Ok(opened)
    }

    /// A pool of such connections.
    pub fn pool(self, limits: &PoolLimits) -> Pool {
        let (background, counters) = (self.background.clone(), self.counters.clone());
        let pool = managed::Pool::builder(Manager(self))
            .max_size(limits.max)
            .runtime(Runtime::Tokio1)
            .build()
            .expect("the pool has a runtime for its timeouts");
        let (weak, limits) = (pool.weak(), *limits);
        let reaper = background.spawn(async move {
            let interval = (limits.idle / 2).max(Duration::from_millis(50));
            loop {
                tokio::time::sleep(interval).await;
                let Some(pool) = weak.upgrade() else { return };
                let mut spare = pool.status().size.saturating_sub(limits.min);
                pool.retain(|_, metrics| {
                    let keep = spare == 0 || metrics.last_used() < limits.idle;
                    spare -= usize::from(!keep);
                    keep
                });
            }
        });
        Pool {
            pool,
            limits,
            counters,
            _reaper: Arc::new(AbortOnDrop(reaper.abort_handle())),
        }
    }
}

/// Ends a task when it drops.
pub struct AbortOnDrop(pub AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The connections of one role. Clones share them.
#[derive(Clone)]
pub struct Pool {
    pool: managed::Pool<Manager>,
    pub limits: PoolLimits,
    pub counters: Arc<Counters>,
    _reaper: Arc<AbortOnDrop>,
}

pub struct Manager(Connector);

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = Fault;

    async fn create(&self) -> Result<Connection, Fault> {
        self.0.connect().await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Fault> {
        if connection.client.is_closed() {
            return Err(RecycleError::message("the connection is lost"));
        }
        Ok(())
    }
}

impl Pool {
    /// Lends a connection, waiting for one at most until `deadline`.
    pub async fn lend(&self, deadline: Instant) -> Result<Lease, managed::PoolError<Fault>> {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeouts = Timeouts {
            wait: Some(self.limits.acquire.min(remaining)),
            create: Some(remaining),
            recycle: None,
        };
        let lent = self.pool.timeout_get(&timeouts).await;
        if let Err(managed::PoolError::Timeout(_)) = &lent {
            self.counters.timeouts.fetch_add(1, Relaxed);
        }
        Ok(Lease {
            object: Some(lent?),
            unfinished: false,
            in_transaction: false,
        })
    }

    /// How it stands.
    pub fn status(&self) -> deadpool::Status {
        self.pool.status()
    }

    /// Lends nothing any more, and closes what is idle.
    pub fn close(&self) {
        self.pool.close();
    }
}

/// A connection while a call has it.
///
/// Given back when dropped: as it is, or after a rollback; in the middle of a statement it is cancelled and closed instead,
/// so that neither its answer nor a late cancellation meets the next call.
pub struct Lease {
    object: Option<Object<Manager>>,
    /// A statement is under way.
    pub unfinished: bool,
    /// A transaction is open.
    pub in_transaction: bool,
}

impl Lease {
    /// The connection.
    pub fn connection(&mut self) -> &mut Connection {
        self.object.as_mut().expect("it is lent until it drops")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else {
            return;
        };
        let Some(pool) = Object::pool(&object) else {
            return;
        };
        let connector = &pool.manager().0;
        if self.unfinished {
            connector.counters.cancelled.fetch_add(1, Relaxed);
            connector
                .background
                .spawn(cancel(object, connector.tls.clone()));
        } else if self.in_transaction && !object.client.is_closed() {
            connector.background.spawn(roll_back(object));
        }
    }
}

/// Ends the statement on the server; the connection counts until then.
async fn cancel(object: Object<Manager>, tls: MakeRustlsConnect) {
    let token = object.client.cancel_token();
    // Where it fails, the server is away, or its own timeout ends the statement.
    let _ = tokio::time::timeout(ROLL_BACK_MAX, token.cancel_query(tls)).await;
    drop(Object::take(object));
}

async fn roll_back(object: Object<Manager>) {
    let rolled_back =
        tokio::time::timeout(ROLL_BACK_MAX, object.client.batch_execute("ROLLBACK")).await;
    if !matches!(rolled_back, Ok(Ok(()))) {
        drop(Object::take(object));
    }
}
