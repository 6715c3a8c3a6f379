//! Posts: written, read, edited with their history, deleted.

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::Tx;

use crate::fanout;
use crate::model::{NewPost, Post, PostEdit, Reach, Revision};

/// The columns of `Post`, from `posts p` with the reader as `$1`.
pub const POST_COLUMNS: &str = "p.id, p.author_id, p.content, p.revision, p.like_count, p.comment_count, p.created_at, p.updated_at, \
     EXISTS (SELECT 1 FROM likes l WHERE l.post_id = p.id AND l.user_id = $1) AS liked";

/// True where the author of `posts p` and the reader `$1` have not blocked each other.
pub const NOT_BLOCKED: &str = "NOT EXISTS (SELECT 1 FROM blocks b WHERE \
     (b.blocker_id = p.author_id AND b.blocked_id = $1) OR (b.blocker_id = $1 AND b.blocked_id = p.author_id))";

/// Writes a post; its followers' copies, and the news of it, follow from what is committed here.
pub async fn create(
    caller: Caller,
    key: IdempotencyKey,
    user: User,
    Json(new): Json<NewPost>,
) -> Result<Once<Created<Post>>> {
    once(&key, &caller, &("post", &new), async {
        let post = write(user.id, &new.content).await?;
        Ok(Created::at(format!("/api/posts/{}", post.id), post))
    })
    .await
}

async fn write(author_id: String, content: &str) -> Result<Post> {
    let followers_max = config::parse("fanout_followers_max", fanout::FOLLOWERS_MAX_DEFAULT);
    let tx = sql::begin().await?;
    let followers: i64 = tx
        .scalar(
            "INSERT INTO accounts (user_id, post_count) VALUES ($1, 1) \
             ON CONFLICT (user_id) DO UPDATE SET post_count = accounts.post_count + 1 RETURNING follower_count",
            params![author_id],
        )
        .await?;
    let reach = Reach::of(followers, followers_max);
    let (id, at) = (uuid_v7(), now_ms());
    tx.execute(
        "INSERT INTO posts (id, author_id, content, reach, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $5)",
        params![id, author_id, content, reach.as_str(), at],
    )
    .await?;
    tx.execute(
        "INSERT INTO home_entries (user_id, post_id) VALUES ($1, $2)",
        params![author_id, id],
    )
    .await?;
    let content = content.to_owned();
    let post = Post {
        id,
        author_id,
        content,
        revision: 1,
        like_count: 0,
        comment_count: 0,
        liked: false,
        created_at: at,
        updated_at: at,
    };
    tx.publish(Event::new("post.created", &post).subject(&post.id))
        .await?;
    if reach == Reach::Push {
        fanout::start(&tx, &post).await?;
    }
    tx.commit().await?;
    metrics::count("posts", 1, &[("reach", reach.as_str())]);
    Ok(post)
}

/// Reads one post.
pub async fn show(user: User, Path(id): Path<Id>) -> Result<Json<Post>> {
    let text = format!(
        "SELECT {POST_COLUMNS} FROM posts p WHERE p.id = $2 AND p.deleted_at IS NULL AND {NOT_BLOCKED}"
    );
    let post = sql::query_one_as(&text, params![user.id, id.as_str()]).await?;
    post.map(Json).ok_or_else(|| not_found(&id))
}

/// Replaces the words of one's own post; the old ones stay in its history.
pub async fn edit(
    user: User,
    Path(id): Path<Id>,
    Json(edit): Json<PostEdit>,
) -> Result<Json<Post>> {
    let tx = sql::begin().await?;
    let mut post = own(&tx, &user.id, &id).await?;
    if edit.revision.is_some_and(|seen| seen != post.revision) {
        return Err(Problem::conflict(format!(
            "the post is at revision {} by now",
            post.revision
        )));
    }
    tx.execute(
        "INSERT INTO post_revisions (post_id, revision, content, created_at) VALUES ($1, $2, $3, $4)",
        params![post.id, post.revision, post.content, post.updated_at],
    )
    .await?;
    post.updated_at = now_ms().max(post.updated_at);
    let changed = tx
        .execute(
            "UPDATE posts SET content = $3, revision = revision + 1, updated_at = $4 \
             WHERE id = $1 AND revision = $2 AND deleted_at IS NULL",
            params![post.id, post.revision, edit.content, post.updated_at],
        )
        .await?;
    if changed == 0 {
        return Err(Problem::conflict("somebody else changed the post just now"));
    }
    post.revision += 1;
    post.content = edit.content;
    tx.publish(Event::new("post.updated", &post).subject(&post.id))
        .await?;
    tx.commit().await?;
    Ok(Json(post))
}

