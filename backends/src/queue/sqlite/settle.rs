//! Leases: handing jobs out, recording what became of them, renewing, and returning what stalled.

use super::table::{
    ACTIVE, COMPLETED, DELAYED, Delta, FAILED, JOB_COLUMNS, Queue, Sequence, WAITING, backoff, job,
    signed,
};
use crate::queue::{
    backend::{Result, Take, Taken},
    job::{Backoff, Claim, Claimed, Failure, Job, Outcome, REASON_BYTES_MAX, backoff_ms, truncate},
};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Delayed jobs that join the line in one transaction; those beyond it follow in the next.
const PROMOTED_MAX: u32 = 1_000;
/// Data handed out by one request for jobs, in bytes, unless a single job has more.
const TAKE_BYTES_MAX: usize = 16 << 20;
/// Stalled jobs of one queue returned in one transaction.
const RESCUED_MAX: u32 = 10_000;
/// The reason of a job that failed for stalling too often; BullMQ's.
const STALLED_REASON: &str = "job stalled more than allowable limit";

/// Records outcomes and hands out the next jobs.
pub(super) fn settle(
    connection: &Connection,
    sequence: &Sequence,
    queue: &str,
    outcomes: &[(Claim, Outcome)],
    take: Option<Take>,
    now_ms: i64,
) -> Result<Taken> {
    let queue = Queue::find_or_create(connection, queue)?;
    let mut work = Settle {
        connection,
        sequence,
        queue: &queue,
        now_ms,
        delta: Delta::default(),
    };
    for (claim, outcome) in outcomes {
        match outcome {
            Outcome::Completed(value) => work.complete(claim, value.as_deref())?,
            Outcome::Failed(failure) => work.fail(claim, failure)?,
            Outcome::Released => work.release(claim)?,
        }
    }
    work.retain(
        COMPLETED,
        queue.counts.completed,
        queue.settings.keep_completed,
    )?;
    work.retain(FAILED, queue.counts.failed, queue.settings.keep_failed)?;
    let mut taken = Taken::default();
    if let Some(take) = take {
        work.promote()?;
        if !queue.counts.paused {
            (taken.jobs, taken.more) = work.take(take)?;
        }
        taken.next_due_ms = next_due(connection, queue.id)?;
    }
    queue.apply(connection, &work.delta)?;
    Ok(taken)
}

struct Settle<'a> {
    connection: &'a Connection,
    sequence: &'a Sequence,
    queue: &'a Queue,
    now_ms: i64,
    delta: Delta,
}

/// What decides over a job whose attempt failed.
struct Attempted {
    made: u32,
    allowed: u32,
    backoff: Backoff,
    priority: i64,
}

