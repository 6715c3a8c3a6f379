//! The production backend: jobs in Redis in BullMQ's layout, so that Node's `bullmq`, bull-board and we can work on the same
//! queues, and events in a Redis Stream with a consumer group for each subscribing service.
//!
//! A delivery of an event is a job of the queue `events:<service>`, made from the stream in the service's group and acknowledged
//! there by the script that published it (`lua/events.lua`). So the dispatcher, retries, backoff, leases, dead letters and
//! listings are those of jobs, whichever the backend; and there is no instant at which an entry is read and not yet a
//! job. Entries that others wrote to the stream, or read and never acknowledged, are taken in by [`Backend::rescue`].
//!
//! **Invariant:** every method is one script, or several of which each may be repeated; hosts that share the server share the
//! queues.
//! **Invariant:** no script reads a clock. Only locks end by the server's, because they must end when no host is left.
//!
//! One server or a replicated one: the keys of a delivery to several queues are not in one slot of a cluster.

mod events;
mod job;
mod listen;
mod recur;
mod scheduler;
mod script;
mod settle;

use super::{
    backend::{
        Backend, Delivered, Error, Message, NextDue, QUEUES_MAX, Recurrence, Result, Subscription,
        Take, Taken, full_queue, too_many_queues,
    },
    job::{Claim, Counts, Job, NewJob, Outcome, Settings, State},
    limits::Config,
};
use crate::{events::Event, name::ServiceName, redis::Redis};
use events::subscriptions_of;
use futures::future::{BoxFuture, FutureExt as _};
use job::{Fields, backoff_fields, describe, kept_id, prefix, queue_of, settings};
use listen::Listener;
use redis::RedisError;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt, sync::Arc};
use tokio::sync::Mutex;

/// Events removed for their age by one script; there is more when as many were removed.
const TRIMMED_MAX: u64 = 100;

/// Jobs and events in Redis. Clones share the connection.
#[derive(Clone)]
pub struct RedisBackend {
    redis: Arc<Redis>,
    config: Arc<Config>,
    listener: Arc<Mutex<Listener>>,
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

impl RedisBackend {
    /// Jobs and events on `redis`. Asks nothing of it yet.
    pub fn new(redis: Arc<Redis>, config: &Config) -> Self {
        Self {
            redis,
            config: Arc::new(config.clone()),
            listener: Arc::default(),
        }
    }

    async fn queues(&self) -> Result<Vec<String>> {
        let names: Vec<String> = self
            .redis
            .query(redis::cmd("SMEMBERS").arg("exprsn:queues"))
            .await?;
        let mut names: Vec<String> = names.iter().map(|name| queue_of(name)).collect();
        names.sort();
        Ok(names)
    }
}

fn state(name: &str) -> Option<State> {
    let states = [
        State::Waiting,
        State::Delayed,
        State::Prioritized,
        State::Active,
        State::Completed,
        State::Failed,
        State::Paused,
    ];
    states.into_iter().find(|state| state.as_str() == name)
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisBackend").field(&self.redis).finish()
    }
}