/// Deletes one's own post: nobody sees it any more, with its likes and comments.
pub async fn remove(user: User, Path(id): Path<Id>) -> Result<NoContent> {
    let tx = sql::begin().await?;
    let post = own(&tx, &user.id, &id).await?;
    let at = now_ms();
    let changed = tx
        .execute(
            "UPDATE posts SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL",
            params![post.id, at],
        )
        .await?;
    if changed == 0 {
        return Err(not_found(&id));
    }
    tx.execute(
        "UPDATE accounts SET post_count = post_count - 1 WHERE user_id = $1",
        params![post.author_id],
    )
    .await?;
    tx.publish(deleted(&post.id, &post.author_id, at)).await?;
    tx.commit().await?;
    Ok(NoContent)
}

/// The event that a post is gone.
pub fn deleted(post_id: &str, author_id: &str, at: i64) -> NewEvent {
    Event::new(
        "post.deleted",
        &json!({ "id": post_id, "authorId": author_id, "deletedAt": at }),
    )
    .subject(post_id)
}

/// All that a post has said, newest first.
pub async fn history(
    user: User,
    Path(id): Path<Id>,
    page: Query<PageQuery>,
) -> Result<Json<Page<Revision>>> {
    let post = visible(&user.id, &id).await?;
    let before = page.cursor::<i64>()?.unwrap_or(i64::MAX);
    let rows: Vec<Revision> = sql::query_as(
        "SELECT revision, content, created_at FROM ( \
             SELECT revision, content, updated_at AS created_at FROM posts WHERE id = $1 \
             UNION ALL SELECT revision, content, created_at FROM post_revisions WHERE post_id = $1 \
         ) AS said WHERE revision < $2 ORDER BY revision DESC LIMIT $3",
        params![post.id, before, page.limit_plus_one()],
    )
    .await?;
    Ok(Json(page.page(rows, |said| said.revision)))
}

/// A post that its reader may know of.
#[derive(Deserialize)]
pub struct Visible {
    pub id: String,
    pub author_id: String,
}

/// The post, unless it does not exist, is deleted, or its author and the reader have blocked each other: all of these are 404.
pub async fn visible(reader: &str, id: &Id) -> Result<Visible> {
    let text = format!(
        "SELECT p.id, p.author_id FROM posts p WHERE p.id = $2 AND p.deleted_at IS NULL AND {NOT_BLOCKED}"
    );
    sql::query_one_as(&text, params![reader, id.as_str()])
        .await?
        .ok_or_else(|| not_found(id))
}

/// The caller's own post: 404 where they may not see it, 403 where it is another's.
async fn own(tx: &Tx, author_id: &str, id: &Id) -> Result<Post> {
    let text = format!(
        "SELECT {POST_COLUMNS} FROM posts p WHERE p.id = $2 AND p.deleted_at IS NULL AND {NOT_BLOCKED}"
    );
    let post: Option<Post> = tx
        .query_one_as(&text, params![author_id, id.as_str()])
        .await?;
    match post {
        None => Err(not_found(id)),
        Some(post) if post.author_id != author_id => {
            Err(Problem::forbidden("only its author may change a post"))
        }
        Some(post) => Ok(post),
    }
}

/// The problem of a post that is not there for the caller.
pub fn not_found(id: &Id) -> Problem {
    Problem::not_found("post", id.as_str())
}
