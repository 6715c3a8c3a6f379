//! Upkeep by schedule: what is too old to keep.

use exprsn_sdk::prelude::*;

use crate::window::{HOUR_MS, HOURS_MAX, hour_of};

/// The queue of these jobs.
pub const QUEUE: &str = "pulse-maintenance";
const DAY_MS: i64 = 24 * HOUR_MS;
/// How long an event's id is remembered: longer than its delivery is tried.
const INBOX_DAYS: i64 = 8;
/// How long custom events are kept; their counts stay.
const EVENT_DAYS: i64 = 30;

/// These jobs carry nothing.
#[derive(Serialize, Deserialize)]
pub struct Nothing {}

/// Deletes what is too old.
pub async fn prune(_: Job<Nothing>) -> JobResult {
    let now = now_ms();
    let first_hour = hour_of(now) - HOURS_MAX * HOUR_MS;
    for (text, before) in [
        ("DELETE FROM inbox WHERE at < $1", now - INBOX_DAYS * DAY_MS),
        ("DELETE FROM activity WHERE hour < $1", first_hour),
        ("DELETE FROM post_hours WHERE hour < $1", first_hour),
        (
            "DELETE FROM idempotency_keys WHERE created_at < $1",
            now - DAY_MS,
        ),
    ] {
        sql::execute(text, params![before]).await?;
    }
    // Ids of events are in the order of time.
    let first_id = exprsn_sdk::ids::uuid_v7_at(now - EVENT_DAYS * DAY_MS);
    sql::execute("DELETE FROM events WHERE id < $1", params![first_id]).await?;
    Ok(())
}
