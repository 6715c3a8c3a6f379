//! The broker: a backend with limits before it, signals to those who wait for jobs, and upkeep by the clock.

use super::{
    backend::{Backend, Delivered, Error, Message, Recurrence, Result, Subscription, Take, Taken},
    check::{check_event, check_job, check_queue_name},
    dispatch::{Consumer, JobHandler, QueueSpec},
    job::{ATTEMPTS_MAX, Claim, Counts, EVENTS_PREFIX, Job, NewJob, Outcome, State},
    limits::{Config, Kind},
    redis::RedisBackend,
    schedule,
    sqlite::SqliteBackend,
    upkeep, wake,
};
use crate::{
    capability::events::Event, clock::now_ms, config::RedisServer, manifest, name::ServiceName, telemetry::Metrics,
    waiting,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::{Arc, Mutex},
};
use tokio::{runtime::Handle, sync::watch};
use wasmtime::error::Context as _;

/// The broker's file in the data directory.
pub const BROKER_FILE: &str = "broker.db";
/// Longest that a listing may be.
pub const LIST_MAX: u64 = 1_000;

/// Jobs and events of all services of this host.
#[derive(Debug)]
pub struct Broker {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) config: Config,
    background: Handle,
    /// Told when a queue may have something to take.
    signals: Mutex<HashMap<String, watch::Sender<()>>>,
    /// The queues that have been asked after, for whoever passes on what other hosts add.
    watched: watch::Sender<Vec<String>>,
    /// Which service worked last on a queue here.
    workers: Mutex<BTreeMap<String, ServiceName>>,
    /// Queues that were seen to hold `pending_max`.
    full: Mutex<BTreeSet<String>>,
    missed: Family<MissedLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MissedLabel {
    service: String,
}

/// A queue for whoever watches the platform.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct QueueOverview {
    pub name: String,
    /// The service that works on it here; empty where none does.
    pub service: String,
    #[serde(flatten)]
    pub counts: Counts,
}

impl Broker {
    /// Opens `broker.db` in `data` and starts its upkeep on `background`. The error names the file and the remedy.
    ///
    /// Blocks for the time of some disk accesses.
    pub fn open(data: &Path, background: &Handle, config: &Config) -> wasmtime::Result<Arc<Self>> {
        let backend = SqliteBackend::open(&data.join(BROKER_FILE), config, now_ms())?;
        Ok(Self::new(Arc::new(backend), background, config))
    }

    /// A broker before the backend that `config` names.
    pub fn connect(
        data: &Path,
        background: &Handle,
        config: &Config,
        redis: &RedisServer,
    ) -> wasmtime::Result<Arc<Self>> {
        match config.backend {
            Kind::Sqlite => Self::open(data, background, config),
            Kind::Redis => {
                let redis = Arc::new(redis.open("capability.queue")?);
                let backend = RedisBackend::new(redis, config);
                Ok(Self::new(Arc::new(backend), background, config))
            }
        }
    }

    /// Waits until the server that keeps jobs and events is there.
    pub async fn found(&self) -> wasmtime::Result<()> {
        let is_absence = |error: &Error| matches!(error, Error::Unavailable(_));
        let what = "the server of [backends.redis]";
        let found = waiting::patiently(what, || self.queues(), is_absence).await;
        found.map(drop).context("asking what keeps jobs and events")
    }

    /// Whether several hosts have the same queues and events.
    pub fn is_shared(&self) -> bool {
        self.config.is_shared()
    }

