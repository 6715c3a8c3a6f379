//! Steady: answers, streams, does jobs and takes events, the same whichever version of it does, unless its configuration
//! says otherwise. What it was asked to do it counts in its database, so that what is lost or done twice shows.

use exprsn_sdk::{LocalBoxFuture, Next, prelude::*};

/// How long a slow version takes for an answer, in milliseconds.
const SLOW_MS: u64 = 300;
const CHUNKS: usize = 8;
const ECHO_BYTES_MAX: usize = 1 << 20;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Work {
    id: String,
}

/// How often things were done.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Tally {
    accepted: i64,
    /// Jobs and events together that are still to come.
    missing: i64,
    /// Jobs and events that were handled more than once.
    doubled: i64,
}

fn routes() -> Router {
    Router::new("Exprsn Steady", env!("CARGO_PKG_VERSION"))
        .get("/version", version)
        .post("/echo", echo)
        .get("/stream", stream)
        .post("/work/{id}", work)
        .get("/tally", tally)
        .around(behave)
}

/// Spoils answers as the configuration says.
fn behave(request: Request, next: Next<'_>) -> LocalBoxFuture<'_, Response> {
    Box::pin(async move {
        let health = request.path() == "/health";
        match config::get("behaviour").as_deref() {
            Some("unhealthy") if health => Response::new(StatusCode::SERVICE_UNAVAILABLE),
            Some("failing") if !health => Response::new(StatusCode::INTERNAL_SERVER_ERROR),
            Some("slow") if !health => {
                sleep_ms(SLOW_MS).await;
                next.run(request).await
            }
            _ => next.run(request).await,
        }
    })
}

async fn version() -> Text {
    Text(config::get("label").unwrap_or_default())
}

async fn echo(body: Body) -> Result<Response> {
    Ok(Response::ok().body(body.bytes(ECHO_BYTES_MAX).await?))
}

async fn stream() -> Response {
    let chunks = exprsn_sdk::stream::iter(0..CHUNKS).then(|number| async move {
        sleep_ms(5).await;
        Ok(format!("{number}\n").into_bytes())
    });
    Response::ok()
        .header("content-type", "text/plain")
        .body(Body::from_stream(chunks))
}

async fn work(Path(id): Path<String>) -> Result<Accepted<Work>> {
    let work = Work { id };
    let tx = sql::begin().await?;
    tx.execute("INSERT INTO work (id) VALUES ($1)", params![work.id])
        .await?;
    tx.add_job("steady-work", "work", &work, JobOptions::default())
        .await?;
    tx.publish(Event::new("steady.worked", &work)).await?;
    tx.commit().await?;
    Ok(Accepted(work))
}

async fn tally() -> Result<Json<Tally>> {
    let text = "SELECT count(*) AS accepted,
        coalesce(sum(CASE WHEN done = 0 THEN 1 ELSE 0 END + CASE WHEN heard = 0 THEN 1 ELSE 0 END), 0) AS missing,
        coalesce(sum(CASE WHEN done > 1 THEN 1 ELSE 0 END + CASE WHEN heard > 1 THEN 1 ELSE 0 END), 0) AS doubled
        FROM work";
    sql::query_one_as(text, params![])
        .await?
        .map(Json)
        .ok_or_else(|| Problem::not_found("tally", "of work"))
}

async fn job(job: Job<Work>) -> JobResult {
    sql::execute(
        "UPDATE work SET done = done + 1 WHERE id = $1",
        params![job.data.id],
    )
    .await?;
    Ok(())
}

async fn heard(event: Event<Work>) -> EventResult {
    sql::execute(
        "UPDATE work SET heard = heard + 1 WHERE id = $1",
        params![event.data.id],
    )
    .await?;
    Ok(())
}

fn jobs() -> Jobs {
    Jobs::new().on("steady-work", job)
}

fn events() -> Events {
    Events::new().on("steady.*", heard)
}

exprsn_sdk::export!(http = routes, jobs = jobs, events = events);
