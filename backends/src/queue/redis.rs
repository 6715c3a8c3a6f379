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

mod job;
mod listen;
mod scheduler;
mod script;

use super::{
    backend::{
        Backend, Delivered, Error, Message, NextDue, QUEUES_MAX, Recurrence, Result, Subscription,
        Take, Taken, full_queue, too_many_queues,
    },
    job::{
        Claim, Claimed, Counts, Job, NewJob, Outcome, REASON_BYTES_MAX, Settings, State, truncate,
    },
    limits::Config,
};
use crate::{
    events::Event,
    name::{ServiceName, matches},
    redis::Redis,
    trace::TraceContext,
};
use futures::future::{BoxFuture, FutureExt as _};
use job::{Fields, backoff_fields, describe, prefix, queue_of, settings, token};
use listen::Listener;
use redis::{RedisError, streams::StreamRangeReply};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt, sync::Arc};
use tokio::sync::Mutex;

/// Data handed out by one request for jobs, in bytes, unless a single job has more.
const TAKE_BYTES_MAX: usize = 16 << 20;
/// Events removed for their age by one script; there is more when as many were removed.
const TRIMMED_MAX: u64 = 100;
/// Events read at a time by a listing.
const PAGE: usize = 200;
/// Latest instant that a sorted set keeps exactly.
const INSTANT_MAX: i64 = 1 << 53;

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

    async fn settle_now(
        &self,
        queue: &str,
        outcomes: &[(Claim, Outcome)],
        take: Option<Take>,
        now_ms: i64,
    ) -> Result<Taken> {
        let mut call = script::SETTLE.key(prefix(queue));
        call.arg(now_ms);
        match take {
            Some(take) => call
                .arg(take.count)
                .arg(token(take.lease))
                .arg(take.lease_ms.max(1)),
            None => call.arg(-1).arg("").arg(0),
        };
        call.arg(TAKE_BYTES_MAX);
        for (id, lease, what, text) in in_order(outcomes) {
            call.arg(what).arg(id).arg(token(lease)).arg(text);
        }
        let (jobs, more, due, defaults): (Vec<(String, Fields)>, u8, i64, Fields) =
            self.redis.invoke(&call).await?;
        for (id, fields) in &jobs {
            self.go_on(queue, id, fields, now_ms).await?;
        }
        let (defaults, lease) = (settings(&defaults), take.map_or(0, |take| take.lease));
        Ok(Taken {
            jobs: jobs
                .into_iter()
                .map(|(id, fields)| job::job(queue, id, &fields, State::Active, &defaults, lease))
                .collect(),
            more: more == 1,
            next_due_ms: (due >= 0).then_some(due),
        })
    }

    /// Adds what follows a job of a scheduler of BullMQ's.
    async fn go_on(&self, queue: &str, id: &str, fields: &Fields, now_ms: i64) -> Result<()> {
        if let Some(next) = scheduler::next(fields, now_ms) {
            let mut call = script::CONTINUE.key(prefix(queue));
            call.arg(now_ms).arg(next.scheduler).arg(id);
            self.redis
                .invoke::<u8>(call.arg(next.due_ms).arg(next.opts))
                .await?;
        }
        Ok(())
    }

    async fn extend_now(&self, claims: Vec<Claim>, lease_ms: u64) -> Result<Vec<Claim>> {
        let mut by_queue: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        let mut void = Vec::new();
        for claim in claims {
            match &claim.job {
                Claimed::Named { queue, .. } => {
                    by_queue.entry(queue.to_string()).or_default().push(claim);
                }
                Claimed::Row(_) => void.push(claim),
            }
        }
        for (queue, claims) in by_queue {
            let mut call = script::EXTEND.key(prefix(&queue));
            call.arg(lease_ms.max(1));
            for claim in &claims {
                if let Claimed::Named { id, .. } = &claim.job {
                    call.arg(&**id).arg(token(claim.lease));
                }
            }
            let lost: Vec<usize> = self.redis.invoke(&call).await?;
            void.extend(lost.into_iter().filter_map(|at| claims.get(at).cloned()));
        }
        Ok(void)
    }

    async fn rescue_now(&self, stalled_max: u32, now_ms: i64) -> Result<Vec<String>> {
        let mut concerned = Vec::new();
        for queue in self.queues().await? {
            let mut call = script::RESCUE.key(prefix(&queue));
            let rescued: u64 = self.redis.invoke(call.arg(now_ms).arg(stalled_max)).await?;
            if rescued > 0 {
                concerned.push(queue);
            }
        }
        let mut call = script::PULL.key("exprsn:events");
        let pulled: Vec<String> = self.redis.invoke(call.arg(self.config.pending_max)).await?;
        concerned.extend(pulled);
        concerned.sort();
        concerned.dedup();
        Ok(concerned)
    }

    async fn deliver_now(
        &self,
        batch: &[Message],
        pending_max: u64,
        now_ms: i64,
    ) -> Result<Delivered> {
        let mut call = script::DELIVER.key("exprsn:events");
        call.arg(now_ms).arg(pending_max);
        call.arg(self.config.seen_ms_min).arg(self.config.seen_max);
        for message in batch {
            match message {
                Message::Job { queue, job } => {
                    let mut head = describe(job);
                    head["queue"] = json!(queue);
                    call.arg("job").arg(head.to_string()).arg(&job.data);
                }
                Message::Event(event) => {
                    let head = event_head(event).to_string();
                    call.arg("event").arg(head).arg(&event.data);
                }
            }
        }
        let (queues, services, missed): (Vec<String>, Vec<String>, Vec<u64>) =
            self.redis.invoke(&call).await?;
        let missed = services.iter().zip(missed).filter_map(|(name, missed)| {
            ServiceName::parse(name)
                .ok()
                .map(|service| (service, missed))
        });
        Ok(Delivered {
            queues,
            missed: missed.collect(),
        })
    }

    async fn recur_now(
        &self,
        queue: &str,
        next_due: NextDue,
        now_ms: i64,
    ) -> Result<(bool, Option<i64>)> {
        let call = script::RECURRENCES.key(prefix(queue));
        let found: Vec<(String, String, String, String, i64)> = self.redis.invoke(&call).await?;
        let (mut added, mut next) = (false, None::<i64>);
        for (id, name, cron, data, due) in found {
            let mut following = due;
            if due <= now_ms {
                following = next_due(&cron, now_ms).map_or(INSTANT_MAX, |at| at.min(INSTANT_MAX));
                let job = NewJob::new(format!("repeat:{id}:{due}"), name, "");
                let mut call = script::RECUR.key(prefix(queue));
                call.arg(now_ms).arg(id).arg(due).arg(following);
                call.arg(describe(&job).to_string()).arg(data);
                added |= self.redis.invoke::<u8>(&call).await? == 1;
            }
            next = Some(next.map_or(following, |next| next.min(following)));
        }
        Ok((added, next))
    }

    async fn events_now(&self, pattern: &str, limit: usize) -> Result<Vec<Event>> {
        let mut found = Vec::new();
        let mut end = "+".to_owned();
        while found.len() < limit {
            let mut command = redis::cmd("XREVRANGE");
            command.arg("exprsn:events").arg(&end).arg("-");
            command.arg("COUNT").arg(PAGE);
            let page: StreamRangeReply = self.redis.query(&command).await?;
            let Some(last) = page.ids.last() else {
                break;
            };
            end = format!("({}", last.id);
            let events = page.ids.iter().filter_map(event);
            found.extend(events.filter(|event| matches(pattern, &event.topic)));
        }
        found.truncate(limit);
        Ok(found)
    }
}

