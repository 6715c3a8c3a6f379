//! Server-Sent Events (WHATWG HTML §9.2).

use std::future::Future;
use std::pin::Pin;

use futures_core::Stream;
use futures_util::future::{Either, select};
use futures_util::{StreamExt, stream};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

use crate::openapi::Operation;
use crate::response::{IntoResponse, Response};
use crate::{Body, time};

/// Milliseconds of silence after which a comment is sent: it keeps proxies from closing, and finds out who has gone.
pub const KEEP_ALIVE_MS: u64 = 15_000;

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// Becomes `Last-Event-ID` when the client connects again.
    pub id: Option<String>,
    /// The event's name; `message` to the client when absent.
    pub event: Option<String>,
    /// The data, of one line or several.
    pub data: String,
    /// Milliseconds that the client shall wait before it connects again.
    pub retry: Option<u64>,
}

impl SseEvent {
    /// An event with text as data.
    pub fn new(data: impl Into<String>) -> Self {
        Self {
            data: data.into(),
            ..Self::default()
        }
    }

    /// An event with JSON as data.
    pub fn json<T: Serialize>(data: &T) -> Self {
        Self::new(serde_json::to_string(data).unwrap_or_default())
    }

    /// With a name.
    pub fn event(mut self, name: impl Into<String>) -> Self {
        self.event = Some(name.into());
        self
    }

    /// With an id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// With a reconnection time in milliseconds.
    pub fn retry(mut self, ms: u64) -> Self {
        self.retry = Some(ms);
        self
    }

    /// The event as it goes over the wire.
    pub fn encode(&self) -> String {
        // A line end or NUL within a one-line field would start another field, or make the client ignore this one.
        let line = |text: &str| text.replace(['\r', '\n', '\0'], " ");
        let mut out = String::with_capacity(self.data.len() + 32);
        if let Some(id) = &self.id {
            out.push_str(&format!("id: {}\n", line(id)));
        }
        if let Some(event) = &self.event {
            out.push_str(&format!("event: {}\n", line(event)));
        }
        if let Some(retry) = self.retry {
            out.push_str(&format!("retry: {retry}\n"));
        }
        for data in self.data.replace("\r\n", "\n").split(['\n', '\r']) {
            out.push_str(&format!("data: {data}\n"));
        }
        out.push('\n');
        out
    }
}

/// A response that sends events as they come, for as long as the client stays.
///
/// component.toml marks the route with `stream = true`.
pub struct Sse {
    events: Pin<Box<dyn Stream<Item = SseEvent>>>,
    keep_alive_ms: u64,
}

impl Sse {
    /// Sends the events of a stream.
    pub fn new(events: impl Stream<Item = SseEvent> + 'static) -> Self {
        Self {
            events: Box::pin(events),
            keep_alive_ms: KEEP_ALIVE_MS,
        }
    }

    /// With another time between signs of life, in milliseconds.
    pub fn keep_alive_ms(mut self, ms: u64) -> Self {
        self.keep_alive_ms = ms.max(1);
        self
    }
}

impl IntoResponse for Sse {
    fn into_response(self) -> Response {
        let keep_alive_ms = self.keep_alive_ms;
        // The comment at the start makes the client's connection `open` before there is an event.
        let start = stream::iter([Ok(b": open\n\n".to_vec())]);
        let rest = stream::unfold(self.events, move |events| next(events, keep_alive_ms)).map(Ok);
        Response::ok()
            .header("content-type", "text/event-stream")
            .header("cache-control", "no-cache")
            .header("x-accel-buffering", "no")
            .body_stream(start.chain(rest))
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.response(
            StatusCode::OK,
            Some(json!({ "text/event-stream": { "schema": { "type": "string" } } })),
        );
    }
}

type Events = Pin<Box<dyn Stream<Item = SseEvent>>>;

async fn next(mut events: Events, keep_alive_ms: u64) -> Option<(Vec<u8>, Events)> {
    let silence: Pin<Box<dyn Future<Output = ()>>> = Box::pin(time::sleep_ms(keep_alive_ms));
    let chunk = match select(events.next(), silence).await {
        Either::Left((event, _)) => event?.encode(),
        Either::Right(_) => ":\n\n".to_owned(),
    };
    Some((chunk.into_bytes(), events))
}

impl Response {
    /// With chunks as body.
    pub fn body_stream(
        mut self,
        chunks: impl Stream<Item = crate::Result<Vec<u8>>> + 'static,
    ) -> Self {
        self.content = Body::from_stream(chunks);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_data_is_a_field() {
        let event = SseEvent::new("a\nb\r\nc").event("post").id("7").retry(5000);
        assert_eq!(
            event.encode(),
            "id: 7\nevent: post\nretry: 5000\ndata: a\ndata: b\ndata: c\n\n"
        );
        assert_eq!(SseEvent::new("").encode(), "data: \n\n");
    }

    #[test]
    fn a_name_cannot_smuggle_in_another_field() {
        let event = SseEvent::new("x").event("a\ndata: evil").id("1\n\n2\0");
        assert_eq!(
            event.encode(),
            "id: 1  2 \nevent: a data: evil\ndata: x\n\n"
        );
    }
}
