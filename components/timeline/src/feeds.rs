//! The timelines that people read: home, one user's, everybody's. A cursor is the id of the last post read: new posts, deletions and
//! edits in between neither repeat nor skip any.

use exprsn_sdk::ids::uuid_v7_at;
use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::ToValue;

use crate::accounts;
use crate::model::Post;
use crate::posts::{NOT_BLOCKED, POST_COLUMNS};

/// Greater than any UUID in any collation.
const AFTER_EVERY_ID: &str = "g";
/// Days for which posts of authors with too many followers are merged in, where `pull_days_max` is not set: what is sorted at
/// each read stays little, however long such authors have been writing.
const PULL_DAYS_MAX_DEFAULT: i64 = 30;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Posts of those whom the caller follows, and their own, newest first.
///
/// Candidates are the entries that fan-out wrote, and the posts of authors with too many followers for that. Whether the author
/// is still followed is asked here, so that an unfollow, a block or a deletion shows at once, whatever is still queued.
pub async fn home(user: User, page: Query<PageQuery>) -> Result<Json<Page<Post>>> {
    let text = format!(
        "WITH candidates AS ( \
             SELECT id FROM ( \
                 SELECT h.post_id AS id FROM home_entries h JOIN posts c ON c.id = h.post_id \
                 WHERE h.user_id = $1 AND h.post_id < $2 AND c.deleted_at IS NULL AND (c.author_id = $1 \
                     OR EXISTS (SELECT 1 FROM follows f WHERE f.followee_id = c.author_id AND f.follower_id = $1)) \
                 ORDER BY h.post_id DESC LIMIT $3) AS pushed \
             UNION SELECT id FROM ( \
                 SELECT c.id AS id FROM follows f JOIN posts c ON c.author_id = f.followee_id AND c.reach = 'pull' \
                 WHERE f.follower_id = $1 AND c.id < $2 AND c.id > $4 AND c.deleted_at IS NULL \
                 ORDER BY c.id DESC LIMIT $3) AS pulled) \
         SELECT {POST_COLUMNS} FROM candidates JOIN posts p ON p.id = candidates.id ORDER BY p.id DESC LIMIT $3"
    );
    let days = config::parse("pull_days_max", PULL_DAYS_MAX_DEFAULT);
    let oldest = uuid_v7_at(now_ms() - days * DAY_MS);
    read(&page, &text, &user.id, Some(&oldest)).await
}

/// One user's posts, newest first.
pub async fn of_user(
    user: User,
    Path(id): Path<Id>,
    page: Query<PageQuery>,
) -> Result<Json<Page<Post>>> {
    accounts::visible(&user.id, &id).await?;
    let text = format!(
        "SELECT {POST_COLUMNS} FROM posts p WHERE p.author_id = $4 AND p.id < $2 AND p.deleted_at IS NULL ORDER BY p.id DESC LIMIT $3"
    );
    read(&page, &text, &user.id, Some(id.as_str())).await
}

/// Everybody's posts, newest first; who asks with a token is spared those whom they block.
pub async fn public(user: Option<User>, page: Query<PageQuery>) -> Result<Json<Page<Post>>> {
    let reader = user.map(|user| user.id).unwrap_or_default();
    let text = format!(
        "SELECT {POST_COLUMNS} FROM posts p WHERE p.id < $2 AND p.deleted_at IS NULL AND {NOT_BLOCKED} ORDER BY p.id DESC LIMIT $3"
    );
    read(&page, &text, &reader, None).await
}

/// Runs a query over posts with the reader as `$1`, the cursor as `$2`, the limit as `$3` and, where it takes one, another id as `$4`.
async fn read(
    page: &Query<PageQuery>,
    text: &str,
    reader: &str,
    other: Option<&str>,
) -> Result<Json<Page<Post>>> {
    let before = page
        .cursor::<Id>()?
        .map_or_else(|| AFTER_EVERY_ID.to_owned(), Id::into);
    let mut parameters = params![reader, before, page.limit_plus_one()];
    parameters.extend(other.map(|id| id.to_value()));
    let rows: Vec<Post> = sql::query_as(text, parameters).await?;
    Ok(Json(page.page(rows, |post| post.id.clone())))
}
