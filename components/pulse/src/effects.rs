//! What an event changes in the statistics. Pure: events in, effects out; `apply` writes them.

use serde::Deserialize;

/// A counter of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OfPost {
    Likes,
    Comments,
    Deliveries,
}

/// A counter of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OfUser {
    Posts,
    LikesGiven,
    LikesReceived,
    CommentsGiven,
    CommentsReceived,
    Followers,
    Following,
    Reach,
}

/// One change. Their order is that in which they are written: the same for all events, so that two cannot wait for each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// A post is there: by whom, since when.
    PostMade {
        post_id: String,
        author_id: String,
        at: i64,
    },
    /// A post is gone.
    PostGone { post_id: String, at: i64 },
    Post {
        post_id: String,
        counter: OfPost,
        by: i64,
    },
    /// For the ranking of the event's hour: likes and comments.
    Ranked {
        post_id: String,
        likes: i64,
        comments: i64,
    },
    User {
        user_id: String,
        counter: OfUser,
        by: i64,
    },
    /// A user did something in the event's hour.
    Active { user_id: String },
    /// Forget what a user did.
    Forget {
        table: &'static str,
        user_id: String,
    },
    /// A user is gone.
    UserGone { user_id: String },
    /// A metric of the event's hour.
    Metric { name: String, by: i64 },
}

/// A post as `post.created` has it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostCreated {
    pub id: String,
    pub author_id: String,
    pub created_at: i64,
}

/// `post.updated`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostUpdated {
    pub author_id: String,
}

/// `post.deleted`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PostDeleted {
    pub id: String,
    pub author_id: String,
    pub deleted_at: i64,
}

/// `like.created` and `like.deleted`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Like {
    pub post_id: String,
    pub user_id: String,
    pub author_id: String,
}

/// `comment.created` and `comment.deleted`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Comment {
    pub post_id: String,
    pub author_id: String,
    pub post_author_id: String,
}

/// `follow.created` and `follow.deleted`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Follow {
    pub follower_id: String,
    pub followee_id: String,
}

/// `follow.imported`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Import {
    pub follower_id: String,
    pub followee_ids: Vec<String>,
}

/// `timeline.delivered`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivered {
    pub post_id: String,
    pub author_id: String,
    pub user_ids: Vec<String>,
}

/// `user.created` and `user.deleted`.
#[derive(Debug, Deserialize)]
pub struct Account {
    pub id: String,
}

fn user(user_id: &str, counter: OfUser, by: i64) -> Effect {
    Effect::User {
        user_id: user_id.to_owned(),
        counter,
        by,
    }
}

fn active(user_id: &str) -> Effect {
    Effect::Active {
        user_id: user_id.to_owned(),
    }
}

fn metric(name: &str, by: i64) -> Effect {
    Effect::Metric {
        name: name.to_owned(),
        by,
    }
}

/// A post was written.
pub fn of_post_created(post: &PostCreated) -> Vec<Effect> {
    vec![
        Effect::PostMade {
            post_id: post.id.clone(),
            author_id: post.author_id.clone(),
            at: post.created_at,
        },
        user(&post.author_id, OfUser::Posts, 1),
        active(&post.author_id),
        metric("posts", 1),
    ]
}

/// A post was edited.
pub fn of_post_updated(post: &PostUpdated) -> Vec<Effect> {
    vec![active(&post.author_id), metric("posts_edited", 1)]
}

/// A post was deleted.
pub fn of_post_deleted(post: &PostDeleted) -> Vec<Effect> {
    vec![
        Effect::PostGone {
            post_id: post.id.clone(),
            at: post.deleted_at,
        },
        user(&post.author_id, OfUser::Posts, -1),
        metric("posts_deleted", 1),
    ]
}

/// A like was given (`by` 1) or taken back (-1).
pub fn of_like(like: &Like, by: i64) -> Vec<Effect> {
    vec![
        Effect::Post {
            post_id: like.post_id.clone(),
            counter: OfPost::Likes,
            by,
        },
        Effect::Ranked {
            post_id: like.post_id.clone(),
            likes: by,
            comments: 0,
        },
        user(&like.user_id, OfUser::LikesGiven, by),
        user(&like.author_id, OfUser::LikesReceived, by),
        active(&like.user_id),
        metric(if by > 0 { "likes" } else { "likes_deleted" }, 1),
    ]
}

/// A comment was written (`by` 1) or deleted (-1).
pub fn of_comment(comment: &Comment, by: i64) -> Vec<Effect> {
    let mut effects = vec![
        Effect::Post {
            post_id: comment.post_id.clone(),
            counter: OfPost::Comments,
            by,
        },
        Effect::Ranked {
            post_id: comment.post_id.clone(),
            likes: 0,
            comments: by,
        },
        user(&comment.author_id, OfUser::CommentsGiven, by),
        user(&comment.post_author_id, OfUser::CommentsReceived, by),
        metric(
            if by > 0 {
                "comments"
            } else {
                "comments_deleted"
            },
            1,
        ),
    ];
    if by > 0 {
        effects.push(active(&comment.author_id));
    }
    effects
}

/// A follow began (`by` 1) or ended (-1).
pub fn of_follow(follow: &Follow, by: i64) -> Vec<Effect> {
    let mut effects = vec![
        user(&follow.follower_id, OfUser::Following, by),
        user(&follow.followee_id, OfUser::Followers, by),
        metric(if by > 0 { "follows" } else { "follows_deleted" }, 1),
    ];
    if by > 0 {
        effects.push(active(&follow.follower_id));
    }
    effects
}

