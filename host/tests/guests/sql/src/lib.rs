//! A test guest that runs the statements that it is sent, and says plainly what became of them.

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::{Error, Rows, Statement, Tx, Value};
use serde_json::Value as Any;

/// The queue whose jobs are written down in `received`.
const JOBS: &str = "sql-jobs";

/// A statement as JSON. Values of types that JSON lacks are written as `{"blob": [1, 2]}`, `{"uuid": "…"}` and so on.
#[derive(Deserialize)]
struct Call {
    sql: String,
    #[serde(default)]
    values: Vec<Any>,
}

impl Call {
    fn parameters(&self) -> Vec<Value> {
        self.values.iter().map(value).collect()
    }

    fn statement(self) -> Statement {
        let parameters = self.parameters();
        sql::stmt(self.sql, parameters)
    }
}

/// What happens inside a transaction, one step after the other; then it ends as `end` says.
#[derive(Deserialize)]
struct Script {
    steps: Vec<Step>,
    end: End,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Step {
    Query(Call),
    Execute(Call),
    Job { queue: String, id: String },
    Event { topic: String, id: String },
    SleepMs(u64),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum End {
    Commit,
    Rollback,
    Drop,
    Trap,
}

fn value(json: &Any) -> Value {
    let typed = |name: &str| json.get(name);
    if let Some(blob) = typed("blob").and_then(Any::as_array) {
        let byte = |byte: &Any| u8::try_from(byte.as_u64().unwrap_or_default()).unwrap_or_default();
        return Value::Blob(blob.iter().map(byte).collect());
    }
    let text = |name: &str| typed(name).and_then(Any::as_str).map(str::to_owned);
    if let Some(uuid) = text("uuid") {
        return Value::Uuid(uuid);
    }
    if let Some(document) = text("json") {
        return Value::Json(document);
    }
    if let Some(at) = typed("timestamp").and_then(Any::as_i64) {
        return Value::Timestamp(at);
    }
    match json {
        Any::Null => Value::Null,
        Any::Bool(yes) => Value::Boolean(*yes),
        Any::String(text) => Value::Text(text.clone()),
        Any::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Real(number.as_f64().unwrap_or(f64::NAN)),
        },
        other => Value::Json(other.to_string()),
    }
}

fn shown(value: &Value) -> Any {
    match value {
        Value::Null => Any::Null,
        Value::Boolean(yes) => json!(yes),
        Value::Integer(number) => json!(number),
        Value::Real(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Blob(bytes) => json!({ "blob": bytes }),
        Value::Json(text) => json!({ "json": text }),
        Value::Timestamp(at) => json!({ "timestamp": at }),
        Value::Uuid(uuid) => json!({ "uuid": uuid }),
    }
}

fn rows(rows: &Rows) -> Any {
    let shown: Vec<Vec<Any>> = rows
        .rows
        .iter()
        .map(|row| row.iter().map(shown).collect())
        .collect();
    json!({ "columns": rows.columns(), "rows": shown })
}

fn failure(error: &Error) -> Any {
    let (kind, text) = match error {
        Error::AccessDenied(text) => ("access-denied", text.clone()),
        Error::Unavailable(text) => ("unavailable", text.clone()),
        Error::LimitExceeded(text) => ("limit-exceeded", text.clone()),
        Error::Constraint(kind, text) => ("constraint", format!("{kind:?} {text}")),
        Error::Conflict(text) => ("conflict", text.clone()),
        Error::Invalid(text) => ("invalid", text.clone()),
        Error::Decode(text) => ("decode", text.clone()),
    };
    json!({ "error": kind, "text": text })
}

/// The answer is always 200: the tests are about the interface, not about problems.
fn told(outcome: sql::Result<Any>) -> AnyJson {
    AnyJson(outcome.unwrap_or_else(|error| failure(&error)))
}

fn read<T: serde::de::DeserializeOwned>(body: Any) -> Result<T> {
    serde_json::from_value(body).map_err(|error| Problem::bad_request("body", error.to_string()))
}

async fn query(AnyJson(body): AnyJson) -> Result<AnyJson> {
    let call: Call = read(body)?;
    Ok(told(
        sql::query(&call.sql, call.parameters())
            .await
            .map(|found| rows(&found)),
    ))
}

async fn execute(AnyJson(body): AnyJson) -> Result<AnyJson> {
    let call: Call = read(body)?;
    Ok(told(
        sql::execute(&call.sql, call.parameters())
            .await
            .map(|changed| json!({ "changed": changed })),
    ))
}

async fn batch(AnyJson(body): AnyJson) -> Result<AnyJson> {
    let calls: Vec<Call> = read(body)?;
    let sets = sql::batch(calls.into_iter().map(Call::statement).collect()).await;
    Ok(told(sets.map(|sets| {
        json!(sets.iter().map(rows).collect::<Vec<_>>())
    })))
}

/// Reads integers from a stream; answers how many came, their sum, and how it ended.
async fn stream(AnyJson(body): AnyJson) -> Result<AnyJson> {
    let call: Call = read(body)?;
    let mut numbers = match sql::stream_as::<i64>(&call.sql, call.parameters()).await {
        Ok(numbers) => numbers,
        Err(error) => return Ok(AnyJson(failure(&error))),
    };
    let (mut count, mut sum) = (0u64, 0i64);
    while let Some(number) = numbers.next().await {
        match number {
            Ok(number) => (count, sum) = (count + 1, sum + number),
            Err(error) => return Ok(AnyJson(json!({ "count": count, "end": failure(&error) }))),
        }
    }
    Ok(AnyJson(json!({ "count": count, "sum": sum })))
}

/// Runs two statements at the same time; answers the order in which they ended.
async fn race(AnyJson(body): AnyJson) -> Result<AnyJson> {
    let [slow, quick]: [Call; 2] = read(body)?;
    let order = std::cell::RefCell::new(Vec::new());
    let run = async |name: &str, call: Call| {
        let done = sql::query(&call.sql, call.parameters()).await;
        order
            .borrow_mut()
            .push(json!({ "name": name, "succeeded": done.is_ok() }));
    };
    exprsn_sdk::join(run("slow", slow), run("quick", quick)).await;
    Ok(AnyJson(Any::Array(order.into_inner())))
}

async fn transaction(AnyJson(body): AnyJson) -> Result<AnyJson> {
    let script: Script = read(body)?;
    let tx = match sql::begin().await {
        Ok(tx) => tx,
        Err(error) => return Ok(AnyJson(json!({ "steps": [], "end": failure(&error) }))),
    };
    let mut steps = Vec::new();
    for step in script.steps {
        steps.push(run(&tx, step).await.unwrap_or_else(|error| failure(&error)));
    }
    let end = match script.end {
        End::Commit => tx.commit().await,
        End::Rollback => tx.rollback().await,
        End::Drop => {
            drop(tx);
            Ok(())
        }
        End::Trap => panic!("asked to trap inside a transaction"),
    };
    let end = end.map_or_else(|error| failure(&error), |()| json!("done"));
    Ok(AnyJson(json!({ "steps": steps, "end": end })))
}

async fn run(tx: &Tx, step: Step) -> Result<Any, Error> {
    match step {
        Step::Query(call) => Ok(rows(&tx.query(&call.sql, call.parameters()).await?)),
        Step::Execute(call) => Ok(json!(tx.execute(&call.sql, call.parameters()).await?)),
        Step::Job { queue, id } => {
            let options = JobOptions::default().id(id);
            Ok(json!(
                tx.add_job(&queue, "write-down", &json!({ "quote": "\"" }), options)
                    .await?
            ))
        }
        Step::Event { topic, id } => {
            let event = Event::new(topic, &json!({ "about": id })).id(id);
            Ok(json!(tx.publish(event).await?))
        }
        Step::SleepMs(ms) => {
            sleep_ms(ms).await;
            Ok(Any::Null)
        }
    }
}

const WRITE_DOWN: &str =
    "INSERT INTO received (kind, id, data) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

async fn job(job: Job<Any>) -> JobResult {
    sql::execute(WRITE_DOWN, params!["job", job.id, job.data.to_string()]).await?;
    Ok(())
}

async fn event(event: Event<Any>) -> EventResult {
    sql::execute(
        WRITE_DOWN,
        params!["event", event.id, event.data.to_string()],
    )
    .await?;
    Ok(())
}

fn routes() -> Router {
    Router::new("Statements", env!("CARGO_PKG_VERSION"))
        .post("/query", query)
        .public()
        .post("/execute", execute)
        .public()
        .post("/batch", batch)
        .public()
        .post("/stream", stream)
        .public()
        .post("/race", race)
        .public()
        .post("/transaction", transaction)
        .public()
}

fn jobs() -> Jobs {
    Jobs::new().on(JOBS, job)
}

fn events() -> Events {
    Events::new().on("sql.*", event)
}

exprsn_sdk::export!(http = routes, jobs = jobs, events = events);
