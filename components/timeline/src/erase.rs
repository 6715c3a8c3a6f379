//! Forgetting a user whose account was deleted: their posts, comments, likes and relations, by queue, in small transactions.
//!
//! Each step does what is left to do, so a job repeated goes on where the last attempt stopped.

use exprsn_sdk::prelude::*;

use crate::home::QUEUE;
use crate::{accounts, comments, follows, posts};

/// Rows changed in one transaction.
const CHUNK_ROWS_MAX: i64 = 200;

/// The data of `user.deleted`, and of the job.
#[derive(Serialize, Deserialize)]
pub struct Gone {
    id: String,
}

/// On `user.deleted`: adds the job.
pub async fn on_user_deleted(event: Event<Gone>) -> EventResult {
    let options = JobOptions::default().id(format!("erase-{}", event.data.id));
    queue::add(QUEUE, "erase", &event.data, options).await?;
    Ok(())
}

/// Forgets the user.
pub async fn run(job: Job<Gone>) -> JobResult {
    let user_id = &job.data.id;
    while erase_posts(user_id).await? {}
    while erase_comments(user_id).await? {}
    while erase_likes(user_id).await? {}
    while erase_follows(user_id).await? {}
    sql::execute(
        "DELETE FROM blocks WHERE blocker_id = $1 OR blocked_id = $1",
        params![user_id],
    )
    .await?;
    sql::execute(
        "DELETE FROM home_entries WHERE user_id = $1",
        params![user_id],
    )
    .await?;
    sql::execute("DELETE FROM accounts WHERE user_id = $1", params![user_id]).await?;
    log::info!("erased a user", user_id = user_id);
    Ok(())
}

#[derive(Deserialize)]
struct Erased {
    id: String,
    post_id: String,
    post_author_id: String,
}

async fn erase_posts(user_id: &str) -> Result<bool> {
    let (tx, at) = (sql::begin().await?, now_ms());
    let erased: Vec<Erased> = tx
        .query_as(
            "UPDATE posts SET deleted_at = $2 WHERE id IN ( \
                 SELECT id FROM posts WHERE author_id = $1 AND deleted_at IS NULL ORDER BY id LIMIT $3) \
             RETURNING id, id AS post_id, author_id AS post_author_id",
            params![user_id, at, CHUNK_ROWS_MAX],
        )
        .await?;
    for post in &erased {
        tx.publish(posts::deleted(&post.id, user_id, at)).await?;
    }
    tx.commit().await?;
    Ok(!erased.is_empty())
}

async fn erase_comments(user_id: &str) -> Result<bool> {
    let (tx, at) = (sql::begin().await?, now_ms());
    let found: Vec<Erased> = tx
        .query_as(
            "SELECT c.id, c.post_id, p.author_id AS post_author_id FROM comments c JOIN posts p ON p.id = c.post_id \
             WHERE c.author_id = $1 AND c.deleted_at IS NULL ORDER BY c.post_id, c.id LIMIT $2",
            params![user_id, CHUNK_ROWS_MAX],
        )
        .await?;
    for comment in &found {
        tx.execute(
            "UPDATE posts SET comment_count = comment_count - 1 WHERE id = $1",
            params![comment.post_id],
        )
        .await?;
        tx.execute(
            "UPDATE comments SET deleted_at = $2 WHERE id = $1",
            params![comment.id, at],
        )
        .await?;
        tx.publish(comments::deleted(
            &comment.id,
            &comment.post_id,
            user_id,
            &comment.post_author_id,
            at,
        ))
        .await?;
    }
    tx.commit().await?;
    Ok(!found.is_empty())
}

#[derive(Deserialize)]
struct Liked {
    post_id: String,
}

/// Likes go without `like.deleted`: what a user did while they were here stays counted in the statistics.
async fn erase_likes(user_id: &str) -> Result<bool> {
    let tx = sql::begin().await?;
    let found: Vec<Liked> = tx
        .query_as(
            "SELECT post_id FROM likes WHERE user_id = $1 ORDER BY post_id LIMIT $2",
            params![user_id, CHUNK_ROWS_MAX],
        )
        .await?;
    for like in &found {
        tx.execute(
            "DELETE FROM likes WHERE post_id = $1 AND user_id = $2",
            params![like.post_id, user_id],
        )
        .await?;
        tx.execute(
            "UPDATE posts SET like_count = like_count - 1 WHERE id = $1",
            params![like.post_id],
        )
        .await?;
    }
    tx.commit().await?;
    Ok(!found.is_empty())
}

#[derive(Deserialize)]
struct Pair {
    follower_id: String,
    followee_id: String,
}

async fn erase_follows(user_id: &str) -> Result<bool> {
    let pairs: Vec<Pair> = sql::query_as(
        "SELECT follower_id, followee_id FROM follows WHERE followee_id = $1 OR follower_id = $1 LIMIT $2",
        params![user_id, CHUNK_ROWS_MAX],
    )
    .await?;
    for pair in &pairs {
        let tx = sql::begin().await?;
        accounts::lock(&tx, vec![&pair.follower_id, &pair.followee_id]).await?;
        follows::delete(&tx, &pair.follower_id, &pair.followee_id).await?;
        tx.commit().await?;
    }
    Ok(!pairs.is_empty())
}