/// Many follows began at once.
pub fn of_import(import: &Import) -> Vec<Effect> {
    let count = import.followee_ids.len() as i64;
    let mut effects = vec![
        user(&import.follower_id, OfUser::Following, count),
        active(&import.follower_id),
        metric("follows", count),
    ];
    effects.extend(
        import
            .followee_ids
            .iter()
            .map(|id| user(id, OfUser::Followers, 1)),
    );
    effects
}

/// A post has reached home timelines.
pub fn of_delivered(delivered: &Delivered) -> Vec<Effect> {
    let by = delivered.user_ids.len() as i64;
    vec![
        Effect::Post {
            post_id: delivered.post_id.clone(),
            counter: OfPost::Deliveries,
            by,
        },
        user(&delivered.author_id, OfUser::Reach, by),
        metric("deliveries", by),
    ]
}

/// Somebody registered.
pub fn of_user_created(account: &Account) -> Vec<Effect> {
    vec![active(&account.id), metric("users", 1)]
}

/// Tables of what users did; what others did with them stays counted.
const TABLES_OF_USERS: [&str; 2] = ["activity", "events"];

/// Somebody deleted their account.
pub fn of_user_deleted(account: &Account) -> Vec<Effect> {
    let user_id = || account.id.clone();
    let forget = |table| Effect::Forget {
        table,
        user_id: user_id(),
    };
    let mut effects = TABLES_OF_USERS.map(forget).to_vec();
    effects.push(Effect::UserGone { user_id: user_id() });
    effects.push(metric("users_deleted", 1));
    effects
}

/// A custom event.
pub fn of_custom(name: &str, user_id: &str) -> Vec<Effect> {
    vec![
        active(user_id),
        metric("events", 1),
        metric(&format!("{CUSTOM_PREFIX}{name}"), 1),
    ]
}

/// How metrics of custom events begin.
pub const CUSTOM_PREFIX: &str = "event:";

/// Metrics that pulse itself counts.
pub const METRICS: [&str; 13] = [
    "posts",
    "posts_edited",
    "posts_deleted",
    "likes",
    "likes_deleted",
    "comments",
    "comments_deleted",
    "follows",
    "follows_deleted",
    "deliveries",
    "users",
    "users_deleted",
    "events",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn like() -> Like {
        Like {
            post_id: "p".into(),
            user_id: "liker".into(),
            author_id: "author".into(),
        }
    }

    #[test]
    fn a_like_taken_back_undoes_its_counters() {
        let counters = |effects: Vec<Effect>| -> Vec<(String, i64)> {
            let of = |effect: Effect| match effect {
                Effect::User {
                    user_id,
                    counter,
                    by,
                } => Some((format!("{user_id} {counter:?}"), by)),
                Effect::Post {
                    post_id,
                    counter,
                    by,
                } => Some((format!("{post_id} {counter:?}"), by)),
                Effect::Ranked {
                    likes, comments, ..
                } => Some(("ranked".to_owned(), likes + comments)),
                _ => None,
            };
            effects.into_iter().filter_map(of).collect()
        };
        let (given, taken) = (
            counters(of_like(&like(), 1)),
            counters(of_like(&like(), -1)),
        );
        assert_eq!(given.len(), 4);
        for ((what, by), (same, back)) in given.iter().zip(&taken) {
            assert_eq!((what, *by), (same, -back));
        }
    }

    #[test]
    fn a_chunk_of_a_fan_out_counts_its_users() {
        let wire = r#"{"postId":"p","authorId":"a","userIds":["x","y","z"],"chunk":""}"#;
        let delivered: Delivered =
            serde_json::from_str(wire).expect("as the timeline publishes it");
        let effects = of_delivered(&delivered);
        assert!(effects.contains(&Effect::Post {
            post_id: "p".into(),
            counter: OfPost::Deliveries,
            by: 3
        }));
        assert!(effects.contains(&metric("deliveries", 3)));
    }

    #[test]
    fn an_import_counts_each_follow() {
        let import = Import {
            follower_id: "a".into(),
            followee_ids: vec!["x".into(), "y".into()],
        };
        let effects = of_import(&import);
        assert!(effects.contains(&user("a", OfUser::Following, 2)));
        assert!(effects.contains(&user("y", OfUser::Followers, 1)));
        assert!(effects.contains(&metric("follows", 2)));
    }

    #[test]
    fn every_metric_written_can_be_asked_for() {
        let post = PostCreated {
            id: "p".into(),
            author_id: "a".into(),
            created_at: 1,
        };
        let comment = Comment {
            post_id: "p".into(),
            author_id: "c".into(),
            post_author_id: "a".into(),
        };
        let follow = Follow {
            follower_id: "a".into(),
            followee_id: "b".into(),
        };
        let account = Account { id: "a".into() };
        let all = [
            of_post_created(&post),
            of_post_updated(&PostUpdated {
                author_id: "a".into(),
            }),
            of_post_deleted(&PostDeleted {
                id: "p".into(),
                author_id: "a".into(),
                deleted_at: 2,
            }),
            of_like(&like(), 1),
            of_like(&like(), -1),
            of_comment(&comment, 1),
            of_comment(&comment, -1),
            of_follow(&follow, 1),
            of_follow(&follow, -1),
            of_delivered(&Delivered {
                post_id: "p".into(),
                author_id: "a".into(),
                user_ids: vec![],
            }),
            of_user_created(&account),
            of_user_deleted(&account),
            of_custom("signup", "a"),
        ];
        let mut written: Vec<String> = all
            .into_iter()
            .flatten()
            .filter_map(|effect| match effect {
                Effect::Metric { name, .. } if !name.starts_with(CUSTOM_PREFIX) => Some(name),
                _ => None,
            })
            .collect();
        written.sort();
        let mut known = METRICS.map(str::to_owned).to_vec();
        known.sort();
        assert_eq!(written, known);
    }
}
