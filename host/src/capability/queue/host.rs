//! What guests see of queues: `exprsn:queue/client`.

use super::{
    backend::{self, Error},
    broker::Broker,
    check::check_queue_name,
    job::{Backoff, Job, NewJob, State},
    limits::Config,
};
use crate::{
    capability::{Boot, Borrower, Capability},
    name::matches,
    store::{Handover, StoreState},
    telemetry::{chain, spans::sending},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wasmtime::{
    Result,
    component::{Accessor, HasSelf, Linker},
};

wasmtime::component::bindgen!({
    path: "../wit",
    world: "exprsn:queue/imports",
    imports: { default: trappable },
});

use exprsn::queue::{client, types};

/// The `queue` capability.
pub struct Queue {
    broker: Arc<Broker>,
}

/// `[grants.queue]`: names of queues, or prefixes that end in `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grant {
    /// Queues to add jobs to and to look into.
    pub produce: Vec<String>,
    /// Queues to work on.
    pub consume: Vec<String>,
    /// Queues to look into, and whose jobs to remove, retry and pause.
    pub manage: Vec<String>,
}

impl Grant {
    /// Whether jobs may be added to `queue`; the error says which grant is missing and where it is written.
    pub fn allow_produce(&self, queue: &str) -> Result<(), String> {
        match covers(&self.produce, queue) || covers(&self.manage, queue) {
            true => Ok(()),
            false => Err(denial(queue, "produce")),
        }
    }

    fn allow_manage(&self, queue: &str) -> Result<(), String> {
        if covers(&self.manage, queue) {
            Ok(())
        } else {
            Err(denial(queue, "manage"))
        }
    }
}

fn covers(patterns: &[String], queue: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, queue))
}

fn denial(queue: &str, scope: &str) -> String {
    format!(
        "queue `{queue}` is not granted: add \"{queue}\" to `{scope}` under [grants.queue] in component.toml"
    )
}

/// What one service version holds.
#[derive(Debug)]
pub struct Lent {
    broker: Arc<Broker>,
    grant: Grant,
}

impl Capability for Queue {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(boot: &Boot, _config: Config) -> Result<Self> {
        Ok(Self {
            broker: boot.broker.clone(),
        })
    }

    fn link(linker: &mut Linker<StoreState>, _grant: &Grant) -> Result<()> {
        types::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        client::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        super::twin::link(linker)
    }

    async fn lend(&self, _borrower: &Borrower<'_>, grant: &Grant) -> Result<Lent> {
        Ok(Lent {
            broker: self.broker.clone(),
            grant: grant.clone(),
        })
    }
}

/// The state and the present invocation of the store that calls. Its functions are the interface's and its twin's.
pub(super) struct Call {
    context: Arc<crate::store::ServiceContext>,
    invocation: Arc<crate::invocation::Invocation>,
    handover: Handover,
}

impl Call {
    fn of<T: 'static>(accessor: &Accessor<T, HasSelf<StoreState>>) -> Self {
        accessor.with(|mut access| Self::in_store(access.get()))
    }

    pub(super) fn in_store(state: &StoreState) -> Self {
        Self {
            context: state.service.clone(),
            invocation: state.invocation.clone(),
            handover: state.handover.clone(),
        }
    }

    /// What the grant lends, while it is in force for `queue`.
    fn lent(&self, queue: &str) -> Result<&Lent, types::Error> {
        self.context.check("queue", queue).map_err(denied)?;
        let lent = self.context.lent.queue.as_ref();
        Ok(lent.expect("a grant in force is lent"))
    }

    /// The job that the guest asks for, with what the host knows of it.
    fn new_job(&self, name: String, data: String, options: client::Options) -> NewJob {
        NewJob {
            id: options
                .job_id
                .unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
            name,
            data,
            attempts: options.attempts,
            backoff: options.backoff.map(|backoff| match backoff {
                types::Backoff::Fixed(delay_ms) => Backoff::Fixed { delay_ms },
                types::Backoff::Exponential(delay_ms) => Backoff::Exponential { delay_ms },
            }),
            delay_ms: options.delay_ms,
            priority: options.priority,
            timeout_ms: options.timeout_ms,
            subject: None,
            origin: Some(self.context.name.clone()),
            trace: None,
        }
    }
}

fn denied(text: String) -> types::Error {
    types::Error::AccessDenied(text)
}

