//! What keeps objects: the trait, shaped so that S3 can stand behind it too, and what is said across it.

use super::name::{ContainerName, ObjectName};
use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream::BoxStream};
use std::{fmt, io};

/// The media type of what is written without one.
pub const CONTENT_TYPE_DEFAULT: &str = "application/octet-stream";

/// Why a call did nothing.
#[derive(Debug)]
pub enum Error {
    NotFound(String),
    /// A condition does not hold, or a container is not empty.
    Conflict(String),
    LimitExceeded(String),
    Invalid(String),
    /// The host's fault: its cause is for the log, not for a guest.
    Away {
        /// What was being done: "reading an object".
        doing: &'static str,
        source: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(text)
            | Self::Conflict(text)
            | Self::LimitExceeded(text)
            | Self::Invalid(text) => f.write_str(text),
            Self::Away { doing, .. } => write!(f, "{doing} failed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Away { source, .. } => Some(source),
            _ => None,
        }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names a host fault by what was being done.
pub fn away(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Away { doing, source }
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub container: ContainerName,
    pub name: ObjectName,
}

impl Place {
    /// There is nothing at this place.
    pub fn missing(&self) -> Error {
        Error::NotFound(format!(
            "container `{}` has no object {:?}",
            self.container,
            self.name.as_str()
        ))
    }
}

/// The container is not there.
pub fn no_container(container: &ContainerName) -> Error {
    Error::NotFound(format!(
        "there is no container `{container}`; create it first"
    ))
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    pub name: ObjectName,
    pub size: u64,
    pub content_type: String,
    /// Changes when the content does.
    pub etag: String,
    /// Lower-case hexadecimal.
    pub sha256: Option<String>,
    pub modified_ms: i64,
}

/// What has to be true of the object that a write would replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Absent,
    Etag(String),
}

impl Condition {
    /// Whether it holds for what is at `place` now.
    pub fn check(&self, place: &Place, now: Option<&Info>) -> Result<()> {
        let name = place.name.as_str();
        match (self, now) {
            (Self::Absent, Some(_)) => Err(Error::Conflict(format!(
                "there is an object {name:?} already"
            ))),
            (Self::Etag(_), None) => {
                Err(Error::Conflict(format!("there is no object {name:?} yet")))
            }
            (Self::Etag(wanted), Some(info)) if *wanted != info.etag => Err(Error::Conflict(
                format!("object {name:?} has changed: its etag is {}", info.etag),
            )),
            _ => Ok(()),
        }
    }
}

/// An object to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    pub content_type: String,
    /// The content's length, where known before.
    pub size: Option<u64>,
    pub condition: Option<Condition>,
}

/// A part of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub offset: u64,
    /// To the end where absent.
    pub length: Option<u64>,
}

impl Range {
    /// The first byte and the one after the last, in an object of `size` bytes.
    pub fn within(&self, size: u64) -> Result<(u64, u64)> {
        if self.offset > size {
            return Err(Error::Invalid(format!(
                "the range begins at {}, and the object has {size} bytes",
                self.offset
            )));
        }
        let length = self.length.unwrap_or(u64::MAX);
        Ok((self.offset, self.offset.saturating_add(length).min(size)))
    }
}

/// A part of a list, in the order of the names' bytes.
#[derive(Debug, Default)]
pub struct Listing {
    pub objects: Vec<Info>,
    /// The name after which the list goes on.
    pub next: Option<ObjectName>,
}

/// What a service's objects take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What is being written included.
    pub bytes: u64,
    pub objects: usize,
}

/// How much of a backend one service may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub object_bytes_max: u64,
    pub total_bytes_max: u64,
    pub objects_max: usize,
    pub containers_max: usize,
}

/// Chunks of an object, which stay what they were when it was opened whatever is written meanwhile.
pub type Content = BoxStream<'static, Result<Bytes>>;

/// An object on its way in. Dropped without [`commit`](Self::commit) it leaves nothing.
pub trait Writer: Send {
    /// Takes the next chunk; an error is final.
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<()>>;

    /// Makes the object show, durably and at once, in place of what was there.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Info>>;
}

/// The objects of one service. What has returned is durable.
pub trait Backend: Send + Sync + fmt::Debug + 'static {
    /// Creates a container; one that is there stays as it is.
    fn create_container(&self, container: &ContainerName) -> BoxFuture<'_, Result<()>>;

    /// Deletes a container; [`Error::Conflict`] where it holds anything, [`Error::NotFound`] where it is not there.
    fn delete_container(&self, container: &ContainerName) -> BoxFuture<'_, Result<()>>;

    /// All containers, by name.
    fn containers(&self) -> BoxFuture<'_, Result<Vec<ContainerName>>>;

    fn info(&self, place: &Place) -> BoxFuture<'_, Result<Info>>;

    /// Opens an object to be read.
    fn read(&self, place: &Place, range: Range) -> BoxFuture<'_, Result<(Info, Content)>>;

    /// Begins an object. Its condition is checked now, to fail early, and once more when it is committed.
    fn write(&self, place: &Place, new: New) -> BoxFuture<'_, Result<Box<dyn Writer>>>;

    /// At most `limit` objects after `after` whose names begin with `prefix`.
    fn list(
        &self,
        container: &ContainerName,
        prefix: &str,
        after: Option<&ObjectName>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Listing>>;

    /// Deletes an object; one that is not there is no error, a container that is not there is.
    fn delete(&self, place: &Place) -> BoxFuture<'_, Result<()>>;

    /// Copies an object within the service, with its media type.
    fn copy(&self, from: &Place, to: &Place) -> BoxFuture<'_, Result<Info>>;

    /// What the service's objects take now.
    fn usage(&self) -> Usage;
}

/// Copies by reading and writing, for a backend that has no better way.
pub async fn copy_through(backend: &dyn Backend, from: &Place, to: &Place) -> Result<Info> {
    let (info, mut content) = backend.read(from, Range::default()).await?;
    let new = New {
        content_type: info.content_type,
        size: Some(info.size),
        condition: None,
    };
    let mut writer = backend.write(to, new).await?;
    while let Some(chunk) = content.next().await {
        writer.write(chunk?).await?;
    }
    writer.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_within_the_object() {
        let check = |offset, length, expected| {
            assert_eq!(Range { offset, length }.within(10).ok(), expected);
        };
        check(0, None, Some((0, 10)));
        check(3, Some(4), Some((3, 7)));
        check(3, Some(100), Some((3, 10)));
        check(9, Some(u64::MAX), Some((9, 10)));
        check(10, None, Some((10, 10)));
        check(0, Some(0), Some((0, 0)));
        check(11, Some(0), None);
        check(u64::MAX, Some(u64::MAX), None);
    }
}
