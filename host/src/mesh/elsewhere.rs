//! Calls of services on other hosts: the least busy first, and another one where that is safe.
//!
//! What was certainly not begun is tried elsewhere, whatever it is. What may have been begun is tried elsewhere only where
//! doing it twice is doing it once: an idempotent method (RFC 9110 §9.2.2, RFC 4918), or a request with an
//! `Idempotency-Key`.

use crate::{
    cluster::{Cluster, Envelope, Peer, Reached},
    listener::Arrival,
    name::ServiceName,
};
use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, request::Parts};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use std::{collections::VecDeque, convert::Infallible, sync::Arc};
use wasmtime_wasi_http::{
    Error as HttpError, WasiBody,
    handler::{Request, Response},
};

/// Methods that may be done twice.
const IDEMPOTENT: [&str; 12] = [
    "GET",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "PUT",
    "DELETE",
    "PROPFIND",
    "PROPPATCH",
    "REPORT",
    "SEARCH",
    "MKCOL",
    "COPY",
];

/// Calls a service that runs on other hosts.
pub async fn call(
    cluster: &Cluster,
    to: &ServiceName,
    request: Request,
    arrival: &Arrival,
) -> Result<Response, HttpError> {
    let mut candidates: VecDeque<Arc<Peer>> = cluster.directory().candidates(to).into();
    let authority = request
        .uri()
        .authority()
        .map_or_else(|| to.to_string(), ToString::to_string);
    let envelope = |arrival: &Arrival| Envelope::of(to, &authority, arrival).seal();
    let mut call = Call::of(request, cluster.config.retry_bytes_max).await?;
    let mut last = None;
    for _ in 0..cluster.config.attempts_max {
        let Some(peer) = candidates.pop_front() else {
            break;
        };
        let Some(request) = call.next() else { break };
        let reached = peer.call(request, &envelope(arrival)).await;
        cluster.calls().count(&peer.name, reached.outcome());
        match reached {
            // A host that answers 503 did nothing, or what may be done again.
            Reached::Answered(answer)
                if answer.status() == StatusCode::SERVICE_UNAVAILABLE
                    && call.may_repeat()
                    && !candidates.is_empty() =>
            {
                last = Some(Ok(answer));
            }
            Reached::Answered(answer) => return Ok(answer),
            Reached::Untouched(request) => {
                tracing::debug!(host = peer.name, service = %to, "a call was not begun; another host is tried");
                call.give_back(request);
                last = Some(Err(HttpError::ConnectionRefused));
            }
            Reached::Lost(reason) => {
                tracing::warn!(host = peer.name, service = %to, reason, "a call to another host was lost");
                last = Some(Err(HttpError::ConnectionTerminated));
                if !call.may_repeat() {
                    break;
                }
            }
        }
    }
    last.unwrap_or(Err(HttpError::DestinationUnavailable))
}

/// A request that may have to be sent more than once.
struct Call {
    parts: Parts,
    body: Content,
    idempotent: bool,
}

enum Content {
    /// Small enough to be kept.
    Whole(Bytes),
    Stream(Option<WasiBody>),
}

impl Call {
    /// Reads the body where it says that it is small, or its method has none.
    async fn of(request: Request, kept_bytes_max: usize) -> Result<Self, HttpError> {
        let (parts, body) = request.into_parts();
        let idempotent = IDEMPOTENT.contains(&parts.method.as_str())
            || parts.headers.contains_key("idempotency-key");
        let small = body
            .size_hint()
            .upper()
            .is_some_and(|bytes| bytes <= kept_bytes_max as u64);
        let bodiless = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let body = match small || bodiless {
            true => keep(body, kept_bytes_max).await?,
            false => Content::Stream(Some(body)),
        };
        Ok(Self {
            parts,
            body,
            idempotent,
        })
    }

    /// Whether it may be sent again although it may have been done.
    fn may_repeat(&self) -> bool {
        self.idempotent && matches!(self.body, Content::Whole(_))
    }

    /// The request to send; none where its body has gone.
    fn next(&mut self) -> Option<Request> {
        let body = match &mut self.body {
            Content::Whole(bytes) => Full::new(bytes.clone())
                .map_err(|never: Infallible| match never {})
                .boxed_unsync(),
            Content::Stream(body) => body.take()?,
        };
        Some(http::Request::from_parts(self.parts.clone(), body))
    }

    /// Takes back a body that nobody has read.
    fn give_back(&mut self, request: Option<Request>) {
        if let (Content::Stream(body), Some(request)) = (&mut self.body, request) {
            *body = Some(request.into_body());
        }
    }
}

/// Reads a body of at most `bytes_max`; a longer one goes on as a stream.
async fn keep(mut body: WasiBody, bytes_max: usize) -> Result<Content, HttpError> {
    let mut kept = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let Some(data) = frame.data_ref() else {
            // Trailers: nothing is kept of them, so the rest goes on as it came.
            return Ok(rest(kept.freeze(), Some(frame), body));
        };
        if kept.len() + data.len() > bytes_max {
            return Ok(rest(kept.freeze(), Some(frame), body));
        }
        kept.extend_from_slice(data);
    }
    Ok(Content::Whole(kept.freeze()))
}

/// What was read of a body, and what follows.
fn rest(read: Bytes, frame: Option<http_body::Frame<Bytes>>, body: WasiBody) -> Content {
    let first = (!read.is_empty()).then(|| Ok(http_body::Frame::data(read)));
    let before = futures::stream::iter(first.into_iter().chain(frame.map(Ok)));
    let after = http_body_util::BodyStream::new(body);
    let frames = futures::StreamExt::chain(before, after);
    Content::Stream(Some(http_body_util::StreamBody::new(frames).boxed_unsync()))
}
