//! From the broker to a guest: jobs and deliveries of events become invocations on the cores.

use super::{event, job};
use crate::{
    capability::{
        events::Event,
        queue::{EVENTS_PREFIX, Failure, Job, JobHandler, State},
    },
    cores::Cores,
    invocation::{Invocation, Principal, Trigger},
    name::ServiceName,
    service::{Service, Version},
    telemetry::spans::{self, Consumed},
};
use futures::future::BoxFuture;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Runs the jobs of one service with whichever version of it is live.
pub struct Dispatch {
    pub service: Arc<Service>,
    pub cores: Arc<Cores>,
    pub trust_domain: String,
}

impl JobHandler for Dispatch {
    fn handle(
        &self,
        _service: &ServiceName,
        job: Job,
    ) -> BoxFuture<'static, Result<Option<String>, Failure>> {
        let (service, trust_domain) = (self.service.clone(), self.trust_domain.clone());
        let task = self.cores.spawn(async move {
            let version = live(&service).await?;
            run(version, job, &trust_domain).await
        });
        Box::pin(async move {
            let task = AbortOnDrop(task);
            task.await
                .unwrap_or_else(|error| Err(Failure::retry(format!("the host failed: {error}"))))
        })
    }

    fn may_take(&self, queue: &str) -> bool {
        self.service.may_take(queue)
    }

    fn gate(&self) -> Option<watch::Receiver<()>> {
        Some(self.service.gate())
    }
}

/// The version for the next job. One that was handed over just before its service was taken off waits for it.
async fn live(service: &Service) -> Result<Arc<Version>, Failure> {
    let mut gate = service.gate();
    loop {
        if let Some(version) = service.pick() {
            return Ok(version);
        }
        if gate.changed().await.is_err() {
            return Err(Failure::retry(format!("{} is not live", service.name)));
        }
    }
}

/// Ends the task when the broker gives the attempt up.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run(
    version: Arc<Version>,
    job: Job,
    trust_domain: &str,
) -> Result<Option<String>, Failure> {
    // The attempt's time begins with its turn; how long it may wait for that is the queue's `timeout_ms` too.
    let turn = version.context.allowance.jobs.clone().acquire_owned();
    let _turn = turn
        .await
        .map_err(|_| Failure::retry("the host is stopping"))?;
    if job.queue.starts_with(EVENTS_PREFIX) {
        let Some(event) = Event::from_delivery(&job) else {
            return Err(Failure::fatal("the delivery names no event"));
        };
        let invocation = invocation(&version, &job, Trigger::Event);
        let consumed = Consumed::new(&version, invocation.trace, &job, &event.topic);
        let event = guest_event(event, job.attempt, trust_domain);
        let result = event::deliver(&version, invocation, event).await;
        consumed.ended(&version, &result);
        return result.map(|()| None);
    }
    let invocation = invocation(&version, &job, Trigger::Job);
    let consumed = Consumed::new(&version, invocation.trace, &job, &job.queue);
    let result = job::run(&version, invocation, guest_job(job)).await;
    consumed.ended(&version, &result);
    result
}

/// A job acts for the service that added it: its own, but for events.
fn invocation(version: &Version, job: &Job, trigger: Trigger) -> Arc<Invocation> {
    let caller = job.origin.as_ref().unwrap_or(&version.context.name);
    Arc::new(Invocation {
        trigger,
        caller: Principal::service(caller),
        user: None,
        address: None,
        trace: spans::entering(job.trace),
        path: Arc::new([version.context.name.clone()]),
        deadline: Instant::now()
            + Duration::from_millis(job.timeout_ms.min(version.context.limits.job_ms_max)),
    })
}

fn guest_event(event: Event, attempt: u32, trust_domain: &str) -> event::GuestEvent {
    event::GuestEvent {
        source: event.source_uri(trust_domain),
        id: event.id,
        topic: event.topic,
        subject: event.subject,
        time: event.time,
        data: event.data,
        attempt,
    }
}

fn guest_job(job: Job) -> job::GuestJob {
    job::GuestJob {
        id: job.id,
        queue: job.queue,
        name: job.name,
        data: job.data,
        attempt: job.attempt,
        attempts: job.attempts,
        priority: job.priority,
        state: match job.state {
            State::Waiting => job::State::Waiting,
            State::Delayed => job::State::Delayed,
            State::Prioritized => job::State::Prioritized,
            State::Active => job::State::Active,
            State::Completed => job::State::Completed,
            State::Failed => job::State::Failed,
            State::Paused => job::State::Paused,
        },
        created_at: job.created_at,
        processed_at: job.processed_at,
        finished_at: job.finished_at,
        failed_reason: job.failed_reason,
        return_value: job.return_value,
    }
}
