//! The dispatcher of one queue.

use super::{
    super::{
        backend::{Result, Take, Taken},
        broker::Broker,
        job::{Claim, Failure, Job, Outcome, State, TIMEOUT_MS_MAX},
    },
    CONCURRENCY_MAX, JobHandler, LEASE_MS_MIN, QueueSpec, RETRY_WAIT, instant_of,
};
use crate::{name::ServiceName, telemetry::chain};
use futures::future::BoxFuture;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout},
};

/// Jobs that are leased ahead of their turn, at most.
const AHEAD_MAX: usize = 512;
/// Jobs that take longer than this are not leased ahead: others might do them meanwhile.
const AHEAD_JOB_TIME_MAX: Duration = Duration::from_millis(50);
/// How long a drain waits for the broker after its deadline to take the last outcomes and leases.
const LAST_WORDS_MAX: Duration = Duration::from_secs(5);

type Outcomes = Arc<Vec<(Claim, Outcome)>>;
/// A transaction under way: what it records, how long it took, and what it brought.
type Settling = BoxFuture<'static, (Outcomes, Duration, Result<Taken>)>;

/// Keeps a queue's jobs going. One task has it, and ends when the consumer drains or drops.
pub(super) struct Worker {
    broker: Arc<Broker>,
    service: ServiceName,
    spec: QueueSpec,
    handler: Arc<dyn JobHandler>,
    signal: watch::Receiver<()>,
    stop: watch::Receiver<Option<Instant>>,
    /// Told when the service may have become able, or unable, to take jobs.
    gate: Option<watch::Receiver<()>>,
    running: JoinSet<(Outcome, Duration)>,
    active: HashMap<Id, (Claim, AbortHandle)>,
    /// Leased ahead, so that short jobs need not wait for the disk.
    ahead: VecDeque<Job>,
    /// Outcomes that the broker does not know yet.
    outcomes: Vec<(Claim, Outcome)>,
    settling: Option<Settling>,
    /// The broker failed and is not asked before.
    retry_at: Option<Instant>,
    /// There may be jobs to take.
    more: bool,
    next_due: Option<i64>,
    /// How long a job and a transaction take: moving averages.
    job_time: Option<Duration>,
    settle_time: Option<Duration>,
    /// When the drain ends, once it has begun.
    deadline: Option<Instant>,
}

