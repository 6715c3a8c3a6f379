//! Blocks: two users, one of whom has blocked the other, do not exist for each other.

use exprsn_sdk::prelude::*;

use crate::model::{BlockState, Member};
use crate::{accounts, follows};

/// Blocks a user: ends follows both ways and hides each from the other. Says nothing to anybody.
pub async fn block(user: User, Path(id): Path<Id>) -> Result<Json<BlockState>> {
    if user.id == id.as_str() {
        return Err(Problem::unprocessable("id", "nobody can block themselves"));
    }
    let tx = sql::begin().await?;
    accounts::lock(&tx, vec![&user.id, id.as_str()]).await?;
    tx.execute(
        "INSERT INTO blocks (blocker_id, blocked_id, created_at) VALUES ($1, $2, $3) ON CONFLICT (blocker_id, blocked_id) DO NOTHING",
        params![user.id, id.as_str(), now_ms()],
    )
    .await?;
    follows::delete(&tx, &user.id, id.as_str()).await?;
    follows::delete(&tx, id.as_str(), &user.id).await?;
    tx.commit().await?;
    Ok(Json(BlockState {
        user_id: id.into(),
        blocked: true,
    }))
}

/// Lifts the caller's own block. The follows that it ended stay ended.
pub async fn unblock(user: User, Path(id): Path<Id>) -> Result<Json<BlockState>> {
    sql::execute(
        "DELETE FROM blocks WHERE blocker_id = $1 AND blocked_id = $2",
        params![user.id, id.as_str()],
    )
    .await?;
    Ok(Json(BlockState {
        user_id: id.into(),
        blocked: false,
    }))
}

/// Whom the caller blocks.
pub async fn list(user: User, page: Query<PageQuery>) -> Result<Json<Page<Member>>> {
    let after = page.cursor::<Id>()?.map_or_else(String::new, Id::into);
    let rows: Vec<Member> = sql::query_as(
        "SELECT blocked_id AS user_id, created_at AS since FROM blocks \
         WHERE blocker_id = $1 AND blocked_id > $2 ORDER BY blocked_id LIMIT $3",
        params![user.id, after, page.limit_plus_one()],
    )
    .await?;
    Ok(Json(page.page(rows, |member| member.user_id.clone())))
}
