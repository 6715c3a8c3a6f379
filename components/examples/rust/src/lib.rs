//! A guestbook: people sign it with the name of their profile, and everybody reads it.

mod http;

wit_bindgen::generate!({ path: "wit", world: "component", generate_all });

use exprsn::ca::caller;
use exprsn::sql::database::{self, Error, OutboxEvent, Transaction, Value};
use http::{Problem, Reply, json};
use serde::{Deserialize, Serialize};
use wasi::clocks0_3_0::system_clock;
use wasi::http0_3_0::types::{ErrorCode, Request, Response};
use wasi::random0_3_0::random;

const TEXT_CHARACTERS_MAX: usize = 500;
const ENTRIES_SHOWN: i64 = 50;

#[derive(Deserialize)]
struct NewEntry {
    text: String,
}

#[derive(Serialize)]
struct Entry {
    id: String,
    author: String,
    text: String,
    created_at: i64,
}

struct Component;

export!(Component);

impl exports::wasi::http0_3_0::handler::Guest for Component {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let answer = route(request).await;
        Ok(answer.unwrap_or_else(Problem::reply).into_response())
    }
}

async fn route(request: Request) -> Result<Reply, Problem> {
    match (http::method(&request), http::path(&request).as_str()) {
        ("GET", "/health") => Ok(json(200, &serde_json::json!({ "status": "healthy" }))),
        ("GET", "/api/entries") => Ok(json(200, &list().await?)),
        ("POST", "/api/entries") => {
            let new: NewEntry = http::read_json(request).await?;
            Ok(json(201, &sign(new).await?))
        }
        _ => Err(Problem::new(404, "there is nothing here")),
    }
}

/// Writes the entry and announces it: both happen, or neither does.
async fn sign(new: NewEntry) -> Result<Entry, Problem> {
    if new.text.trim().is_empty() || new.text.chars().count() > TEXT_CHARACTERS_MAX {
        let detail = format!("text: 1 to {TEXT_CHARACTERS_MAX} characters");
        return Err(Problem::new(422, detail));
    }
    let author_id = caller::current().caller.subject;
    let now = system_clock::now();
    let entry = Entry {
        id: format!("{:016x}", random::get_random_u64()),
        author: name_of(&author_id).await?,
        text: new.text,
        created_at: now.seconds * 1_000 + i64::from(now.nanoseconds / 1_000_000),
    };
    let transaction = Transaction::begin().await?;
    let values = [
        Value::Text(entry.id.clone()),
        Value::Text(author_id),
        Value::Text(entry.author.clone()),
        Value::Text(entry.text.clone()),
        Value::Integer(entry.created_at),
    ];
    let insert = "INSERT INTO entries (id, author_id, author, text, created_at) VALUES ($1, $2, $3, $4, $5)";
    transaction.execute(insert.to_owned(), values.to_vec()).await?;
    let signed = OutboxEvent {
        id: None,
        topic: "guestbook.signed".to_owned(),
        subject: Some(entry.id.clone()),
        data: serde_json::to_string(&entry).expect("an entry is JSON"),
    };
    transaction.publish(signed).await?;
    transaction.commit().await?;
    Ok(entry)
}

async fn list() -> Result<Vec<Entry>, Problem> {
    let newest = "SELECT id, author, text, created_at FROM entries ORDER BY created_at DESC, id DESC LIMIT $1";
    let found = database::query(newest.to_owned(), vec![Value::Integer(ENTRIES_SHOWN)]).await?;
    let entry = |row: Vec<Value>| match <[Value; 4]>::try_from(row) {
        Ok([Value::Text(id), Value::Text(author), Value::Text(text), Value::Integer(created_at)]) => {
            Ok(Entry { id, author, text, created_at })
        }
        _ => Err(Problem::new(500, "the table `entries` is not as the migrations made it")),
    };
    found.rows.into_iter().map(entry).collect()
}

/// The name in the public profile of a user, or the id where there is no profile.
async fn name_of(user_id: &str) -> Result<String, Problem> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Profile {
        username: String,
        display_name: Option<String>,
    }
    let answer = http::get("exprsn-auth", &format!("/api/users/{user_id}")).await?;
    match answer.status {
        200 => {
            let profile: Profile = serde_json::from_slice(&answer.body)
                .map_err(|error| Problem::new(502, format!("exprsn-auth: {error}")))?;
            Ok(profile.display_name.unwrap_or(profile.username))
        }
        404 => Ok(user_id.to_owned()),
        status => Err(Problem::new(502, format!("exprsn-auth answered {status}"))),
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::AccessDenied(detail) => Self::new(403, format!("access-denied: {detail}")),
            Error::Unavailable(detail) | Error::LimitExceeded(detail) => Self::new(503, detail),
            Error::Conflict(detail) => Self::new(409, detail),
            Error::Constraint(violation) => Self::new(409, violation.message),
            Error::Invalid(detail) => Self::new(500, detail),
        }
    }
}
