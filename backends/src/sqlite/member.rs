//! A closure on its way through a group of writes.

use super::Error;
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::sync::oneshot;

/// A closure on its way through a group.
pub(super) trait Member: Send {
    /// Runs it; false when it failed and its effects are to be undone.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Answers with the outcome of the last run, or with the error that undid it.
    fn finish(self: Box<Self>, committed: Result<(), Error>);
    /// Nobody waits for the answer.
    fn is_abandoned(&self) -> bool;
}

pub(super) struct Write<T, E, F> {
    f: F,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Write<T, E, F> {
    pub(super) fn new(f: F, reply: oneshot::Sender<Result<T, E>>) -> Self {
        Self {
            f,
            outcome: None,
            reply,
        }
    }
}

impl<T, E, F> Member for Write<T, E, F>
where
    T: Send,
    E: From<Error> + Send,
    F: FnMut(&Connection) -> Result<T, E> + Send,
{
    fn run(&mut self, connection: &Connection) -> bool {
        let f = &mut self.f;
        let outcome = catch_unwind(AssertUnwindSafe(|| f(connection)))
            .unwrap_or_else(|_| Err(Error::Panicked.into()));
        self.outcome.insert(outcome).is_ok()
    }

    fn finish(self: Box<Self>, committed: Result<(), Error>) {
        let outcome = match (committed, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            (Err(error), Some(Ok(_)) | None) => Err(error.into()),
            (_, Some(Err(error))) => Err(error),
            (Ok(()), None) => Err(Error::Lost.into()),
        };
        // Whoever asked may have gone meanwhile.
        let _ = self.reply.send(outcome);
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}
