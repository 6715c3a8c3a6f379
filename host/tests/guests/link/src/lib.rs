//! Link: one of several services that call each other. It works, fails or hangs as it is told, and counts in the cache
//! what it was asked and what it heard.

use exprsn_sdk::prelude::*;

/// How long it hangs, in milliseconds: longer than any caller waits.
const HANG_MS: u64 = 20_000;

#[derive(Serialize, JsonSchema)]
struct Chain {
    degraded: bool,
}

#[derive(Deserialize)]
struct Change {
    caller: String,
    to: String,
}

fn routes() -> Router {
    Router::new("Exprsn Link", env!("CARGO_PKG_VERSION"))
        .any("/work", work)
        .get("/chain", chain)
        .get("/strict", strict)
        .any("/ask/{service}/{*path}", ask)
        .post("/behave/{how}", behave)
        .get("/count/{name}", count)
}

/// Does what was said, and counts it.
async fn obey() -> Result<i64> {
    let calls = cache::increment("calls", 1, None).await?;
    match cache::get("behaviour").await?.as_deref() {
        Some(b"fail") => return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR)),
        Some(b"hang") => {
            sleep_ms(HANG_MS).await;
            cache::increment("woken", 1, None).await?;
        }
        _ => {}
    }
    Ok(calls)
}

async fn work(caller: Caller) -> Result<AnyJson> {
    let calls = obey().await?;
    Ok(AnyJson(
        json!({ "calls": calls, "remainingMs": caller.remaining_ms }),
    ))
}

fn next() -> Option<String> {
    config::get("next").filter(|next| !next.is_empty())
}

/// Needs the next one, and makes do without it.
async fn chain() -> Result<Json<Chain>> {
    obey().await?;
    let Some(next) = next() else {
        return Ok(Json(Chain { degraded: false }));
    };
    let answer = http::get(format!("http://{next}/chain")).send().await;
    let degraded = !answer.is_ok_and(|answer| answer.status().is_success());
    Ok(Json(Chain { degraded }))
}

/// Needs the next one, and fails without it.
async fn strict() -> Result<Json<Chain>> {
    obey().await?;
    if let Some(next) = next() {
        let answer = http::get(format!("http://{next}/strict")).send().await?;
        answer.error_for_status().await?;
    }
    Ok(Json(Chain { degraded: false }))
}

/// Calls another with the same method, and tells what came of it.
async fn ask(request: Request) -> Result<AnyJson> {
    let target = request.path().trim_start_matches("/ask/");
    let mut call = http::request(request.method().clone(), format!("http://{target}"));
    if let Some(key) = request.headers().get("idempotency-key") {
        call = call.header("idempotency-key", key);
    }
    let answer = match call.send().await {
        Ok(answer) => answer,
        Err(error) => return Ok(AnyJson(json!({ "error": error.to_string() }))),
    };
    let header = |name: &str| answer.headers().get(name).map(str::to_owned);
    let (age, warning) = (header("age"), header("warning"));
    let (status, retry_after) = (answer.status().as_u16(), header("retry-after"));
    let body = answer.text().await?;
    Ok(AnyJson(json!({
        "status": status, "age": age, "warning": warning, "retryAfter": retry_after, "body": body,
    })))
}

async fn behave(Path(how): Path<String>) -> Result<NoContent> {
    cache::set("behaviour", how, None).await?;
    cache::delete("calls").await?;
    Ok(NoContent)
}

async fn count(Path(name): Path<String>) -> Result<AnyJson> {
    Ok(AnyJson(json!(cache::increment(&name, 0, None).await?)))
}

async fn changed(event: Event<Change>) -> EventResult {
    let name = format!("{}-{}", event.data.caller, event.data.to);
    // Whoever waits for it sees that it is not there.
    let _ = cache::increment(&name, 1, None).await;
    Ok(())
}

fn events() -> Events {
    Events::new().on("platform.breaker.changed", changed)
}

exprsn_sdk::export!(http = routes, events = events);
