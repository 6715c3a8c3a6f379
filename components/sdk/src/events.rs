//! Events between services: publishing, subscribing, and passing messages to whoever listens now.

use std::future::Future;

use futures_core::Stream;
use futures_util::future::LocalBoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exprsn::events::{publisher, types};
use crate::problem::Problem;
use crate::queue::JobError;

pub use types::Error;

/// An event as a subscriber gets it, at least once.
#[derive(Clone, Debug)]
pub struct Event<T> {
    /// Unique with `source`; remember it where getting the event twice would matter.
    pub id: String,
    /// The SPIFFE id of the publishing service.
    pub source: String,
    /// Its topic: `post.created`.
    pub topic: String,
    /// What it is about, such as a post's id.
    pub subject: Option<String>,
    /// When it was published, in milliseconds since the Unix epoch.
    pub time: i64,
    /// What it carries.
    pub data: T,
    /// Which delivery this is; the first is 1.
    pub attempt: u32,
}

impl Event<()> {
    /// An event to publish.
    #[allow(
        clippy::new_ret_no_self,
        reason = "an event on its way has no source, time or attempt yet"
    )]
    pub fn new<T: Serialize + ?Sized>(topic: impl Into<String>, data: &T) -> NewEvent {
        NewEvent {
            id: None,
            topic: topic.into(),
            subject: None,
            data: serde_json::to_string(data),
        }
    }
}

/// An event to publish.
#[derive(Debug)]
pub struct NewEvent {
    id: Option<String>,
    topic: String,
    subject: Option<String>,
    data: serde_json::Result<String>,
}

impl NewEvent {
    /// With what it is about.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// With an id; publishing it again is harmless.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    pub(crate) fn encode(self) -> serde_json::Result<types::NewEvent> {
        Ok(types::NewEvent {
            id: self.id,
            topic: self.topic,
            subject: self.subject,
            data: self.data?,
        })
    }
}

/// Publishes durably and answers the event's id. With data of the same transaction use [`Tx::publish`](crate::sql::Tx::publish).
pub async fn publish(event: NewEvent) -> Result<String, Error> {
    let event = event
        .encode()
        .map_err(|error| Error::Invalid(error.to_string()))?;
    publisher::publish(event).await
}

/// Messages to whoever listens now, kept nowhere. A channel belongs to the service.
pub mod live {
    use super::{Error, Serialize, Stream};
    use crate::bindings::exprsn::events::live as host;

    /// Sends a value as JSON to the present listeners of a channel.
    pub async fn broadcast<T: Serialize + ?Sized>(channel: &str, data: &T) -> Result<(), Error> {
        let text =
            serde_json::to_string(data).map_err(|error| Error::Invalid(error.to_string()))?;
        host::broadcast(channel.to_owned(), text).await
    }

    /// The messages of a channel from now on, as JSON. A listener that is too slow loses its stream.
    pub async fn listen(
        channel: &str,
    ) -> Result<impl Stream<Item = String> + Unpin + 'static, Error> {
        Ok(host::listen(channel.to_owned()).await?.into_stream())
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(_) | Error::LimitExceeded(_) => Problem::unavailable(1),
            Error::AccessDenied(what) | Error::Invalid(what) => {
                Problem::fault("events refused a call", what)
            }
        }
    }
}

/// What a subscriber's function answers.
pub type EventResult = Result<(), EventError>;

/// Why an event could not be taken; the same choice as with jobs.
pub type EventError = JobError;

type Take = Box<dyn Fn(types::Event) -> LocalBoxFuture<'static, EventResult>>;

/// Which function takes which topics.
#[derive(Default)]
pub struct Events(Vec<(String, Take)>);

impl Events {
    /// No function yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the events of a topic, or of all topics with a prefix (`user.*`). The first that matches takes it.
    pub fn on<T, F, Fut>(mut self, topic: &str, take: F) -> Self
    where
        T: DeserializeOwned + 'static,
        F: Fn(Event<T>) -> Fut + 'static,
        Fut: Future<Output = EventResult> + 'static,
    {
        let erased = move |event: types::Event| -> LocalBoxFuture<'static, EventResult> {
            match typed(event) {
                Ok(event) => Box::pin(take(event)),
                Err(error) => Box::pin(async { Err(error) }),
            }
        };
        self.0.push((topic.to_owned(), Box::new(erased)));
        self
    }

    /// Takes an event; one that no function is for fails for good.
    pub async fn handle(&self, event: types::Event) -> EventResult {
        match self
            .0
            .iter()
            .find(|(topic, _)| matches(topic, &event.topic))
        {
            Some((_, take)) => take(event).await,
            None => Err(EventError::fail(format!(
                "no function takes events {}",
                event.topic
            ))),
        }
    }
}

fn matches(pattern: &str, topic: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => topic.starts_with(prefix),
        None => topic == pattern,
    }
}

fn typed<T: DeserializeOwned>(event: types::Event) -> Result<Event<T>, EventError> {
    let data = serde_json::from_str(&event.data)
        .map_err(|error| EventError::fail(format!("unexpected data: {error}")))?;
    Ok(Event {
        id: event.id,
        source: event.source,
        topic: event.topic,
        subject: event.subject,
        time: event.time,
        data,
        attempt: event.attempt,
    })
}

#[cfg(test)]
mod tests;
