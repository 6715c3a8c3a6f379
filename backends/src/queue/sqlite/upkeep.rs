//! What happens by the clock: recurrences, and removing what is kept beyond its time.

use super::{
    add::{EVENTS, insert},
    table::{Delta, Queue, Sequence, signed, unsigned},
};
use crate::{
    events::Event,
    name::{ServiceName, matches},
    queue::{
        backend::{NextDue, Recurrence, Result},
        job::NewJob,
    },
    trace::TraceContext,
};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Rows removed in one transaction; there is more when as many were removed.
const REMOVED_MAX: usize = 1_000;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retention {
    pub events_max: u64,
    pub events_ms_max: u64,
    pub seen_max: u64,
    pub seen_ms_min: u64,
}

pub(super) fn schedule(
    connection: &Connection,
    queues: &[String],
    wanted: &[Recurrence],
    next_due: NextDue,
    now_ms: i64,
) -> Result<()> {
    for queue in queues {
        for name in names(connection, queue)? {
            if !wanted
                .iter()
                .any(|recurrence| recurrence.queue == *queue && recurrence.name == name)
            {
                connection.execute(
                    "DELETE FROM recurrences WHERE queue = ?1 AND name = ?2",
                    params![queue, name],
                )?;
            }
        }
    }
    // A changed expression starts anew; an unchanged one keeps its next occurrence, so that one missed is made up for.
    let mut insert = connection.prepare_cached(
        "INSERT INTO recurrences (queue, name, cron, data, next_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (queue, name) DO UPDATE SET data = excluded.data, cron = excluded.cron,
           next_at = CASE WHEN cron = excluded.cron THEN next_at ELSE excluded.next_at END",
    )?;
    for recurrence in wanted {
        let next_at = next_due(&recurrence.cron, now_ms).unwrap_or(i64::MAX);
        insert.execute(params![
            recurrence.queue,
            recurrence.name,
            recurrence.cron,
            recurrence.data,
            next_at
        ])?;
    }
    Ok(())
}

