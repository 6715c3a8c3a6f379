//! Reading the audit log.

use crate::facts::Person;
use crate::store::audit::{self, AuditEvent};
use exprsn_sdk::prelude::*;

/// Sorts after every id.
const LAST: &str = "~";

/// Which part of the log.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct Selection {
    /// Of one person only.
    #[serde(default)]
    #[garde(inner(length(chars, min = 1, max = 100)))]
    user_id: Option<String>,
    #[serde(flatten)]
    #[garde(dive)]
    page: PageQuery,
}

async fn page(user_id: Option<&str>, query: &PageQuery) -> Result<Json<Page<AuditEvent>>> {
    let before = query.cursor::<String>()?.unwrap_or_else(|| LAST.to_owned());
    let found = audit::list(user_id, &before, query.limit_plus_one()).await?;
    Ok(Json(query.page(found, |event| event.id.clone())))
}

/// `GET /api/auth/audit`
pub async fn list(query: Query<Selection>) -> Result<Json<Page<AuditEvent>>> {
    page(query.user_id.as_deref(), &query.page).await
}

/// `GET /api/users/me/audit`
pub async fn mine(person: Person, query: Query<PageQuery>) -> Result<Json<Page<AuditEvent>>> {
    page(Some(&person.id), &query).await
}