impl Settle<'_> {
    fn complete(&mut self, claim: &Claim, value: Option<&str>) -> Result<()> {
        if self.queue.settings.keep_completed == 0 {
            return self.drop_completed(claim);
        }
        let mut statement = self.connection.prepare_cached(
            "UPDATE jobs SET state = 3, rank = ?3, lease = NULL, attempts_made = attempts_made + 1, failed_reason = NULL,
               return_value = ?4 WHERE seq = ?1 AND state = 2 AND lease = ?2",
        )?;
        let changed = statement.execute(params![row(claim), claim.lease, self.now_ms, value])?;
        self.delta.add(ACTIVE, 0, -(changed as i64));
        self.delta.add(COMPLETED, 0, changed as i64);
        Ok(())
    }

    /// The short way for a queue that keeps no completed job.
    fn drop_completed(&mut self, claim: &Claim) -> Result<()> {
        let mut statement = self.connection.prepare_cached(
            "DELETE FROM jobs WHERE seq = ?1 AND state = 2 AND lease = ?2 RETURNING relayed, id",
        )?;
        let gone = statement
            .query_row(params![row(claim), claim.lease], |row| {
                Ok((row.get::<_, bool>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        if let Some((relayed, id)) = gone {
            self.delta.add(ACTIVE, 0, -1);
            if relayed {
                remember(self.connection, self.queue.id, &id)?;
            }
        }
        Ok(())
    }

    fn fail(&mut self, claim: &Claim, failure: &Failure) -> Result<()> {
        let Some(attempted) = self.attempted(claim)? else {
            return Ok(());
        };
        let made = attempted.made + 1;
        let (state, rank) = if !failure.retry || made >= attempted.allowed {
            (FAILED, self.now_ms)
        } else {
            match backoff_ms(attempted.backoff, made) {
                0 => (WAITING, attempted.priority),
                wait_ms => (DELAYED, self.now_ms.saturating_add_unsigned(wait_ms)),
            }
        };
        let mut statement = self.connection.prepare_cached(
            "UPDATE jobs SET state = ?2, rank = ?3, position = ?4, lease = NULL, attempts_made = ?5, failed_reason = ?6
             WHERE seq = ?1",
        )?;
        let reason = truncate(failure.reason.clone(), REASON_BYTES_MAX);
        statement.execute(params![
            row(claim),
            state,
            rank,
            self.sequence.next(),
            made,
            reason
        ])?;
        self.delta.transfer(ACTIVE, state, attempted.priority);
        Ok(())
    }

    /// None where the claim is void.
    fn attempted(&self, claim: &Claim) -> Result<Option<Attempted>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT attempts_made, attempts, backoff_kind, backoff_ms, priority FROM jobs
             WHERE seq = ?1 AND state = 2 AND lease = ?2",
        )?;
        let settings = &self.queue.settings;
        let found = statement.query_row(params![row(claim), claim.lease], |row| {
            let kind: Option<i64> = row.get(2)?;
            let wait_ms: Option<i64> = row.get(3)?;
            Ok(Attempted {
                made: row.get(0)?,
                allowed: row.get::<_, Option<u32>>(1)?.unwrap_or(settings.attempts),
                backoff: kind
                    .zip(wait_ms)
                    .map_or(settings.backoff, |(kind, wait_ms)| {
                        backoff(kind, wait_ms.unsigned_abs())
                    }),
                priority: row.get(4)?,
            })
        });
        Ok(found.optional()?)
    }

    /// Back to its old place in line.
    fn release(&mut self, claim: &Claim) -> Result<()> {
        let mut statement = self.connection.prepare_cached(
            "UPDATE jobs SET state = 0, rank = priority, lease = NULL WHERE seq = ?1 AND state = 2 AND lease = ?2
             RETURNING priority",
        )?;
        let priority: Option<i64> = statement
            .query_row(params![row(claim), claim.lease], |row| row.get(0))
            .optional()?;
        if let Some(priority) = priority {
            self.delta.transfer(ACTIVE, WAITING, priority);
        }
        Ok(())
    }

    /// Removes the oldest finished jobs beyond those kept.
    fn retain(&mut self, state: i64, before: u64, keep: u64) -> Result<()> {
        let held = before.saturating_add_signed(self.delta.of(state));
        let Some(excess) = held.checked_sub(keep).filter(|excess| *excess > 0) else {
            return Ok(());
        };
        let excess = signed(excess);
        let oldest =
            "SELECT seq FROM jobs WHERE queue = ?1 AND state = ?2 ORDER BY rank, position LIMIT ?3";
        let mut remember = self.connection.prepare_cached(&format!(
            "INSERT OR IGNORE INTO seen (generation, queue, id)
             SELECT (SELECT generation FROM broker), queue, id FROM jobs WHERE seq IN ({oldest}) AND relayed = 1"
        ))?;
        remember.execute(params![self.queue.id, state, excess])?;
        let mut delete = self
            .connection
            .prepare_cached(&format!("DELETE FROM jobs WHERE seq IN ({oldest})"))?;
        let removed = delete.execute(params![self.queue.id, state, excess])?;
        self.delta.add(state, 0, -(removed as i64));
        Ok(())
    }

    /// Lets delayed jobs that are due join the end of the line.
    fn promote(&mut self) -> Result<()> {
        if self.queue.counts.delayed == 0 {
            return Ok(());
        }
        let mut due = self.connection.prepare_cached(
            "SELECT seq, priority FROM jobs WHERE queue = ?1 AND state = 1 AND rank <= ?2 ORDER BY rank, position LIMIT ?3",
        )?;
        let due: Vec<(i64, i64)> = due
            .query_map(params![self.queue.id, self.now_ms, PROMOTED_MAX], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let mut join = self.connection.prepare_cached(
            "UPDATE jobs SET state = 0, rank = priority, position = ?2 WHERE seq = ?1",
        )?;
        for (seq, priority) in due {
            join.execute(params![seq, self.sequence.next()])?;
            self.delta.transfer(DELAYED, WAITING, priority);
        }
        Ok(())
    }

    /// The jobs, and whether there may be more.
    fn take(&mut self, take: Take) -> Result<(Vec<Job>, bool)> {
        let mut next = self.connection.prepare_cached(
            "SELECT seq FROM jobs WHERE queue = ?1 AND state = 0 ORDER BY rank, position LIMIT ?2",
        )?;
        let next: Vec<i64> = next
            .query_map(params![self.queue.id, signed(take.count)], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let until_ms = self.now_ms.saturating_add_unsigned(take.lease_ms);
        let mut lease = self.connection.prepare_cached(&format!(
            "UPDATE jobs SET state = 2, rank = ?2, lease = ?3, processed_at = ?4 WHERE seq = ?1 RETURNING {JOB_COLUMNS}"
        ))?;
        let mut jobs = Vec::with_capacity(next.len());
        let mut bytes = 0;
        for seq in &next {
            if bytes > TAKE_BYTES_MAX {
                break;
            }
            let taken = lease
                .query_row(params![seq, until_ms, take.lease, self.now_ms], |row| {
                    job(self.queue, row)
                })?;
            self.delta
                .transfer(WAITING, ACTIVE, i64::from(taken.priority));
            bytes += taken.data.len();
            jobs.push(taken);
        }
        let more = next.len() == take.count || jobs.len() < next.len();
        Ok((jobs, more))
    }
}

/// The row of a leased job; a claim that another backend gave finds none.
fn row(claim: &Claim) -> Option<i64> {
    match claim.job {
        Claimed::Row(seq) => Some(seq),
        Claimed::Named { .. } => None,
    }
}

/// Remembers the id of a delivered job that goes.
pub(super) fn remember(connection: &Connection, queue: i64, id: &str) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT OR IGNORE INTO seen (generation, queue, id) VALUES ((SELECT generation FROM broker), ?1, ?2)",
    )?;
    statement.execute(params![queue, id])?;
    Ok(())
}

fn next_due(connection: &Connection, queue: i64) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached(
        "SELECT rank FROM jobs WHERE queue = ?1 AND state = 1 ORDER BY rank, position LIMIT 1",
    )?;
    Ok(statement.query_row([queue], |row| row.get(0)).optional()?)
}

