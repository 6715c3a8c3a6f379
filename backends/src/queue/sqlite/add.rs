//! Adding: jobs by producers, jobs and events by relays, deliveries to subscribers.

use super::table::{
    DELAYED, Delta, Queue, Sequence, WAITING, backoff_columns, signed, trace_column,
};
use crate::{
    events::{Event, delivery_queue},
    name::{ServiceName, matches},
    queue::{
        backend::{Delivered, Message, Result, Subscription, full_queue},
        job::NewJob,
    },
};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;

/// The place of events among the queues of `seen`.
pub(super) const EVENTS: i64 = 0;

/// Adds `jobs`, all or none.
pub(super) fn add_many(
    connection: &Connection,
    sequence: &Sequence,
    queue: &str,
    jobs: &[NewJob],
    pending_max: u64,
    now_ms: i64,
) -> Result<()> {
    let queue = Queue::find_or_create(connection, queue)?;
    ensure_room(&queue, jobs.len() as u64, pending_max)?;
    let mut delta = Delta::default();
    for job in jobs {
        insert(connection, sequence, &queue, job, false, now_ms, &mut delta)?;
    }
    queue.apply(connection, &delta)
}

fn ensure_room(queue: &Queue, more: u64, pending_max: u64) -> Result<()> {
    let pending = queue.counts.pending();
    if pending.saturating_add(more) > pending_max {
        return Err(full_queue(&queue.name, pending, pending_max));
    }
    Ok(())
}

/// Inserts a job unless the queue holds its id; answers whether it did.
pub(super) fn insert(
    connection: &Connection,
    sequence: &Sequence,
    queue: &Queue,
    job: &NewJob,
    relayed: bool,
    now_ms: i64,
    delta: &mut Delta,
) -> Result<bool> {
    let priority = i64::from(job.priority);
    let (state, rank) = match job.delay_ms {
        0 => (WAITING, priority),
        delay_ms => (DELAYED, now_ms.saturating_add_unsigned(delay_ms)),
    };
    let (kind, backoff_ms) = job.backoff.map(backoff_columns).unzip();
    let mut statement = connection.prepare_cached(
        "INSERT INTO jobs (seq, queue, id, state, rank, position, priority, attempts, backoff_kind, backoff_ms, timeout_ms,
           relayed, created_at, name, origin, trace, subject, data)
         VALUES (?1, ?2, ?3, ?4, ?5, ?1, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
         ON CONFLICT (queue, id) DO NOTHING",
    )?;
    let added = statement.execute(params![
        sequence.next(),
        queue.id,
        job.id,
        state,
        rank,
        priority,
        job.attempts,
        kind,
        backoff_ms,
        job.timeout_ms.map(signed),
        relayed,
        now_ms,
        job.name,
        job.origin.as_ref().map(ServiceName::as_str),
        trace_column(job.trace),
        job.subject,
        job.data,
    ])?;
    delta.add(state, priority, added as i64);
    Ok(added == 1)
}

/// Queues that a batch adds to, each found once, with what is to be added to its counts.
struct Queues<'c> {
    connection: &'c Connection,
    found: BTreeMap<String, (Queue, Delta)>,
}

impl Queues<'_> {
    fn get(&mut self, name: &str) -> Result<&mut (Queue, Delta)> {
        if !self.found.contains_key(name) {
            let queue = Queue::find_or_create(self.connection, name)?;
            self.found
                .insert(name.to_owned(), (queue, Delta::default()));
        }
        Ok(self
            .found
            .get_mut(name)
            .expect("it was there or has just been inserted"))
    }

    /// Writes the counts; answers the names of the queues that got jobs.
    fn finish(self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (name, (queue, delta)) in self.found {
            if delta != Delta::default() {
                queue.apply(self.connection, &delta)?;
                names.push(name);
            }
        }
        Ok(names)
    }
}

