//! Who follows whom: one by one, and by import. Repeating is harmless.

use std::collections::HashSet;

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::{ToValue, Tx};

use crate::model::{BulkFollow, BulkFollowed, FOLLOWING_MAX, FollowState, Member};
use crate::{accounts, home};

/// Follows a user; their recent posts come into the caller's home timeline soon after.
pub async fn follow(user: User, Path(id): Path<Id>) -> Result<Json<FollowState>> {
    if user.id == id.as_str() {
        return Err(Problem::unprocessable("id", "nobody can follow themselves"));
    }
    let tx = sql::begin().await?;
    accounts::lock(&tx, vec![&user.id, id.as_str()]).await?;
    accounts::visible_in(&tx, &user.id, &id).await?;
    check_room(&tx, &user.id, 1).await?;
    let at = now_ms();
    let added = insert(&tx, &user.id, &[id.as_str()], at).await?;
    if !added.is_empty() {
        let data = json!({ "followerId": user.id, "followeeId": id.as_str(), "at": at });
        tx.publish(Event::new("follow.created", &data).subject(id.as_str()))
            .await?;
        home::add_backfill(&tx, &user.id, &added).await?;
    }
    tx.commit().await?;
    Ok(Json(FollowState {
        user_id: id.into(),
        following: true,
    }))
}

/// Stops following a user; their posts leave the caller's home timeline at once.
pub async fn unfollow(user: User, Path(id): Path<Id>) -> Result<Json<FollowState>> {
    let tx = sql::begin().await?;
    accounts::lock(&tx, vec![&user.id, id.as_str()]).await?;
    delete(&tx, &user.id, id.as_str()).await?;
    tx.commit().await?;
    Ok(Json(FollowState {
        user_id: id.into(),
        following: false,
    }))
}

/// Follows up to 1,000 users; those followed already, blocked, or oneself are skipped.
///
/// Announced as one `follow.imported`: an import notifies nobody.
pub async fn bulk(user: User, Json(wanted): Json<BulkFollow>) -> Result<Json<BulkFollowed>> {
    let named = wanted.user_ids.len();
    let wanted: HashSet<&str> = wanted
        .user_ids
        .iter()
        .map(Id::as_str)
        .filter(|id| *id != user.id)
        .collect();
    if wanted.is_empty() {
        return Ok(Json(BulkFollowed {
            followed: 0,
            skipped: named,
        }));
    }
    let tx = sql::begin().await?;
    accounts::lock(
        &tx,
        wanted.iter().copied().chain([user.id.as_str()]).collect(),
    )
    .await?;
    let hidden: Vec<Other> = tx
        .query_as(
            "SELECT blocked_id AS user_id FROM blocks WHERE blocker_id = $1 \
             UNION SELECT blocker_id FROM blocks WHERE blocked_id = $1",
            params![user.id],
        )
        .await?;
    let mut ids: Vec<&str> = wanted
        .into_iter()
        .filter(|id| !hidden.iter().any(|other| other.user_id == *id))
        .collect();
    ids.sort_unstable();
    check_room(&tx, &user.id, ids.len() as i64).await?;
    let at = now_ms();
    let added = insert(&tx, &user.id, &ids, at).await?;
    if !added.is_empty() {
        let data = json!({ "followerId": user.id, "followeeIds": added, "at": at });
        tx.publish(Event::new("follow.imported", &data).subject(&user.id))
            .await?;
        home::add_backfill(&tx, &user.id, &added).await?;
    }
    tx.commit().await?;
    Ok(Json(BulkFollowed {
        followed: added.len(),
        skipped: named - added.len(),
    }))
}

/// Who follows a user, newest first.
pub async fn followers(
    user: User,
    Path(id): Path<Id>,
    page: Query<PageQuery>,
) -> Result<Json<Page<Member>>> {
    list(user, id, page, "follower_id", "followee_id").await
}

/// Whom a user follows, newest first.
pub async fn following(
    user: User,
    Path(id): Path<Id>,
    page: Query<PageQuery>,
) -> Result<Json<Page<Member>>> {
    list(user, id, page, "followee_id", "follower_id").await
}