/// Outcomes as the script wants them. Released jobs go to the front of the line, so the last goes first.
fn in_order(
    outcomes: &[(Claim, Outcome)],
) -> impl Iterator<Item = (&str, i64, &'static str, String)> {
    let is_released = |outcome: &Outcome| matches!(outcome, Outcome::Released);
    let ended = outcomes
        .iter()
        .filter(move |(_, outcome)| !is_released(outcome));
    let released = outcomes
        .iter()
        .rev()
        .filter(move |(_, outcome)| is_released(outcome));
    ended.chain(released).filter_map(|(claim, outcome)| {
        let Claimed::Named { id, .. } = &claim.job else {
            return None;
        };
        let (what, text) = match outcome {
            Outcome::Completed(value) => ("completed", value.clone()),
            Outcome::Failed(failure) if failure.retry => ("failed", Some(failure.reason.clone())),
            Outcome::Failed(failure) => ("fatal", Some(failure.reason.clone())),
            Outcome::Released => ("released", None),
        };
        let text = match (what, text) {
            ("completed", Some(value)) => format!("={value}"),
            (_, Some(reason)) => format!("={}", truncate(reason, REASON_BYTES_MAX)),
            (_, None) => String::new(),
        };
        Some((&**id, claim.lease, what, text))
    })
}

