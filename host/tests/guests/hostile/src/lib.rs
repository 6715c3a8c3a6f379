//! Hostile: does what a service must not do, so that tests see who is harmed by it.

mod floods;
mod forging;
mod hoarding;

use exprsn_sdk::prelude::*;
use exprsn_sdk::queue::JobRecord;
use serde_json::Value as Any;
use std::hint::black_box;

/// The queue that its own worker works on.
const QUEUE: &str = "hostile-work";

fn routes() -> Router {
    let routes = Router::new("Exprsn Hostile", env!("CARGO_PKG_VERSION"))
        .get("/calm", calm)
        .get("/loop", endless_loop)
        .get("/allocate", allocate)
        .get("/trap", trap)
        .get("/recurse", recurse)
        .get("/endless", endless_body)
        .get("/sleep", sleep)
        .get("/patient", patient)
        .get("/call/{service}", call)
        .post("/unread", unread)
        .post("/jobs", add_job)
        .get("/jobs/{queue}/{*id}", show_job)
        .post("/events", publish);
    let routes = hoarding::routes(routes);
    let routes = floods::routes(routes);
    forging::routes(routes)
}

/// What a job or an event is to lead to.
#[derive(Serialize, Deserialize)]
struct Task {
    #[serde(rename = "do")]
    act: String,
}

async fn calm() -> Text {
    Text("calm")
}

async fn endless_loop() -> Text {
    let mut count = 0u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

async fn allocate() -> Text {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1u8; 1 << 20]));
    }
}

async fn trap() -> Text {
    panic!("a trap was asked for")
}

async fn recurse() -> Text {
    // Little of it lies in the guest's own memory, so that the host's stack is the first to be full.
    #[inline(never)]
    fn deeper(depth: u64) -> u64 {
        match black_box(depth) {
            u64::MAX => 0,
            depth => deeper(depth + 1).rotate_left(1) ^ depth,
        }
    }
    Text(deeper(0).to_string())
}

async fn endless_body() -> Response {
    let chunks = exprsn_sdk::stream::repeat_with(|| Ok(vec![b'x'; 64 << 10]));
    Response::ok()
        .header("content-type", "text/plain")
        .body(Body::from_stream(chunks))
}

async fn sleep() -> Text {
    log::info!("going to sleep");
    sleep_ms(60_000).await;
    Text("woke up")
}

/// Wakes up often and computes nothing.
async fn patient() -> Text {
    for _ in 0..70 {
        sleep_ms(20).await;
    }
    Text("waited")
}

async fn call(Path(service): Path<String>) -> Result<Response> {
    let answer = http::get(format!("http://{service}/")).send().await?;
    Ok(Response::new(answer.status()))
}

/// Never looks at its body.
async fn unread(body: Body) -> Text {
    sleep_ms(60_000).await;
    drop(body);
    Text("woke up")
}

async fn add_job(AnyJson(task): AnyJson) -> Result<AnyJson> {
    let options = JobOptions::default().attempts(1);
    let id = queue::add(QUEUE, "task", &task, options).await?;
    Ok(AnyJson(json!({ "id": id })))
}

async fn show_job(Path((queue, id)): Path<(String, String)>) -> Result<AnyJson> {
    let job: JobRecord = queue::get(&queue, &id).await?;
    Ok(AnyJson(
        json!({ "state": format!("{:?}", job.state), "failedReason": job.failed_reason }),
    ))
}

async fn publish(AnyJson(task): AnyJson) -> Result<AnyJson> {
    let id = events::publish(Event::new("hostile.act", &task)).await?;
    Ok(AnyJson(json!({ "id": id })))
}

async fn act(task: Task) {
    match task.act.as_str() {
        "loop" => drop(endless_loop().await),
        "allocate" => drop(allocate().await),
        "sleep" => drop(sleep().await),
        _ => {}
    }
}

async fn job(job: Job<Task>) -> JobResult<Any> {
    act(job.data).await;
    Ok(Any::Null)
}

async fn event(event: Event<Task>) -> EventResult {
    act(event.data).await;
    Ok(())
}

fn jobs() -> Jobs {
    Jobs::new().on(QUEUE, job)
}

fn events() -> Events {
    Events::new().on("hostile.*", event)
}

exprsn_sdk::export!(http = routes, jobs = jobs, events = events);
