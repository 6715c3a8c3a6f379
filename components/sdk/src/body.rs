//! Message bodies: nothing, bytes, a stream of this component, or a stream that the host holds.

use std::pin::Pin;

use futures_core::Stream;
use futures_util::{StreamExt, stream};
use wit_bindgen::{FutureReader, StreamReader, StreamResult};

use crate::Problem;
use crate::bindings::exprsn::blob::types::Error as BlobError;
use crate::bindings::wasi::http::types::{ErrorCode, Trailers};

/// Bytes read from the host at a time when the length is unknown.
const CHUNK_BYTES: usize = 64 * 1024;
/// Most that is reserved because a `Content-Length` says so; beyond that the buffer grows with what arrives.
const RESERVE_BYTES_MAX: u64 = 1024 * 1024;

/// A stream of chunks; an error ends it.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Problem>>>>;

/// The body of a request or a response.
///
/// As an extractor it is the request's body, unread.
#[derive(Default)]
pub struct Body(pub(crate) Content);

#[derive(Default)]
pub(crate) enum Content {
    #[default]
    Empty,
    Bytes(Vec<u8>),
    Stream(BodyStream),
    Host(HostBody),
}

/// A body that the host holds. Handed back to the host unread, its bytes never enter the component.
pub(crate) struct HostBody {
    pub(crate) stream: StreamReader<u8>,
    /// Resolves after the last byte.
    pub(crate) end: End,
    /// `Content-Length` or the object's size, where given.
    pub(crate) length: Option<u64>,
}

/// How a body that the host holds ends: in full, or with why it is incomplete.
pub(crate) enum End {
    /// A message's, with trailers.
    Http(FutureReader<Result<Option<Trailers>, ErrorCode>>),
    /// An object's.
    Blob(FutureReader<Result<(), BlobError>>),
}

impl End {
    /// Waits for the end.
    pub(crate) async fn whole(self) -> Result<(), Problem> {
        match self {
            Self::Http(end) => end.await.map(|_trailers| ()).map_err(incomplete),
            Self::Blob(end) => end.await.map_err(Problem::from),
        }
    }
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body from chunks; it ends at the first error, and the recipient sees that it is incomplete.
    pub fn from_stream(chunks: impl Stream<Item = Result<Vec<u8>, Problem>> + 'static) -> Self {
        Self(Content::Stream(Box::pin(chunks)))
    }

    /// Its length in bytes, where known.
    pub fn length(&self) -> Option<u64> {
        match &self.0 {
            Content::Empty => Some(0),
            Content::Bytes(bytes) => Some(bytes.len() as u64),
            Content::Stream(_) => None,
            Content::Host(body) => body.length,
        }
    }

    /// Reads it all; more than `limit` bytes are a problem 413, and a body that ends early is a problem 400.
    pub async fn bytes(self, limit: usize) -> Result<Vec<u8>, Problem> {
        if self.length().is_some_and(|length| length > limit as u64) {
            return Err(Problem::too_large(limit));
        }
        match self.0 {
            Content::Empty => Ok(Vec::new()),
            Content::Bytes(bytes) => Ok(bytes),
            Content::Stream(stream) => collect(stream, limit).await,
            Content::Host(body) => body.collect(limit).await,
        }
    }

    /// Its chunks as they arrive.
    pub fn stream(self) -> BodyStream {
        match self.0 {
            Content::Empty => Box::pin(stream::empty()),
            Content::Bytes(bytes) => Box::pin(stream::iter([Ok(bytes)])),
            Content::Stream(stream) => stream,
            Content::Host(body) => body.chunks(),
        }
    }
}

impl<T: Into<Vec<u8>>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self(Content::Bytes(bytes.into()))
    }
}

async fn collect(mut stream: BodyStream, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() > limit {
            return Err(Problem::too_large(limit));
        }
    }
    Ok(bytes)
}

impl HostBody {
    /// One read suffices where the length is known and the whole body is there.
    async fn collect(mut self, limit: usize) -> Result<Vec<u8>, Problem> {
        let reserve = self
            .length
            .unwrap_or(CHUNK_BYTES as u64 / 8)
            .min(RESERVE_BYTES_MAX);
        let mut bytes = Vec::with_capacity(usize::try_from(reserve).unwrap_or(CHUNK_BYTES));
        loop {
            if self.length == Some(bytes.len() as u64) {
                return Ok(bytes);
            }
            if bytes.len() == bytes.capacity() {
                bytes.reserve(CHUNK_BYTES);
            }
            let (status, read) = self.stream.read(bytes).await;
            bytes = read;
            if bytes.len() > limit {
                return Err(Problem::too_large(limit));
            }
            if !matches!(status, StreamResult::Complete(_)) {
                break;
            }
        }
        drop(self.stream);
        self.end.whole().await.map(|()| bytes)
    }

    fn chunks(self) -> BodyStream {
        let Self { stream, end, .. } = self;
        Box::pin(stream::unfold(Some((stream, end)), |state| async move {
            let (mut stream, end) = state?;
            let (status, chunk) = stream.read(Vec::with_capacity(CHUNK_BYTES)).await;
            match status {
                StreamResult::Complete(_) => Some((Ok(chunk), Some((stream, end)))),
                _ => match end.whole().await {
                    Ok(()) => None,
                    Err(problem) => Some((Err(problem), None)),
                },
            }
        }))
    }
}

pub(crate) fn incomplete(error: ErrorCode) -> Problem {
    match error {
        ErrorCode::HttpRequestBodySize(limit) => {
            Problem::too_large(limit.and_then(|l| l.try_into().ok()).unwrap_or(0))
        }
        other => {
            crate::log::debug!("a body is incomplete", cause = format!("{other:?}"));
            Problem::new(http::StatusCode::BAD_REQUEST).detail("the body is incomplete")
        }
    }
}
