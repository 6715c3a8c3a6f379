//! Job queues: adding, managing, and the functions that do the jobs.

use std::future::Future;

use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exprsn::queue::{client, types};
use crate::problem::Problem;

pub use types::{Backoff, Error, Job as JobRecord, JobCounts, State};

/// How a job is done. `JobOptions::default()` leaves it to the queue.
#[derive(Clone, Debug, Default)]
pub struct JobOptions {
    /// A job whose id the queue already holds is not added again.
    pub id: Option<String>,
    /// Tries before it counts as failed.
    pub attempts: Option<u32>,
    /// The wait between tries.
    pub backoff: Option<Backoff>,
    /// Milliseconds before it may start.
    pub delay_ms: u64,
    /// 0 is none; 1 is the most urgent.
    pub priority: u32,
    /// Milliseconds that one attempt may take.
    pub timeout_ms: Option<u64>,
}

impl JobOptions {
    /// With an id that makes adding idempotent.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// With a number of tries.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// With the same wait between tries, in milliseconds.
    pub fn fixed(mut self, ms: u64) -> Self {
        self.backoff = Some(Backoff::Fixed(ms));
        self
    }

    /// With a wait that doubles after each try, from a number of milliseconds.
    pub fn exponential(mut self, ms: u64) -> Self {
        self.backoff = Some(Backoff::Exponential(ms));
        self
    }

    /// With a delay in milliseconds.
    pub fn delay_ms(mut self, ms: u64) -> Self {
        self.delay_ms = ms;
        self
    }

    /// With a priority; 1 is the most urgent.
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    /// With a limit to one attempt, in milliseconds.
    pub fn timeout_ms(mut self, ms: u64) -> Self {
        self.timeout_ms = Some(ms);
        self
    }
}

impl From<JobOptions> for types::Options {
    fn from(options: JobOptions) -> Self {
        Self {
            job_id: options.id,
            attempts: options.attempts,
            backoff: options.backoff,
            delay_ms: options.delay_ms,
            priority: options.priority,
            timeout_ms: options.timeout_ms,
        }
    }
}

/// Adds a job and answers its id; durable when this returns. With data of the same transaction use [`Tx::add_job`](crate::sql::Tx::add_job).
pub async fn add<T: Serialize + ?Sized>(
    queue: &str,
    name: &str,
    data: &T,
    options: JobOptions,
) -> Result<String, Error> {
    client::add(
        queue.to_owned(),
        name.to_owned(),
        to_json(data)?,
        options.into(),
    )
    .await
}

/// Adds jobs `(name, data, options)`: all or none.
pub async fn add_many<T: Serialize>(
    queue: &str,
    jobs: impl IntoIterator<Item = (String, T, JobOptions)>,
) -> Result<Vec<String>, Error> {
    let jobs: Result<Vec<_>, Error> = jobs
        .into_iter()
        .map(|(name, data, options)| {
            Ok(types::NewJob {
                name,
                data: to_json(&data)?,
                options: options.into(),
            })
        })
        .collect();
    client::add_many(queue.to_owned(), jobs?).await
}

/// A job by its id.
pub async fn get(queue: &str, id: &str) -> Result<JobRecord, Error> {
    client::get(queue.to_owned(), id.to_owned()).await
}

/// Jobs in a state, newest first.
pub async fn list(
    queue: &str,
    state: State,
    offset: u32,
    limit: u32,
) -> Result<Vec<JobRecord>, Error> {
    client::list(queue.to_owned(), state, offset, limit).await
}

/// How many jobs are in which state.
pub async fn counts(queue: &str) -> Result<JobCounts, Error> {
    client::counts(queue.to_owned()).await
}

/// Removes a job that is not active.
pub async fn remove(queue: &str, id: &str) -> Result<(), Error> {
    client::remove(queue.to_owned(), id.to_owned()).await
}

/// Puts a failed job back to wait.
pub async fn retry(queue: &str, id: &str) -> Result<(), Error> {
    client::retry(queue.to_owned(), id.to_owned()).await
}

/// Stops (or restarts) handing out jobs.
pub async fn pause(queue: &str, paused: bool) -> Result<(), Error> {
    client::pause(queue.to_owned(), paused).await
}

fn to_json<T: Serialize + ?Sized>(data: &T) -> Result<String, Error> {
    serde_json::to_string(data).map_err(|error| Error::Invalid(error.to_string()))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(_) | Error::LimitExceeded(_) => Problem::unavailable(1),
            Error::NotFound => {
                Problem::new(http::StatusCode::NOT_FOUND).detail("there is no such job")
            }
            Error::AccessDenied(what) | Error::Invalid(what) => {
                Problem::fault("a queue refused a call", what)
            }
        }
    }
}