/// Renews leases; answers the claims that are void.
pub(super) fn extend(
    connection: &Connection,
    claims: &[Claim],
    until_ms: i64,
) -> Result<Vec<Claim>> {
    let mut statement = connection
        .prepare_cached("UPDATE jobs SET rank = ?3 WHERE seq = ?1 AND state = 2 AND lease = ?2")?;
    let mut void = Vec::new();
    for claim in claims {
        if statement.execute(params![row(claim), claim.lease, until_ms])? == 0 {
            void.push(claim.clone());
        }
    }
    Ok(void)
}

/// Returns jobs whose lease ended before `ended_ms`; answers the queues concerned.
pub(super) fn rescue(
    connection: &Connection,
    stalled_max: u32,
    ended_ms: i64,
    now_ms: i64,
) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for queue in Queue::all(connection)? {
        if queue.counts.active > 0
            && rescue_queue(connection, &queue, stalled_max, ended_ms, now_ms)? > 0
        {
            names.push(queue.name);
        }
    }
    Ok(names)
}

/// BullMQ's rule: a stalled job goes to the front of the line, and no attempt is counted.
fn rescue_queue(
    connection: &Connection,
    queue: &Queue,
    stalled_max: u32,
    ended_ms: i64,
    now_ms: i64,
) -> Result<usize> {
    let mut stalled = connection.prepare_cached(
        "SELECT seq, priority, stalls FROM jobs WHERE queue = ?1 AND state = 2 AND rank < ?2 ORDER BY rank LIMIT ?3",
    )?;
    let stalled: Vec<(i64, i64, u32)> = stalled
        .query_map(params![queue.id, ended_ms, RESCUED_MAX], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut update = connection.prepare_cached(
        "UPDATE jobs SET state = ?2, rank = ?3, lease = NULL, stalls = stalls + 1,
           failed_reason = coalesce(?4, failed_reason), attempts_made = attempts_made + (?2 = 4) WHERE seq = ?1",
    )?;
    let mut delta = Delta::default();
    for (seq, priority, stalls) in &stalled {
        let (state, rank, reason) = match stalls + 1 > stalled_max {
            true => (FAILED, now_ms, Some(STALLED_REASON)),
            false => (WAITING, *priority, None),
        };
        update.execute(params![seq, state, rank, reason])?;
        delta.transfer(ACTIVE, state, *priority);
    }
    queue.apply(connection, &delta)?;
    Ok(stalled.len())
}