/// What a guest is told: its own faults with their text, the host's without.
fn told(error: Error) -> types::Error {
    match error {
        Error::NotFound => types::Error::NotFound,
        Error::Invalid(text) => types::Error::Invalid(text),
        Error::LimitExceeded(text) => types::Error::LimitExceeded(text),
        Error::Database(_) | Error::Unavailable(_) => {
            tracing::error!(error = chain(&error.into()), "the broker failed");
            types::Error::Unavailable("queues cannot be reached now".to_owned())
        }
    }
}

fn shown(job: Job) -> types::Job {
    types::Job {
        id: job.id,
        queue: job.queue,
        name: job.name,
        data: job.data,
        attempt: job.attempt,
        attempts: job.attempts,
        priority: job.priority,
        state: shown_state(job.state),
        created_at: job.created_at,
        processed_at: job.processed_at,
        finished_at: job.finished_at,
        failed_reason: job.failed_reason,
        return_value: job.return_value,
    }
}

fn shown_state(state: State) -> types::State {
    match state {
        State::Waiting => types::State::Waiting,
        State::Delayed => types::State::Delayed,
        State::Prioritized => types::State::Prioritized,
        State::Active => types::State::Active,
        State::Completed => types::State::Completed,
        State::Failed => types::State::Failed,
        State::Paused => types::State::Paused,
    }
}

fn meant_state(state: types::State) -> State {
    match state {
        types::State::Waiting => State::Waiting,
        types::State::Delayed => State::Delayed,
        types::State::Prioritized => State::Prioritized,
        types::State::Active => State::Active,
        types::State::Completed => State::Completed,
        types::State::Failed => State::Failed,
        types::State::Paused => State::Paused,
    }
}

impl types::Host for StoreState {}
impl client::Host for StoreState {}

type Answer<T> = Result<Result<T, types::Error>>;

impl Call {
    /// Looking into a queue needs either grant for it.
    async fn look<T>(
        &self,
        queue: &str,
        read: impl AsyncFnOnce(&Broker) -> backend::Result<T>,
    ) -> Result<T, types::Error> {
        let lent = self.lent(queue)?;
        lent.grant.allow_produce(queue).map_err(denied)?;
        read(&lent.broker).await.map_err(told)
    }

    async fn manage(
        &self,
        queue: &str,
        change: impl AsyncFnOnce(&Broker) -> backend::Result<()>,
    ) -> Result<(), types::Error> {
        let lent = self.lent(queue)?;
        lent.grant.allow_manage(queue).map_err(denied)?;
        change(&lent.broker).await.map_err(told)
    }

    async fn add_all(&self, queue: &str, mut jobs: Vec<NewJob>) -> Result<Vec<String>, types::Error> {
        // A name that is not allowed is invalid and never granted: deliveries of events are not for guests to add.
        check_queue_name(queue).map_err(told)?;
        let lent = self.lent(queue)?;
        lent.grant.allow_produce(queue).map_err(denied)?;
        let sizes = || jobs.iter().map(|job| job.data.len());
        let _handed = self
            .handover
            .take(sizes().sum())
            .map_err(types::Error::LimitExceeded)?;
        self.context
            .allowance
            .admit_messages(sizes())
            .map_err(types::Error::LimitExceeded)?;
        let trace = self.invocation.trace.child();
        for job in &mut jobs {
            job.trace = Some(trace);
        }
        let id = match &jobs[..] {
            [one] => Some(one.id.as_str()),
            _ => None,
        };
        let sending = sending(&self.context, trace, queue, id);
        let ids = lent.broker.add_many(queue, jobs).await.map_err(told)?;
        sending.end();
        Ok(ids)
    }

    pub(super) async fn add(
        &self,
        queue: String,
        name: String,
        data: String,
        options: types::Options,
    ) -> Result<String, types::Error> {
        let job = self.new_job(name, data, options);
        let mut ids = self.add_all(&queue, vec![job]).await?;
        Ok(ids.pop().expect("one job was added, one id is answered"))
    }

    pub(super) async fn add_many(
        &self,
        queue: String,
        jobs: Vec<types::NewJob>,
    ) -> Result<Vec<String>, types::Error> {
        let jobs = jobs.into_iter();
        let jobs = jobs.map(|job| self.new_job(job.name, job.data, job.options));
        self.add_all(&queue, jobs.collect()).await
    }

