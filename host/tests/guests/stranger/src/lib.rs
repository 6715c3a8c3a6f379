//! A third party's component, as a test guest: it uses each of its grants when told to, and says what became of it.

use exprsn_sdk::prelude::*;
use serde_json::Value as Any;

fn done() -> Any {
    json!({ "done": true })
}

fn denied(what: &str) -> Any {
    json!({ "denied": what })
}

fn failed(what: impl std::fmt::Display) -> Any {
    json!({ "failed": what.to_string() })
}

async fn use_sql() -> Any {
    use sql::Error;
    let text = "INSERT INTO notes (id, about) VALUES ($1, $2)";
    match sql::execute(text, params![uuid_v7(), "asked"]).await {
        Ok(_) => done(),
        Err(Error::AccessDenied(what)) => denied(&what),
        Err(error) => failed(error),
    }
}

async fn use_queue(queue: &str) -> Any {
    match queue::add(queue, "note", &json!({}), JobOptions::default()).await {
        Ok(_) => done(),
        Err(queue::Error::AccessDenied(what)) => denied(&what),
        Err(error) => failed(error),
    }
}

async fn use_events(topic: &str) -> Any {
    match events::publish(Event::new(topic, &json!({}))).await {
        Ok(_) => done(),
        Err(events::Error::AccessDenied(what)) => denied(&what),
        Err(error) => failed(error),
    }
}

async fn use_cache() -> Any {
    match cache::set("key", "value", None).await {
        Ok(()) => done(),
        Err(cache::Error::AccessDenied(what)) => denied(&what),
        Err(error) => failed(error),
    }
}

async fn fetch(url: String) -> Any {
    match http::get(url).send().await {
        Ok(answer) => json!({ "status": answer.status().as_u16() }),
        Err(http::Error::Denied) => denied("http"),
        Err(error) => failed(error),
    }
}

async fn try_it(Path(what): Path<String>) -> Result<AnyJson> {
    let (what, scope) = what.split_once('/').unwrap_or((&what, ""));
    Ok(AnyJson(match what {
        "sql" => use_sql().await,
        "queue" => use_queue(scope).await,
        "events" => use_events(scope).await,
        "cache" => use_cache().await,
        "call" => fetch(format!("http://{scope}/hello")).await,
        "egress" => fetch(format!("http://{scope}/")).await,
        "notes" => {
            let text = "SELECT count(*) FROM notes WHERE about = 'worked on'";
            json!({ "count": sql::scalar::<i64>(text, params![]).await? })
        }
        other => return Err(Problem::not_found("use", other)),
    }))
}

async fn job(job: Job<Any>) -> JobResult {
    let text = "INSERT INTO notes (id, about) VALUES ($1, 'worked on') ON CONFLICT DO NOTHING";
    sql::execute(text, params![job.id]).await?;
    Ok(())
}

fn routes() -> Router {
    Router::new("Stranger", env!("CARGO_PKG_VERSION"))
        .post("/use/{*what}", try_it)
        .public()
}

fn jobs() -> Jobs {
    Jobs::new().on("stranger-a", job)
}

exprsn_sdk::export!(http = routes, jobs = jobs);
