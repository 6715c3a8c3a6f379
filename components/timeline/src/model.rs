//! What the timeline takes and gives: bodies, answers and the data of its events.

use exprsn_sdk::Id;
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest post, in characters.
pub const POST_CHARS_MAX: usize = 5_000;
/// Longest comment, in characters.
pub const COMMENT_CHARS_MAX: usize = 2_000;
/// Users that one import of follows may name.
pub const BULK_FOLLOWS_MAX: usize = 1_000;
/// Users that one user may follow.
pub const FOLLOWING_MAX: i64 = 10_000;

/// A post to write, or the new words of one.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct NewPost {
    #[garde(length(chars, min = 1, max = POST_CHARS_MAX), custom(readable))]
    #[schemars(length(min = 1, max = 5000))]
    pub content: String,
}

/// An edit of a post.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct PostEdit {
    #[garde(length(chars, min = 1, max = POST_CHARS_MAX), custom(readable))]
    #[schemars(length(min = 1, max = 5000))]
    pub content: String,
    /// The revision that the editor saw; where the post has moved on, the edit is refused with 409.
    #[garde(range(min = 1))]
    #[schemars(range(min = 1))]
    #[serde(default)]
    pub revision: Option<i64>,
}

/// A comment to write.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct NewComment {
    #[garde(length(chars, min = 1, max = COMMENT_CHARS_MAX), custom(readable))]
    #[schemars(length(min = 1, max = 2000))]
    pub content: String,
}

/// Users to follow in one go, as when moving here from elsewhere.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BulkFollow {
    #[garde(length(min = 1, max = BULK_FOLLOWS_MAX))]
    #[schemars(length(min = 1, max = 1000))]
    pub user_ids: Vec<Id>,
}

/// Whose followers get a post how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Copied into each follower's home timeline when written.
    Push,
    /// Merged into home timelines when they are read.
    Pull,
}

impl Reach {
    /// Push up to `followers_max` followers, pull beyond.
    pub fn of(follower_count: i64, followers_max: i64) -> Self {
        if follower_count <= followers_max {
            Reach::Push
        } else {
            Reach::Pull
        }
    }

    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Reach::Push => "push",
            Reach::Pull => "pull",
        }
    }
}

/// A post as its reader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Post {
    pub id: String,
    pub author_id: String,
    pub content: String,
    /// 1 as written; one more with each edit.
    pub revision: i64,
    pub like_count: i64,
    pub comment_count: i64,
    /// Whether the reader likes it.
    pub liked: bool,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
    pub updated_at: i64,
}

/// What a post said from `created_at` on.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    pub revision: i64,
    pub content: String,
    pub created_at: i64,
}

/// Whether the caller likes a post, and how many do.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LikeState {
    pub post_id: String,
    pub liked: bool,
    pub like_count: i64,
}

/// A comment on a post.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comment {
    pub id: String,
    pub post_id: String,
    pub author_id: String,
    pub content: String,
    pub created_at: i64,
}

/// A user in a list, and since when they are in it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    pub user_id: String,
    /// Milliseconds since the Unix epoch: when the like, follow or block was made.
    pub since: i64,
}

/// A user's counters, and how the caller and they stand.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    pub user_id: String,
    pub follower_count: i64,
    pub following_count: i64,
    pub post_count: i64,
    /// Whether the caller follows them.
    pub following: bool,
    /// Whether they follow the caller.
    pub followed_by: bool,
}

/// Whether the caller follows a user.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FollowState {
    pub user_id: String,
    pub following: bool,
}

/// Whether the caller blocks a user.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockState {
    pub user_id: String,
    pub blocked: bool,
}

/// What an import of follows did.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BulkFollowed {
    /// Users followed now who were not before.
    pub followed: usize,
    /// Users followed already, blocked either way, named twice, or oneself.
    pub skipped: usize,
}

fn readable(text: &str, _: &()) -> garde::Result {
    check_readable(text).map_err(garde::Error::new)
}

/// Text that people can read: not only white space, and no control characters but tab and line ends.
fn check_readable(text: &str) -> Result<(), &'static str> {
    if text.trim().is_empty() {
        return Err("must not be blank");
    }
    if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
    {
        return Err("must not contain control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(content: &str) -> NewPost {
        NewPost {
            content: content.to_owned(),
        }
    }

    #[test]
    fn posts_have_1_to_5000_readable_characters() {
        assert!(post("Test post").validate().is_ok());
        assert!(post("tabs\tand\r\nlines").validate().is_ok());
        assert!(post(&"ß".repeat(POST_CHARS_MAX)).validate().is_ok());
        for bad in [
            "",
            "  \n ",
            "nul\0byte",
            "bell\u{7}",
            &"ß".repeat(POST_CHARS_MAX + 1),
        ] {
            let report = post(bad).validate().expect_err("refused").to_string();
            assert!(
                report.starts_with("content"),
                "{report} does not name the field"
            );
        }
    }

    #[test]
    fn an_edit_may_name_the_revision_it_saw() {
        let edit = |text| serde_json::from_str::<PostEdit>(text);
        assert_eq!(edit(r#"{"content":"x"}"#).expect("parses").revision, None);
        assert!(
            edit(r#"{"content":"x","revision":0}"#)
                .expect("parses")
                .validate()
                .is_err()
        );
        assert!(edit(r#"{"content":"x","author":"me"}"#).is_err());
    }

    #[test]
    fn an_import_is_bounded_and_typed() {
        let ids = |n: usize| BulkFollow {
            user_ids: (0..n)
                .map(|i| format!("u{i}").try_into().expect("an id"))
                .collect(),
        };
        assert!(ids(0).validate().is_err());
        assert!(ids(BULK_FOLLOWS_MAX).validate().is_ok());
        assert!(ids(BULK_FOLLOWS_MAX + 1).validate().is_err());
        assert!(serde_json::from_str::<BulkFollow>(r#"{"userIds":["a b"]}"#).is_err());
    }

    #[test]
    fn reach_turns_to_pull_above_the_threshold() {
        assert_eq!(Reach::of(50_000, 50_000), Reach::Push);
        assert_eq!(Reach::of(50_001, 50_000), Reach::Pull);
    }
}
