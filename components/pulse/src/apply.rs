//! Effects as SQL, and events applied once.

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::{Statement, stmt};

use crate::effects::{Effect, OfPost, OfUser};
use crate::window::hour_of;

impl OfPost {
    /// The column of `post_stats`.
    fn column(self) -> &'static str {
        match self {
            OfPost::Likes => "likes",
            OfPost::Comments => "comments",
            OfPost::Deliveries => "deliveries",
        }
    }
}

impl OfUser {
    /// The column of `user_stats`.
    fn column(self) -> &'static str {
        match self {
            OfUser::Posts => "posts",
            OfUser::LikesGiven => "likes_given",
            OfUser::LikesReceived => "likes_received",
            OfUser::CommentsGiven => "comments_given",
            OfUser::CommentsReceived => "comments_received",
            OfUser::Followers => "followers",
            OfUser::Following => "following",
            OfUser::Reach => "reach",
        }
    }
}

/// Applies an event's effects, unless they have been applied.
///
/// The inbox row and the counters are one batch, which is one transaction: an event delivered again breaks the inbox's primary key, and
/// nothing of it happens.
pub async fn apply<T>(event: &Event<T>, effects: Vec<Effect>) -> EventResult {
    let id = format!("{}#{}", event.source, event.id);
    let seen = stmt(
        "INSERT INTO inbox (id, at) VALUES ($1, $2)",
        params![id, now_ms()],
    );
    let statements = std::iter::once(seen)
        .chain(statements(effects, event.time))
        .collect();
    match sql::batch(statements).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_unique() => {
            log::debug!("counted already", event = id);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// The statements of effects at an instant.
pub fn statements(mut effects: Vec<Effect>, at: i64) -> Vec<Statement> {
    effects.sort();
    effects
        .into_iter()
        .map(|effect| statement(effect, at))
        .collect()
}

fn statement(effect: Effect, at: i64) -> Statement {
    let hour = hour_of(at);
    match effect {
        Effect::PostMade {
            post_id,
            author_id,
            at,
        } => stmt(
            "INSERT INTO post_stats (post_id, author_id, created_at) VALUES ($1, $2, $3) \
             ON CONFLICT (post_id) DO UPDATE SET author_id = excluded.author_id, created_at = excluded.created_at",
            params![post_id, author_id, at],
        ),
        Effect::PostGone { post_id, at } => stmt(
            "INSERT INTO post_stats (post_id, deleted_at) VALUES ($1, $2) \
             ON CONFLICT (post_id) DO UPDATE SET deleted_at = excluded.deleted_at",
            params![post_id, at],
        ),
        Effect::Post {
            post_id,
            counter,
            by,
        } => {
            let column = counter.column();
            let text = format!(
                "INSERT INTO post_stats (post_id, {column}) VALUES ($1, $2) \
                 ON CONFLICT (post_id) DO UPDATE SET {column} = post_stats.{column} + excluded.{column}"
            );
            stmt(text, params![post_id, by])
        }
        Effect::Ranked {
            post_id,
            likes,
            comments,
        } => stmt(
            "INSERT INTO post_hours (hour, post_id, likes, comments) VALUES ($1, $2, $3, $4) ON CONFLICT (hour, post_id) DO UPDATE \
             SET likes = post_hours.likes + excluded.likes, comments = post_hours.comments + excluded.comments",
            params![hour, post_id, likes, comments],
        ),
        Effect::User {
            user_id,
            counter,
            by,
        } => {
            let column = counter.column();
            let text = format!(
                "INSERT INTO user_stats (user_id, {column}) VALUES ($1, $2) \
                 ON CONFLICT (user_id) DO UPDATE SET {column} = user_stats.{column} + excluded.{column}"
            );
            stmt(text, params![user_id, by])
        }
        Effect::Active { user_id } => stmt(
            "INSERT INTO activity (hour, user_id) VALUES ($1, $2) ON CONFLICT (hour, user_id) DO NOTHING",
            params![hour, user_id],
        ),
        Effect::UserGone { user_id } => stmt(
            "INSERT INTO user_stats (user_id, deleted_at) VALUES ($1, $2) \
             ON CONFLICT (user_id) DO UPDATE SET deleted_at = excluded.deleted_at",
            params![user_id, at],
        ),
        Effect::Forget { table, user_id } => stmt(
            format!("DELETE FROM {table} WHERE user_id = $1"),
            params![user_id],
        ),
        Effect::Metric { name, by } => stmt(
            "INSERT INTO hourly (metric, hour, value) VALUES ($1, $2, $3) \
             ON CONFLICT (metric, hour) DO UPDATE SET value = hourly.value + excluded.value",
            params![name, hour, by],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::{Like, of_like};

    #[test]
    fn two_users_are_written_in_one_order_whoever_likes_whom() {
        let users = |liker: &str, author: &str| -> Vec<String> {
            let like = Like {
                post_id: "p".into(),
                user_id: liker.into(),
                author_id: author.into(),
            };
            let texts = statements(of_like(&like, 1), 0)
                .into_iter()
                .filter(|s| s.text.contains("user_stats"));
            texts.map(|s| format!("{:?}", s.parameters[0])).collect()
        };
        assert_eq!(users("a", "b"), users("b", "a"));
    }
}
