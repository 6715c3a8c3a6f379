//! Upkeep by schedule: deliveries whose job is lost, and what is too old to keep.

use exprsn_sdk::prelude::*;
use exprsn_sdk::queue::{Error, State};

use crate::deliveries;

/// The queue of these jobs.
pub const QUEUE: &str = "herald-maintenance";
/// A pending delivery without news for this long is looked into, in milliseconds.
const SILENT_MS: i64 = 30 * 60 * 1_000;
/// Deliveries looked into by one job.
const RESCUE_ROWS_MAX: i64 = 500;
/// Rows deleted by one statement, and statements by one job.
const PRUNE_ROWS_MAX: i64 = 1_000;
const PRUNE_ROUNDS_MAX: usize = 200;
/// Days that things are kept, where the configuration does not say.
const NOTIFICATION_DAYS_DEFAULT: i64 = 90;
const DELIVERY_DAYS_DEFAULT: i64 = 30;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// These jobs carry nothing.
#[derive(Serialize, Deserialize)]
pub struct Nothing {}

#[derive(Deserialize)]
struct Silent {
    id: String,
    job_id: String,
}

/// Makes dead letters of deliveries whose job the queue has given up or does not know, as after a crash at the last attempt.
pub async fn rescue(_: Job<Nothing>) -> JobResult {
    let now = now_ms();
    let silent: Vec<Silent> = sql::query_as(
        "SELECT id, job_id FROM deliveries WHERE status = 'pending' AND updated_at < $1 AND not_before < $1 ORDER BY updated_at LIMIT $2",
        params![now - SILENT_MS, RESCUE_ROWS_MAX],
    )
    .await?;
    for delivery in silent {
        let under_way = match queue::get(deliveries::QUEUE, &delivery.job_id).await {
            Ok(job) => !matches!(job.state, State::Failed | State::Completed),
            Err(Error::NotFound) => false,
            Err(error) => return Err(error.into()),
        };
        if !under_way {
            sql::execute(
                "UPDATE deliveries SET status = 'failed', error = $2, updated_at = $3 WHERE id = $1 AND status = 'pending' AND job_id = $4",
                params![delivery.id, "its job ended without an answer", now, delivery.job_id],
            )
            .await?;
        }
    }
    Ok(())
}

/// Deletes what is too old, a thousand rows at a time.
pub async fn prune(_: Job<Nothing>) -> JobResult {
    let before = |key: &str, days: i64| now_ms() - config::parse(key, days) * DAY_MS;
    let notifications = before("notification_days_max", NOTIFICATION_DAYS_DEFAULT);
    // A scan a night is cheaper than one more index to write with each notification.
    delete(
        "notifications",
        "user_id, id",
        "created_at < $1",
        notifications,
    )
    .await?;
    let deliveries = before("delivery_days_max", DELIVERY_DAYS_DEFAULT);
    delete(
        "deliveries",
        "id",
        "created_at < $1 AND status <> 'pending'",
        deliveries,
    )
    .await?;
    delete(
        "idempotency_keys",
        "principal, key",
        "created_at < $1",
        now_ms() - DAY_MS,
    )
    .await
}

async fn delete(table: &str, key: &str, condition: &str, before: i64) -> JobResult {
    let text = format!(
        "DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {condition} LIMIT $2)"
    );
    for _ in 0..PRUNE_ROUNDS_MAX {
        if sql::execute(&text, params![before, PRUNE_ROWS_MAX]).await? == 0 {
            break;
        }
    }
    Ok(())
}
