//! Rows of the tables as values, and the counters that go with every change of a job's state.

use crate::{
    name::ServiceName,
    queue::{
        backend::{QUEUES_MAX, Result, too_many_queues},
        job::{Backoff, Claim, Claimed, Counts, Job, Settings, State},
    },
    trace::TraceContext,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

pub(super) const WAITING: i64 = 0;
pub(super) const DELAYED: i64 = 1;
pub(super) const ACTIVE: i64 = 2;
pub(super) const COMPLETED: i64 = 3;
pub(super) const FAILED: i64 = 4;

/// A row of `queues`.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub id: i64,
    pub name: String,
    pub settings: Settings,
    pub counts: Counts,
}

const QUEUE_COLUMNS: &str = "id, name, paused, attempts, backoff_kind, backoff_ms, timeout_ms, keep_completed, keep_failed, \
     waiting, delayed, prioritized, active, completed, failed";

impl Queue {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            name: row.get(1)?,
            settings: Settings {
                attempts: row.get(3)?,
                backoff: backoff(row.get(4)?, unsigned(row, 5)?),
                timeout_ms: unsigned(row, 6)?,
                keep_completed: unsigned(row, 7)?,
                keep_failed: unsigned(row, 8)?,
            },
            counts: Counts {
                paused: row.get(2)?,
                waiting: unsigned(row, 9)?,
                delayed: unsigned(row, 10)?,
                prioritized: unsigned(row, 11)?,
                active: unsigned(row, 12)?,
                completed: unsigned(row, 13)?,
                failed: unsigned(row, 14)?,
            },
        })
    }

    pub(super) fn find(connection: &Connection, name: &str) -> Result<Option<Self>> {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {QUEUE_COLUMNS} FROM queues WHERE name = ?1"
        ))?;
        Ok(statement.query_row([name], Self::from_row).optional()?)
    }

    pub(super) fn all(connection: &Connection) -> Result<Vec<Self>> {
        let mut statement = connection
            .prepare_cached(&format!("SELECT {QUEUE_COLUMNS} FROM queues ORDER BY name"))?;
        Ok(statement
            .query_map([], Self::from_row)?
            .collect::<rusqlite::Result<_>>()?)
    }

    /// The queue called `name`, made with the defaults where absent.
    pub(super) fn find_or_create(connection: &Connection, name: &str) -> Result<Self> {
        if let Some(queue) = Self::find(connection, name)? {
            return Ok(queue);
        }
        let held =
            connection.query_row("SELECT count(*) FROM queues", [], |row| unsigned(row, 0))?;
        if held >= QUEUES_MAX {
            return Err(too_many_queues());
        }
        let settings = Settings::default();
        let (kind, delay_ms) = backoff_columns(settings.backoff);
        connection.execute(
            "INSERT INTO queues (name, attempts, backoff_kind, backoff_ms, timeout_ms, keep_completed, keep_failed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                name,
                settings.attempts,
                kind,
                delay_ms,
                signed(settings.timeout_ms),
                signed(settings.keep_completed),
                signed(settings.keep_failed)
            ],
        )?;
        let id = connection.last_insert_rowid();
        Ok(Self {
            id,
            name: name.to_owned(),
            settings,
            counts: Counts::default(),
        })
    }

    pub(super) fn update_settings(
        &self,
        connection: &Connection,
        settings: &Settings,
    ) -> Result<()> {
        let (kind, delay_ms) = backoff_columns(settings.backoff);
        connection.execute(
            "UPDATE queues SET attempts = ?2, backoff_kind = ?3, backoff_ms = ?4, timeout_ms = ?5, keep_completed = ?6,
               keep_failed = ?7 WHERE id = ?1",
            params![
                self.id,
                settings.attempts.max(1),
                kind,
                delay_ms,
                signed(settings.timeout_ms.max(1)),
                signed(settings.keep_completed),
                signed(settings.keep_failed)
            ],
        )?;
        Ok(())
    }

    /// The queue's counts with `delta` on top.
    pub(super) fn apply(&self, connection: &Connection, delta: &Delta) -> Result<()> {
        if *delta == Delta::default() {
            return Ok(());
        }
        let mut statement = connection.prepare_cached(
            "UPDATE queues SET waiting = waiting + ?2, delayed = delayed + ?3, prioritized = prioritized + ?4,
               active = active + ?5, completed = completed + ?6, failed = failed + ?7 WHERE id = ?1",
        )?;
        statement.execute(params![
            self.id,
            delta.waiting,
            delta.delayed,
            delta.prioritized,
            delta.active,
            delta.completed,
            delta.failed
        ])?;
        Ok(())
    }
}

