//! The embedded backend: one SQLite file for the jobs and events of all services.
//!
//! **Invariant:** every change of a job's state goes with the change of its queue's counts, in the same transaction.
//! **Invariant:** one host process has the file, so whatever is leased when it opens was leased by a dead one.

mod add;
mod manage;
mod settle;
mod table;
mod upkeep;

use super::{
    backend::{
        Backend, Delivered, Error, Message, NextDue, Recurrence, Result, Subscription, Take, Taken,
    },
    job::{Claim, Counts, Job, NewJob, Outcome, Settings, State},
    limits::Config,
};
use crate::{
    events::Event,
    name::ServiceName,
    sqlite::{self, Database, Options},
};
use futures::future::{BoxFuture, FutureExt as _};
use rusqlite::Connection;
use std::{path::Path, sync::Arc};
use table::{Queue, Sequence};
use upkeep::Retention;

/// The file's page cache, in bytes.
const CACHE_BYTES_MAX: u64 = 64 << 20;

/// Jobs and events in an SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteBackend {
    database: Database,
    sequence: Sequence,
    retention: Retention,
}

impl SqliteBackend {
    /// Opens the file, creating it where absent, and returns the jobs that a dead host was doing to their queues.
    ///
    /// Blocks for the time of some disk accesses. The error names the path and the remedy.
    pub fn open(path: &Path, config: &Config, now_ms: i64) -> Result<Self, sqlite::Error> {
        let (sequence, stalled_max) = (Sequence::default(), config.stalled_max);
        let begun = sequence.clone();
        let options = Options {
            waiting_max: config.writes_waiting_max,
            cache_bytes_max: CACHE_BYTES_MAX,
            ..Options::with_schema(move |connection| begin(connection, &begun, stalled_max, now_ms))
        };
        let database = Database::open(path, options)?;
        let retention = Retention {
            events_max: config.events_max,
            events_ms_max: config.events_ms_max,
            seen_max: config.seen_max,
            seen_ms_min: config.seen_ms_min,
        };
        Ok(Self {
            database,
            sequence,
            retention,
        })
    }

    fn write<T: Send + 'static>(
        &self,
        f: impl FnMut(&Connection, &Sequence) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        let (mut f, sequence) = (f, self.sequence.clone());
        self.database
            .write_again(move |connection| f(connection, &sequence))
            .boxed()
    }

    fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        self.database.read::<T, Error, _>(f).boxed()
    }
}

/// What happens once when the file is opened, in one transaction.
fn begin(
    connection: &Connection,
    sequence: &Sequence,
    stalled_max: u32,
    now_ms: i64,
) -> Result<(), sqlite::Error> {
    connection.execute_batch(include_str!("sqlite/schema.sql"))?;
    sequence.begin(connection)?;
    match settle::rescue(connection, stalled_max, i64::MAX, now_ms) {
        Ok(_) => Ok(()),
        Err(Error::Database(error)) => Err(error),
        Err(
            Error::NotFound | Error::Invalid(_) | Error::LimitExceeded(_) | Error::Unavailable(_),
        ) => unreachable!(
            "rescuing asks for no job, takes nothing from a guest, adds nothing and has a file only"
        ),
    }
}

