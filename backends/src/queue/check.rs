//! What the broker takes: limits of jobs and events, and names of queues.

use super::{
    backend::{Error, Result},
    job::{
        ATTEMPTS_MAX, Backoff, DELAY_MS_MAX, ID_BYTES_MAX, NAME_BYTES_MAX, NewJob, PRIORITY_MAX,
        QUEUE_NAME_BYTES_MAX, TIMEOUT_MS_MAX,
    },
};
use crate::events::{EVENT_ID_BYTES_MAX, SUBJECT_BYTES_MAX, TOPIC_BYTES_MAX};

/// Fails with `text` unless it `holds`.
fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Invalid(text()))
    }
}

/// Whether `job` keeps the limits; the error says which it breaks.
pub fn check_job(job: &NewJob, data_bytes_max: usize) -> Result<()> {
    check_data(&job.data, data_bytes_max, "data_bytes_max")?;
    ensure((1..=ID_BYTES_MAX).contains(&job.id.len()), || {
        format!("a job id has 1 to {ID_BYTES_MAX} bytes")
    })?;
    ensure(job.name.len() <= NAME_BYTES_MAX, || {
        format!("a job name has at most {NAME_BYTES_MAX} bytes")
    })?;
    ensure(
        (1..=ATTEMPTS_MAX).contains(&job.attempts.unwrap_or(1)),
        || format!("attempts must be 1 to {ATTEMPTS_MAX}"),
    )?;
    ensure(job.priority <= PRIORITY_MAX, || {
        format!("priority must be 0 to {PRIORITY_MAX}")
    })?;
    ensure(longest_wait_ms(job) <= DELAY_MS_MAX, || {
        format!("a delay has at most {DELAY_MS_MAX} milliseconds")
    })?;
    ensure(
        (1..=TIMEOUT_MS_MAX).contains(&job.timeout_ms.unwrap_or(1)),
        || format!("timeout_ms must be 1 to {TIMEOUT_MS_MAX}"),
    )
}

fn longest_wait_ms(job: &NewJob) -> u64 {
    match job.backoff {
        Some(Backoff::Fixed { delay_ms } | Backoff::Exponential { delay_ms }) => {
            delay_ms.max(job.delay_ms)
        }
        None => job.delay_ms,
    }
}

/// Whether an event of these parts keeps the limits; the error says which it breaks.
pub fn check_event(
    id: &str,
    topic: &str,
    subject: Option<&str>,
    data: &str,
    data_bytes_max: usize,
) -> Result<()> {
    let topic_fits = (1..=TOPIC_BYTES_MAX).contains(&topic.len()) && !topic.contains('*');
    ensure(topic_fits, || {
        format!("a topic has 1 to {TOPIC_BYTES_MAX} bytes and no `*`")
    })?;
    ensure((1..=EVENT_ID_BYTES_MAX).contains(&id.len()), || {
        format!("an event id has 1 to {EVENT_ID_BYTES_MAX} bytes")
    })?;
    ensure(
        subject.unwrap_or_default().len() <= SUBJECT_BYTES_MAX,
        || format!("a subject has at most {SUBJECT_BYTES_MAX} bytes"),
    )?;
    check_data(data, data_bytes_max, "event_bytes_max")
}

/// Whether guests may name a queue so: colons are the host's.
pub fn check_queue_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = (1..=QUEUE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
    ensure(fits, || {
        let shown: String = name.escape_default().take(QUEUE_NAME_BYTES_MAX).collect();
        format!(
            "queue name `{shown}` must have 1 to {QUEUE_NAME_BYTES_MAX} letters, digits, `-`, `_` or `.`"
        )
    })
}

/// Whether `data` is JSON and small enough; the error names `limit`.
fn check_data(data: &str, bytes_max: usize, limit: &str) -> Result<()> {
    if data.len() > bytes_max {
        let bytes = data.len();
        return Err(Error::LimitExceeded(format!(
            "data has {bytes} bytes, and {limit} is {bytes_max}"
        )));
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(data) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Invalid(format!("data is not JSON: {error}"))),
    }
}