impl Backend for RedisBackend {
    fn add_many(
        &self,
        queue: &str,
        jobs: Vec<NewJob>,
        pending_max: u64,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<()>> {
        let queue = queue.to_owned();
        async move {
            let mut call = script::ADD_MANY.key(prefix(&queue));
            call.arg(now_ms).arg(pending_max).arg(QUEUES_MAX);
            for job in &jobs {
                call.arg(describe(job).to_string()).arg(&job.data);
            }
            match self.redis.invoke::<(i8, u64)>(&call).await? {
                (1, _) => Ok(()),
                (-1, _) => Err(too_many_queues()),
                (_, pending) => Err(full_queue(&queue, pending, pending_max)),
            }
        }
        .boxed()
    }

    fn deliver(
        &self,
        batch: Vec<Message>,
        pending_max: u64,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<Delivered>> {
        async move { self.deliver_now(&batch, pending_max, now_ms).await }.boxed()
    }

    fn declare(&self, queue: &str, settings: Settings) -> BoxFuture<'_, Result<()>> {
        let mut call = script::DECLARE.key(prefix(queue));
        let (kind, backoff_ms) = backoff_fields(settings.backoff);
        call.arg("attempts").arg(settings.attempts.max(1));
        call.arg("backoff").arg(kind);
        call.arg("backoff_ms").arg(backoff_ms);
        call.arg("timeout_ms").arg(settings.timeout_ms.max(1));
        call.arg("keep_completed").arg(settings.keep_completed);
        call.arg("keep_failed").arg(settings.keep_failed);
        async move { Ok(self.redis.invoke(&call).await?) }.boxed()
    }

    fn settle(
        &self,
        queue: &str,
        outcomes: Arc<Vec<(Claim, Outcome)>>,
        take: Option<Take>,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<Taken>> {
        let queue = queue.to_owned();
        async move { self.settle_now(&queue, &outcomes, take, now_ms).await }.boxed()
    }

    fn extend(
        &self,
        claims: Vec<Claim>,
        lease_ms: u64,
        _now_ms: i64,
    ) -> BoxFuture<'_, Result<Vec<Claim>>> {
        self.extend_now(claims, lease_ms).boxed()
    }

    fn rescue(&self, stalled_max: u32, now_ms: i64) -> BoxFuture<'_, Result<Vec<String>>> {
        self.rescue_now(stalled_max, now_ms).boxed()
    }

