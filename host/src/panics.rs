//! Panics of the host: each ends what it happened in and nothing else, and is logged with its place and its message.

use futures::FutureExt as _;
use std::{any::Any, fmt, future::Future, panic::AssertUnwindSafe};

/// A panic that was caught; its message is for the log, not for a client.
#[derive(Debug)]
pub struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

impl Panicked {
    fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "no message".to_owned()))
    }
}

/// Runs `future`; a panic in it becomes an error. What it was working on is to be given up by the caller.
pub async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    AssertUnwindSafe(future)
        .catch_unwind()
        .await
        .map_err(|payload| Panicked::of(payload.as_ref()))
}

/// Has every panic of this process logged, instead of printed between the log's lines.
pub fn log_all() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string);
        tracing::error!(
            thread = thread.name().unwrap_or_default(),
            place,
            message = Panicked::of(panic.payload()).to_string(),
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_error_with_its_message() {
        let number = std::hint::black_box(7);
        let caught_text = |caught: Result<(), Panicked>| caught.unwrap_err().to_string();
        assert_eq!(
            caught_text(caught(async { panic!("as {number} wants") }).await),
            "the host panicked: as 7 wants"
        );
        assert_eq!(
            caught_text(caught(async { panic!("plain") }).await),
            "the host panicked: plain"
        );
        assert_eq!(caught(async { 1 }).await.ok(), Some(1));
    }
}
