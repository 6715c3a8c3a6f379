//! What a service is written with.
//!
//! A service's `lib.rs` reads like an axum application: routes, plain async functions that take extractors, and one
//! [`export!`]. What the component imports is what it uses; what it exports is what it names.
//!
//! ```no_run
//! use exprsn_sdk::prelude::*;
//!
//! #[derive(Deserialize, JsonSchema, Validate)]
//! #[serde(deny_unknown_fields)]
//! struct NewNote {
//!     #[garde(length(chars, min = 1, max = 500))]
//!     text: String,
//! }
//!
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! #[serde(rename_all = "camelCase")]
//! struct Note {
//!     id: String,
//!     text: String,
//!     author_id: String,
//!     created_at: i64,
//! }
//!
//! fn routes() -> Router {
//!     Router::new("Exprsn Notes", env!("CARGO_PKG_VERSION"))
//!         .get("/api/notes", list).summary("Lists notes, newest first")
//!         .post("/api/notes", create).summary("Writes a note")
//!         .get("/api/notes/{id}", show)
//! }
//!
//! async fn create(user: User, Json(new): Json<NewNote>) -> Result<Created<Note>> {
//!     let note = Note { id: uuid_v7(), text: new.text, author_id: user.id, created_at: now_ms() };
//!     let tx = sql::begin().await?;
//!     tx.execute("INSERT INTO notes (id, text, author_id, created_at) VALUES ($1, $2, $3, $4)",
//!                params![note.id, note.text, note.author_id, note.created_at]).await?;
//!     tx.publish(Event::new("note.created", &note).subject(&note.id)).await?;
//!     tx.commit().await?;
//!     Ok(Created::at(format!("/api/notes/{}", note.id), note))
//! }
//!
//! async fn list(page: Query<PageQuery>) -> Result<Json<Page<Note>>> {
//!     let (at, id) = page.cursor::<(i64, String)>()?.unwrap_or((i64::MAX, String::new()));
//!     let rows: Vec<Note> = sql::query_as(
//!         "SELECT id, text, author_id, created_at FROM notes WHERE (created_at, id) < ($1, $2)
//!          ORDER BY created_at DESC, id DESC LIMIT $3",
//!         params![at, id, page.limit_plus_one()]).await?;
//!     Ok(Json(page.page(rows, |n| (n.created_at, n.id.clone()))))
//! }
//!
//! async fn show(Path(id): Path<String>) -> Result<Json<Note>> {
//!     sql::query_one_as("SELECT id, text, author_id, created_at FROM notes WHERE id = $1", params![id])
//!         .await?.map(Json).ok_or_else(|| Problem::not_found("note", &id))
//! }
//!
//! exprsn_sdk::export!(http = routes);
//! # fn main() {}
//! ```
//!
//! Derive macros name the crates `serde`, `garde` and `schemars`: a service depends on them too (`workspace = true`).
//!
//! **Invariants**
//! - An instance handles one invocation at a time, and may be used again: statics hold nothing of a request.
//! - Natively everything compiles, so that pure code can be tested; calls to the host panic there.
//! - Nothing here reads the environment, a file or a socket.

#![warn(missing_docs)]

// The bindings' export macros name this crate from outside; so that they also resolve within.
extern crate self as exprsn_sdk;

#[doc(hidden)]
pub mod bindings;
pub mod blob;
mod body;
pub mod ca;
pub mod cache;
pub mod config;
pub mod events;
mod export;
pub mod extract;
mod handler;
mod headers;
pub mod health;
pub mod http;
mod id;
pub mod idempotency;
pub mod ids;
pub mod log;
pub mod metrics;
pub mod openapi;
pub mod page;
pub mod platform;
mod problem;
pub mod queue;
mod request;
pub mod response;
mod router;
#[doc(hidden)]
pub mod runtime;
pub mod sockets;
pub mod sql;
mod sse;
#[cfg(test)]
mod testing;
pub mod time;

#[doc(hidden)]
pub use wit_bindgen;

pub use ::http::{Method, StatusCode};
pub use body::{Body, BodyStream};
pub use events::Events;
pub use extract::{Caller, IdempotencyKey};
pub use futures_core::Stream;
pub use futures_util::future::{Either, LocalBoxFuture, join, join_all, select};
pub use futures_util::{StreamExt, stream};
pub use handler::Handler;
pub use headers::Headers;
pub use id::{ID_BYTES_MAX, Id};
pub use problem::{Document as ProblemDocument, FieldError, PROBLEM_JSON, Problem, Result};
pub use queue::Jobs;
pub use request::Request;
pub use response::{IntoResponse, Response};
pub use router::{Around, Next, Router};
pub use runtime::spawn;
pub use sse::{KEEP_ALIVE_MS, Sse, SseEvent};

/// All that a service usually needs: `use exprsn_sdk::prelude::*;`.
pub mod prelude {
    pub use garde::Validate;
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::json;

    pub use crate::ca::{Claims, Kind, Permissions, Principal};
    pub use crate::events::{Event, EventError, EventResult, Events, NewEvent};
    pub use crate::extract::{
        AnyJson, Caller, Form, FromRequest, IdempotencyKey, Path, Permission, Query, User,
    };
    pub use crate::idempotency::{Once, fingerprint, idempotent, once};
    pub use crate::ids::{random_bytes, random_token, uuid_v7};
    pub use crate::page::{Page, PageQuery};
    pub use crate::queue::{Job, JobError, JobOptions, JobResult, Jobs};
    pub use crate::response::{Accepted, Created, Html, Json, NoContent, Redirect, Text};
    pub use crate::time::{now_ms, now_s, sleep_ms};
    pub use crate::{
        Body, FieldError, Headers, Id, IntoResponse, Method, Problem, Request, Response, Result,
        Router, Sse, SseEvent, StatusCode, Stream, StreamExt, blob, ca, cache, config, events,
        http, log, metrics, params, platform, queue, sockets, spawn, sql,
    };
}

pub use idempotency::idempotent;
