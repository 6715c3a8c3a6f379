//! Objects of any size in the service's own containers.
//!
//! ```no_run
//! # use exprsn_sdk::prelude::*;
//! # async fn example(body: Body) -> Result<Response> {
//! let image = blob::write("avatars", "jane/large.png", blob::Write::of("image/png"), body).await?;
//! let (info, content) = blob::read("avatars", &image.name, blob::ALL).await?;
//! # Ok(Response::ok().header("content-type", info.content_type).body(content)) }
//! ```

use std::pin::pin;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use wit_bindgen::StreamWriter;

use crate::Body;
use crate::bindings::exprsn::blob::{containers, objects, streams, types};
use crate::bindings::{wit_future, wit_stream};
use crate::body::{BodyStream, Content, End, HostBody};
use crate::problem::Problem;

pub use types::{ByteRange, Condition, Error, ObjectInfo, ObjectPage};

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// The whole object.
pub const ALL: Option<ByteRange> = None;

/// How an object is written.
#[derive(Clone, Debug, Default)]
pub struct Write {
    content_type: Option<String>,
    size: Option<u64>,
    condition: Option<Condition>,
}

impl Write {
    /// With a media type.
    pub fn of(content_type: impl Into<String>) -> Self {
        Self {
            content_type: Some(content_type.into()),
            ..Self::default()
        }
    }

    /// With a length that the content must have.
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Only where there is no such object yet; otherwise [`Error::Conflict`].
    pub fn if_absent(mut self) -> Self {
        self.condition = Some(Condition::Absent);
        self
    }

    /// Only where the object still has this etag; otherwise [`Error::Conflict`].
    pub fn if_etag(mut self, etag: impl Into<String>) -> Self {
        self.condition = Some(Condition::Etag(etag.into()));
        self
    }

    fn options(self) -> types::WriteOptions {
        types::WriteOptions {
            content_type: self.content_type,
            size: self.size,
            condition: self.condition,
        }
    }
}

/// A part of an object: `length` bytes from `offset` on, or all that follow.
pub fn range(offset: u64, length: Option<u64>) -> Option<ByteRange> {
    Some(ByteRange { offset, length })
}

/// Creates a container; one that is there stays as it is.
pub async fn create_container(container: &str) -> Result<()> {
    containers::create(container.to_owned()).await
}

/// Deletes a container that is empty.
pub async fn delete_container(container: &str) -> Result<()> {
    containers::delete(container.to_owned()).await
}

/// Whether there is a container.
pub async fn container_exists(container: &str) -> Result<bool> {
    containers::exists(container.to_owned()).await
}

/// The service's containers, by name.
pub async fn list_containers() -> Result<Vec<String>> {
    containers::list().await
}

/// What is known of an object.
pub async fn info(container: &str, name: &str) -> Result<ObjectInfo> {
    objects::info(container.to_owned(), name.to_owned()).await
}

/// Reads an object, or a part of it, into memory.
pub async fn get(
    container: &str,
    name: &str,
    range: Option<ByteRange>,
) -> Result<(ObjectInfo, Vec<u8>)> {
    objects::get(container.to_owned(), name.to_owned(), range).await
}

/// Writes an object from memory. It is durable when this returns.
pub async fn put(
    container: &str,
    name: &str,
    write: Write,
    content: impl Into<Vec<u8>>,
) -> Result<ObjectInfo> {
    let (container, name) = (container.to_owned(), name.to_owned());
    objects::put(container, name, write.options(), content.into()).await
}

/// Some of the objects whose names begin with `prefix`, in the order of their names.
pub async fn list(
    container: &str,
    prefix: &str,
    cursor: Option<String>,
    limit: Option<u32>,
) -> Result<ObjectPage> {
    objects::list(container.to_owned(), prefix.to_owned(), cursor, limit).await
}

/// Deletes an object; one that is not there is no error.
pub async fn delete(container: &str, name: &str) -> Result<()> {
    objects::delete(container.to_owned(), name.to_owned()).await
}

/// Copies an object, within or between containers.
pub async fn copy(from: (&str, &str), to: (&str, &str)) -> Result<ObjectInfo> {
    let [from_container, from_name, to_container, to_name] =
        [from.0, from.1, to.0, to.1].map(str::to_owned);
    objects::copy(from_container, from_name, to_container, to_name).await
}

/// Reads an object, or a part of it, of any size. Used as a response's body, its bytes never enter the component.
pub async fn read(
    container: &str,
    name: &str,
    range: Option<ByteRange>,
) -> Result<(ObjectInfo, Body)> {
    let opened = streams::read(container.to_owned(), name.to_owned(), range).await?;
    let (info, stream, read) = opened;
    let length = range.map_or(info.size, |range| {
        let rest = info.size.saturating_sub(range.offset);
        range.length.unwrap_or(rest).min(rest)
    });
    let body = HostBody {
        stream,
        end: End::Blob(read),
        length: Some(length),
    };
    Ok((info, Body(Content::Host(body))))
}

/// Writes an object of any size. It is durable when this returns; where the body breaks off, nothing of it shows.
///
/// The body of a request goes to the host unread: its bytes never enter the component.
pub async fn write(
    container: &str,
    name: &str,
    mut write: Write,
    body: impl Into<Body>,
) -> Result<ObjectInfo> {
    let body = body.into();
    write.size = write.size.or(body.length());
    let (container, name, options) = (container.to_owned(), name.to_owned(), write.options());
    let (complete, completed) = wit_future::new(|| false);
    if let Content::Host(HostBody { stream, end, .. }) = body.0 {
        let writing = streams::write(container, name, options, stream, completed);
        let ending = async {
            // A call that has failed already does not ask.
            let _ = complete.write(end.whole().await.is_ok()).await;
        };
        return ended(writing, ending).await;
    }
    let (writer, stream) = wit_stream::new();
    let writing = streams::write(container, name, options, stream, completed);
    let ending = async {
        let whole = pump(body.stream(), writer).await;
        // As above.
        let _ = complete.write(whole).await;
    };
    ended(writing, ending).await
}

/// The call's answer. One that has failed already does not wait for the rest of the body.
async fn ended<T>(writing: impl Future<Output = T>, ending: impl Future<Output = ()>) -> T {
    match select(pin!(writing), pin!(ending)).await {
        Either::Left((answer, _)) => answer,
        Either::Right(((), writing)) => writing.await,
    }
}

/// Whether all chunks were taken.
async fn pump(mut chunks: BodyStream, mut writer: StreamWriter<u8>) -> bool {
    while let Some(chunk) = chunks.next().await {
        let Ok(bytes) = chunk else { return false };
        if !writer.write_all(bytes).await.is_empty() {
            return false;
        }
    }
    true
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(what) => Problem::new(http::StatusCode::NOT_FOUND).detail(what),
            Error::Conflict(what) => Problem::conflict(what),
            Error::Unavailable(_) | Error::LimitExceeded(_) => Problem::unavailable(1),
            Error::AccessDenied(what) | Error::Invalid(what) => {
                Problem::fault("the object store refused a call", what)
            }
        }
    }
}