    pub(super) async fn get(&self, queue: String, id: String) -> Result<types::Job, types::Error> {
        let get = async |broker: &Broker| broker.get(&queue, &id).await;
        self.look(&queue, get).await.map(shown)
    }

    pub(super) async fn list(
        &self,
        queue: String,
        state: types::State,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<types::Job>, types::Error> {
        let (state, offset, limit) = (meant_state(state), offset.into(), limit.into());
        let list = async |broker: &Broker| broker.list(&queue, state, offset, limit).await;
        let jobs = self.look(&queue, list).await?;
        Ok(jobs.into_iter().map(shown).collect())
    }

    pub(super) async fn counts(&self, queue: String) -> Result<types::JobCounts, types::Error> {
        let count = async |broker: &Broker| broker.counts(&queue).await;
        let counts = self.look(&queue, count).await?;
        Ok(types::JobCounts {
            waiting: counts.waiting,
            delayed: counts.delayed,
            prioritized: counts.prioritized,
            active: counts.active,
            completed: counts.completed,
            failed: counts.failed,
            paused: counts.paused,
        })
    }

    pub(super) async fn remove(&self, queue: String, id: String) -> Result<(), types::Error> {
        let remove = async |broker: &Broker| broker.remove(&queue, &id).await;
        self.manage(&queue, remove).await
    }

    pub(super) async fn retry(&self, queue: String, id: String) -> Result<(), types::Error> {
        let retry = async |broker: &Broker| broker.retry(&queue, &id).await;
        self.manage(&queue, retry).await
    }

    pub(super) async fn pause(&self, queue: String, paused: bool) -> Result<(), types::Error> {
        let pause = async |broker: &Broker| broker.pause(&queue, paused).await;
        self.manage(&queue, pause).await
    }
}

impl<T: Send + 'static> client::HostWithStore<T> for HasSelf<StoreState> {
    async fn add(
        accessor: &Accessor<T, Self>,
        queue: String,
        name: String,
        data: String,
        options: client::Options,
    ) -> Answer<String> {
        Ok(Call::of(accessor).add(queue, name, data, options).await)
    }

    async fn add_many(
        accessor: &Accessor<T, Self>,
        queue: String,
        jobs: Vec<client::NewJob>,
    ) -> Answer<Vec<String>> {
        Ok(Call::of(accessor).add_many(queue, jobs).await)
    }

    async fn get(accessor: &Accessor<T, Self>, queue: String, id: String) -> Answer<types::Job> {
        Ok(Call::of(accessor).get(queue, id).await)
    }

    async fn list(
        accessor: &Accessor<T, Self>,
        queue: String,
        state: client::State,
        offset: u32,
        limit: u32,
    ) -> Answer<Vec<types::Job>> {
        Ok(Call::of(accessor).list(queue, state, offset, limit).await)
    }

    async fn counts(accessor: &Accessor<T, Self>, queue: String) -> Answer<types::JobCounts> {
        Ok(Call::of(accessor).counts(queue).await)
    }

    async fn remove(accessor: &Accessor<T, Self>, queue: String, id: String) -> Answer<()> {
        Ok(Call::of(accessor).remove(queue, id).await)
    }

    async fn retry(accessor: &Accessor<T, Self>, queue: String, id: String) -> Answer<()> {
        Ok(Call::of(accessor).retry(queue, id).await)
    }

    async fn pause(accessor: &Accessor<T, Self>, queue: String, paused: bool) -> Answer<()> {
        Ok(Call::of(accessor).pause(queue, paused).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_say_what_to_add_where() {
        let grant = Grant {
            produce: vec!["mail-*".to_owned()],
            manage: vec!["ops".to_owned()],
            ..Grant::default()
        };
        assert_eq!(grant.allow_produce("mail-out"), Ok(()));
        assert_eq!(grant.allow_produce("ops"), Ok(()));
        assert_eq!(grant.allow_manage("ops"), Ok(()));
        let text = grant.allow_manage("mail-out").unwrap_err();
        assert_eq!(
            text,
            "queue `mail-out` is not granted: add \"mail-out\" to `manage` under [grants.queue] in component.toml"
        );
        assert!(
            grant
                .allow_produce("other")
                .unwrap_err()
                .contains("`produce`")
        );
    }
}
