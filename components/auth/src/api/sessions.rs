//! The caller's sessions, and the applications that have access.

use crate::facts::{Facts, Person};
use crate::flow::end::{self, Extent};
use crate::store::grants::{self, GrantView};
use crate::store::sessions::{self, SessionView};
use exprsn_sdk::prelude::*;

/// Most sessions and grants that a list shows; the newest come first.
const SHOWN_MAX: i64 = 200;

/// A list that is short enough to be given whole.
#[derive(Serialize, JsonSchema)]
pub struct Items<T> {
    items: Vec<T>,
}

/// `GET /api/auth/sessions`
pub async fn list(person: Person, facts: Facts) -> Result<Json<Items<SessionView>>> {
    let mut items = sessions::of_user(&person.id, facts.now, SHOWN_MAX).await?;
    for item in &mut items {
        item.current = Some(item.id.as_str()) == person.session_id.as_deref();
    }
    Ok(Json(Items { items }))
}

/// `DELETE /api/auth/sessions/{id}`
pub async fn end_one(person: Person, facts: Facts, Path(id): Path<String>) -> Result<NoContent> {
    let live = sessions::by_id(&id, facts.now)
        .await?
        .filter(|session| session.user_id == person.id);
    if live.is_none() {
        return Err(Problem::not_found("session", &id));
    }
    let tx = sql::begin().await?;
    let doomed = end::end(&tx, &person.id, Extent::Session(&id), "revoked", &facts).await?;
    tx.commit().await?;
    end::finish(doomed).await;
    Ok(NoContent)
}

/// `DELETE /api/auth/sessions`
pub async fn end_all(person: Person, facts: Facts) -> Result<NoContent> {
    end_everything(&person.id, "revoked", &facts).await?;
    Ok(NoContent)
}

/// Ends every session and grant of a person.
pub async fn end_everything(user_id: &str, reason: &'static str, facts: &Facts) -> Result<()> {
    let tx = sql::begin().await?;
    let doomed = end::end(&tx, user_id, Extent::Everything, reason, facts).await?;
    tx.commit().await?;
    end::finish(doomed).await;
    Ok(())
}

/// `GET /api/auth/grants`
pub async fn grants(person: Person, facts: Facts) -> Result<Json<Items<GrantView>>> {
    Ok(Json(Items {
        items: grants::of_user(&person.id, facts.now, SHOWN_MAX).await?,
    }))
}

/// `DELETE /api/auth/grants/{id}`
pub async fn end_grant(person: Person, facts: Facts, Path(id): Path<String>) -> Result<NoContent> {
    let client = grants::client_of(&id, &person.id, facts.now).await?;
    let client_id = client.ok_or_else(|| Problem::not_found("grant", &id))?;
    end::end_application(&person.id, &id, &client_id, &facts).await?;
    Ok(NoContent)
}
