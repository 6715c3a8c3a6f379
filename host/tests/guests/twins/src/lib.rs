//! A component as a third party without async functions would write it: wasi:http 0.2, the synchronous twins, no SDK.
//!
//! It does what its requests say, and answers `{"ok": …}` or `{"error": …}`: the tests are about the interfaces.

#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod bindings {
    wit_bindgen::generate!({
        inline: "
            package test:twins;
            world twins {
                import wasi:http/outgoing-handler@0.2.10;
                import exprsn:ca/signer-sync@1.0.0;
                import exprsn:ca/tokens-sync@1.0.0;
                import exprsn:cache/store-sync@1.0.0;
                import exprsn:events/live-sync@1.0.0;
                import exprsn:events/publisher-sync@1.0.0;
                import exprsn:queue/client-sync@1.0.0;
                import exprsn:sql/database-sync@1.0.0;
                import exprsn:telemetry/service-sync@1.0.0;
                export wasi:http/incoming-handler@0.2.10;
                export exprsn:queue/worker-sync@1.0.0;
                export exprsn:events/subscriber-sync@1.0.0;
            }
        ",
        path: [
            "../../../../wit/extension/wasi-io-0.2",
            "../../../../wit/extension/wasi-clocks-0.2",
            "../../../../wit/extension/wasi-random-0.2",
            "../../../../wit/extension/wasi-filesystem-0.2",
            "../../../../wit/extension/wasi-sockets-0.2",
            "../../../../wit/extension/wasi-cli-0.2",
            "../../../../wit/extension/wasi-http-0.2",
            "../../../../wit/deps/exprsn-ca",
            "../../../../wit/deps/exprsn-cache",
            "../../../../wit/deps/exprsn-events",
            "../../../../wit/deps/exprsn-queue",
            "../../../../wit/deps/exprsn-sql",
            "../../../../wit/deps/exprsn-telemetry",
        ],
        world: "test:twins/twins",
        generate_all,
    });
}

mod http;

use bindings::exports::exprsn::{events::subscriber_sync, queue::worker_sync};
use bindings::exprsn::{
    ca::{signer_sync, tokens_sync, types::Algorithm},
    cache::store_sync,
    events::{live_sync, publisher_sync, types::NewEvent},
    queue::{client_sync, types::Options},
    sql::{
        database_sync::{self, Transaction},
        types::{OutboxEvent, OutboxJob, RowSet, Statement, Value},
    },
    telemetry::service_sync,
};
use serde_json::{Value as Any, json};

struct Twins;

bindings::export!(Twins with_types_in bindings);

/// Whatever went wrong, as text: the case of the interface's error with what it says.
type Answer = Result<Any, String>;

fn told<E: std::fmt::Debug>(error: E) -> String {
    format!("{error:?}")
}

fn text(of: &Any, key: &str) -> String {
    of[key].as_str().unwrap_or_default().to_owned()
}

fn values(of: &Any) -> Vec<Value> {
    let values = of.as_array().into_iter().flatten();
    values
        .map(|value| match (value.as_i64(), value.as_str()) {
            (Some(number), _) => Value::Integer(number),
            (_, Some(text)) => Value::Text(text.to_owned()),
            _ => Value::Null,
        })
        .collect()
}

fn shown(rows: &RowSet) -> Any {
    let value = |value: &Value| match value {
        Value::Integer(number) => json!(number),
        Value::Text(text) => json!(text),
        other => json!(format!("{other:?}")),
    };
    let row = |row: &Vec<Value>| row.iter().map(value).collect::<Any>();
    rows.rows.iter().map(row).collect()
}

fn statements(of: &Any) -> Vec<Statement> {
    let all = of.as_array().into_iter().flatten();
    all.map(|one| Statement {
        text: text(one, "sql"),
        parameters: values(&one["values"]),
    })
    .collect()
}

fn sql(wish: &Any) -> Answer {
    let (sql, parameters) = (text(wish, "sql"), values(&wish["values"]));
    match wish["do"].as_str() {
        Some("query") => database_sync::query(&sql, &parameters).map(|rows| shown(&rows)),
        Some("execute") => database_sync::execute(&sql, &parameters).map(|count| json!(count)),
        Some("batch") => database_sync::batch(&statements(&wish["statements"]))
            .map(|sets| sets.iter().map(shown).collect()),
        _ => transaction(wish),
    }
    .map_err(told)
}

