//! Fan-out on write: a new post goes into the home timeline of each follower, in chunks.
//!
//! **Exactly once.** Home rows and the event that tells of them are one transaction, and the event names only users whose row
//! is new in it. So a chunk repeated — after an error, a lost lease, a kill — finds its rows and says nothing. A follow made after the post is
//! not served here but by its back-fill (`home.rs`), which announces what a slow clock or a late commit left out.

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::Tx;

use crate::model::Post;

/// Followers beyond which posts are merged at read, where `fanout_followers_max` is not set.
pub const FOLLOWERS_MAX_DEFAULT: i64 = 50_000;
/// The queue of fan-out jobs.
pub const QUEUE: &str = "timeline-fanout";
/// Followers served in one transaction.
const CHUNK_FOLLOWERS_MAX: i64 = 500;
/// Attempts of a fan-out job, and its first delay in milliseconds, which doubles: as the specification has them.
const ATTEMPTS: u32 = 3;
const BACKOFF_MS: u64 = 2_000;

/// What a job is about. Jobs of other producers may say more (`operation`, `authorId`): the post says it all.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FanOut {
    pub post_id: String,
}

/// The event `timeline.delivered`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivered {
    pub post_id: String,
    pub author_id: String,
    /// Users who have the post in their home timeline since just now.
    pub user_ids: Vec<String>,
    /// The user id after which the chunk began; empty for the first chunk.
    pub chunk: String,
}

/// A row's user.
#[derive(Deserialize)]
struct Recipient {
    user_id: String,
}

#[derive(Deserialize)]
struct Source {
    author_id: String,
    created_at: i64,
}

/// Adds the job to the transaction that writes the post.
pub async fn start(tx: &Tx, post: &Post) -> Result<()> {
    let data = json!({ "postId": post.id, "authorId": post.author_id, "operation": "fanout_to_followers" });
    let options = JobOptions::default()
        .id(&post.id)
        .attempts(ATTEMPTS)
        .exponential(BACKOFF_MS);
    tx.add_job(QUEUE, "fanout", &data, options).await?;
    Ok(())
}

/// Does one post's fan-out; a post deleted meanwhile needs none.
pub async fn run(job: Job<FanOut>) -> JobResult {
    let post_id = &job.data.post_id;
    let source: Option<Source> = sql::query_one_as(
        "SELECT author_id, created_at FROM posts WHERE id = $1 AND deleted_at IS NULL",
        params![post_id],
    )
    .await?;
    let Some(source) = source else {
        log::info!("nothing to fan out", post_id = post_id);
        return Ok(());
    };
    let mut after = String::new();
    let mut delivered = 0;
    while let Some(upto) = chunk_end(&source.author_id, &after).await? {
        delivered += deliver(post_id, &source, &after, &upto).await?;
        after = upto;
    }
    metrics::count("fanout_deliveries", delivered, &[]);
    log::debug!("fanned out", post_id = post_id, delivered = delivered);
    Ok(())
}

/// The last follower of the chunk after `after`; none when nobody is left.
async fn chunk_end(author_id: &str, after: &str) -> Result<Option<String>> {
    let end: Option<Recipient> = sql::query_one_as(
        "SELECT user_id FROM (SELECT max(follower_id) AS user_id FROM ( \
             SELECT follower_id FROM follows WHERE followee_id = $1 AND follower_id > $2 ORDER BY follower_id LIMIT $3) AS chunk) AS last \
         WHERE user_id IS NOT NULL",
        params![author_id, after, CHUNK_FOLLOWERS_MAX],
    )
    .await?;
    Ok(end.map(|recipient| recipient.user_id))
}

/// Delivers to the followers in (`after`, `upto`] and answers how many had not had the post.
async fn deliver(post_id: &str, source: &Source, after: &str, upto: &str) -> Result<u64> {
    let tx = sql::begin().await?;
    let new: Vec<Recipient> = tx
        .query_as(
            "INSERT INTO home_entries (user_id, post_id) SELECT follower_id, CAST($1 AS TEXT) FROM follows \
             WHERE followee_id = $2 AND follower_id > $3 AND follower_id <= $4 AND created_at <= $5 \
             ON CONFLICT (user_id, post_id) DO NOTHING RETURNING user_id",
            params![post_id, source.author_id, after, upto, source.created_at],
        )
        .await?;
    let user_ids: Vec<String> = new.into_iter().map(|recipient| recipient.user_id).collect();
    let count = user_ids.len() as u64;
    announce(&tx, post_id, &source.author_id, user_ids, after).await?;
    tx.commit().await?;
    Ok(count)
}

/// Publishes who has got the post; nothing for nobody.
///
/// The event's id follows from the post and its first new recipient. A user receives a post once, so no two announcements share an
/// id, and the same one repeated keeps it.
pub async fn announce(
    tx: &Tx,
    post_id: &str,
    author_id: &str,
    mut user_ids: Vec<String>,
    chunk: &str,
) -> Result<()> {
    user_ids.sort_unstable();
    let Some(first) = user_ids.first() else {
        return Ok(());
    };
    let id = format!("{post_id}:{first}");
    let delivered = Delivered {
        post_id: post_id.to_owned(),
        author_id: author_id.to_owned(),
        user_ids,
        chunk: chunk.to_owned(),
    };
    tx.publish(
        Event::new("timeline.delivered", &delivered)
            .subject(post_id)
            .id(id),
    )
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_jobs_of_other_producers() {
        let job = r#"{"postId":"p1","operation":"fanout_to_followers","followerIds":["a"]}"#;
        assert_eq!(
            serde_json::from_str::<FanOut>(job).expect("parses").post_id,
            "p1"
        );
        assert!(serde_json::from_str::<FanOut>("{}").is_err());
    }

    #[test]
    fn says_on_the_wire_what_herald_and_pulse_read() {
        let delivered = Delivered {
            post_id: "p".into(),
            author_id: "a".into(),
            user_ids: vec!["u".into()],
            chunk: String::new(),
        };
        let wire = serde_json::to_value(&delivered).expect("serialises");
        assert_eq!(
            wire,
            json!({ "postId": "p", "authorId": "a", "userIds": ["u"], "chunk": "" })
        );
    }
}
