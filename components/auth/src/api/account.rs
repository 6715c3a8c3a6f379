//! The caller's own account: see, change, new password, delete.

use super::login::refuse_taken;
use super::valid;
use super::view::{Me, Profile};
use crate::domain::{names, password};
use crate::facts::{Facts, Person};
use crate::flow::end::{self, Extent};
use crate::flow::issue::Account;
use crate::flow::second_factor::{self, Offered};
use crate::flow::sign_in;
use crate::store::audit::{self, Entry};
use crate::store::users;
use exprsn_sdk::prelude::*;

async fn myself(person: &Person) -> Result<Account> {
    Account::by_id(&person.id)
        .await?
        .ok_or_else(|| Problem::unauthorized("the account is gone"))
}

/// `GET /api/users/me`
pub async fn show(person: Person) -> Result<Json<Me>> {
    Ok(Json(Me::from(&myself(&person).await?)))
}

/// What the owner may change; what is absent stays.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Change {
    #[garde(inner(custom(valid::username)))]
    username: Option<String>,
    #[garde(inner(custom(valid::email)))]
    email: Option<String>,
    #[garde(inner(length(chars, min = 1, max = 80), custom(valid::shown)))]
    display_name: Option<String>,
    #[garde(inner(length(chars, max = 500), custom(valid::shown)))]
    bio: Option<String>,
    /// Needed with a new `email`: whoever controls the address may one day recover the account.
    #[garde(inner(length(bytes, min = 1, max = 4096)))]
    password: Option<String>,
}

/// `PATCH /api/users/me`
pub async fn change(person: Person, facts: Facts, Json(change): Json<Change>) -> Result<Json<Me>> {
    let mut account = myself(&person).await?;
    refuse_taken(
        change.username.as_deref(),
        change.email.as_deref(),
        Some(&person.id),
    )
    .await?;
    let same =
        |email: &String| account.user.email.as_deref().map(names::key) == Some(names::key(email));
    if change.email.as_ref().is_some_and(|email| !same(email)) {
        let given = change.password.as_deref();
        let given = given.ok_or_else(|| {
            Problem::unprocessable("/password", "is needed to change the email address")
        })?;
        sign_in::confirm_password(&account.user, given, "/password", &facts).await?;
    }
    let user = &mut account.user;
    user.username = change.username.unwrap_or_else(|| user.username.clone());
    user.email = change.email.or_else(|| user.email.clone());
    user.display_name = change
        .display_name
        .unwrap_or_else(|| user.display_name.clone());
    user.bio = change.bio.unwrap_or_else(|| user.bio.clone());
    user.updated_at = facts.now;
    let tx = sql::begin().await?;
    users::update(&tx, user).await?;
    tx.publish(Event::new("user.updated", &Profile::from(&*user)).subject(&user.id))
        .await?;
    let entry = Entry {
        kind: "account.updated",
        user_id: Some(&user.id),
        client_id: None,
    };
    audit::write(&tx, entry, &facts, json!({})).await?;
    tx.commit().await?;
    Ok(Json(Me::from(&account)))
}

/// A new password in place of the old one.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PasswordChange {
    #[garde(length(bytes, min = 1, max = 4096))]
    current_password: String,
    #[garde(length(bytes, min = 1, max = 4096))]
    new_password: String,
}

/// `POST /api/auth/password`: ends every session, this one too, and whatever applications were allowed.
pub async fn change_password(
    person: Person,
    facts: Facts,
    Json(given): Json<PasswordChange>,
) -> Result<NoContent> {
    let user = myself(&person).await?.user;
    sign_in::confirm_password(&user, &given.current_password, "/currentPassword", &facts).await?;
    if password::normalize(&given.current_password) == password::normalize(&given.new_password) {
        return Err(Problem::unprocessable(
            "/newPassword",
            "must differ from the present password",
        ));
    }
    let local = user
        .email
        .as_deref()
        .and_then(|e| e.split('@').next())
        .unwrap_or_default();
    let new_hash = sign_in::new_password(
        &given.new_password,
        &[&user.username, local],
        "/newPassword",
    )?;
    let tx = sql::begin().await?;
    if !users::set_password(&tx, &user.id, &user.password_hash, &new_hash, facts.now).await? {
        return Err(Problem::conflict("the password has been changed meanwhile"));
    }
    let entry = Entry {
        kind: "password.changed",
        user_id: Some(&user.id),
        client_id: None,
    };
    audit::write(&tx, entry, &facts, json!({})).await?;
    let doomed = end::end(
        &tx,
        &user.id,
        Extent::Everything,
        "password-changed",
        &facts,
    )
    .await?;
    tx.commit().await?;
    end::finish(doomed).await;
    Ok(NoContent)
}

/// What deleting an account asks for.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    #[garde(length(bytes, min = 1, max = 4096))]
    password: String,
    /// Needed where an authenticator is enrolled: six digits, or a recovery code.
    #[garde(inner(length(chars, min = 1, max = 40)))]
    code: Option<String>,
}

/// `DELETE /api/users/me`
pub async fn delete(
    person: Person,
    facts: Facts,
    Json(given): Json<Deletion>,
) -> Result<NoContent> {
    let user = myself(&person).await?.user;
    sign_in::confirm_password(&user, &given.password, "/password", &facts).await?;
    let tx = match second_factor::confirmed(&user.id).await? {
        Some(enrolled) => {
            let code = given.code.as_deref();
            let code = code.ok_or_else(|| Problem::unprocessable("/code", "is needed"))?;
            sign_in::confirm_second(&enrolled, Offered::guess(code), &facts).await?
        }
        None => sql::begin().await?,
    };
    remove(tx, &user.id, &format!("user:{}", person.id), &facts).await
}

/// Deletes an account with its sessions, within `tx`, and commits.
pub async fn remove(tx: sql::Tx, user_id: &str, by: &str, facts: &Facts) -> Result<NoContent> {
    let doomed = end::end(&tx, user_id, Extent::Everything, "account-deleted", facts).await?;
    users::delete(&tx, user_id).await?;
    tx.publish(Event::new("user.deleted", &json!({ "id": user_id })).subject(user_id))
        .await?;
    let entry = Entry {
        kind: "account.deleted",
        user_id: Some(user_id),
        client_id: None,
    };
    audit::write(&tx, entry, facts, json!({ "by": by })).await?;
    tx.commit().await?;
    end::finish(doomed).await;
    Ok(NoContent)
}
