//! What happens elsewhere and concerns somebody: new posts, likes, comments, follows.
//!
//! Dedupe keys say what a notification is about, so that an event delivered again, or a like taken back and given again, is told once.

use exprsn_sdk::prelude::*;
use serde_json::Map;

use crate::model::Kind;
use crate::notify::{Message, notify};

/// The data of `timeline.delivered`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivered {
    post_id: String,
    author_id: String,
    user_ids: Vec<String>,
}

/// The data of `like.created`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Liked {
    post_id: String,
    user_id: String,
    author_id: String,
}

/// The data of `comment.created`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Commented {
    id: String,
    post_id: String,
    author_id: String,
    post_author_id: String,
    content: String,
}

/// The data of `follow.created`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Followed {
    follower_id: String,
    followee_id: String,
}

/// Characters of a comment that its notification quotes.
const QUOTE_CHARS_MAX: usize = 200;

/// A post has reached home timelines: tells their users.
pub async fn on_delivered(event: Event<Delivered>) -> EventResult {
    let Delivered {
        post_id,
        author_id,
        user_ids,
    } = event.data;
    let key = format!("post:{post_id}");
    let user_ids: Vec<&str> = user_ids
        .iter()
        .map(String::as_str)
        .filter(|id| *id != author_id)
        .collect();
    notify(
        &message("new_post", key, &author_id, Some(post_id)),
        &user_ids,
    )
    .await?;
    Ok(())
}

/// Tells a post's author who likes it.
pub async fn on_liked(event: Event<Liked>) -> EventResult {
    let Liked {
        post_id,
        user_id,
        author_id,
    } = event.data;
    let key = format!("like:{post_id}:{user_id}");
    tell(
        message("like", key, &user_id, Some(post_id)),
        &user_id,
        &author_id,
    )
    .await
}

/// Tells a post's author who comments on it.
pub async fn on_commented(event: Event<Commented>) -> EventResult {
    let Commented {
        id,
        post_id,
        author_id,
        post_author_id,
        content,
    } = event.data;
    let mut message = message(
        "comment",
        format!("comment:{id}"),
        &author_id,
        Some(post_id),
    );
    message.body = Some(content.chars().take(QUOTE_CHARS_MAX).collect());
    message.data.insert("commentId".to_owned(), id.into());
    tell(message, &author_id, &post_author_id).await
}

/// Tells a user who follows them.
pub async fn on_followed(event: Event<Followed>) -> EventResult {
    let Followed {
        follower_id,
        followee_id,
    } = event.data;
    let key = format!("follow:{follower_id}");
    tell(
        message("follow", key, &follower_id, None),
        &follower_id,
        &followee_id,
    )
    .await
}

fn message(kind: &'static str, key: String, actor_id: &str, post_id: Option<String>) -> Message {
    Message {
        kind: Kind::own(kind),
        actor_id: Some(actor_id.to_owned()),
        post_id,
        title: None,
        body: None,
        data: Map::new(),
        dedupe_key: Some(key),
    }
}

/// Tells one user, unless it is their own doing.
async fn tell(message: Message, actor_id: &str, user_id: &str) -> EventResult {
    if actor_id != user_id {
        notify(&message, &[user_id]).await?;
    }
    Ok(())
}

/// The data of `user.deleted`.
#[derive(Deserialize)]
pub struct Gone {
    id: String,
}

/// Forgets a user whose account is gone.
pub async fn on_user_deleted(event: Event<Gone>) -> EventResult {
    let user_id = &event.data.id;
    let forget = [
        "DELETE FROM deliveries WHERE endpoint_id IN (SELECT id FROM endpoints WHERE owner_id = $1 AND owner_kind = 'user')",
        "DELETE FROM endpoints WHERE owner_id = $1 AND owner_kind = 'user'",
        "DELETE FROM notifications WHERE user_id = $1",
        "DELETE FROM preferences WHERE user_id = $1",
        "DELETE FROM quiet_hours WHERE user_id = $1",
    ];
    sql::batch(
        forget
            .map(|text| sql::stmt(text, params![user_id]))
            .to_vec(),
    )
    .await?;
    Ok(())
}
