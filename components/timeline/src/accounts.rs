//! Users as the timeline sees them: their counters, and who has blocked whom.
//!
//! The timeline keeps no list of users (exprsn-auth does): any subject of a token may post, follow and be followed, and one
//! that never did has counters of zero.

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::{ToValue, Tx};

use crate::model::Account;

/// A user's counters, and how the caller and they stand.
pub async fn show(user: User, Path(id): Path<Id>) -> Result<Json<Account>> {
    visible(&user.id, &id).await?;
    let account: Option<Account> = sql::query_one_as(
        "SELECT wanted.user_id, COALESCE(a.follower_count, 0) AS follower_count, \
             COALESCE(a.following_count, 0) AS following_count, COALESCE(a.post_count, 0) AS post_count, \
             EXISTS (SELECT 1 FROM follows WHERE followee_id = $2 AND follower_id = $1) AS following, \
             EXISTS (SELECT 1 FROM follows WHERE followee_id = $1 AND follower_id = $2) AS followed_by \
         FROM (SELECT CAST($2 AS TEXT) AS user_id) AS wanted LEFT JOIN accounts a ON a.user_id = wanted.user_id",
        params![user.id, id.as_str()],
    )
    .await?;
    account.map(Json).ok_or_else(|| not_found(&id))
}

/// Fails with 404 when one of the two has blocked the other: they do not exist for each other.
pub async fn visible(reader: &str, id: &Id) -> Result<()> {
    let blocked = sql::query(BLOCKED, params![reader, id.as_str()]).await?;
    if blocked.is_empty() {
        Ok(())
    } else {
        Err(not_found(id))
    }
}

/// The same inside a transaction that holds the two users' lock.
pub async fn visible_in(tx: &Tx, reader: &str, id: &Id) -> Result<()> {
    let blocked = tx.query(BLOCKED, params![reader, id.as_str()]).await?;
    if blocked.is_empty() {
        Ok(())
    } else {
        Err(not_found(id))
    }
}

const BLOCKED: &str = "SELECT 1 AS found FROM blocks \
     WHERE (blocker_id = $1 AND blocked_id = $2) OR (blocker_id = $2 AND blocked_id = $1)";

/// Takes the lock under which relations of these users change, making rows where there are none; answers nothing.
///
/// Ids are locked in their order, so that two transactions cannot wait for each other.
pub async fn lock(tx: &Tx, mut ids: Vec<&str>) -> Result<()> {
    ids.sort_unstable();
    ids.dedup();
    let rows: Vec<String> = (1..=ids.len()).map(|n| format!("(${n})")).collect();
    let text = format!(
        "INSERT INTO accounts (user_id) VALUES {} ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id",
        rows.join(", ")
    );
    tx.execute(&text, ids.iter().map(ToValue::to_value).collect())
        .await?;
    Ok(())
}

/// The problem of a user who is not there for the caller.
pub fn not_found(id: &Id) -> Problem {
    Problem::not_found("user", id.as_str())
}
