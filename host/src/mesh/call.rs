//! A request that may have to be sent more than once, here or to another host.
//!
//! Doing twice is doing once for an idempotent method (RFC 9110 §9.2.2, RFC 4918), and for a request with an
//! `Idempotency-Key`; and only what is still there can be sent again.

use bytes::{Bytes, BytesMut};
use http::{Method, Uri, request::Parts};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};
use wasmtime_wasi_http::{Error as HttpError, WasiBody, handler::Request};

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

/// A request that may have to be sent more than once.
pub struct Call {
    parts: Parts,
    body: Content,
    idempotent: bool,
}

pub enum Content {
    /// Small enough to be kept.
    Whole(Bytes),
    Stream(Option<WasiBody>),
    /// Of a request that should have no body: it goes on unread, because its end may come late, and none follows it
    /// where it did have none.
    Nothing {
        first: Option<WasiBody>,
        seen: Arc<AtomicBool>,
    },
}

impl Call {
    /// Reads the body where it says that it is small, or its method has none. `nearby`, where nothing is tried elsewhere,
    /// only what may be repeated is read.
    pub async fn of(
        request: Request,
        kept_bytes_max: usize,
        nearby: bool,
    ) -> Result<Self, HttpError> {
        let (parts, body) = request.into_parts();
        let idempotent = IDEMPOTENT.contains(&parts.method.as_str())
            || parts.headers.contains_key("idempotency-key");
        let upper = body.size_hint().upper();
        let small = upper.is_some_and(|bytes| bytes <= kept_bytes_max as u64);
        let bodiless = match parts.method {
            Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE => upper.is_none(),
            _ => false,
        };
        let body = match nearby {
            true if !idempotent => Content::Stream(Some(body)),
            true if bodiless || upper == Some(0) => Content::Nothing {
                first: Some(body),
                seen: Arc::default(),
            },
            _ if small || bodiless => keep(body, kept_bytes_max).await?,
            _ => Content::Stream(Some(body)),
        };
        Ok(Self {
            parts,
            body,
            idempotent,
        })
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.parts.uri
    }

    /// Whether it may be sent again although it may have been done.
    pub(super) fn may_repeat(&self) -> bool {
        self.idempotent
            && match &self.body {
                Content::Whole(_) => true,
                Content::Stream(_) => false,
                Content::Nothing { seen, .. } => !seen.load(Relaxed),
            }
    }

    /// The request to send; none where its body has gone.
    pub(super) fn next(&mut self) -> Option<Request> {
        let body = match &mut self.body {
            Content::Whole(bytes) => whole(bytes.clone()),
            Content::Stream(body) => body.take()?,
            Content::Nothing { first, seen } => match first.take() {
                Some(body) => Watched {
                    body,
                    seen: seen.clone(),
                }
                .boxed_unsync(),
                None => whole(Bytes::new()),
            },
        };
        Some(http::Request::from_parts(self.parts.clone(), body))
    }

    /// Takes back a body that nobody has read.
    pub(super) fn give_back(&mut self, request: Option<Request>) {
        if let (Content::Stream(body), Some(request)) = (&mut self.body, request) {
            *body = Some(request.into_body());
        }
    }
}

impl Content {
    /// The body, whole or as it comes.
    pub fn into_body(self) -> WasiBody {
        match self {
            Self::Whole(bytes) => whole(bytes),
            Self::Stream(body) | Self::Nothing { first: body, .. } => {
                body.unwrap_or_else(|| whole(Bytes::new()))
            }
        }
    }
}

/// A body that is there.
pub fn whole(bytes: impl Into<Bytes>) -> WasiBody {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

/// A body that tells whether it held anything.
struct Watched {
    body: WasiBody,
    seen: Arc<AtomicBool>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && frame.data_ref().is_none_or(|data| !data.is_empty())
        {
            self.seen.store(true, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads a body of at most `bytes_max`; a longer one goes on as a stream.
pub async fn keep(mut body: WasiBody, bytes_max: usize) -> Result<Content, HttpError> {
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
