//! Looking at jobs and managing them.

use super::{
    settle::remember,
    table::{
        ACTIVE, COMPLETED, DELAYED, Delta, FAILED, JOB_COLUMNS, Queue, Sequence, WAITING, job,
        signed,
    },
};
use crate::queue::{
    backend::{Error, Result},
    job::{Counts, Job, State},
};
use rusqlite::{Connection, OptionalExtension as _, params};

pub(super) fn get(connection: &Connection, queue: &str, id: &str) -> Result<Job> {
    let queue = Queue::find(connection, queue)?.ok_or(Error::NotFound)?;
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {JOB_COLUMNS} FROM jobs WHERE queue = ?1 AND id = ?2"
    ))?;
    statement
        .query_row(params![queue.id, id], |row| job(&queue, row))
        .optional()?
        .ok_or(Error::NotFound)
}

pub(super) fn list(
    connection: &Connection,
    queue: &str,
    state: State,
    offset: u64,
    limit: u64,
) -> Result<Vec<Job>> {
    let Some(queue) = Queue::find(connection, queue)? else {
        return Ok(Vec::new());
    };
    let (code, condition) = match state {
        State::Paused if !queue.counts.paused => return Ok(Vec::new()),
        State::Waiting | State::Paused => (WAITING, "AND rank = 0"),
        State::Prioritized => (WAITING, "AND rank > 0"),
        State::Delayed => (DELAYED, ""),
        State::Active => (ACTIVE, ""),
        State::Completed => (COMPLETED, ""),
        State::Failed => (FAILED, ""),
    };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {JOB_COLUMNS} FROM jobs WHERE queue = ?1 AND state = ?2 {condition}
         ORDER BY rank DESC, position DESC LIMIT ?3 OFFSET ?4"
    ))?;
    let jobs = statement.query_map(
        params![queue.id, code, signed(limit), signed(offset)],
        |row| job(&queue, row),
    )?;
    Ok(jobs.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn counts(connection: &Connection, queue: &str) -> Result<Counts> {
    Ok(Queue::find(connection, queue)?
        .map(|queue| queue.counts)
        .unwrap_or_default())
}

pub(super) fn overview(connection: &Connection) -> Result<Vec<(String, Counts)>> {
    Ok(Queue::all(connection)?
        .into_iter()
        .map(|queue| (queue.name, queue.counts))
        .collect())
}

/// What managing needs to know of a job.
struct Found {
    seq: i64,
    state: i64,
    priority: i64,
    relayed: bool,
}

fn find(connection: &Connection, queue: &Queue, id: &str) -> Result<Found> {
    let mut statement = connection.prepare_cached(
        "SELECT seq, state, priority, relayed FROM jobs WHERE queue = ?1 AND id = ?2",
    )?;
    let found = statement.query_row(params![queue.id, id], |row| {
        Ok(Found {
            seq: row.get(0)?,
            state: row.get(1)?,
            priority: row.get(2)?,
            relayed: row.get(3)?,
        })
    });
    found.optional()?.ok_or(Error::NotFound)
}

pub(super) fn remove(connection: &Connection, queue: &str, id: &str) -> Result<()> {
    let queue = Queue::find(connection, queue)?.ok_or(Error::NotFound)?;
    let found = find(connection, &queue, id)?;
    if found.state == ACTIVE {
        return Err(Error::Invalid(format!(
            "job `{id}` is active; it can be removed when its attempt has ended"
        )));
    }
    connection.execute("DELETE FROM jobs WHERE seq = ?1", [found.seq])?;
    if found.relayed {
        remember(connection, queue.id, id)?;
    }
    let mut delta = Delta::default();
    delta.add(found.state, found.priority, -1);
    queue.apply(connection, &delta)
}

pub(super) fn retry(
    connection: &Connection,
    sequence: &Sequence,
    queue: &str,
    id: &str,
) -> Result<()> {
    let queue = Queue::find(connection, queue)?.ok_or(Error::NotFound)?;
    let found = find(connection, &queue, id)?;
    if found.state != FAILED {
        return Err(Error::Invalid(format!(
            "job `{id}` has not failed; only failed jobs can be retried"
        )));
    }
    connection.execute(
        "UPDATE jobs SET state = 0, rank = priority, position = ?2, attempts_made = 0, stalls = 0, failed_reason = NULL,
           processed_at = NULL WHERE seq = ?1",
        params![found.seq, sequence.next()],
    )?;
    let mut delta = Delta::default();
    delta.transfer(FAILED, WAITING, found.priority);
    queue.apply(connection, &delta)
}

pub(super) fn pause(connection: &Connection, queue: &str, paused: bool) -> Result<()> {
    let queue = Queue::find_or_create(connection, queue)?;
    connection.execute(
        "UPDATE queues SET paused = ?2 WHERE id = ?1",
        params![queue.id, paused],
    )?;
    Ok(())
}
