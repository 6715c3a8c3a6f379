//! `/api/jobs` and `/api/queues/{name}/…`: what lies in queues, and what an administrator does about it.

use crate::audit;
use exprsn_sdk::{
    prelude::*,
    queue::{JobRecord, State},
};

/// Most jobs that one answer holds.
const LIMIT_MAX: u32 = 200;
/// Jobs of each state of each queue that are looked through for a text.
const LOOKED_THROUGH: u32 = 100;
/// Most bytes of a job's data that are shown.
const DATA_BYTES_MAX: usize = 16_384;
/// The states in which jobs are listed.
const STATES: [State; 6] = [
    State::Active,
    State::Waiting,
    State::Prioritized,
    State::Delayed,
    State::Failed,
    State::Completed,
];

/// A job as administrators see it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    queue: String,
    id: String,
    name: String,
    /// `waiting`, `delayed`, `prioritized`, `active`, `completed`, `failed` or `paused`.
    state: &'static str,
    attempt: u32,
    attempts: u32,
    priority: u32,
    /// JSON as text, its end cut off where it is long.
    data: String,
    /// Milliseconds since the Unix epoch.
    created_at: i64,
    processed_at: Option<i64>,
    finished_at: Option<i64>,
    /// The last attempt's error.
    failed_reason: Option<String>,
    /// JSON as text.
    return_value: Option<String>,
}

/// Jobs.
#[derive(Serialize, JsonSchema)]
pub struct JobViews {
    items: Vec<JobView>,
}

/// Which jobs of a queue.
#[derive(Deserialize, JsonSchema, Validate)]
pub struct Which {
    /// `failed` when absent.
    #[garde(inner(custom(known)))]
    state: Option<String>,
    /// How many are skipped.
    #[garde(inner(range(max = 100_000)))]
    offset: Option<u32>,
    /// 50 when absent.
    #[garde(inner(range(min = 1, max = LIMIT_MAX)))]
    limit: Option<u32>,
}

/// Which jobs of all queues.
#[derive(Deserialize, JsonSchema, Validate)]
pub struct Recent {
    /// A text in the job's data: the id of a post.
    #[garde(inner(length(bytes, min = 3, max = 200)))]
    contains: Option<String>,
    /// 50 when absent.
    #[garde(inner(range(min = 1, max = LIMIT_MAX)))]
    limit: Option<u32>,
}

fn known(state: &str, _: &()) -> garde::Result {
    state_named(state).map(drop).ok_or_else(|| {
        garde::Error::new(
            "must be waiting, delayed, prioritized, active, completed, failed or paused",
        )
    })
}

fn state_named(name: &str) -> Option<State> {
    let all = STATES.into_iter().chain([State::Paused]);
    all.into_iter().find(|state| word(*state) == name)
}

fn word(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Delayed => "delayed",
        State::Prioritized => "prioritized",
        State::Active => "active",
        State::Completed => "completed",
        State::Failed => "failed",
        State::Paused => "paused",
    }
}

/// `GET /api/queues/{name}/jobs`
pub async fn list(Path(name): Path<String>, which: Query<Which>) -> Result<Json<JobViews>> {
    let state = which
        .state
        .as_deref()
        .and_then(state_named)
        .unwrap_or(State::Failed);
    let (offset, limit) = (which.offset.unwrap_or(0), which.limit.unwrap_or(50));
    let jobs = queue::list(&name, state, offset, limit)
        .await
        .map_err(|error| refused(error, &name))?;
    Ok(Json(JobViews {
        items: jobs.into_iter().map(JobView::from).collect(),
    }))
}

/// `GET /api/jobs`
pub async fn recent(asked: Query<Recent>) -> Result<Json<JobViews>> {
    let limit = asked.limit.unwrap_or(50);
    let many = match asked.contains {
        Some(_) => LOOKED_THROUGH,
        None => limit,
    };
    let mut found = Vec::new();
    // One after the other, and the latest only: what many queues hold at once is more than this service's memory.
    for held in platform::queues().await? {
        for state in STATES {
            // A queue that went meanwhile is empty.
            let jobs = queue::list(&held.name, state, 0, many).await;
            let meant = |job: &JobRecord| {
                let text = asked.contains.as_deref();
                text.is_none_or(|text| job.data.contains(text))
            };
            found.extend(jobs.unwrap_or_default().into_iter().filter(meant));
        }
        found.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        found.truncate(limit as usize);
    }
    Ok(Json(JobViews {
        items: found.into_iter().map(JobView::from).collect(),
    }))
}

/// `POST /api/queues/{name}/jobs/{id}/retry`
pub async fn retry(Path((name, id)): Path<(String, String)>) -> Result<NoContent> {
    audit::note("queue.job-retried", &name, json!({ "job": id })).await?;
    done(queue::retry(&name, &id).await, &name)
}

/// `DELETE /api/queues/{name}/jobs/{id}`
pub async fn remove(Path((name, id)): Path<(String, String)>) -> Result<NoContent> {
    audit::note("queue.job-removed", &name, json!({ "job": id })).await?;
    done(queue::remove(&name, &id).await, &name)
}

/// `POST /api/queues/{name}/pause`
pub async fn pause(Path(name): Path<String>) -> Result<NoContent> {
    audit::note("queue.paused", &name, json!({})).await?;
    done(queue::pause(&name, true).await, &name)
}

/// `POST /api/queues/{name}/resume`
pub async fn resume(Path(name): Path<String>) -> Result<NoContent> {
    audit::note("queue.resumed", &name, json!({})).await?;
    done(queue::pause(&name, false).await, &name)
}

fn done(outcome: Result<(), queue::Error>, name: &str) -> Result<NoContent> {
    outcome.map_err(|error| refused(error, name))?;
    Ok(NoContent)
}

/// What is wrong with what an administrator asked for is told; the rest as everywhere.
fn refused(error: queue::Error, name: &str) -> Problem {
    match error {
        queue::Error::Invalid(why) => Problem::bad_request("queue", why),
        queue::Error::AccessDenied(why) => Problem::forbidden(format!("{name}: {why}")),
        other => other.into(),
    }
}

impl From<JobRecord> for JobView {
    fn from(job: JobRecord) -> Self {
        Self {
            queue: job.queue,
            id: job.id,
            name: job.name,
            state: word(job.state),
            attempt: job.attempt,
            attempts: job.attempts,
            priority: job.priority,
            data: shortened(job.data),
            created_at: job.created_at,
            processed_at: job.processed_at,
            finished_at: job.finished_at,
            failed_reason: job.failed_reason.map(shortened),
            return_value: job.return_value.map(shortened),
        }
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > DATA_BYTES_MAX {
        let end = (0..=DATA_BYTES_MAX)
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_named_as_the_queues_names_them() {
        for state in STATES {
            assert_eq!(state_named(word(state)), Some(state));
        }
        assert!(known("dead", &()).is_err() && known("failed", &()).is_ok());
    }

    #[test]
    fn long_data_is_cut_between_characters() {
        let text = shortened("é".repeat(DATA_BYTES_MAX));
        assert!(text.len() <= DATA_BYTES_MAX + '…'.len_utf8() && text.ends_with("é…"));
        assert_eq!(shortened("{}".to_owned()), "{}");
    }
}