impl Backend for SqliteBackend {
    fn add_many(
        &self,
        queue: &str,
        jobs: Vec<NewJob>,
        pending_max: u64,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<()>> {
        let queue = queue.to_owned();
        self.write(move |connection, sequence| {
            add::add_many(connection, sequence, &queue, &jobs, pending_max, now_ms)
        })
    }

    fn deliver(
        &self,
        batch: Vec<Message>,
        pending_max: u64,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<Delivered>> {
        self.write(move |connection, sequence| {
            add::deliver(connection, sequence, &batch, pending_max, now_ms)
        })
    }

    fn declare(&self, queue: &str, settings: Settings) -> BoxFuture<'_, Result<()>> {
        let queue = queue.to_owned();
        self.write(move |connection, _| {
            Queue::find_or_create(connection, &queue)?.update_settings(connection, &settings)
        })
    }

    fn settle(
        &self,
        queue: &str,
        outcomes: Arc<Vec<(Claim, Outcome)>>,
        take: Option<Take>,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<Taken>> {
        let queue = queue.to_owned();
        self.write(move |connection, sequence| {
            settle::settle(connection, sequence, &queue, &outcomes, take, now_ms)
        })
    }

    fn extend(
        &self,
        claims: Vec<Claim>,
        lease_ms: u64,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<Vec<Claim>>> {
        let until_ms = now_ms.saturating_add_unsigned(lease_ms);
        self.write(move |connection, _| settle::extend(connection, &claims, until_ms))
    }

    fn rescue(&self, stalled_max: u32, now_ms: i64) -> BoxFuture<'_, Result<Vec<String>>> {
        self.write(move |connection, _| settle::rescue(connection, stalled_max, now_ms, now_ms))
    }

    fn get(&self, queue: &str, id: &str) -> BoxFuture<'_, Result<Job>> {
        let (queue, id) = (queue.to_owned(), id.to_owned());
        self.read(move |connection| manage::get(connection, &queue, &id))
    }

    fn list(
        &self,
        queue: &str,
        state: State,
        offset: u64,
        limit: u64,
    ) -> BoxFuture<'_, Result<Vec<Job>>> {
        let queue = queue.to_owned();
        self.read(move |connection| manage::list(connection, &queue, state, offset, limit))
    }

    fn counts(&self, queue: &str) -> BoxFuture<'_, Result<Counts>> {
        let queue = queue.to_owned();
        self.read(move |connection| manage::counts(connection, &queue))
    }

    fn overview(&self) -> BoxFuture<'_, Result<Vec<(String, Counts)>>> {
        self.read(manage::overview)
    }

    fn remove(&self, queue: &str, id: &str) -> BoxFuture<'_, Result<()>> {
        let (queue, id) = (queue.to_owned(), id.to_owned());
        self.write(move |connection, _| manage::remove(connection, &queue, &id))
    }

    fn retry(&self, queue: &str, id: &str) -> BoxFuture<'_, Result<()>> {
        let (queue, id) = (queue.to_owned(), id.to_owned());
        self.write(move |connection, sequence| manage::retry(connection, sequence, &queue, &id))
    }

    fn pause(&self, queue: &str, paused: bool) -> BoxFuture<'_, Result<()>> {
        let queue = queue.to_owned();
        self.write(move |connection, _| manage::pause(connection, &queue, paused))
    }

    fn schedule(
        &self,
        queues: Vec<String>,
        wanted: Vec<Recurrence>,
        next_due: NextDue,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<()>> {
        self.write(move |connection, _| {
            upkeep::schedule(connection, &queues, &wanted, next_due, now_ms)
        })
    }

    fn recur(
        &self,
        queues: Vec<String>,
        next_due: NextDue,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<(Vec<String>, Option<i64>)>> {
        self.write(move |connection, sequence| {
            upkeep::recur(connection, sequence, &queues, next_due, now_ms)
        })
    }

    fn subscribe(
        &self,
        service: &ServiceName,
        wanted: Vec<Subscription>,
    ) -> BoxFuture<'_, Result<()>> {
        let service = service.clone();
        self.write(move |connection, _| add::subscribe(connection, &service, &wanted))
    }

    fn subscriptions(&self) -> BoxFuture<'_, Result<Vec<Subscription>>> {
        self.read(add::subscriptions)
    }

    fn events(&self, pattern: &str, limit: u64) -> BoxFuture<'_, Result<Vec<Event>>> {
        let pattern = pattern.to_owned();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        // May look at every event kept: not among the short reads.
        self.database
            .scan(move |connection| upkeep::events(connection, &pattern, limit))
            .boxed()
    }

    fn tidy(&self, now_ms: i64) -> BoxFuture<'_, Result<bool>> {
        async move {
            let seen = self.database.scan(upkeep::seen_count).await?;
            let retention = self.retention;
            self.write(move |connection, _| upkeep::tidy(connection, &retention, seen, now_ms))
                .await
        }
        .boxed()
    }

    fn wake(&self, _queues: Vec<String>) -> BoxFuture<'_, Result<Vec<String>>> {
        // One process has the file, and it knows what it adds.
        std::future::pending().boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.database.close().boxed()
    }
}

#[cfg(test)]
mod tests;
