//! The relay: the task that hands one database's outbox to the broker.

use super::{
    Failure,
    error::chain,
    outbox::{Outbox, Sink},
};
use crate::name::ServiceName;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{runtime::Handle, task::JoinHandle};

/// The first wait after the sink failed; it doubles with every further failure.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// How far the relay is behind.
#[derive(Debug, Default)]
pub struct Lag {
    rows: AtomicI64,
    oldest_at: AtomicI64,
}

impl Lag {
    /// Rows that wait.
    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed).unsigned_abs()
    }

    /// How long the oldest of them has been waiting, in milliseconds.
    pub fn age_ms(&self, now_ms: i64) -> u64 {
        if self.rows() == 0 {
            0
        } else {
            u64::try_from(now_ms - self.oldest_at.load(Relaxed)).unwrap_or(0)
        }
    }

    fn set(&self, rows: i64, oldest_at: i64) {
        self.oldest_at.store(oldest_at, Relaxed);
        self.rows.store(rows, Relaxed);
    }
}

/// The task that empties one service's outbox. It ends when this drops; what it has not delivered stays for the next.
#[derive(Debug)]
pub struct Relay {
    lag: Arc<Lag>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts it with what an earlier process left.
    pub fn start<S: Sink>(
        background: &Handle,
        service: ServiceName,
        outbox: Arc<dyn Outbox>,
        sink: Arc<S>,
    ) -> Self {
        let lag = Arc::new(Lag::default());
        let worker = Worker {
            service,
            outbox,
            sink,
            lag: lag.clone(),
        };
        let task = background.spawn(worker.run());
        Self { lag, task }
    }

    /// How far it is behind.
    pub fn lag(&self) -> &Arc<Lag> {
        &self.lag
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Worker<S> {
    service: ServiceName,
    outbox: Arc<dyn Outbox>,
    sink: Arc<S>,
    lag: Arc<Lag>,
}

impl<S: Sink> Worker<S> {
    async fn run(self) {
        let mut failures = 0;
        loop {
            match self.round().await {
                Ok(true) => failures = 0,
                Ok(false) => {
                    failures = 0;
                    self.wait().await;
                }
                Err(error) => {
                    let wait = backoff(failures);
                    failures += 1;
                    let (error, wait_ms) = (chain(&error), wait.as_millis() as u64);
                    tracing::warn!(service = %self.service, error, wait_ms, "cannot relay the outbox; trying again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Waits until there may be rows.
    async fn wait(&self) {
        let woken = self.outbox.wake().notified();
        match self.outbox.poll() {
            None => woken.await,
            Some(interval) => {
                // Late or woken, the next round looks.
                let _ = tokio::time::timeout(interval, woken).await;
            }
        }
    }

    /// Delivers one batch. False when there was nothing to deliver.
    async fn round(&self) -> Result<bool, Failure> {
        let claim = self.outbox.claim().await?;
        self.lag.set(claim.waiting, claim.oldest_at);
        if claim.rows.is_empty() {
            return Ok(false);
        }
        let items = claim.rows.into_iter().map(|row| row.item(&self.service));
        let items = items.collect::<Result<Vec<_>, _>>()?;
        let delivered = self.sink.deliver(items).await;
        delivered.map_err(Failure::doing("delivering the outbox"))?;
        (claim.settle)().await?;
        Ok(true)
    }
}

/// The wait after as many failures before, without jitter: one relay per service does not stampede.
fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN
        .saturating_mul(1 << failures.min(16))
        .min(BACKOFF_MAX)
}
