//! Comments on posts, oldest first.

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::Tx;

use crate::model::{Comment, NewComment};
use crate::posts::{self, NOT_BLOCKED};

/// Lists the comments on a post, without those of people whom the reader and they have blocked.
pub async fn list(
    user: User,
    Path(id): Path<Id>,
    page: Query<PageQuery>,
) -> Result<Json<Page<Comment>>> {
    let post = posts::visible(&user.id, &id).await?;
    let after = page.cursor::<Id>()?.map_or_else(String::new, Id::into);
    // `p` stands for the comment here, so that one text says who is hidden from whom.
    let text = format!(
        "SELECT p.id, p.post_id, p.author_id, p.content, p.created_at FROM comments p \
         WHERE p.post_id = $2 AND p.deleted_at IS NULL AND p.id > $3 AND {NOT_BLOCKED} ORDER BY p.id LIMIT $4"
    );
    let rows: Vec<Comment> = sql::query_as(
        &text,
        params![user.id, post.id, after, page.limit_plus_one()],
    )
    .await?;
    Ok(Json(page.page(rows, |comment| comment.id.clone())))
}

/// Writes a comment.
pub async fn create(
    caller: Caller,
    key: IdempotencyKey,
    user: User,
    Path(id): Path<Id>,
    Json(new): Json<NewComment>,
) -> Result<Once<Created<Comment>>> {
    once(&key, &caller, &("comment", &id, &new), async {
        let comment = write(user.id, &id, &new.content).await?;
        Ok(Created::at(
            format!("/api/posts/{}/comments", comment.post_id),
            comment,
        ))
    })
    .await
}

async fn write(author_id: String, id: &Id, content: &str) -> Result<Comment> {
    let post = posts::visible(&author_id, id).await?;
    let comment = Comment {
        id: uuid_v7(),
        post_id: post.id,
        author_id,
        content: content.to_owned(),
        created_at: now_ms(),
    };
    let tx = sql::begin().await?;
    add_to_count(&tx, id, 1).await?;
    tx.execute(
        "INSERT INTO comments (id, post_id, author_id, content, created_at) VALUES ($1, $2, $3, $4, $5)",
        params![comment.id, comment.post_id, comment.author_id, comment.content, comment.created_at],
    )
    .await?;
    let data = json!({
        "id": comment.id, "postId": comment.post_id, "authorId": comment.author_id, "content": comment.content,
        "createdAt": comment.created_at, "postAuthorId": post.author_id,
    });
    tx.publish(Event::new("comment.created", &data).subject(&comment.id))
        .await?;
    tx.commit().await?;
    Ok(comment)
}

#[derive(Deserialize)]
struct Deletable {
    id: String,
    author_id: String,
    post_id: String,
    post_author_id: String,
}

/// Deletes a comment: its author may, and the author of the post that it is on.
pub async fn remove(user: User, Path(id): Path<Id>) -> Result<NoContent> {
    let text = format!(
        "SELECT c.id, c.author_id, c.post_id, p.author_id AS post_author_id FROM comments c JOIN posts p ON p.id = c.post_id \
         WHERE c.id = $2 AND c.deleted_at IS NULL AND p.deleted_at IS NULL AND {NOT_BLOCKED}"
    );
    let comment: Option<Deletable> =
        sql::query_one_as(&text, params![user.id, id.as_str()]).await?;
    let comment = comment.ok_or_else(|| Problem::not_found("comment", id.as_str()))?;
    if user.id != comment.author_id && user.id != comment.post_author_id {
        return Err(Problem::forbidden(
            "only its author and the post's author may delete a comment",
        ));
    }
    let at = now_ms();
    let tx = sql::begin().await?;
    let removed = tx
        .execute(
            "UPDATE comments SET deleted_at = $2 WHERE id = $1 AND deleted_at IS NULL",
            params![comment.id, at],
        )
        .await?;
    if removed == 0 {
        return Err(Problem::not_found("comment", id.as_str()));
    }
    tx.execute(
        "UPDATE posts SET comment_count = comment_count - 1 WHERE id = $1",
        params![comment.post_id],
    )
    .await?;
    tx.publish(deleted(
        &comment.id,
        &comment.post_id,
        &comment.author_id,
        &comment.post_author_id,
        at,
    ))
    .await?;
    tx.commit().await?;
    Ok(NoContent)
}

/// The event that a comment is gone.
pub fn deleted(
    id: &str,
    post_id: &str,
    author_id: &str,
    post_author_id: &str,
    at: i64,
) -> NewEvent {
    let data = json!({ "id": id, "postId": post_id, "authorId": author_id, "postAuthorId": post_author_id, "deletedAt": at });
    Event::new("comment.deleted", &data).subject(id)
}

/// Changes the post's counter; 404 when the post was deleted meanwhile.
async fn add_to_count(tx: &Tx, id: &Id, by: i64) -> Result<()> {
    let changed = tx
        .execute(
            "UPDATE posts SET comment_count = comment_count + $2 WHERE id = $1 AND deleted_at IS NULL",
            params![id.as_str(), by],
        )
        .await?;
    if changed == 1 {
        Ok(())
    } else {
        Err(posts::not_found(id))
    }
}