/// A job at one of its attempts. Doing it twice must equal doing it once.
#[derive(Clone, Debug)]
pub struct Job<T> {
    /// Unique within its queue.
    pub id: String,
    /// The queue.
    pub queue: String,
    /// The kind of job within the queue.
    pub name: String,
    /// What it carries.
    pub data: T,
    /// This attempt; the first is 1.
    pub attempt: u32,
    /// Attempts allowed.
    pub attempts: u32,
    /// When it was added, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// The last attempt's error.
    pub failed_reason: Option<String>,
}

/// What a job's function answers: nothing or a value that is kept as the job's return value.
pub type JobResult<T = ()> = Result<T, JobError>;

/// Why a job could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    reason: String,
    retry: bool,
}

impl JobError {
    /// Try again, as long as there are attempts left.
    pub fn retry(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            retry: true,
        }
    }

    /// No attempt will ever succeed.
    pub fn fail(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            retry: false,
        }
    }

    pub(crate) fn into_parts(self) -> (String, bool) {
        (self.reason, self.retry)
    }
}

/// Errors are retried, as most faults pass; what never will is said with [`JobError::fail`].
impl<E: Into<Problem>> From<E> for JobError {
    fn from(error: E) -> Self {
        Self::retry(error.into().to_string())
    }
}

/// A job's function with its types erased.
type Work = Box<dyn Fn(types::Job) -> LocalBoxFuture<'static, Result<Option<String>, JobError>>>;

/// Which function does which jobs.
#[derive(Default)]
pub struct Jobs(Vec<(String, Option<String>, Work)>);

impl Jobs {
    /// No function yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does the jobs of a queue that no named function does.
    pub fn on<T, R, F, Fut>(self, queue: &str, work: F) -> Self
    where
        T: DeserializeOwned + 'static,
        R: Serialize + 'static,
        F: Fn(Job<T>) -> Fut + 'static,
        Fut: Future<Output = JobResult<R>> + 'static,
    {
        self.add(queue, None, work)
    }

    /// Does the jobs of a queue with a name.
    pub fn on_named<T, R, F, Fut>(self, queue: &str, name: &str, work: F) -> Self
    where
        T: DeserializeOwned + 'static,
        R: Serialize + 'static,
        F: Fn(Job<T>) -> Fut + 'static,
        Fut: Future<Output = JobResult<R>> + 'static,
    {
        self.add(queue, Some(name.to_owned()), work)
    }

    fn add<T, R, F, Fut>(mut self, queue: &str, name: Option<String>, work: F) -> Self
    where
        T: DeserializeOwned + 'static,
        R: Serialize + 'static,
        F: Fn(Job<T>) -> Fut + 'static,
        Fut: Future<Output = JobResult<R>> + 'static,
    {
        let erased =
            move |job: types::Job| -> LocalBoxFuture<'static, Result<Option<String>, JobError>> {
                match typed(job) {
                    Ok(job) => {
                        let done = work(job);
                        Box::pin(async move { returned(&done.await?) })
                    }
                    Err(error) => Box::pin(async { Err(error) }),
                }
            };
        self.0.push((queue.to_owned(), name, Box::new(erased)));
        self
    }

    /// Does a job; one that no function is for fails for good.
    pub async fn handle(&self, job: types::Job) -> Result<Option<String>, JobError> {
        let of_queue = || self.0.iter().filter(|(queue, ..)| *queue == job.queue);
        let found = of_queue()
            .find(|(_, name, _)| name.as_ref() == Some(&job.name))
            .or_else(|| of_queue().find(|(_, name, _)| name.is_none()));
        match found {
            Some((.., work)) => work(job).await,
            None => Err(JobError::fail(format!(
                "no function does jobs {} of queue {}",
                job.name, job.queue
            ))),
        }
    }
}

fn typed<T: DeserializeOwned>(job: types::Job) -> Result<Job<T>, JobError> {
    let data = serde_json::from_str(&job.data)
        .map_err(|error| JobError::fail(format!("unexpected data: {error}")))?;
    Ok(Job {
        id: job.id,
        queue: job.queue,
        name: job.name,
        data,
        attempt: job.attempt,
        attempts: job.attempts,
        created_at: job.created_at,
        failed_reason: job.failed_reason,
    })
}

fn returned<R: Serialize>(value: &R) -> Result<Option<String>, JobError> {
    let text = serde_json::to_string(value).map_err(|error| JobError::fail(error.to_string()))?;
    Ok((text != "null").then_some(text))
}

#[cfg(test)]
mod tests;
