//! The dispatcher: keeps as many jobs of a queue under way as its worker may have, and records what becomes of them.
//!
//! For each queue one task takes jobs and settles outcomes, as many as there are in one transaction; each job runs in a
//! task of its own. It wakes by signal, by the clock of the next delayed job, and to renew leases: it never polls.

use super::{
    backend::{Recurrence, Take},
    broker::Broker,
    job::{Claim, Failure, Job, Outcome, Settings, State, TIMEOUT_MS_MAX},
};
use crate::{
    capability::events::delivery_queue,
    clock::now_ms,
    manifest::Manifest,
    name::ServiceName,
    telemetry::chain,
};
use futures::future::BoxFuture;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{AbortHandle, Id, JoinError, JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};

/// Jobs of one queue under way at once, at most.
pub const CONCURRENCY_MAX: u32 = 10_000;
/// Shortest lease, in milliseconds: renewals must be able to keep up.
pub const LEASE_MS_MIN: u64 = 1_000;
/// The wait before the broker is asked again after it failed.
const RETRY_WAIT: Duration = Duration::from_secs(1);
/// Longest sleep before the clock is looked at again: it may have been set.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long a drain waits for the broker after its deadline to take the last outcomes and leases.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);

/// Does jobs.
pub trait JobHandler: Send + Sync + 'static {
    /// Does a job of a queue of `service`; the answer is its return value as JSON.
    ///
    /// Dropped when the attempt's time is over, its lease is lost, or a drain ends.
    fn handle(&self, service: &ServiceName, job: Job) -> BoxFuture<'static, Result<Option<String>, Failure>>;
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
        let mut specs: Vec<Self> = manifest.queues.iter().map(|queue| Self::declared(manifest, queue)).collect();
        // One queue serves all subscriptions, so the greatest concurrency among them is the queue's.
        if let Some(concurrency) = manifest.subscriptions.iter().map(|wanted| wanted.concurrency).max() {
            specs.push(Self {
                name: delivery_queue(&manifest.name),
                concurrency,
                lease_ms: 30_000,
                // Delivered events are kept in `events`, not as jobs.
                settings: Settings { keep_completed: 0, ..Settings::default() },
                recurrences: Vec::new(),
            });
        }
        specs
    }

    fn declared(manifest: &Manifest, queue: &crate::manifest::Queue) -> Self {
        let recurrences = manifest.schedules.iter().filter(|schedule| schedule.queue == queue.name);
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
        let recurring: Vec<String> =
            specs.iter().filter(|spec| !spec.recurrences.is_empty()).map(|spec| spec.name.clone()).collect();
        if !recurring.is_empty() {
            tasks.push(broker.background().spawn(recur(broker.clone(), recurring, stop.subscribe())));
        }
        for spec in specs {
            let worker = Worker::new(broker, service, spec, &handler, stop.subscribe());
            tasks.push(broker.background().spawn(worker.run()));
        }
        Self { stop, tasks: Mutex::new(tasks) }
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

/// The dispatcher of one queue.
struct Worker {
    broker: Arc<Broker>,
    service: ServiceName,
    spec: QueueSpec,
    handler: Arc<dyn JobHandler>,
    signal: watch::Receiver<()>,
    stop: watch::Receiver<Option<Instant>>,
    running: JoinSet<Outcome>,
    active: HashMap<Id, (Claim, AbortHandle)>,
    /// Outcomes that the broker does not know yet.
    outcomes: Vec<(Claim, Outcome)>,
    /// There may be jobs to take.
    more: bool,
    next_due: Option<i64>,
    /// When the drain ends, once it has begun.
    deadline: Option<Instant>,
}

impl Worker {
    fn new(
        broker: &Arc<Broker>,
        service: &ServiceName,
        mut spec: QueueSpec,
        handler: &Arc<dyn JobHandler>,
        stop: watch::Receiver<Option<Instant>>,
    ) -> Self {
        spec.concurrency = spec.concurrency.clamp(1, CONCURRENCY_MAX);
        spec.lease_ms = spec.lease_ms.max(LEASE_MS_MIN);
        Self {
            signal: broker.watch(&spec.name),
            broker: broker.clone(),
            service: service.clone(),
            spec,
            handler: handler.clone(),
            stop,
            running: JoinSet::new(),
            active: HashMap::new(),
            outcomes: Vec::new(),
            more: true,
            next_due: None,
            deadline: None,
        }
    }

    async fn run(mut self) {
        let renewal = Duration::from_millis(self.spec.lease_ms / 2);
        let mut heartbeat = interval_at(Instant::now() + renewal, renewal);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.deadline.is_none() || !self.active.is_empty() || !self.outcomes.is_empty() {
            self.collect();
            if self.has_business() {
                self.settle().await;
                continue;
            }
            let due = self.next_due.filter(|_| self.may_take()).map(instant_of);
            let drained = self.deadline;
            tokio::select! {
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                changed = self.signal.changed(), if self.may_take() => self.more = changed.is_ok(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.more = true,
                _ = heartbeat.tick(), if !self.active.is_empty() => self.renew().await,
                changed = self.stop.changed(), if drained.is_none() => self.begin_drain(changed.is_ok()),
                () = sleep_until(drained.unwrap_or_else(Instant::now)), if drained.is_some() => return self.abandon().await,
            }
        }
    }

    fn free(&self) -> usize {
        (self.spec.concurrency as usize).saturating_sub(self.active.len())
    }

    fn may_take(&self) -> bool {
        self.deadline.is_none() && !self.more && self.free() > 0
    }

    fn has_business(&self) -> bool {
        !self.outcomes.is_empty() || (self.more && self.deadline.is_none() && self.free() > 0)
    }

    /// Takes in all that ended without waiting.
    fn collect(&mut self) {
        while let Some(ended) = self.running.try_join_next_with_id() {
            self.ended(ended);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(error) if error.is_cancelled() => {
                self.active.remove(&error.id());
                return;
            }
            Err(error) => (error.id(), Outcome::Failed(Failure::retry("the job's handler panicked"))),
        };
        if let Some((claim, _)) = self.active.remove(&id) {
            self.outcomes.push((claim, outcome));
        }
    }

    /// One transaction: what has become of jobs, and the next ones. It asks for these also where none is expected,
    /// because a failed attempt may have become the next delayed job.
    async fn settle(&mut self) {
        let count = self.free();
        let wanted = self.deadline.is_none();
        let take = wanted.then(|| Take { count, lease: rand::random::<i64>(), lease_ms: self.spec.lease_ms });
        let outcomes = std::mem::take(&mut self.outcomes);
        match self.broker.settle(&self.spec.name, outcomes.clone(), take).await {
            Ok(taken) if take.is_some() => {
                self.more = taken.jobs.len() == count;
                self.next_due = taken.next_due_ms;
                taken.jobs.into_iter().for_each(|job| self.begin(job));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(queue = self.spec.name, error = chain(&error.into()), "the broker failed; trying again");
                self.outcomes = outcomes;
                self.pause_after_failure().await;
            }
        }
    }

    /// Waits before the broker is asked again; a drain's deadline is heeded.
    async fn pause_after_failure(&mut self) {
        let wake = Instant::now() + RETRY_WAIT;
        match self.deadline {
            Some(deadline) if deadline <= wake => {
                sleep_until(deadline).await;
                self.outcomes.clear();
            }
            _ => tokio::select! {
                () = sleep_until(wake) => {}
                changed = self.stop.changed(), if self.deadline.is_none() => self.begin_drain(changed.is_ok()),
            },
        }
    }

    fn begin(&mut self, job: Job) {
        debug_assert_eq!(job.state, State::Active, "only leased jobs are handed out");
        let claim = job.claim;
        let value_bytes_max = self.broker.config().data_bytes_max;
        let work = perform(self.handler.clone(), self.service.clone(), job, value_bytes_max);
        let handle = self.running.spawn(work);
        self.active.insert(handle.id(), (claim, handle));
    }

    /// Renews the leases; work whose lease is lost is broken off, because somebody else has the job.
    async fn renew(&mut self) {
        let claims = self.active.values().map(|(claim, _)| *claim).collect();
        match self.broker.extend(claims, self.spec.lease_ms).await {
            Ok(void) => {
                for (claim, handle) in self.active.values() {
                    if void.contains(claim) {
                        tracing::warn!(queue = self.spec.name, "a lease was lost; its attempt is broken off");
                        handle.abort();
                    }
                }
            }
            Err(error) => tracing::error!(queue = self.spec.name, error = chain(&error.into()), "cannot renew leases"),
        }
    }

    fn begin_drain(&mut self, told: bool) {
        let now = Instant::now();
        self.deadline = Some(if told { self.stop.borrow_and_update().unwrap_or(now) } else { now });
    }

    /// Breaks off what is still under way and returns its leases.
    async fn abandon(mut self) {
        self.collect();
        self.running.shutdown().await;
        let rest = self.active.drain().map(|(_, (claim, _))| (claim, Outcome::Released));
        self.outcomes.extend(rest);
        let settled = timeout(LAST_WORDS_MAX, self.broker.settle(&self.spec.name, self.outcomes, None)).await;
        if !matches!(settled, Ok(Ok(_))) {
            tracing::warn!(queue = self.spec.name, "leases could not be returned; they expire by themselves");
        }
    }
}

/// One attempt within its time.
async fn perform(handler: Arc<dyn JobHandler>, service: ServiceName, job: Job, value_bytes_max: usize) -> Outcome {
    let timeout_ms = job.timeout_ms.min(TIMEOUT_MS_MAX);
    match timeout(Duration::from_millis(timeout_ms), handler.handle(&service, job)).await {
        Ok(Ok(Some(value))) if value.len() > value_bytes_max => {
            let bytes = value.len();
            Outcome::Failed(Failure::fatal(format!("answered {bytes} bytes, and data_bytes_max is {value_bytes_max}")))
        }
        Ok(Ok(value)) => Outcome::Completed(value),
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(_) => Outcome::Failed(Failure::retry(format!("took longer than {timeout_ms} ms"))),
    }
}

/// Adds jobs when their cron expressions are due.
async fn recur(broker: Arc<Broker>, queues: Vec<String>, mut stop: watch::Receiver<Option<Instant>>) {
    loop {
        let wake = match broker.recur(queues.clone()).await {
            Ok(next) => instant_of(next.unwrap_or(i64::MAX)),
            Err(error) => {
                tracing::error!(error = chain(&error.into()), "cannot add recurring jobs; trying again");
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
