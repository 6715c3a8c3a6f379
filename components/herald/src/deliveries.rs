//! Webhook deliveries: written with the notification, sent by the queue, listed and replayed by their owner.
//!
//! The queue's job carries the delivery's id only; the row is the truth. A job for a row that is not pending does nothing, so a job
//! done twice sends once, but for a crash between the receiver's answer and the row's update: receivers see `webhook-id` again then.

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::{ToValue, Tx};

use crate::endpoints;
use crate::model::{Delivery, Status};
use crate::webhook;

/// The queue that sends webhooks.
pub const QUEUE: &str = "herald-delivery";
/// Attempts, the first delay, and the time a receiver has, where the configuration does not say.
const ATTEMPTS_DEFAULT: u32 = 8;
const BACKOFF_MS_DEFAULT: u64 = 5_000;
const TIMEOUT_MS_DEFAULT: u64 = 10_000;
/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 500;
/// Greater than any UUID in any collation.
const AFTER_EVERY_ID: &str = "g";

const COLUMNS: &str = "id, endpoint_id, user_id, type, status, attempts, response_status, error, replays, not_before, created_at, updated_at";

/// A delivery to write.
pub struct Planned {
    pub id: String,
    pub endpoint_id: String,
    pub owner_id: String,
    pub user_id: String,
    pub dedupe_key: String,
    pub kind: String,
    pub payload: String,
    /// Milliseconds since the Unix epoch; not sent before.
    pub not_before: i64,
}

/// What a job is about.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Send {
    delivery_id: String,
}

#[derive(Deserialize)]
struct Added {
    id: String,
    not_before: i64,
}

/// Writes deliveries and their jobs; those that exist already are left as they are. Answers how many are new.
pub async fn add(tx: &Tx, planned: &[Planned], at: i64) -> Result<usize> {
    let mut parameters = params![at];
    let mut rows = Vec::with_capacity(planned.len());
    for delivery in planned {
        let first = parameters.len() + 1;
        let places: Vec<String> = (first..first + 8).map(|n| format!("${n}")).collect();
        rows.push(format!(
            "({}, ${first}, 'pending', $1, $1)",
            places.join(", ")
        ));
        let Planned {
            id,
            endpoint_id,
            owner_id,
            user_id,
            dedupe_key,
            kind,
            payload,
            not_before,
        } = delivery;
        parameters.extend(
            [
                id,
                endpoint_id,
                owner_id,
                user_id,
                dedupe_key,
                kind,
                payload,
            ]
            .map(ToValue::to_value),
        );
        parameters.push(not_before.to_value());
    }
    let text = format!(
        "INSERT INTO deliveries (id, endpoint_id, owner_id, user_id, dedupe_key, type, payload, not_before, job_id, status, created_at, updated_at) \
         VALUES {} ON CONFLICT (endpoint_id, user_id, dedupe_key) DO NOTHING RETURNING id, not_before",
        rows.join(", ")
    );
    let added: Vec<Added> = tx.query_as(&text, parameters).await?;
    for delivery in &added {
        let data = Send {
            delivery_id: delivery.id.clone(),
        };
        tx.add_job(
            QUEUE,
            "send",
            &data,
            options(&delivery.id, delivery.not_before - at),
        )
        .await?;
    }
    Ok(added.len())
}

fn options(job_id: &str, delay_ms: i64) -> JobOptions {
    JobOptions::default()
        .id(job_id)
        .attempts(config::parse("delivery_attempts", ATTEMPTS_DEFAULT))
        .exponential(config::parse("delivery_backoff_ms", BACKOFF_MS_DEFAULT))
        .delay_ms(u64::try_from(delay_ms).unwrap_or(0))
}

/// A pending delivery with its endpoint.
#[derive(Deserialize)]
struct Pending {
    id: String,
    payload: String,
    endpoint_id: String,
    url: String,
    secret_version: i64,
    rotated_at: Option<i64>,
    disabled_at: Option<i64>,
}

/// How one attempt ended.
enum Outcome {
    /// The receiver took it.
    Taken(StatusCode),
    /// It did not; another attempt may do.
    Refused(Option<StatusCode>, String),
    /// It will never; the endpoint is gone.
    Gone(StatusCode),
}

/// Makes one attempt at one delivery.
pub async fn send(job: Job<Send>) -> JobResult {
    let pending: Option<Pending> = sql::query_one_as(
        "SELECT d.id, d.payload, d.endpoint_id, e.url, e.secret_version, e.rotated_at, e.disabled_at \
         FROM deliveries d JOIN endpoints e ON e.id = d.endpoint_id \
         WHERE d.id = $1 AND d.job_id = $2 AND d.status = 'pending'",
        params![job.data.delivery_id, job.id],
    )
    .await?;
    let Some(pending) = pending else {
        return Ok(());
    };
    if pending.disabled_at.is_some() {
        record(
            &pending.id,
            Status::Failed,
            None,
            Some("the endpoint is disabled"),
        )
        .await?;
        return Err(JobError::fail("the endpoint is disabled"));
    }
    match attempt(&pending).await? {
        Outcome::Taken(status) => {
            record(&pending.id, Status::Delivered, Some(status), None).await?;
            metrics::count("webhooks", 1, &[("outcome", "delivered")]);
            Ok(())
        }
        Outcome::Gone(status) => {
            endpoints::disable(&pending.endpoint_id, "the receiver answered 410 Gone").await?;
            record(&pending.id, Status::Failed, Some(status), Some("410 Gone")).await?;
            metrics::count("webhooks", 1, &[("outcome", "gone")]);
            Err(JobError::fail("410 Gone"))
        }
        Outcome::Refused(status, reason) => {
            let last = job.attempt >= job.attempts;
            let standing = if last {
                Status::Failed
            } else {
                Status::Pending
            };
            record(&pending.id, standing, status, Some(&reason)).await?;
            metrics::count(
                "webhooks",
                1,
                &[("outcome", if last { "failed" } else { "retried" })],
            );
            Err(JobError::retry(reason))
        }
    }
}