impl Worker {
    pub(super) fn new(
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
            gate: handler.gate(),
            running: JoinSet::new(),
            active: HashMap::new(),
            ahead: VecDeque::new(),
            outcomes: Vec::new(),
            settling: None,
            retry_at: None,
            more: true,
            next_due: None,
            job_time: None,
            settle_time: None,
            deadline: None,
        }
    }

    pub(super) async fn run(mut self) {
        let renewal = Duration::from_millis(self.spec.lease_ms / 2);
        let mut heartbeat = interval_at(Instant::now() + renewal, renewal);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.deadline.is_none() || self.is_busy() {
            self.collect();
            self.begin_next();
            if self.settling.is_none() && self.retry_at.is_none() && self.has_business() {
                self.settle();
            }
            let due = self.next_due.filter(|_| self.may_look()).map(instant_of);
            let (drained, retry_at) = (self.deadline, self.retry_at);
            tokio::select! {
                settled = settled(&mut self.settling) => self.settled(settled),
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                changed = self.signal.changed(), if self.may_look() => self.more = changed.is_ok(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.more = true,
                _ = heartbeat.tick(), if self.held() > 0 => self.renew().await,
                () = changed(&mut self.gate) => self.more = true,
                changed = self.stop.changed(), if drained.is_none() => self.begin_drain(changed.is_ok()),
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => self.retry_at = None,
                () = sleep_until(drained.unwrap_or_else(Instant::now)), if drained.is_some() => return self.abandon().await,
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.held() > 0 || !self.outcomes.is_empty() || self.settling.is_some()
    }

    /// Jobs that are leased to this worker.
    fn held(&self) -> usize {
        self.active.len() + self.ahead.len()
    }

    /// Jobs to lease ahead: as many as end while a transaction is written.
    fn ahead_wanted(&self) -> usize {
        let (Some(job), Some(settle)) = (self.job_time, self.settle_time) else {
            return 0;
        };
        if job > AHEAD_JOB_TIME_MAX {
            return 0;
        }
        let rounds = settle.as_secs_f64() / job.as_secs_f64().max(1e-6);
        (f64::from(self.spec.concurrency) * rounds)
            .ceil()
            .min(AHEAD_MAX as f64) as usize
    }

    /// Jobs to ask the broker for.
    fn wanted(&self) -> usize {
        let target = self.spec.concurrency as usize + self.ahead_wanted();
        if self.deadline.is_some() || !self.may_take() {
            0
        } else {
            target.saturating_sub(self.held())
        }
    }

    /// Whether the service may begin jobs of this queue now.
    fn may_take(&self) -> bool {
        self.handler.may_take(&self.spec.name)
    }

    /// Whether news of the queue concern it now.
    fn may_look(&self) -> bool {
        !self.more && self.wanted() > 0
    }

    fn has_business(&self) -> bool {
        !self.outcomes.is_empty() || (self.more && self.wanted() > 0)
    }

    /// Takes in all that ended without waiting.
    fn collect(&mut self) {
        while let Some(ended) = self.running.try_join_next_with_id() {
            self.ended(ended);
        }
    }

    fn ended(&mut self, ended: Result<(Id, (Outcome, Duration)), JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, (outcome, took))) => {
                self.job_time = Some(average(self.job_time, took));
                (id, outcome)
            }
            Err(error) if error.is_cancelled() => {
                self.active.remove(&error.id());
                return;
            }
            Err(error) => (
                error.id(),
                Outcome::Failed(Failure::retry("the job's handler panicked")),
            ),
        };
        if let Some((claim, _)) = self.active.remove(&id) {
            self.outcomes.push((claim, outcome));
        }
    }

    /// Begins jobs that are leased, as far as the concurrency allows; returns them while the service takes none.
    fn begin_next(&mut self) {
        if !self.ahead.is_empty() && !self.may_take() {
            self.release_ahead();
        }
        while self.active.len() < self.spec.concurrency as usize
            && let Some(job) = self.ahead.pop_front()
        {
            debug_assert_eq!(job.state, State::Active, "only leased jobs are handed out");
            let claim = job.claim.clone();
            let value_bytes_max = self.broker.config().data_bytes_max;
            let work = perform(
                self.handler.clone(),
                self.service.clone(),
                job,
                value_bytes_max,
            );
            let handle = self.running.spawn(work);
            self.active.insert(handle.id(), (claim, handle));
        }
    }

    /// Begins one transaction: what has become of jobs, and the next ones. It asks for these also where none is expected,
    /// because a failed attempt may have become the next delayed job.
    fn settle(&mut self) {
        let count = self.wanted();
        let wanted = self.deadline.is_none();
        let take = wanted.then(|| Take {
            count,
            lease: rand::random::<i64>(),
            lease_ms: self.spec.lease_ms,
        });
        let outcomes = Arc::new(std::mem::take(&mut self.outcomes));
        let (broker, queue) = (self.broker.clone(), self.spec.name.clone());
        // What is told from now on may be news that this transaction does not see.
        self.more = false;
        self.settling = Some(Box::pin(async move {
            let begun = Instant::now();
            let result = broker.settle(&queue, outcomes.clone(), take).await;
            (outcomes, begun.elapsed(), result)
        }));
    }

    fn settled(&mut self, (outcomes, took, result): (Outcomes, Duration, Result<Taken>)) {
        self.settling = None;
        match result {
            Ok(taken) => {
                self.settle_time = Some(average(self.settle_time, took));
                self.more |= taken.more;
                self.next_due = taken.next_due_ms;
                self.ahead.extend(taken.jobs);
                if self.deadline.is_some() {
                    self.release_ahead();
                }
            }
            Err(error) => {
                tracing::error!(
                    queue = self.spec.name,
                    error = chain(&error.into()),
                    "the broker failed; trying again"
                );
                self.outcomes.extend(outcomes.iter().cloned());
                self.more = true;
                self.retry_at = Some(Instant::now() + RETRY_WAIT);
            }
        }
    }

    /// Renews the leases; work whose lease is lost is broken off, because somebody else has the job.
    async fn renew(&mut self) {
        let running = self.active.values().map(|(claim, _)| claim.clone());
        let claims = running
            .chain(self.ahead.iter().map(|job| job.claim.clone()))
            .collect();
        match self.broker.extend(claims, self.spec.lease_ms).await {
            Ok(void) if void.is_empty() => {}
            Ok(void) => {
                tracing::warn!(
                    queue = self.spec.name,
                    leases = void.len(),
                    "leases were lost; their attempts are broken off"
                );
                self.ahead.retain(|job| !void.contains(&job.claim));
                self.active
                    .values()
                    .filter(|(claim, _)| void.contains(claim))
                    .for_each(|(_, handle)| handle.abort());
            }
            Err(error) => tracing::error!(
                queue = self.spec.name,
                error = chain(&error.into()),
                "cannot renew leases"
            ),
        }
    }

    fn begin_drain(&mut self, told: bool) {
        let now = Instant::now();
        self.deadline = Some(if told {
            self.stop.borrow_and_update().unwrap_or(now)
        } else {
            now
        });
        self.release_ahead();
    }

    fn release_ahead(&mut self) {
        self.outcomes.extend(
            self.ahead
                .drain(..)
                .map(|job| (job.claim, Outcome::Released)),
        );
    }

    /// Breaks off what is still under way and returns its leases.
    async fn abandon(mut self) {
        self.collect();
        self.running.shutdown().await;
        let rest = self
            .active
            .drain()
            .map(|(_, (claim, _))| (claim, Outcome::Released));
        self.outcomes.extend(rest);
        let last_words = async {
            if self.settling.is_some() {
                let settled = settled(&mut self.settling).await;
                self.settled(settled);
            }
            self.broker
                .settle(
                    &self.spec.name,
                    Arc::new(std::mem::take(&mut self.outcomes)),
                    None,
                )
                .await
        };
        if !matches!(timeout(LAST_WORDS_MAX, last_words).await, Ok(Ok(_))) {
            tracing::warn!("leases could not be returned; they expire by themselves");
        }
    }
}

