//! The caller's own notifications: list, read, mark, count, delete.

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::ToValue;
use serde_json::Map;

use crate::model::{Changed, Kind, Notification, UnreadCount};

/// The columns of a `Row`.
pub const COLUMNS: &str = "id, type, actor_id, post_id, title, body, data, created_at, read_at";

/// A notification as the database has it.
#[derive(Deserialize)]
pub struct Row {
    pub id: String,
    #[serde(rename = "type")]
    kind: String,
    actor_id: Option<String>,
    post_id: Option<String>,
    title: Option<String>,
    body: Option<String>,
    data: String,
    created_at: i64,
    read_at: Option<i64>,
}

impl From<Row> for Notification {
    fn from(row: Row) -> Self {
        Notification {
            id: row.id,
            kind: row.kind,
            actor_id: row.actor_id,
            post_id: row.post_id,
            title: row.title,
            body: row.body,
            data: serde_json::from_str(&row.data).unwrap_or_else(|_| Map::new()),
            created_at: row.created_at,
            read_at: row.read_at,
        }
    }
}

/// Which notifications to list.
#[derive(Debug, Deserialize, JsonSchema, Validate)]
pub struct Filter {
    /// True: only unread ones. False: only read ones.
    #[garde(skip)]
    pub unread: Option<bool>,
    #[garde(skip)]
    #[serde(rename = "type")]
    pub kind: Option<Kind>,
}

/// Lists the caller's notifications, newest first.
pub async fn list(
    user: User,
    filter: Query<Filter>,
    page: Query<PageQuery>,
) -> Result<Json<Page<Notification>>> {
    let before = page
        .cursor::<Id>()?
        .map_or_else(|| AFTER_EVERY_ID.to_owned(), Id::into);
    let mut parameters = params![user.id, before, page.limit_plus_one()];
    let mut conditions = String::new();
    match filter.unread {
        Some(true) => conditions.push_str(" AND read_at IS NULL"),
        Some(false) => conditions.push_str(" AND read_at IS NOT NULL"),
        None => {}
    }
    if let Some(kind) = &filter.kind {
        conditions.push_str(" AND type = $4");
        parameters.push(kind.as_str().to_value());
    }
    let text = format!(
        "SELECT {COLUMNS} FROM notifications WHERE user_id = $1 AND id < $2{conditions} ORDER BY id DESC LIMIT $3"
    );
    let rows: Vec<Row> = sql::query_as(&text, parameters).await?;
    let rows: Vec<Notification> = rows.into_iter().map(Notification::from).collect();
    Ok(Json(
        page.page(rows, |notification| notification.id.clone()),
    ))
}

/// Greater than any UUID in any collation.
const AFTER_EVERY_ID: &str = "g";

/// Reads one notification.
pub async fn show(user: User, Path(id): Path<Id>) -> Result<Json<Notification>> {
    let text = format!("SELECT {COLUMNS} FROM notifications WHERE user_id = $1 AND id = $2");
    let row: Option<Row> = sql::query_one_as(&text, params![user.id, id.as_str()]).await?;
    row.map(|row| Json(row.into()))
        .ok_or_else(|| not_found(&id))
}

/// How many of the caller's notifications are unread.
pub async fn unread_count(user: User) -> Result<Json<UnreadCount>> {
    let text = "SELECT COUNT(*) FROM notifications WHERE user_id = $1 AND read_at IS NULL";
    Ok(Json(UnreadCount {
        unread: sql::scalar(text, params![user.id]).await?,
    }))
}

/// Marks one as read; it keeps the instant at which that was first done.
pub async fn mark_read(user: User, Path(id): Path<Id>) -> Result<Json<Notification>> {
    let text = format!(
        "UPDATE notifications SET read_at = COALESCE(read_at, $3) WHERE user_id = $1 AND id = $2 RETURNING {COLUMNS}"
    );
    let row: Option<Row> =
        sql::query_one_as(&text, params![user.id, id.as_str(), now_ms()]).await?;
    row.map(|row| Json(row.into()))
        .ok_or_else(|| not_found(&id))
}

/// Marks all of the caller's notifications as read.
pub async fn mark_all_read(user: User) -> Result<Json<Changed>> {
    let text = "UPDATE notifications SET read_at = $2 WHERE user_id = $1 AND read_at IS NULL";
    Ok(Json(Changed {
        changed: sql::execute(text, params![user.id, now_ms()]).await?,
    }))
}

/// Deletes one.
pub async fn remove(user: User, Path(id): Path<Id>) -> Result<NoContent> {
    let text = "DELETE FROM notifications WHERE user_id = $1 AND id = $2";
    match sql::execute(text, params![user.id, id.as_str()]).await? {
        0 => Err(not_found(&id)),
        _ => Ok(NoContent),
    }
}

fn not_found(id: &Id) -> Problem {
    Problem::not_found("notification", id.as_str())
}