async fn attempt(pending: &Pending) -> Result<Outcome> {
    let keys = endpoints::keys(
        &pending.endpoint_id,
        pending.secret_version,
        pending.rotated_at,
    )
    .await?;
    let timestamp = now_s();
    let signature = webhook::signatures(&keys, &pending.id, timestamp, &pending.payload);
    let answer = http::post(&pending.url)
        .header("content-type", "application/json")
        .header(
            "user-agent",
            concat!("exprsn-herald/", env!("CARGO_PKG_VERSION")),
        )
        .header("webhook-id", pending.id.as_str())
        .header("webhook-timestamp", timestamp.to_string())
        .header("webhook-signature", signature)
        .body(pending.payload.as_bytes())
        .timeout_ms(config::parse("delivery_timeout_ms", TIMEOUT_MS_DEFAULT))
        .send()
        .await;
    Ok(match answer {
        Ok(answer) if answer.status().is_success() => Outcome::Taken(answer.status()),
        Ok(answer) if answer.status() == StatusCode::GONE => Outcome::Gone(answer.status()),
        Ok(answer) => Outcome::Refused(
            Some(answer.status()),
            format!("the receiver answered {}", answer.status()),
        ),
        Err(error) => Outcome::Refused(None, error.to_string()),
    })
}

/// Writes down how an attempt ended.
async fn record(
    id: &str,
    standing: Status,
    status: Option<StatusCode>,
    error: Option<&str>,
) -> Result<()> {
    let error: Option<String> = error.map(|text| text.chars().take(ERROR_CHARS_MAX).collect());
    sql::execute(
        "UPDATE deliveries SET status = $2, response_status = $3, error = $4, attempts = attempts + 1, updated_at = $5 \
         WHERE id = $1 AND status = 'pending'",
        params![id, standing.as_str(), status.map(|status| status.as_u16()), error, now_ms()],
    )
    .await?;
    Ok(())
}

/// Which deliveries to list.
#[derive(Debug, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// `failed` is the list of dead letters.
    #[garde(skip)]
    pub status: Option<Status>,
    #[garde(skip)]
    pub endpoint_id: Option<Id>,
}

/// Lists the deliveries to the caller's endpoints, newest first.
pub async fn list(
    user: User,
    filter: Query<Filter>,
    page: Query<PageQuery>,
) -> Result<Json<Page<Delivery>>> {
    let before = page
        .cursor::<Id>()?
        .map_or_else(|| AFTER_EVERY_ID.to_owned(), Id::into);
    let mut parameters = params![user.id, before, page.limit_plus_one()];
    let mut conditions = String::new();
    if let Some(status) = filter.status {
        // As a literal, so that the engine sees that the index of failed ones is enough.
        conditions.push_str(&format!(" AND status = '{}'", status.as_str()));
    }
    if let Some(endpoint_id) = &filter.endpoint_id {
        parameters.push(endpoint_id.as_str().to_value());
        conditions.push_str(&format!(" AND endpoint_id = ${}", parameters.len()));
    }
    let text = format!(
        "SELECT {COLUMNS} FROM deliveries WHERE owner_id = $1 AND id < $2{conditions} ORDER BY id DESC LIMIT $3"
    );
    let rows: Vec<Delivery> = sql::query_as(&text, parameters).await?;
    Ok(Json(page.page(rows, |delivery| delivery.id.clone())))
}

/// Reads one delivery.
pub async fn show(user: User, Path(id): Path<Id>) -> Result<Json<Delivery>> {
    let text = format!("SELECT {COLUMNS} FROM deliveries WHERE owner_id = $1 AND id = $2");
    let delivery: Option<Delivery> =
        sql::query_one_as(&text, params![user.id, id.as_str()]).await?;
    delivery.map(Json).ok_or_else(|| not_found(&id))
}

/// Sends a dead letter again, with its attempts counted anew.
pub async fn replay(user: User, Path(id): Path<Id>) -> Result<Accepted<Delivery>> {
    let (at, job_id) = (now_ms(), uuid_v7());
    let tx = sql::begin().await?;
    let text = format!(
        "UPDATE deliveries SET status = 'pending', attempts = 0, replays = replays + 1, job_id = $3, not_before = $4, updated_at = $4 \
         WHERE owner_id = $1 AND id = $2 AND status = 'failed' RETURNING {COLUMNS}"
    );
    let delivery: Option<Delivery> = tx
        .query_one_as(&text, params![user.id, id.as_str(), job_id, at])
        .await?;
    let Some(delivery) = delivery else {
        drop(tx);
        let Json(delivery) = show(user, Path(id)).await?;
        return Err(Problem::conflict(format!(
            "only failed deliveries are replayed; this one is {}",
            delivery.status.as_str()
        )));
    };
    tx.add_job(
        QUEUE,
        "send",
        &Send {
            delivery_id: delivery.id.clone(),
        },
        options(&job_id, 0),
    )
    .await?;
    tx.commit().await?;
    Ok(Accepted(delivery))
}

fn not_found(id: &Id) -> Problem {
    Problem::not_found("delivery", id.as_str())
}
