//! Sessions: interactive transactions, as their owners see them.

use super::Error;
use rusqlite::Connection;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
        mpsc,
    },
};
use tokio::sync::oneshot;

/// Steps of a session that may wait for the writer.
pub(super) const STEPS_MAX: usize = 16;

/// How a session stands: under way, or how it ended.
pub(super) const OPEN: u8 = 0;
pub(super) const EXPIRED: u8 = 1;
pub(super) const LOST: u8 = 2;
pub(super) const ENDED: u8 = 3;

/// What a session asks of the writer.
pub(super) enum Step {
    Run(Box<dyn FnOnce(&Connection) + Send>),
    Commit {
        then: Option<Box<dyn FnOnce() + Send>>,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    Rollback(oneshot::Sender<Result<(), Error>>),
}

/// An interactive transaction. Dropped, it rolls back.
#[derive(Debug)]
pub struct Session {
    steps: mpsc::SyncSender<Step>,
    fate: Arc<AtomicU8>,
}

impl Session {
    pub(super) fn new(steps: mpsc::SyncSender<Step>, fate: Arc<AtomicU8>) -> Self {
        Self { steps, fate }
    }

    /// Runs `f` inside the transaction. An `Err` undoes the failing statement only; the transaction goes on.
    pub async fn run<T, E, F>(&self, f: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let run = move |connection: &Connection| {
            let outcome = catch_unwind(AssertUnwindSafe(|| f(connection)));
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(outcome.unwrap_or_else(|_| Err(Error::Panicked.into())));
        };
        self.step(Step::Run(Box::new(run)))?;
        answer.await.unwrap_or_else(|_| Err(self.ended().into()))
    }

    /// Makes all of it durable.
    pub async fn commit(&self) -> Result<(), Error> {
        self.finish(None).await
    }

    /// As [`Session::commit`]; `then` is called on the writer's thread after the commit, even if nobody waits for it.
    pub async fn commit_then(&self, then: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        self.finish(Some(Box::new(then))).await
    }

    /// Undoes all of it; answers when the writer serves others again.
    pub async fn roll_back(&self) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.step(Step::Rollback(reply))?;
        answer.await.unwrap_or_else(|_| Err(self.ended()))
    }

    async fn finish(&self, then: Option<Box<dyn FnOnce() + Send>>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.step(Step::Commit { then, reply })?;
        answer.await.unwrap_or_else(|_| Err(self.ended()))
    }

    fn step(&self, step: Step) -> Result<(), Error> {
        self.steps.try_send(step).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => Error::Overloaded,
            mpsc::TrySendError::Disconnected(_) => self.ended(),
        })
    }

    fn ended(&self) -> Error {
        match self.fate.load(Ordering::SeqCst) {
            EXPIRED => Error::Expired,
            LOST => Error::Lost,
            ENDED => Error::Ended,
            _ => Error::Closed,
        }
    }
}