/// Waits for the gate to change; for ever where there is none.
async fn changed(gate: &mut Option<watch::Receiver<()>>) {
    let gone = match gate {
        Some(open) => open.changed().await.is_err(),
        None => return std::future::pending().await,
    };
    if gone {
        *gate = None;
    }
}

/// Waits for the transaction under way; for ever where there is none.
async fn settled(settling: &mut Option<Settling>) -> (Outcomes, Duration, Result<Taken>) {
    match settling {
        Some(settling) => settling.await,
        None => std::future::pending().await,
    }
}

/// A moving average over about the last eight.
fn average(before: Option<Duration>, latest: Duration) -> Duration {
    before.map_or(latest, |before| (before * 7 + latest) / 8)
}

/// One attempt within its time.
async fn perform(
    handler: Arc<dyn JobHandler>,
    service: ServiceName,
    job: Job,
    value_bytes_max: usize,
) -> (Outcome, Duration) {
    let begun = Instant::now();
    let timeout_ms = job.timeout_ms.min(TIMEOUT_MS_MAX);
    let outcome = match timeout(
        Duration::from_millis(timeout_ms),
        handler.handle(&service, job),
    )
    .await
    {
        Ok(Ok(Some(value))) if value.len() > value_bytes_max => {
            let bytes = value.len();
            Outcome::Failed(Failure::fatal(format!(
                "answered {bytes} bytes, and data_bytes_max is {value_bytes_max}"
            )))
        }
        Ok(Ok(value)) => Outcome::Completed(value),
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(_) => Outcome::Failed(Failure::retry(format!("took longer than {timeout_ms} ms"))),
    };
    (outcome, begun.elapsed())
}
