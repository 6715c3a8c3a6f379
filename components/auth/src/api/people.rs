//! Accounts of others: public profiles, and administration.

use super::account;
use super::sessions::end_everything;
use super::valid;
use super::view::{Me, Profile};
use crate::facts::{Facts, subject};
use crate::flow::end;
use crate::flow::issue::{ADMIN_ROLE, Account};
use crate::store::audit::{self, Entry};
use crate::store::{grants, users};
use exprsn_sdk::prelude::*;

/// `GET /api/users/{id}`
pub async fn show(Path(id): Path<String>) -> Result<Json<Profile>> {
    let user = users::by_id(&id).await?;
    user.map(|user| Json(Profile::from(&user)))
        .ok_or_else(|| Problem::not_found("user", &id))
}

/// Which accounts.
#[derive(Deserialize, JsonSchema, Validate)]
pub struct Search {
    /// A part of the user name or the email address.
    #[serde(default)]
    #[garde(inner(length(chars, min = 1, max = 100)))]
    search: Option<String>,
    #[serde(flatten)]
    #[garde(dive)]
    page: PageQuery,
}

/// `GET /api/users`
pub async fn list(query: Query<Search>) -> Result<Json<Page<Me>>> {
    let before = query
        .page
        .cursor::<(i64, String)>()?
        .unwrap_or((i64::MAX, String::new()));
    let found = users::list(query.search.as_deref(), before, query.page.limit_plus_one()).await?;
    let page = query
        .page
        .page(found, |user| (user.created_at, user.id.clone()));
    let mut items = Vec::with_capacity(page.items.len());
    for user in page.items {
        items.push(Me::from(&Account::of(user).await?));
    }
    Ok(Json(Page {
        items,
        next_cursor: page.next_cursor,
    }))
}

/// The roles that an account shall have, in place of those that it has.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct Roles {
    /// `admin` administers the platform; other names are for other services to read from tokens.
    #[garde(length(max = 20), inner(custom(valid::role)))]
    roles: Vec<String>,
}

/// `PUT /api/users/{id}/roles`: what is gained comes with the next refresh; where something is lost, the present access tokens
/// end at once.
pub async fn set_roles(
    user: User,
    facts: Facts,
    Path(id): Path<String>,
    Json(given): Json<Roles>,
) -> Result<Json<Me>> {
    let mut account = Account::by_id(&id)
        .await?
        .ok_or_else(|| Problem::not_found("user", &id))?;
    let mut roles = given.roles;
    roles.sort();
    roles.dedup();
    let loses_admin = !roles.iter().any(|role| role == ADMIN_ROLE);
    if loses_admin && user.kind == Kind::User && user.id == id {
        return Err(Problem::conflict(
            "nobody can take the role admin from themselves: another administrator must",
        ));
    }
    let by = subject(&user);
    let tx = sql::begin().await?;
    users::set_roles(&tx, &id, &roles, &by, facts.now).await?;
    let entry = Entry {
        kind: "roles.changed",
        user_id: Some(&id),
        client_id: None,
    };
    let detail = json!({ "by": by, "before": account.roles, "after": roles });
    audit::write(&tx, entry, &facts, detail).await?;
    let loses = account.roles.iter().any(|role| !roles.contains(role));
    let tokens = match loses {
        true => grants::tokens_of_user(&tx, &id, facts.now).await?,
        false => Vec::new(),
    };
    let doomed = end::doom(&tx, tokens).await?;
    tx.commit().await?;
    end::finish(doomed).await;
    account.roles = roles;
    Ok(Json(Me::from(&account)))
}

/// `DELETE /api/users/{id}`
pub async fn delete(user: User, facts: Facts, Path(id): Path<String>) -> Result<NoContent> {
    if users::by_id(&id).await?.is_none() {
        return Err(Problem::not_found("user", &id));
    }
    account::remove(sql::begin().await?, &id, &subject(&user), &facts).await
}

/// `DELETE /api/users/{id}/sessions`
pub async fn end_sessions(facts: Facts, Path(id): Path<String>) -> Result<NoContent> {
    if users::by_id(&id).await?.is_none() {
        return Err(Problem::not_found("user", &id));
    }
    end_everything(&id, "administration", &facts).await?;
    Ok(NoContent)
}
