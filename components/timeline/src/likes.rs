//! Likes: at most one of a user for a post, counted with it. Repeating is harmless.

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::Tx;

use crate::model::{LikeState, Member};
use crate::posts::{self, NOT_BLOCKED};

/// Likes a post.
pub async fn like(user: User, Path(id): Path<Id>) -> Result<Json<LikeState>> {
    let post = posts::visible(&user.id, &id).await?;
    let at = now_ms();
    let tx = sql::begin().await?;
    let added = tx
        .execute(
            "INSERT INTO likes (post_id, user_id, created_at) VALUES ($1, $2, $3) ON CONFLICT (post_id, user_id) DO NOTHING",
            params![post.id, user.id, at],
        )
        .await?;
    let like_count = add_to_count(&tx, &id, added as i64).await?;
    if added == 1 {
        tx.publish(event("like.created", &post, &user.id, at))
            .await?;
    }
    tx.commit().await?;
    Ok(Json(LikeState {
        post_id: post.id,
        liked: true,
        like_count,
    }))
}

/// Takes the like back.
pub async fn unlike(user: User, Path(id): Path<Id>) -> Result<Json<LikeState>> {
    let post = posts::visible(&user.id, &id).await?;
    let tx = sql::begin().await?;
    let removed = tx
        .execute(
            "DELETE FROM likes WHERE post_id = $1 AND user_id = $2",
            params![post.id, user.id],
        )
        .await?;
    let like_count = add_to_count(&tx, &id, -(removed as i64)).await?;
    if removed == 1 {
        tx.publish(event("like.deleted", &post, &user.id, now_ms()))
            .await?;
    }
    tx.commit().await?;
    Ok(Json(LikeState {
        post_id: post.id,
        liked: false,
        like_count,
    }))
}

/// Who likes a post, in the order of their ids: a post may have a million likes, and another index would cost each of them.
pub async fn list(
    user: User,
    Path(id): Path<Id>,
    page: Query<PageQuery>,
) -> Result<Json<Page<Member>>> {
    let post = posts::visible(&user.id, &id).await?;
    let after = page.cursor::<Id>()?.map_or_else(String::new, Id::into);
    // `p` stands for the like here, so that one text says who is hidden from whom.
    let text = format!(
        "SELECT p.author_id AS user_id, p.created_at AS since \
         FROM (SELECT user_id AS author_id, created_at FROM likes WHERE post_id = $2 AND user_id > $3) AS p \
         WHERE {NOT_BLOCKED} ORDER BY p.author_id LIMIT $4"
    );
    let rows: Vec<Member> = sql::query_as(
        &text,
        params![user.id, post.id, after, page.limit_plus_one()],
    )
    .await?;
    Ok(Json(page.page(rows, |member| member.user_id.clone())))
}

/// Changes the post's counter and answers it; 404 when the post was deleted meanwhile.
async fn add_to_count(tx: &Tx, id: &Id, by: i64) -> Result<i64> {
    let rows: Vec<Counted> = tx
        .query_as(
            "UPDATE posts SET like_count = like_count + $2 WHERE id = $1 AND deleted_at IS NULL RETURNING like_count",
            params![id.as_str(), by],
        )
        .await?;
    rows.first()
        .map(|row| row.like_count)
        .ok_or_else(|| posts::not_found(id))
}

#[derive(Deserialize)]
struct Counted {
    like_count: i64,
}

fn event(topic: &str, post: &posts::Visible, user_id: &str, at: i64) -> NewEvent {
    let data =
        json!({ "postId": post.id, "userId": user_id, "authorId": post.author_id, "at": at });
    Event::new(topic, &data).subject(&post.id)
}