/// What an operation adds to a queue's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delta {
    waiting: i64,
    delayed: i64,
    prioritized: i64,
    active: i64,
    completed: i64,
    failed: i64,
}

impl Delta {
    /// `by` more jobs in `state`, which have `priority`.
    pub(super) fn add(&mut self, state: i64, priority: i64, by: i64) {
        let count = match state {
            WAITING if priority == 0 => &mut self.waiting,
            WAITING => &mut self.prioritized,
            DELAYED => &mut self.delayed,
            ACTIVE => &mut self.active,
            COMPLETED => &mut self.completed,
            _ => &mut self.failed,
        };
        *count += by;
    }

    /// What is added to the jobs completed or failed.
    pub(super) fn of(&self, finished: i64) -> i64 {
        if finished == COMPLETED {
            self.completed
        } else {
            self.failed
        }
    }

    /// A job with `priority` goes from one state to another.
    pub(super) fn transfer(&mut self, from: i64, to: i64, priority: i64) {
        self.add(from, priority, -1);
        self.add(to, priority, 1);
    }
}

pub(super) fn backoff(kind: i64, delay_ms: u64) -> Backoff {
    if kind == 0 {
        Backoff::Fixed { delay_ms }
    } else {
        Backoff::Exponential { delay_ms }
    }
}

pub(super) fn backoff_columns(backoff: Backoff) -> (i64, i64) {
    match backoff {
        Backoff::Fixed { delay_ms } => (0, signed(delay_ms)),
        Backoff::Exponential { delay_ms } => (1, signed(delay_ms)),
    }
}

/// A count or a time as SQLite's integers hold it; none of ours is near their end.
pub(super) fn signed(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A column that a CHECK keeps from being negative.
pub(super) fn unsigned(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get(index).map(i64::unsigned_abs)
}

pub(super) fn trace_column(trace: Option<TraceContext>) -> Option<String> {
    trace.map(TraceContext::to_header)
}

/// The columns that [`job`] reads, in its order.
pub(super) const JOB_COLUMNS: &str = "seq, lease, id, state, rank, priority, attempts_made, attempts, timeout_ms, \
     created_at, processed_at, name, origin, trace, subject, failed_reason, return_value, data";

/// A job of `queue` from its row.
pub(super) fn job(queue: &Queue, row: &Row<'_>) -> rusqlite::Result<Job> {
    let state: i64 = row.get(3)?;
    let priority: u32 = row.get(5)?;
    let made: u32 = row.get(6)?;
    let origin: Option<String> = row.get(12)?;
    let trace: Option<String> = row.get(13)?;
    Ok(Job {
        claim: Claim {
            job: Claimed::Row(row.get(0)?),
            lease: row.get::<_, Option<i64>>(1)?.unwrap_or_default(),
        },
        id: row.get(2)?,
        queue: queue.name.clone(),
        attempt: made + u32::from(state == ACTIVE),
        attempts: row
            .get::<_, Option<u32>>(7)?
            .unwrap_or(queue.settings.attempts),
        priority,
        state: shown_state(state, priority, queue.counts.paused),
        timeout_ms: row
            .get::<_, Option<i64>>(8)?
            .map_or(queue.settings.timeout_ms, i64::unsigned_abs),
        created_at: row.get(9)?,
        processed_at: row.get(10)?,
        finished_at: if state >= COMPLETED {
            Some(row.get(4)?)
        } else {
            None
        },
        name: row.get(11)?,
        origin: origin.and_then(|name| ServiceName::parse(&name).ok()),
        trace: trace.and_then(|header| TraceContext::parse(&header)),
        subject: row.get(14)?,
        failed_reason: row.get(15)?,
        return_value: row.get(16)?,
        data: row.get(17)?,
    })
}

fn shown_state(state: i64, priority: u32, paused: bool) -> State {
    match state {
        WAITING if priority > 0 => State::Prioritized,
        WAITING if paused => State::Paused,
        WAITING => State::Waiting,
        DELAYED => State::Delayed,
        ACTIVE => State::Active,
        COMPLETED => State::Completed,
        _ => State::Failed,
    }
}

/// Numbers that rise for ever: jobs' rows, and their places in line.
#[derive(Clone, Debug, Default)]
pub(super) struct Sequence(Arc<AtomicI64>);

/// Numbers for one run of the host; there are 2^23 runs.
const RUN_BITS: u32 = 40;

impl Sequence {
    /// Goes on with the numbers of a new run of the host, all above those of earlier runs.
    pub(super) fn begin(&self, connection: &Connection) -> rusqlite::Result<()> {
        let run: i64 = connection.query_row(
            "UPDATE broker SET runs = runs + 1 RETURNING runs",
            [],
            |row| row.get(0),
        )?;
        self.0.store(run << RUN_BITS, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn next(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