/// Delivers messages, each once per id. A subscriber whose queue holds `pending_max` misses the event; nobody else does.
pub(super) fn deliver(
    connection: &Connection,
    sequence: &Sequence,
    batch: &[Message],
    pending_max: u64,
    now_ms: i64,
) -> Result<Delivered> {
    let subscriptions = match batch
        .iter()
        .any(|message| matches!(message, Message::Event(_)))
    {
        true => subscriptions(connection)?,
        false => Vec::new(),
    };
    let mut queues = Queues {
        connection,
        found: BTreeMap::new(),
    };
    let mut missed = BTreeMap::new();
    for message in batch {
        match message {
            Message::Job { queue, job } => {
                let (queue, delta) = queues.get(queue)?;
                if !was_seen(connection, queue.id, &job.id)? {
                    insert(connection, sequence, queue, job, true, now_ms, delta)?;
                }
            }
            Message::Event(event) => {
                if record(connection, event)? {
                    for service in
                        fan_out(sequence, &mut queues, &subscriptions, event, pending_max)?
                    {
                        *missed.entry(service).or_default() += 1;
                    }
                }
            }
        }
    }
    Ok(Delivered {
        queues: queues.finish()?,
        missed,
    })
}

/// Adds a delivery for each service that subscribes to the event's topic, however many of its subscriptions match;
/// answers those whose queue is full.
fn fan_out(
    sequence: &Sequence,
    queues: &mut Queues<'_>,
    subscriptions: &[Subscription],
    event: &Event,
    pending_max: u64,
) -> Result<Vec<ServiceName>> {
    let connection = queues.connection;
    let mut full = Vec::new();
    for (service, attempts) in subscribers(subscriptions, &event.topic) {
        let (queue, delta) = queues.get(&delivery_queue(service))?;
        if ensure_room(queue, 1, pending_max).is_err() {
            full.push(service.clone());
            continue;
        }
        insert(
            connection,
            sequence,
            queue,
            &event.delivery(attempts),
            false,
            event.time,
            delta,
        )?;
    }
    Ok(full)
}

/// Services that subscribe to `topic`, with the attempts of their most specific subscription.
fn subscribers<'s>(
    subscriptions: &'s [Subscription],
    topic: &str,
) -> BTreeMap<&'s ServiceName, u32> {
    let mut found: BTreeMap<&ServiceName, &Subscription> = BTreeMap::new();
    for wanted in subscriptions
        .iter()
        .filter(|wanted| matches(&wanted.topic, topic))
    {
        let best = found.entry(&wanted.service).or_insert(wanted);
        if wanted.topic.len() > best.topic.len() {
            *best = wanted;
        }
    }
    found
        .into_iter()
        .map(|(service, best)| (service, best.attempts))
        .collect()
}

/// Keeps the event; false where it is known already.
fn record(connection: &Connection, event: &Event) -> Result<bool> {
    if was_seen(connection, EVENTS, &seen_id(&event.source, &event.id))? {
        return Ok(false);
    }
    let mut statement = connection.prepare_cached(
        "INSERT INTO events (source, id, topic, subject, time, trace, data) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (source, id) DO NOTHING",
    )?;
    let added = statement.execute(params![
        event.source.as_str(),
        event.id,
        event.topic,
        event.subject,
        event.time,
        trace_column(event.trace),
        event.data
    ])?;
    Ok(added == 1)
}

/// An event's id in `seen`; `tidy` writes the same in SQL.
fn seen_id(source: &ServiceName, id: &str) -> String {
    format!("{source}/{id}")
}

fn was_seen(connection: &Connection, queue: i64, id: &str) -> Result<bool> {
    let mut statement = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM broker JOIN seen ON seen.generation IN (broker.generation, broker.generation - 1)
           AND seen.queue = ?1 AND seen.id = ?2)",
    )?;
    Ok(statement.query_row(params![queue, id], |row| row.get(0))?)
}

pub(super) fn subscriptions(connection: &Connection) -> Result<Vec<Subscription>> {
    let mut statement = connection
        .prepare_cached("SELECT service, topic, attempts FROM subscriptions ORDER BY 1, 2")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        // A name that breaks the rules cannot have been written by this host; such a row has no subscriber.
        if let Ok(service) = ServiceName::parse(&row.get::<_, String>(0)?) {
            found.push(Subscription {
                service,
                topic: row.get(1)?,
                attempts: row.get(2)?,
            });
        }
    }
    Ok(found)
}

pub(super) fn subscribe(
    connection: &Connection,
    service: &ServiceName,
    wanted: &[Subscription],
) -> Result<()> {
    connection.execute(
        "DELETE FROM subscriptions WHERE service = ?1",
        [service.as_str()],
    )?;
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO subscriptions (service, topic, attempts) VALUES (?1, ?2, ?3)",
    )?;
    for subscription in wanted {
        statement.execute(params![
            service.as_str(),
            subscription.topic,
            subscription.attempts.max(1)
        ])?;
    }
    Ok(())
}