async fn list(
    user: User,
    id: Id,
    page: Query<PageQuery>,
    listed: &str,
    of: &str,
) -> Result<Json<Page<Member>>> {
    accounts::visible(&user.id, &id).await?;
    let (at, who) = page
        .cursor::<(i64, Id)>()?
        .map_or_else(|| (i64::MAX, String::new()), |(at, id)| (at, id.into()));
    let text = format!(
        "SELECT f.{listed} AS user_id, f.created_at AS since FROM follows f \
         WHERE f.{of} = $2 AND (f.created_at, f.{listed}) < ($3, $4) \
         AND NOT EXISTS (SELECT 1 FROM blocks b WHERE (b.blocker_id = f.{listed} AND b.blocked_id = $1) \
             OR (b.blocker_id = $1 AND b.blocked_id = f.{listed})) \
         ORDER BY f.created_at DESC, f.{listed} DESC LIMIT $5"
    );
    let rows: Vec<Member> = sql::query_as(
        &text,
        params![user.id, id.as_str(), at, who, page.limit_plus_one()],
    )
    .await?;
    Ok(Json(page.page(rows, |member| {
        (member.since, member.user_id.clone())
    })))
}

#[derive(Deserialize)]
struct Other {
    user_id: String,
}

/// Fails with 409 when following `more` would pass `FOLLOWING_MAX`.
async fn check_room(tx: &Tx, follower: &str, more: i64) -> Result<()> {
    let count: i64 = tx
        .scalar(
            "SELECT following_count FROM accounts WHERE user_id = $1",
            params![follower],
        )
        .await?;
    if count + more > FOLLOWING_MAX {
        return Err(Problem::conflict(format!(
            "nobody can follow more than {FOLLOWING_MAX} users"
        )));
    }
    Ok(())
}

/// Adds follows and counts them; answers whom the follower did not follow before. `followees` are in order.
async fn insert(tx: &Tx, follower: &str, followees: &[&str], at: i64) -> Result<Vec<String>> {
    if followees.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<String> = (0..followees.len())
        .map(|n| format!("(${}, $1, $2)", n + 3))
        .collect();
    let text = format!(
        "INSERT INTO follows (followee_id, follower_id, created_at) VALUES {} \
         ON CONFLICT (followee_id, follower_id) DO NOTHING RETURNING followee_id AS user_id",
        rows.join(", ")
    );
    let parameters = params![follower, at]
        .into_iter()
        .chain(followees.iter().map(ToValue::to_value))
        .collect();
    let added: Vec<Other> = tx.query_as(&text, parameters).await?;
    let added: Vec<String> = added.into_iter().map(|other| other.user_id).collect();
    if !added.is_empty() {
        count(tx, follower, &added).await?;
    }
    Ok(added)
}

/// Counts new follows in the rows that `accounts::lock` holds.
async fn count(tx: &Tx, follower: &str, followees: &[String]) -> Result<()> {
    let places: Vec<String> = (1..=followees.len()).map(|n| format!("${n}")).collect();
    let text = format!(
        "UPDATE accounts SET follower_count = follower_count + 1 WHERE user_id IN ({})",
        places.join(", ")
    );
    tx.execute(&text, followees.iter().map(ToValue::to_value).collect())
        .await?;
    tx.execute(
        "UPDATE accounts SET following_count = following_count + $2 WHERE user_id = $1",
        params![follower, followees.len() as i64],
    )
    .await?;
    Ok(())
}

/// Ends a follow, if there is one, inside a transaction that holds the two users' lock.
pub async fn delete(tx: &Tx, follower: &str, followee: &str) -> Result<()> {
    let removed = tx
        .execute(
            "DELETE FROM follows WHERE followee_id = $1 AND follower_id = $2",
            params![followee, follower],
        )
        .await?;
    if removed == 0 {
        return Ok(());
    }
    tx.execute(
        "UPDATE accounts SET follower_count = follower_count - 1 WHERE user_id = $1",
        params![followee],
    )
    .await?;
    tx.execute(
        "UPDATE accounts SET following_count = following_count - 1 WHERE user_id = $1",
        params![follower],
    )
    .await?;
    let data = json!({ "followerId": follower, "followeeId": followee, "at": now_ms() });
    tx.publish(Event::new("follow.deleted", &data).subject(followee))
        .await?;
    home::add_cleanup(tx, follower, followee).await
}
