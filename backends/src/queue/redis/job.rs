//! Jobs as BullMQ's hashes hold them, and back.

use crate::{
    name::ServiceName,
    queue::job::{Backoff, Claim, Claimed, Job, NewJob, Settings, State},
    trace::TraceContext,
};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};

pub(super) type Fields = HashMap<String, String>;

/// The lock's value of the claims that one request made.
pub(super) fn token(lease: i64) -> String {
    format!("exprsn:{lease:016x}")
}

/// A queue's prefix of keys. BullMQ allows no colon in a queue's name, and guests no `@`.
pub(super) fn prefix(queue: &str) -> String {
    format!("bull:{}:", queue.replace(':', "@"))
}

/// A queue by its name among the keys.
pub(super) fn queue_of(name: &str) -> String {
    name.replace('@', ":")
}

/// Keys of a queue that a job of the same name would be written over.
const QUEUE_KEYS: [&str; 18] = [
    "active",
    "completed",
    "delayed",
    "events",
    "exprsn",
    "failed",
    "id",
    "limiter",
    "marker",
    "meta",
    "paused",
    "pc",
    "prioritized",
    "repeat",
    "stalled",
    "stalled-check",
    "wait",
    "waiting-children",
];
/// Ends of keys that hang on a job.
const JOB_KEYS: [&str; 6] = [
    ":lock",
    ":logs",
    ":dependencies",
    ":processed",
    ":failed",
    ":unsuccessful",
];
/// Tells a job's id from the key that has the same name.
const MARK: char = '~';

/// Whether an id, without marks at its end, is the name of another key of its queue.
fn is_taken(id: &str) -> bool {
    let id = id.trim_end_matches(MARK);
    QUEUE_KEYS.contains(&id)
        || JOB_KEYS.iter().any(|end| id.ends_with(end))
        || id.starts_with("de:")
        || id.starts_with("metrics:")
}

/// The id under which a job is kept: its own, unless that is the name of another key. BullMQ leaves that to its users.
pub(super) fn kept_id(id: &str) -> String {
    if is_taken(id) {
        format!("{id}{MARK}")
    } else {
        id.to_owned()
    }
}

/// The id of a job that is kept under `id`.
fn own_id(id: &str) -> String {
    match id.strip_suffix(MARK) {
        Some(own) if is_taken(id) => own.to_owned(),
        _ => id.to_owned(),
    }
}

/// What the scripts need to know of a new job, beside its data.
pub(super) fn describe(job: &NewJob) -> Value {
    let id = kept_id(&job.id);
    let mut opts = json!({ "jobId": id });
    let mut own = vec![json!("x-ours"), json!("1")];
    let mut keep = |name: &str, value: String| own.extend([json!(name), json!(value)]);
    if let Some(attempts) = job.attempts {
        opts["attempts"] = json!(attempts);
        keep("x-attempts", "1".to_owned());
    }
    if let Some(backoff) = job.backoff {
        let (kind, delay_ms) = backoff_fields(backoff);
        opts["backoff"] = json!({ "type": kind, "delay": delay_ms });
        keep("x-backoff", "1".to_owned());
    }
    if job.delay_ms > 0 {
        opts["delay"] = json!(job.delay_ms);
    }
    if job.priority > 0 {
        opts["priority"] = json!(job.priority);
    }
    let said = [
        ("x-timeout", job.timeout_ms.map(|ms| ms.to_string())),
        ("x-subject", job.subject.clone()),
        ("x-origin", job.origin.as_ref().map(ToString::to_string)),
        ("x-trace", job.trace.map(TraceContext::to_header)),
    ];
    for (name, value) in said {
        if let Some(value) = value {
            keep(name, value);
        }
    }
    json!({
        "id": id,
        "name": job.name,
        "delay": job.delay_ms,
        "priority": job.priority,
        "opts": opts,
        "own": own,
    })
}

/// BullMQ's words for a backoff.
pub(super) fn backoff_fields(backoff: Backoff) -> (&'static str, u64) {
    match backoff {
        Backoff::Fixed { delay_ms } => ("fixed", delay_ms),
        Backoff::Exponential { delay_ms } => ("exponential", delay_ms),
    }
}

/// A queue's defaults from its hash; what is not there is as everywhere.
pub(super) fn settings(fields: &Fields) -> Settings {
    let default = Settings::default();
    Settings {
        attempts: number(fields, "attempts").unwrap_or(default.attempts),
        backoff: match fields.get("backoff").map(String::as_str) {
            Some("fixed") => Backoff::Fixed {
                delay_ms: number(fields, "backoff_ms").unwrap_or_default(),
            },
            Some(_) => Backoff::Exponential {
                delay_ms: number(fields, "backoff_ms").unwrap_or_default(),
            },
            None => default.backoff,
        },
        timeout_ms: number(fields, "timeout_ms").unwrap_or(default.timeout_ms),
        keep_completed: number(fields, "keep_completed").unwrap_or(default.keep_completed),
        keep_failed: number(fields, "keep_failed").unwrap_or(default.keep_failed),
    }
}

/// A job of `queue` from its hash. `lease` is that of the request that has it.
pub(super) fn job(
    queue: &str,
    id: String,
    fields: &Fields,
    state: State,
    settings: &Settings,
    lease: i64,
) -> Job {
    let text = |name: &str| fields.get(name).cloned();
    let made: u32 = number(fields, "atm").unwrap_or_default();
    Job {
        claim: Claim {
            job: Claimed::Named {
                queue: queue.into(),
                id: Arc::from(id.as_str()),
            },
            lease,
        },
        id: own_id(&id),
        queue: queue.to_owned(),
        name: text("name").unwrap_or_default(),
        data: text("data").unwrap_or_default(),
        attempt: made + u32::from(state == State::Active),
        attempts: attempts(fields, settings),
        priority: number(fields, "priority").unwrap_or_default(),
        state,
        timeout_ms: number(fields, "x-timeout").unwrap_or(settings.timeout_ms),
        created_at: number(fields, "timestamp").unwrap_or_default(),
        processed_at: number(fields, "processedOn"),
        finished_at: number(fields, "finishedOn"),
        failed_reason: text("failedReason"),
        return_value: text("returnvalue"),
        subject: text("x-subject"),
        origin: text("x-origin").and_then(|name| ServiceName::parse(&name).ok()),
        trace: text("x-trace").and_then(|header| TraceContext::parse(&header)),
    }
}

/// A job of ours that does not say how many attempts it has gets its queue's; one of BullMQ's gets one.
fn attempts(fields: &Fields, settings: &Settings) -> u32 {
    if fields.contains_key("x-ours") && !fields.contains_key("x-attempts") {
        return settings.attempts;
    }
    let opts: Value = fields
        .get("opts")
        .and_then(|opts| serde_json::from_str(opts).ok())
        .unwrap_or_default();
    let wish = opts["attempts"].as_f64().unwrap_or(1.0);
    // The cast saturates, and nobody needs four thousand million attempts.
    (wish as u32).max(1)
}

fn number<T: std::str::FromStr>(fields: &Fields, name: &str) -> Option<T> {
    fields.get(name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_never_the_names_of_other_keys() {
        for (id, kept) in [
            ("1", "1"),
            ("~", "~"),
            ("wait", "wait~"),
            ("wait~", "wait~~"),
            ("1:lock", "1:lock~"),
            ("de:x", "de:x~"),
            ("waiting", "waiting"),
            ("repeat:q:tick:1", "repeat:q:tick:1"),
        ] {
            assert_eq!((kept_id(id).as_str(), own_id(kept).as_str()), (kept, id));
        }
    }
}
