//! A test guest that adds jobs, publishes events and uses the cache as it is told, and says plainly what became of it.
//!
//! What its worker and its subscriber do is in their data; how often they did it is counted in the cache.

use exprsn_sdk::prelude::*;
use exprsn_sdk::queue::{JobRecord, State};
use serde_json::Value as Any;

/// What a job or an event is to lead to.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
enum Task {
    Succeed,
    /// Fails until this attempt.
    SucceedAt {
        attempt: u32,
    },
    Fail,
    Fatal,
    Trap,
    Hang,
    /// Takes its time.
    Sleep {
        ms: u64,
    },
}

async fn perform(id: &str, attempt: u32, task: Task) -> Result<Any, JobError> {
    // The sum of all attempts, and a list of who came when.
    cache::increment(&format!("attempts:{id}"), 1, None).await?;
    let order = cache::increment("order", 1, None).await?;
    cache::set(&format!("order:{id}"), order.to_string(), None).await?;
    match task {
        Task::Succeed => Ok(json!({ "attempt": attempt })),
        Task::SucceedAt { attempt: at } if attempt >= at => Ok(json!({ "attempt": attempt })),
        Task::SucceedAt { .. } | Task::Fail => {
            Err(JobError::retry(format!("attempt {attempt} fails")))
        }
        Task::Fatal => Err(JobError::fail("never again")),
        Task::Trap => panic!("asked to trap"),
        Task::Hang => loop {
            sleep_ms(60_000).await;
        },
        Task::Sleep { ms } => {
            sleep_ms(ms).await;
            Ok(Any::Null)
        }
    }
}

async fn job(job: Job<Task>) -> JobResult<Any> {
    perform(&job.id, job.attempt, job.data).await
}

async fn event(event: Event<Task>) -> EventResult {
    cache::set(&format!("source:{}", event.id), event.source, None).await?;
    perform(&event.id, event.attempt, event.data).await?;
    Ok(())
}

fn shown(job: JobRecord) -> Any {
    json!({
        "id": job.id, "queue": job.queue, "name": job.name, "data": job.data, "attempt": job.attempt,
        "attempts": job.attempts, "priority": job.priority, "state": format!("{:?}", job.state),
        "createdAt": job.created_at, "processedAt": job.processed_at, "finishedAt": job.finished_at,
        "failedReason": job.failed_reason, "returnValue": job.return_value,
    })
}

fn state(name: &str) -> State {
    match name {
        "waiting" => State::Waiting,
        "delayed" => State::Delayed,
        "prioritized" => State::Prioritized,
        "active" => State::Active,
        "completed" => State::Completed,
        "failed" => State::Failed,
        _ => State::Paused,
    }
}

/// A job as JSON: what is absent is the queue's default.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewJob {
    data: Any,
    id: Option<String>,
    attempts: Option<u32>,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    priority: u32,
}

impl NewJob {
    fn parts(self) -> (String, Any, JobOptions) {
        let options = JobOptions {
            id: self.id,
            attempts: self.attempts,
            delay_ms: self.delay_ms,
            priority: self.priority,
            ..JobOptions::default()
        };
        ("work".to_owned(), self.data, options)
    }
}

#[derive(Deserialize)]
#[serde(tag = "call", rename_all = "camelCase")]
enum QueueCall {
    Add {
        jobs: Vec<NewJob>,
    },
    Get {
        id: String,
    },
    List {
        state: String,
        offset: u32,
        limit: u32,
    },
    Counts,
    Remove {
        id: String,
    },
    Retry {
        id: String,
    },
    Pause {
        paused: bool,
    },
}

#[derive(Deserialize)]
struct OnQueue {
    queue: String,
    #[serde(flatten)]
    call: QueueCall,
}

async fn on_queue(OnQueue { queue, call }: OnQueue) -> Result<Any, queue::Error> {
    match call {
        QueueCall::Add { jobs } => Ok(json!(
            queue::add_many(&queue, jobs.into_iter().map(NewJob::parts)).await?
        )),
        QueueCall::Get { id } => Ok(shown(queue::get(&queue, &id).await?)),
        QueueCall::List {
            state: name,
            offset,
            limit,
        } => {
            let jobs = queue::list(&queue, state(&name), offset, limit).await?;
            Ok(jobs.into_iter().map(shown).collect())
        }
        QueueCall::Counts => {
            let counts = queue::counts(&queue).await?;
            Ok(json!({
                "waiting": counts.waiting, "delayed": counts.delayed, "prioritized": counts.prioritized,
                "active": counts.active, "completed": counts.completed, "failed": counts.failed, "paused": counts.paused,
            }))
        }
        QueueCall::Remove { id } => queue::remove(&queue, &id).await.map(|()| Any::Null),
        QueueCall::Retry { id } => queue::retry(&queue, &id).await.map(|()| Any::Null),
        QueueCall::Pause { paused } => queue::pause(&queue, paused).await.map(|()| Any::Null),
    }
}