    fn get(&self, queue: &str, id: &str) -> BoxFuture<'_, Result<Job>> {
        let (queue, id) = (queue.to_owned(), id.to_owned());
        async move {
            let mut call = script::GET.key(prefix(&queue));
            let (name, fields, defaults): (String, Fields, Fields) =
                self.redis.invoke(call.arg(kept_id(&id))).await?;
            let state = state(&name).ok_or(Error::NotFound)?;
            Ok(job::job(
                &queue,
                kept_id(&id),
                &fields,
                state,
                &settings(&defaults),
                0,
            ))
        }
        .boxed()
    }

    fn list(
        &self,
        queue: &str,
        state: State,
        offset: u64,
        limit: u64,
    ) -> BoxFuture<'_, Result<Vec<Job>>> {
        let queue = queue.to_owned();
        async move {
            let mut call = script::LIST.key(prefix(&queue));
            call.arg(state.as_str()).arg(offset).arg(limit);
            let (jobs, paused, defaults): (Vec<(String, Fields)>, u8, Fields) =
                self.redis.invoke(&call).await?;
            let state = match state {
                State::Waiting if paused == 1 => State::Paused,
                state => state,
            };
            let defaults = settings(&defaults);
            Ok(jobs
                .into_iter()
                .map(|(id, fields)| job::job(&queue, id, &fields, state, &defaults, 0))
                .collect())
        }
        .boxed()
    }

    fn counts(&self, queue: &str) -> BoxFuture<'_, Result<Counts>> {
        let call = script::COUNTS.key(prefix(queue));
        async move {
            let [
                waiting,
                delayed,
                prioritized,
                active,
                completed,
                failed,
                paused,
            ]: [u64; 7] = self.redis.invoke(&call).await?;
            Ok(Counts {
                waiting,
                delayed,
                prioritized,
                active,
                completed,
                failed,
                paused: paused == 1,
            })
        }
        .boxed()
    }

    fn overview(&self) -> BoxFuture<'_, Result<Vec<(String, Counts)>>> {
        async move {
            let mut all = Vec::new();
            for name in self.queues().await? {
                let counts = self.counts(&name).await?;
                all.push((name, counts));
            }
            Ok(all)
        }
        .boxed()
    }

    fn remove(&self, queue: &str, id: &str) -> BoxFuture<'_, Result<()>> {
        let (queue, id) = (queue.to_owned(), id.to_owned());
        async move {
            let mut call = script::REMOVE.key(prefix(&queue));
            let answer: String = self.redis.invoke(call.arg(kept_id(&id))).await?;
            match answer.as_str() {
                "removed" => Ok(()),
                "active" => Err(Error::Invalid(format!(
                    "job `{id}` is active; it can be removed when its attempt has ended"
                ))),
                _ => Err(Error::NotFound),
            }
        }
        .boxed()
    }

    fn retry(&self, queue: &str, id: &str) -> BoxFuture<'_, Result<()>> {
        let (queue, id) = (queue.to_owned(), id.to_owned());
        async move {
            let mut call = script::RETRY.key(prefix(&queue));
            let answer: String = self.redis.invoke(call.arg(kept_id(&id))).await?;
            match answer.as_str() {
                "retried" => Ok(()),
                "other" => Err(Error::Invalid(format!(
                    "job `{id}` has not failed; only failed jobs can be retried"
                ))),
                _ => Err(Error::NotFound),
            }
        }
        .boxed()
    }

    fn pause(&self, queue: &str, paused: bool) -> BoxFuture<'_, Result<()>> {
        let mut call = script::PAUSE.key(prefix(queue));
        call.arg(u8::from(paused));
        async move { Ok(self.redis.invoke(&call).await?) }.boxed()
    }

    fn schedule(
        &self,
        queues: Vec<String>,
        wanted: Vec<Recurrence>,
        next_due: NextDue,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<()>> {
        async move { self.schedule_now(&queues, &wanted, next_due, now_ms).await }.boxed()
    }

    fn recur(
        &self,
        queues: Vec<String>,
        next_due: NextDue,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<(Vec<String>, Option<i64>)>> {
        async move {
            let (mut concerned, mut next) = (Vec::new(), None::<i64>);
            for queue in queues {
                let (added, due) = self.recur_now(&queue, next_due, now_ms).await?;
                if added {
                    concerned.push(queue);
                }
                next = [next, due].into_iter().flatten().min();
            }
            Ok((concerned, next))
        }
        .boxed()
    }

    fn subscribe(
        &self,
        service: &ServiceName,
        wanted: Vec<Subscription>,
    ) -> BoxFuture<'_, Result<()>> {
        let entries: Vec<Value> = wanted
            .iter()
            .map(|wanted| json!({ "topic": wanted.topic, "attempts": wanted.attempts.max(1) }))
            .collect();
        let mut call = script::SUBSCRIBE.key("exprsn:events");
        call.arg(service.as_str());
        call.arg(Value::from(entries).to_string()).arg(wanted.len());
        async move { Ok(self.redis.invoke(&call).await?) }.boxed()
    }

    fn subscriptions(&self) -> BoxFuture<'_, Result<Vec<Subscription>>> {
        async move {
            let all: BTreeMap<String, String> = self
                .redis
                .query(redis::cmd("HGETALL").arg("exprsn:subscriptions"))
                .await?;
            Ok(all
                .iter()
                .flat_map(|(name, wanted)| subscriptions_of(name, wanted))
                .collect())
        }
        .boxed()
    }

    fn events(&self, pattern: &str, limit: u64) -> BoxFuture<'_, Result<Vec<Event>>> {
        let pattern = pattern.to_owned();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        async move { self.events_now(&pattern, limit).await }.boxed()
    }

    fn tidy(&self, now_ms: i64) -> BoxFuture<'_, Result<bool>> {
        let mut call = script::TRIM.key("exprsn:events");
        call.arg(self.config.events_max);
        call.arg(now_ms.saturating_sub_unsigned(self.config.events_ms_max));
        async move { Ok(self.redis.invoke::<u64>(&call).await? >= TRIMMED_MAX) }.boxed()
    }

    fn wake(&self, queues: Vec<String>) -> BoxFuture<'_, Result<Vec<String>>> {
        async move {
            if queues.is_empty() {
                return std::future::pending().await;
            }
            let mut listener = self.listener.lock().await;
            Ok(listener.wait(&self.redis, &queues).await?)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.redis.close().boxed()
    }
}

#[cfg(test)]
mod tests;