/// Runs statements, adds a job and publishes an event, in one transaction that `end` ends: `commit`, `rollback`, or none.
fn transaction(wish: &Any) -> Result<Any, database_sync::Error> {
    let transaction = Transaction::begin()?;
    for statement in statements(&wish["statements"]) {
        transaction.execute(&statement.text, &statement.parameters)?;
    }
    let counted = transaction.query("SELECT count(*) FROM notes", &[])?;
    if let Some(id) = wish["job"].as_str() {
        transaction.add_job(&OutboxJob {
            queue: "twin-work".to_owned(),
            name: "note".to_owned(),
            data: "{}".to_owned(),
            id: Some(id.to_owned()),
            attempts: None,
            backoff: None,
            delay_ms: 0,
            priority: 0,
        })?;
    }
    if let Some(id) = wish["event"].as_str() {
        transaction.publish(&OutboxEvent {
            id: Some(id.to_owned()),
            topic: "twin.noted".to_owned(),
            subject: None,
            data: "{}".to_owned(),
        })?;
    }
    match wish["end"].as_str() {
        Some("commit") => transaction.commit()?,
        Some("rollback") => transaction.rollback()?,
        _ => drop(transaction),
    }
    Ok(shown(&counted))
}

fn queue(wish: &Any) -> Answer {
    let (queue, id) = (text(wish, "queue"), text(wish, "id"));
    if wish["do"] == "get" {
        let job = client_sync::get(&queue, &id).map_err(told)?;
        return Ok(
            json!({ "state": format!("{:?}", job.state), "attempt": job.attempt, "returnValue": job.return_value }),
        );
    }
    let options = Options {
        job_id: Some(id),
        attempts: None,
        backoff: None,
        delay_ms: 0,
        priority: 0,
        timeout_ms: None,
    };
    let added = client_sync::add(&queue, "note", &text(wish, "data"), &options);
    added.map(|id| json!(id)).map_err(told)
}

fn publish(wish: &Any) -> Answer {
    let event = NewEvent {
        id: Some(text(wish, "id")),
        topic: text(wish, "topic"),
        subject: None,
        data: text(wish, "data"),
    };
    let published = publisher_sync::publish(&event).map_err(told)?;
    live_sync::broadcast("twins", &published).map_err(told)?;
    Ok(json!(published))
}

fn cache(wish: &Any) -> Answer {
    let key = text(wish, "key");
    if let Some(value) = wish["value"].as_str() {
        store_sync::set(&key, value.as_bytes(), None).map_err(told)?;
    }
    let value = store_sync::get(&key).map_err(told)?;
    Ok(json!(
        value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    ))
}

fn ca(wish: &Any) -> Answer {
    let key = text(wish, "key");
    let signed = signer_sync::sign_jwt(&key, Algorithm::EdDsa, "JWT", "{}").map_err(told)?;
    let verdict = tokens_sync::verify(&signed).map_err(told)?;
    Ok(json!({ "parts": signed.split('.').count(), "rejection": verdict.rejection.map(told) }))
}

/// Does what the path and the body of a request say.
fn answer(path: &str, body: &[u8]) -> Answer {
    let wish = serde_json::from_slice(body).unwrap_or(Any::Null);
    match path {
        "/health" => {
            let health = service_sync::status();
            Ok(json!({ "name": health.name, "database": health.database, "broker": health.broker }))
        }
        "/sql" => sql(&wish),
        "/queue" => queue(&wish),
        "/publish" => publish(&wish),
        "/cache" => cache(&wish),
        "/ca" => ca(&wish),
        "/call" => http::get(&text(&wish, "service"), &text(&wish, "path")),
        _ => Err(format!("there is no {path}")),
    }
}

/// Notes that something was given to the component; fails at the first attempt where its data says so.
fn note(id: &str, attempt: u32, data: &str, kind: &str) -> Result<(), String> {
    if attempt == 1 && data.contains("again") {
        return Err("asked to fail once".to_owned());
    }
    let parameters = [
        Value::Text(id.to_owned()),
        Value::Text(format!("{kind} {attempt}")),
    ];
    let inserted =
        database_sync::execute("INSERT INTO notes (id, text) VALUES ($1, $2)", &parameters);
    inserted.map(drop).map_err(told)
}

impl worker_sync::Guest for Twins {
    fn handle(job: worker_sync::Job) -> Result<Option<String>, worker_sync::Failure> {
        let noted = note(&job.id, job.attempt, &job.data, "job");
        noted
            .map(|()| Some("\"noted\"".to_owned()))
            .map_err(|reason| worker_sync::Failure {
                reason,
                retry: true,
            })
    }
}

impl subscriber_sync::Guest for Twins {
    fn receive(event: subscriber_sync::Event) -> Result<(), subscriber_sync::Failure> {
        note(&event.id, event.attempt, &event.data, "event").map_err(|reason| {
            subscriber_sync::Failure {
                reason,
                retry: true,
            }
        })
    }
}