fn event_head(event: &Event) -> Value {
    let mut head = json!({
        "id": event.id,
        "source": event.source.as_str(),
        "topic": event.topic,
        // As text, because Lua would round it.
        "time": event.time.to_string(),
    });
    if let Some(subject) = &event.subject {
        head["subject"] = json!(subject);
    }
    if let Some(trace) = event.trace {
        head["trace"] = json!(trace.to_header());
    }
    head
}

/// An event from its entry; none where somebody else wrote something else there.
fn event(entry: &redis::streams::StreamId) -> Option<Event> {
    let text = |name: &str| entry.get::<String>(name);
    Some(Event {
        id: text("id")?,
        source: ServiceName::parse(&text("source")?).ok()?,
        topic: text("topic")?,
        subject: text("subject"),
        time: text("time")?.parse().ok()?,
        data: text("data")?,
        trace: text("trace").and_then(|header| TraceContext::parse(&header)),
    })
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

/// A recurrence's id among the schedulers of its queue. With it, the id of an occurrence is that of the other backends.
fn scheduler_id(recurrence: &Recurrence) -> String {
    format!("{}:{}", recurrence.queue, recurrence.name)
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
                self.redis.invoke(call.arg(&id)).await?;
            let state = state(&name).ok_or(Error::NotFound)?;
            Ok(job::job(
                &queue,
                id,
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
            let answer: String = self.redis.invoke(call.arg(&id)).await?;
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
            let answer: String = self.redis.invoke(call.arg(&id)).await?;
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
        async move {
            for queue in queues {
                let mut call = script::SCHEDULE.key(prefix(&queue));
                for recurrence in wanted.iter().filter(|wanted| wanted.queue == queue) {
                    let due = next_due(&recurrence.cron, now_ms).unwrap_or(INSTANT_MAX);
                    call.arg(scheduler_id(recurrence)).arg(&recurrence.name);
                    call.arg(&recurrence.cron).arg(&recurrence.data);
                    call.arg(due.min(INSTANT_MAX));
                }
                self.redis.invoke::<()>(&call).await?;
            }
            Ok(())
        }
        .boxed()
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

/// What a service wants, from its entry; nothing where the entry is not ours.
fn subscriptions_of(service: &str, wanted: &str) -> Vec<Subscription> {
    let Ok(service) = ServiceName::parse(service) else {
        return Vec::new();
    };
    let wanted: Vec<Value> = serde_json::from_str(wanted).unwrap_or_default();
    let mut wanted: Vec<Subscription> = wanted
        .iter()
        .filter_map(|entry| {
            Some(Subscription {
                service: service.clone(),
                topic: entry["topic"].as_str()?.to_owned(),
                attempts: u32::try_from(entry["attempts"].as_u64()?).ok()?,
            })
        })
        .collect();
    wanted.sort_by(|a, b| a.topic.cmp(&b.topic));
    wanted
}

#[cfg(test)]
mod tests;