    /// A broker before `backend`.
    pub fn new(backend: Arc<dyn Backend>, background: &Handle, config: &Config) -> Arc<Self> {
        let broker = Arc::new(Self {
            backend,
            config: config.clone(),
            background: background.clone(),
            signals: Mutex::default(),
            watched: watch::Sender::default(),
            workers: Mutex::default(),
            full: Mutex::default(),
            missed: Family::default(),
        });
        background.spawn(upkeep::run(Arc::downgrade(&broker)));
        background.spawn(wake::run(
            Arc::downgrade(&broker),
            broker.backend.clone(),
            broker.watched.subscribe(),
        ));
        broker
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Adds a job; one whose id the queue holds is not added again. Answers its id.
    pub async fn add(&self, queue: &str, job: NewJob) -> Result<String> {
        let id = job.id.clone();
        self.add_many(queue, vec![job]).await?;
        Ok(id)
    }

    /// Adds all or none, durably; answers their ids.
    pub async fn add_many(&self, queue: &str, jobs: Vec<NewJob>) -> Result<Vec<String>> {
        check_queue_name(queue)?;
        if jobs.len() > self.config.batch_max {
            let (count, max) = (jobs.len(), self.config.batch_max);
            return Err(Error::LimitExceeded(format!(
                "{count} jobs in one call, and batch_max is {max}"
            )));
        }
        for job in &jobs {
            self.check(job)?;
        }
        let ids = jobs.iter().map(|job| job.id.clone()).collect();
        self.backend
            .add_many(queue, jobs, self.config.pending_max, now_ms())
            .await?;
        self.signal(queue);
        Ok(ids)
    }

    /// Whether `job` keeps the limits; the error says which it breaks.
    pub fn check(&self, job: &NewJob) -> Result<()> {
        check_job(job, self.config.data_bytes_max)
    }

    /// Whether an event of these parts keeps the limits; the error says which it breaks.
    pub fn check_event(
        &self,
        id: &str,
        topic: &str,
        subject: Option<&str>,
        data: &str,
    ) -> Result<()> {
        check_event(id, topic, subject, data, self.config.event_bytes_max)
    }

    /// Publishes an event durably: every subscribing service gets it once, however often the id is published.
    pub async fn publish(&self, event: Event) -> Result<()> {
        self.check_event(
            &event.id,
            &event.topic,
            event.subject.as_deref(),
            &event.data,
        )?;
        self.deliver(vec![Message::Event(event)]).await.map(drop)
    }

    /// Delivers what a committed transaction promised, each message once per id. Jobs are not refused here, because the
    /// promise is given: where a queue has become full, the next promise is, by [`Broker::check_room`].
    pub async fn relay(&self, batch: Vec<Message>) -> Result<()> {
        let queues = self.deliver(batch).await?;
        for queue in queues {
            if !queue.starts_with(EVENTS_PREFIX) && self.is_full(&queue).await? {
                self.full().insert(queue);
            }
        }
        Ok(())
    }

    /// Whether a transaction may promise a job to `queue`. A queue that was not seen full is not asked about.
    pub async fn check_room(&self, queue: &str) -> Result<()> {
        if !self.full().contains(queue) {
            return Ok(());
        }
        if self.is_full(queue).await? {
            let max = self.config.pending_max;
            return Err(Error::LimitExceeded(format!(
                "queue `{queue}` holds as many jobs to be done as pending_max allows, which is {max}"
            )));
        }
        self.full().remove(queue);
        Ok(())
    }

    async fn is_full(&self, queue: &str) -> Result<bool> {
        Ok(self.backend.counts(queue).await?.pending() >= self.config.pending_max)
    }

    /// Delivers a batch and tells who waits for it; answers the queues that got jobs.
    async fn deliver(&self, batch: Vec<Message>) -> Result<Vec<String>> {
        let pending_max = self.config.pending_max;
        let Delivered { queues, missed } =
            self.backend.deliver(batch, pending_max, now_ms()).await?;
        queues.iter().for_each(|queue| self.signal(queue));
        for (service, events) in missed {
            self.missed
                .get_or_create(&MissedLabel {
                    service: service.to_string(),
                })
                .inc_by(events);
        }
        Ok(queues)
    }

    /// Has the broker's counters among the host's metrics.
    pub fn measure(&self, metrics: &Metrics) {
        metrics.register(|registry| {
            registry.register(
                "events_missed",
                "Events that a subscriber missed because it was pending_max behind",
                self.missed.clone(),
            );
        });
    }

    fn full(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.full.lock().expect("no holder of this lock panics")
    }

    /// Makes the manifest's subscriptions those of `service`, durably: events reach it also when it was stopped.
    pub async fn subscribe(
        &self,
        service: &ServiceName,
        wanted: &[manifest::Subscription],
    ) -> Result<()> {
        let wanted = wanted.iter().map(|wanted| Subscription {
            service: service.clone(),
            topic: wanted.topic.clone(),
            attempts: wanted.attempts.clamp(1, ATTEMPTS_MAX),
        });
        self.backend.subscribe(service, wanted.collect()).await
    }

    pub async fn subscriptions(&self) -> Result<Vec<Subscription>> {
        self.backend.subscriptions().await
    }

    /// The newest events whose topic matches `pattern`, newest first, at most [`LIST_MAX`].
    pub async fn events(&self, pattern: &str, limit: u64) -> Result<Vec<Event>> {
        self.backend.events(pattern, limit.min(LIST_MAX)).await
    }

    pub async fn get(&self, queue: &str, id: &str) -> Result<Job> {
        self.backend.get(queue, id).await
    }

    /// Jobs in `state`, newest first, at most [`LIST_MAX`].
    pub async fn list(
        &self,
        queue: &str,
        state: State,
        offset: u64,
        limit: u64,
    ) -> Result<Vec<Job>> {
        self.backend
            .list(queue, state, offset, limit.min(LIST_MAX))
            .await
    }

    /// Zeros for a queue that never was.
    pub async fn counts(&self, queue: &str) -> Result<Counts> {
        self.backend.counts(queue).await
    }

    /// Every queue that ever had jobs or a worker, sorted by name.
    pub async fn queues(&self) -> Result<Vec<QueueOverview>> {
        let counted = self.backend.overview().await?;
        let workers = self.workers();
        let service = |name: &str| match workers.get(name) {
            Some(service) if self.has_worker(name) => service.to_string(),
            _ => String::new(),
        };
        Ok(counted
            .into_iter()
            .map(|(name, counts)| QueueOverview {
                service: service(&name),
                name,
                counts,
            })
            .collect())
    }

    /// Whether the broker can be read now.
    pub async fn ping(&self) -> bool {
        self.backend.counts("").await.is_ok()
    }

    /// Removes a job that is not active.
    pub async fn remove(&self, queue: &str, id: &str) -> Result<()> {
        self.backend.remove(queue, id).await
    }

    /// Puts a failed job back to wait, with its attempts counted anew.
    pub async fn retry(&self, queue: &str, id: &str) -> Result<()> {
        self.backend.retry(queue, id).await?;
        self.signal(queue);
        Ok(())
    }

    /// Stops or restarts handing out jobs; active ones finish.
    pub async fn pause(&self, queue: &str, paused: bool) -> Result<()> {
        check_queue_name(queue.strip_prefix(EVENTS_PREFIX).unwrap_or(queue))?;
        self.backend.pause(queue, paused).await?;
        self.signal(queue);
        Ok(())
    }

    /// Starts to work on the queues of `service`: hands their jobs to `handler` until the consumer is drained or dropped.
    pub async fn consume(
        self: &Arc<Self>,
        service: &ServiceName,
        specs: Vec<QueueSpec>,
        handler: Arc<dyn JobHandler>,
    ) -> Result<Consumer> {
        let (names, recurrences) = recurrences(&specs, self.config.data_bytes_max)?;
        for spec in &specs {
            self.backend
                .declare(&spec.name, spec.settings.clone())
                .await?;
        }
        self.backend
            .schedule(names, recurrences, schedule::next_due, now_ms())
            .await?;
        self.workers().extend(
            specs
                .iter()
                .map(|spec| (spec.name.clone(), service.clone())),
        );
        Ok(Consumer::start(self, service, specs, handler))
    }

    /// Writes everything back and closes; whatever is asked afterwards fails.
    pub async fn close(&self) {
        self.backend.close().await;
    }

    pub(super) async fn settle(
        &self,
        queue: &str,
        outcomes: Arc<Vec<(Claim, Outcome)>>,
        take: Option<Take>,
    ) -> Result<Taken> {
        self.backend.settle(queue, outcomes, take, now_ms()).await
    }

    pub(super) async fn extend(&self, claims: Vec<Claim>, lease_ms: u64) -> Result<Vec<Claim>> {
        self.backend
            .extend(claims, lease_ms, now_ms())
            .await
    }

    /// Adds the jobs of occurrences that are due; answers when the next one is.
    pub(super) async fn recur(&self, queues: Vec<String>) -> Result<Option<i64>> {
        let (touched, next) = self
            .backend
            .recur(queues, schedule::next_due, now_ms())
            .await?;
        touched.iter().for_each(|queue| self.signal(queue));
        Ok(next)
    }

    /// Changes whenever `queue` may have something to take.
    pub(super) fn watch(&self, queue: &str) -> watch::Receiver<()> {
        let signal = {
            let mut signals = self.signals.lock().expect("no holder of this lock panics");
            signals
                .entry(queue.to_owned())
                .or_insert_with(|| watch::Sender::new(()))
                .subscribe()
        };
        // Only now, so that no news can come before somebody hears it.
        self.watched.send_if_modified(|queues| {
            let is_new = !queues.iter().any(|known| known == queue);
            if is_new {
                queues.push(queue.to_owned());
            }
            is_new
        });
        signal
    }

    pub(super) fn background(&self) -> &Handle {
        &self.background
    }

    /// Whether a consumer is at work on `queue`.
    fn has_worker(&self, queue: &str) -> bool {
        let signals = self.signals.lock().expect("no holder of this lock panics");
        signals
            .get(queue)
            .is_some_and(|signal| signal.receiver_count() > 0)
    }

    pub(super) fn signal(&self, queue: &str) {
        if let Some(signal) = self
            .signals
            .lock()
            .expect("no holder of this lock panics")
            .get(queue)
        {
            signal.send_modify(|()| ());
        }
    }

    fn workers(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, ServiceName>> {
        self.workers.lock().expect("no holder of this lock panics")
    }
}

/// The queues that a service works on, and their recurrences, all checked: the error says what the manifest has wrong.
fn recurrences(
    specs: &[QueueSpec],
    data_bytes_max: usize,
) -> Result<(Vec<String>, Vec<Recurrence>)> {
    let mut wanted = Vec::new();
    for spec in specs {
        check_queue_name(spec.name.strip_prefix(EVENTS_PREFIX).unwrap_or(&spec.name))?;
        for recurrence in &spec.recurrences {
            schedule::check(&recurrence.cron).map_err(Error::Invalid)?;
            let occurrence = NewJob::new("repeat", &recurrence.name, &recurrence.data);
            check_job(&occurrence, data_bytes_max)?;
            wanted.push(recurrence.clone());
        }
    }
    Ok((specs.iter().map(|spec| spec.name.clone()).collect(), wanted))
}