#[derive(Deserialize)]
struct NewEvent {
    topic: String,
    id: Option<String>,
    data: Any,
}

async fn publish(new: NewEvent) -> Result<Any, events::Error> {
    let mut event = Event::new(new.topic, &new.data).subject("the test");
    if let Some(id) = new.id {
        event = event.id(id);
    }
    Ok(json!(events::publish(event).await?))
}

#[derive(Deserialize)]
struct Message {
    channel: String,
    data: Any,
}

async fn broadcast(message: Message) -> Result<Any, events::Error> {
    events::live::broadcast(&message.channel, &message.data).await?;
    Ok(Any::Null)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OnCache {
    key: String,
    ttl_ms: Option<u64>,
    #[serde(flatten)]
    call: CacheCall,
}

#[derive(Deserialize)]
#[serde(
    tag = "call",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
enum CacheCall {
    Get,
    Set {
        value: String,
    },
    SetIfAbsent {
        value: String,
    },
    Delete,
    Increment {
        by: i64,
    },
    TakeTokens {
        capacity: u64,
        refill_per_second: f64,
        tokens: u64,
    },
}

async fn on_cache(OnCache { key, ttl_ms, call }: OnCache) -> Result<Any, cache::Error> {
    Ok(match call {
        CacheCall::Get => {
            let value = cache::get(&key).await?;
            json!(value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        }
        CacheCall::Set { value } => json!(cache::set(&key, value, ttl_ms).await?),
        CacheCall::SetIfAbsent { value } => json!(cache::set_if_absent(&key, value, ttl_ms).await?),
        CacheCall::Delete => json!(cache::delete(&key).await?),
        CacheCall::Increment { by } => json!(cache::increment(&key, by, ttl_ms).await?),
        CacheCall::TakeTokens {
            capacity,
            refill_per_second,
            tokens,
        } => {
            let bucket = cache::take_tokens(&key, capacity, refill_per_second, tokens).await?;
            json!({
                "allowed": bucket.allowed, "remaining": bucket.remaining, "retryAfterMs": bucket.retry_after_ms,
                "resetMs": bucket.reset_ms,
            })
        }
    })
}

/// Calls with the body read as what the call takes. Always 200: the tests are about the interface, not about problems.
async fn told<T: serde::de::DeserializeOwned, E: std::fmt::Debug>(
    body: Any,
    call: impl AsyncFnOnce(T) -> Result<Any, E>,
) -> Result<AnyJson> {
    let wish = serde_json::from_value(body)
        .map_err(|error| Problem::bad_request("body", error.to_string()))?;
    Ok(AnyJson(match call(wish).await {
        Ok(answer) => json!({ "ok": answer }),
        Err(error) => json!({ "error": format!("{error:?}") }),
    }))
}

async fn queue_route(AnyJson(body): AnyJson) -> Result<AnyJson> {
    told(body, on_queue).await
}

async fn publish_route(AnyJson(body): AnyJson) -> Result<AnyJson> {
    told(body, publish).await
}

async fn broadcast_route(AnyJson(body): AnyJson) -> Result<AnyJson> {
    told(body, broadcast).await
}

async fn cache_route(AnyJson(body): AnyJson) -> Result<AnyJson> {
    told(body, on_cache).await
}

async fn listen(Path(channel): Path<String>) -> Result<Sse> {
    let messages = events::live::listen(&channel).await?;
    Ok(Sse::new(messages.map(SseEvent::new)))
}

fn routes() -> Router {
    Router::new("Broker", env!("CARGO_PKG_VERSION"))
        .post("/queue", queue_route)
        .public()
        .post("/publish", publish_route)
        .public()
        .post("/broadcast", broadcast_route)
        .public()
        .post("/cache", cache_route)
        .public()
        .get("/listen/{channel}", listen)
        .public()
}

fn jobs() -> Jobs {
    Jobs::new()
        .on("broker-work", job)
        .on("broker-line", job)
        .on("broker-clock", job)
}

fn events() -> Events {
    Events::new().on("tick.*", event)
}

exprsn_sdk::export!(http = routes, jobs = jobs, events = events);
