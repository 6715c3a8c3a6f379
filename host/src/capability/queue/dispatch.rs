//! The dispatcher: keeps as many jobs of a queue under way as its worker may have, and records what becomes of them.
//!
//! For each queue one task (`dispatch/worker.rs`) takes jobs and settles outcomes, as many as there are in one
//! transaction; each job runs in a task of its own. It wakes by signal, by the clock of the next delayed job, and to
//! renew leases: it never polls.

mod worker;

use super::{
    backend::Recurrence,
    broker::Broker,
    job::{Failure, Job, Settings},
};
use crate::{
    capability::events::delivery_queue, clock::now_ms, manifest::Manifest, name::ServiceName,
    telemetry::chain,
};
use futures::future::BoxFuture;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use worker::Worker;

/// Jobs of one queue under way at once, at most.
pub const CONCURRENCY_MAX: u32 = 10_000;
/// Shortest lease, in milliseconds: renewals must be able to keep up.
pub const LEASE_MS_MIN: u64 = 1_000;
/// The wait before the broker is asked again after it failed.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Longest sleep before the clock is looked at again: it may have been set.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Does jobs.
pub trait JobHandler: Send + Sync + 'static {
    /// Does a job of a queue of `service`; the answer is its return value as JSON.
    ///
    /// Dropped when the attempt's time is over, its lease is lost, or a drain ends.
    fn handle(
        &self,
        service: &ServiceName,
        job: Job,
    ) -> BoxFuture<'static, Result<Option<String>, Failure>>;

    /// Whether jobs of `queue` may be begun now. Those leased already are returned, nothing counted.
    fn may_take(&self, _queue: &str) -> bool {
        true
    }

    /// Changes whenever [`JobHandler::may_take`] may answer something else; none if it never does.
    fn gate(&self) -> Option<watch::Receiver<()>> {
        None
    }
}

/// How a service works on a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    pub name: String,
    /// Jobs under way at once.
    pub concurrency: u32,
    /// How long a claim lasts without renewal, in milliseconds.
    pub lease_ms: u64,
    pub settings: Settings,
    pub recurrences: Vec<Recurrence>,
}

impl QueueSpec {
    /// The queues that a manifest declares, with that of its deliveries of events where it subscribes to any.
    pub fn of(manifest: &Manifest) -> Vec<Self> {
        let mut specs: Vec<Self> = manifest
            .queues
            .iter()
            .map(|queue| Self::declared(manifest, queue))
            .collect();
        // One queue serves all subscriptions, so the greatest concurrency among them is the queue's.
        if let Some(concurrency) = manifest
            .subscriptions
            .iter()
            .map(|wanted| wanted.concurrency)
            .max()
        {
            specs.push(Self {
                name: delivery_queue(&manifest.name),
                concurrency,
                lease_ms: 30_000,
                // Delivered events are kept in `events`, not as jobs.
                settings: Settings {
                    keep_completed: 0,
                    ..Settings::default()
                },
                recurrences: Vec::new(),
            });
        }
        specs
    }

    fn declared(manifest: &Manifest, queue: &crate::manifest::Queue) -> Self {
        let recurrences = manifest
            .schedules
            .iter()
            .filter(|schedule| schedule.queue == queue.name);
        Self {
            name: queue.name.clone(),
            concurrency: queue.concurrency,
            lease_ms: queue.lease_ms,
            settings: Settings {
                attempts: queue.attempts,
                backoff: queue.backoff,
                timeout_ms: queue.timeout_ms,
                keep_completed: queue.keep_completed,
                keep_failed: queue.keep_failed,
            },
            recurrences: recurrences
                .map(|schedule| Recurrence {
                    queue: schedule.queue.clone(),
                    name: schedule.name.clone(),
                    cron: schedule.cron.clone(),
                    data: schedule.data.clone(),
                })
                .collect(),
        }
    }
}

/// A service at work on its queues. Dropped without a drain, it breaks off what is under way and returns the leases.
#[derive(Debug)]
pub struct Consumer {
    stop: watch::Sender<Option<Instant>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Consumer {
    pub(super) fn start(
        broker: &Arc<Broker>,
        service: &ServiceName,
        specs: Vec<QueueSpec>,
        handler: Arc<dyn JobHandler>,
    ) -> Self {
        let stop = watch::Sender::new(None);
        let mut tasks = Vec::new();
        let recurring: Vec<String> = specs
            .iter()
            .filter(|spec| !spec.recurrences.is_empty())
            .map(|spec| spec.name.clone())
            .collect();
        if !recurring.is_empty() {
            tasks.push(broker.background().spawn(recur(
                broker.clone(),
                recurring,
                stop.subscribe(),
            )));
        }
        for spec in specs {
            let worker = Worker::new(broker, service, spec, &handler, stop.subscribe());
            tasks.push(broker.background().spawn(worker.run()));
        }
        Self {
            stop,
            tasks: Mutex::new(tasks),
        }
    }

    /// Takes no more jobs, waits for those under way until `deadline`, and returns the leases of the rest.
    pub async fn drain(&self, deadline: std::time::Instant) {
        self.stop.send_replace(Some(deadline.into()));
        let tasks = std::mem::take(&mut *self.tasks.lock().expect("no holder of this lock panics"));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a queue's dispatcher ended abnormally");
            }
        }
    }
}

/// Adds jobs when their cron expressions are due.
async fn recur(
    broker: Arc<Broker>,
    queues: Vec<String>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    loop {
        let wake = match broker.recur(queues.clone()).await {
            Ok(next) => instant_of(next.unwrap_or(i64::MAX)),
            Err(error) => {
                tracing::error!(
                    error = chain(&error.into()),
                    "cannot add recurring jobs; trying again"
                );
                Instant::now() + RETRY_WAIT
            }
        };
        tokio::select! {
            () = sleep_until(wake) => {}
            _ = stop.changed() => return,
        }
    }
}

/// The instant of a time of day, not later than [`SLEEP_MAX`] from now.
fn instant_of(due_ms: i64) -> Instant {
    let wait_ms = u64::try_from(due_ms.saturating_sub(now_ms())).unwrap_or_default();
    Instant::now() + Duration::from_millis(wait_ms).min(SLEEP_MAX)
}

#[cfg(test)]
mod tests;