fn names(connection: &Connection, queue: &str) -> Result<Vec<String>> {
    let mut statement =
        connection.prepare_cached("SELECT name FROM recurrences WHERE queue = ?1")?;
    Ok(statement
        .query_map([queue], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?)
}

/// Adds the jobs of occurrences that are due; answers the queues concerned and when the next one is due.
pub(super) fn recur(
    connection: &Connection,
    sequence: &Sequence,
    queues: &[String],
    next_due: NextDue,
    now_ms: i64,
) -> Result<(Vec<String>, Option<i64>)> {
    let mut concerned = Vec::new();
    let mut next: Option<i64> = None;
    for name in queues {
        for (recurrence, at) in occurrences(connection, name)? {
            let following = if at <= now_ms {
                add_occurrence(connection, sequence, &recurrence, at, now_ms)?;
                concerned.push(name.clone());
                let following = next_due(&recurrence.cron, now_ms).unwrap_or(i64::MAX);
                connection.execute(
                    "UPDATE recurrences SET next_at = ?3 WHERE queue = ?1 AND name = ?2",
                    params![name, recurrence.name, following],
                )?;
                following
            } else {
                at
            };
            next = Some(next.map_or(following, |next| next.min(following)));
        }
    }
    concerned.dedup();
    Ok((concerned, next))
}

fn occurrences(connection: &Connection, queue: &str) -> Result<Vec<(Recurrence, i64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT queue, name, cron, data, next_at FROM recurrences WHERE queue = ?1",
    )?;
    let rows = statement.query_map([queue], |row| {
        let recurrence = Recurrence {
            queue: row.get(0)?,
            name: row.get(1)?,
            cron: row.get(2)?,
            data: row.get(3)?,
        };
        Ok((recurrence, row.get(4)?))
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The job's id names the occurrence, so that hosts which share the queue add it once.
fn add_occurrence(
    connection: &Connection,
    sequence: &Sequence,
    recurrence: &Recurrence,
    at: i64,
    now_ms: i64,
) -> Result<()> {
    let queue = Queue::find_or_create(connection, &recurrence.queue)?;
    let id = format!("repeat:{}:{}:{at}", recurrence.queue, recurrence.name);
    let job = NewJob::new(id, &recurrence.name, &recurrence.data);
    let mut delta = Delta::default();
    insert(
        connection, sequence, &queue, &job, false, now_ms, &mut delta,
    )?;
    queue.apply(connection, &delta)
}

/// The newest events whose topic matches `pattern`.
pub(super) fn events(connection: &Connection, pattern: &str, limit: usize) -> Result<Vec<Event>> {
    let mut statement = connection.prepare_cached(
        "SELECT source, id, topic, subject, time, trace, data FROM events ORDER BY seq DESC",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        let (source, topic): (String, String) = (row.get(0)?, row.get(2)?);
        let trace: Option<String> = row.get(5)?;
        if let (true, Ok(source)) = (matches(pattern, &topic), ServiceName::parse(&source)) {
            found.push(Event {
                id: row.get(1)?,
                source,
                topic,
                subject: row.get(3)?,
                time: row.get(4)?,
                trace: trace.and_then(|header| TraceContext::parse(&header)),
                data: row.get(6)?,
            });
        }
    }
    Ok(found)
}

/// Ids remembered in the present generation.
pub(super) fn seen_count(connection: &Connection) -> Result<u64> {
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FROM seen WHERE generation = (SELECT generation FROM broker)",
    )?;
    Ok(statement.query_row([], |row| unsigned(row, 0))?)
}

/// Removes a portion of what is kept too long; answers whether there is more.
pub(super) fn tidy(
    connection: &Connection,
    retention: &Retention,
    seen: u64,
    now_ms: i64,
) -> Result<bool> {
    rotate(connection, retention, seen, now_ms)?;
    let events = forget_events(connection, retention, now_ms)?;
    let mut ids = connection.prepare_cached(
        "DELETE FROM seen WHERE (generation, queue, id) IN (SELECT generation, queue, id FROM seen
           WHERE generation < (SELECT generation FROM broker) - 1 LIMIT ?1)",
    )?;
    let ids = ids.execute([signed(REMOVED_MAX)])?;
    Ok(events >= REMOVED_MAX || ids >= REMOVED_MAX)
}

/// Begins a generation of remembered ids when the present one is old or full.
///
/// Its age counts from the first tidying and not from its making, so that a host that was down for days still knows
/// what it had taken from relays when they repeat it.
fn rotate(connection: &Connection, retention: &Retention, seen: u64, now_ms: i64) -> Result<()> {
    let began: Option<i64> = connection
        .query_row("SELECT generation_at FROM broker", [], |row| row.get(0))
        .optional()?
        .flatten();
    let old =
        began.is_some_and(|began| now_ms.saturating_sub(began) >= retention.seen_ms_min as i64);
    if old || seen >= retention.seen_max / 2 {
        connection.execute(
            "UPDATE broker SET generation = generation + 1, generation_at = ?1",
            [now_ms],
        )?;
    } else if began.is_none() {
        connection.execute("UPDATE broker SET generation_at = ?1", [now_ms])?;
    }
    Ok(())
}

/// Removes the oldest events beyond those kept, remembering their ids. Looks at the oldest only: events age in order.
fn forget_events(connection: &Connection, retention: &Retention, now_ms: i64) -> Result<usize> {
    let old = "SELECT seq FROM (SELECT seq, time FROM events ORDER BY seq LIMIT ?1)
               WHERE seq <= (SELECT max(seq) FROM events) - ?2 OR time < ?3";
    let before = now_ms.saturating_sub_unsigned(retention.events_ms_max);
    let mut remember = connection.prepare_cached(&format!(
        "INSERT OR IGNORE INTO seen (generation, queue, id)
         SELECT (SELECT generation FROM broker), {EVENTS}, source || '/' || id FROM events WHERE seq IN ({old})"
    ))?;
    remember.execute(params![
        signed(REMOVED_MAX),
        signed(retention.events_max),
        before
    ])?;
    let mut delete =
        connection.prepare_cached(&format!("DELETE FROM events WHERE seq IN ({old})"))?;
    Ok(delete.execute(params![
        signed(REMOVED_MAX),
        signed(retention.events_max),
        before
    ])?)
}
