//! Upkeep of one user's home timeline, by queue: back-fill after a follow, clean-up after an unfollow, trimming.

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::Tx;

use crate::fanout;

/// The queue of these jobs.
pub const QUEUE: &str = "timeline-home";
/// Recent posts that a follow brings, where `backfill_posts_max` is not set.
const BACKFILL_POSTS_MAX_DEFAULT: i64 = 50;
/// Authors back-filled in one transaction.
const BACKFILL_AUTHORS_MAX: usize = 50;
/// Posts made after the follow that one back-fill looks at; fan-out serves the rest.
const LATE_POSTS_MAX: i64 = 500;
/// Entries that trimming leaves, where `home_entries_max` is not set.
const HOME_ENTRIES_MAX_DEFAULT: i64 = 2_000;
/// Users whose timelines one trim job looks at; it adds a job for the next.
const TRIM_USERS_MAX: i64 = 200;

/// Copy recent posts of these authors.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backfill {
    user_id: String,
    author_ids: Vec<String>,
}

/// Remove the entries of an author no longer followed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cleanup {
    user_id: String,
    author_id: String,
}

/// How long an answer is kept for its Idempotency-Key, in milliseconds.
const IDEMPOTENCY_MS_MAX: i64 = 24 * 60 * 60 * 1_000;

/// Trim the timelines of users after `after`.
#[derive(Default, Serialize, Deserialize)]
pub struct Trim {
    #[serde(default)]
    after: String,
}

/// Adds a back-fill to the transaction that makes the follows.
pub async fn add_backfill(tx: &Tx, user_id: &str, author_ids: &[String]) -> Result<()> {
    let data = Backfill {
        user_id: user_id.to_owned(),
        author_ids: author_ids.to_vec(),
    };
    tx.add_job(QUEUE, "backfill", &data, JobOptions::default())
        .await?;
    Ok(())
}

/// Adds a clean-up to the transaction that ends a follow.
pub async fn add_cleanup(tx: &Tx, user_id: &str, author_id: &str) -> Result<()> {
    let data = Cleanup {
        user_id: user_id.to_owned(),
        author_id: author_id.to_owned(),
    };
    tx.add_job(QUEUE, "cleanup", &data, JobOptions::default())
        .await?;
    Ok(())
}

/// Brings in recent posts of authors just followed.
pub async fn backfill(job: Job<Backfill>) -> JobResult {
    let posts_max = config::parse("backfill_posts_max", BACKFILL_POSTS_MAX_DEFAULT);
    for author_ids in job.data.author_ids.chunks(BACKFILL_AUTHORS_MAX) {
        let tx = sql::begin().await?;
        for author_id in author_ids {
            backfill_author(&tx, &job.data.user_id, author_id, posts_max).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Entry {
    post_id: String,
}

/// Posts older than the follow come silently. Those since then are fan-out's; where it passed before the follow was committed, this
/// delivers them, and whichever of the two inserts the row announces it.
async fn backfill_author(tx: &Tx, user_id: &str, author_id: &str, posts_max: i64) -> Result<()> {
    tx.execute(
        "INSERT INTO home_entries (user_id, post_id) SELECT CAST($1 AS TEXT), p.id FROM follows f JOIN posts p ON p.author_id = f.followee_id \
         WHERE f.followee_id = $2 AND f.follower_id = $1 AND p.deleted_at IS NULL AND p.created_at < f.created_at \
         ORDER BY p.id DESC LIMIT $3 ON CONFLICT (user_id, post_id) DO NOTHING",
        params![user_id, author_id, posts_max],
    )
    .await?;
    let late: Vec<Entry> = tx
        .query_as(
            "INSERT INTO home_entries (user_id, post_id) SELECT CAST($1 AS TEXT), p.id FROM follows f JOIN posts p ON p.author_id = f.followee_id \
             WHERE f.followee_id = $2 AND f.follower_id = $1 AND p.deleted_at IS NULL AND p.created_at >= f.created_at AND p.reach = 'push' \
             ORDER BY p.id DESC LIMIT $3 ON CONFLICT (user_id, post_id) DO NOTHING RETURNING post_id",
            params![user_id, author_id, LATE_POSTS_MAX],
        )
        .await?;
    for entry in late {
        fanout::announce(
            tx,
            &entry.post_id,
            author_id,
            vec![user_id.to_owned()],
            user_id,
        )
        .await?;
    }
    Ok(())
}

/// Removes what an unfollowed author left; reading hides it already. Followed again meanwhile, it stays.
pub async fn cleanup(job: Job<Cleanup>) -> JobResult {
    sql::execute(
        "DELETE FROM home_entries WHERE user_id = $1 \
         AND EXISTS (SELECT 1 FROM posts p WHERE p.id = home_entries.post_id AND p.author_id = $2) \
         AND NOT EXISTS (SELECT 1 FROM follows f WHERE f.followee_id = $2 AND f.follower_id = $1)",
        params![job.data.user_id, job.data.author_id],
    )
    .await?;
    Ok(())
}

#[derive(Deserialize)]
struct Owner {
    user_id: String,
}

/// Cuts home timelines to their newest entries, some users at a time.
pub async fn trim(job: Job<Trim>) -> JobResult {
    let entries_max = config::parse("home_entries_max", HOME_ENTRIES_MAX_DEFAULT);
    if job.data.after.is_empty() {
        let statement = "DELETE FROM idempotency_keys WHERE created_at < $1";
        sql::execute(statement, params![now_ms() - IDEMPOTENCY_MS_MAX]).await?;
    }
    let owners: Vec<Owner> = sql::query_as(
        "SELECT DISTINCT user_id FROM home_entries WHERE user_id > $1 ORDER BY user_id LIMIT $2",
        params![job.data.after, TRIM_USERS_MAX],
    )
    .await?;
    for owner in &owners {
        sql::execute(
            "DELETE FROM home_entries WHERE user_id = $1 AND post_id <= \
                 (SELECT post_id FROM home_entries WHERE user_id = $1 ORDER BY post_id DESC LIMIT 1 OFFSET $2)",
            params![owner.user_id, entries_max],
        )
        .await?;
    }
    if let Some(last) = owners.last() {
        queue::add(
            QUEUE,
            "trim",
            &Trim {
                after: last.user_id.clone(),
            },
            JobOptions::default(),
        )
        .await?;
    }
    Ok(())
}
