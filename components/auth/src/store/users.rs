//! Accounts and their roles.

use crate::domain::names;
use exprsn_sdk::prelude::*;

/// A row of `users`.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    pub id: String,
    pub username: String,
    pub email: Option<String>,
    pub display_name: String,
    pub bio: String,
    pub password_hash: String,
    pub created_at: i64,
    pub updated_at: i64,
}

const COLUMNS: &str =
    "id, username, email, display_name, bio, password_hash, created_at, updated_at";

/// The account with an id.
pub async fn by_id(id: &str) -> Result<Option<User>> {
    Ok(sql::query_one_as(
        &format!("SELECT {COLUMNS} FROM users WHERE id = $1"),
        params![id],
    )
    .await?)
}

/// The account with a user name or an email address; a name cannot hold an `@`.
pub async fn by_login(name: &str) -> Result<Option<User>> {
    let column = if name.contains('@') {
        "email_key"
    } else {
        "username_key"
    };
    let text = format!("SELECT {COLUMNS} FROM users WHERE {column} = $1");
    Ok(sql::query_one_as(&text, params![names::key(name)]).await?)
}

/// The roles of an account, by name.
pub async fn roles(id: &str) -> Result<Vec<String>> {
    Ok(sql::query_as(
        "SELECT role FROM user_roles WHERE user_id = $1 ORDER BY role",
        params![id],
    )
    .await?)
}

/// Adds an account.
pub async fn insert(tx: &sql::Tx, user: &User) -> Result<()> {
    tx.execute(
        "INSERT INTO users (id, username, username_key, email, email_key, display_name, bio, password_hash, \
         created_at, updated_at, password_changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $9)",
        params![
            user.id,
            user.username,
            names::key(&user.username),
            user.email,
            user.email.as_deref().map(names::key),
            user.display_name,
            user.bio,
            user.password_hash,
            user.created_at
        ],
    )
    .await?;
    Ok(())
}

/// Writes what the owner may change.
pub async fn update(tx: &sql::Tx, user: &User) -> Result<()> {
    tx.execute(
        "UPDATE users SET username = $2, username_key = $3, email = $4, email_key = $5, display_name = $6, bio = $7, \
         updated_at = $8 WHERE id = $1",
        params![
            user.id,
            user.username,
            names::key(&user.username),
            user.email,
            user.email.as_deref().map(names::key),
            user.display_name,
            user.bio,
            user.updated_at
        ],
    )
    .await?;
    Ok(())
}

/// Replaces a password that is still the one of `old_hash`; false when it has been changed meanwhile.
pub async fn set_password(
    tx: &sql::Tx,
    id: &str,
    old_hash: &str,
    new_hash: &str,
    now: i64,
) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE users SET password_hash = $3, password_changed_at = $4, updated_at = $4 WHERE id = $1 AND password_hash = $2",
            params![id, old_hash, new_hash, now],
        )
        .await?;
    Ok(changed == 1)
}

/// Keeps the same password under a new hash.
pub async fn rehash(id: &str, old_hash: &str, new_hash: &str) -> Result<()> {
    sql::execute(
        "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2",
        params![id, old_hash, new_hash],
    )
    .await?;
    Ok(())
}

/// Deletes an account with all that hangs on it; the audit log stays.
pub async fn delete(tx: &sql::Tx, id: &str) -> Result<()> {
    tx.execute("DELETE FROM users WHERE id = $1", params![id])
        .await?;
    Ok(())
}

/// Makes `roles` the roles of an account.
pub async fn set_roles(tx: &sql::Tx, id: &str, roles: &[String], by: &str, now: i64) -> Result<()> {
    tx.execute("DELETE FROM user_roles WHERE user_id = $1", params![id])
        .await?;
    for role in roles {
        add_role(tx, id, role, by, now).await?;
    }
    Ok(())
}

/// Adds a role to an account.
pub async fn add_role(tx: &sql::Tx, id: &str, role: &str, by: &str, now: i64) -> Result<()> {
    tx.execute(
        "INSERT INTO user_roles (user_id, role, granted_at, granted_by) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (user_id, role) DO NOTHING",
        params![id, role, now, by],
    )
    .await?;
    Ok(())
}

/// Accounts, newest first, from before a place; `search` is a part of the name or the address.
pub async fn list(search: Option<&str>, before: (i64, String), limit: i64) -> Result<Vec<User>> {
    let like = search.map(|text| format!("%{}%", escape_like(&names::key(text))));
    let text = format!(
        "SELECT {COLUMNS} FROM users WHERE (created_at, id) < ($1, $2) \
         AND (CAST($3 AS TEXT) IS NULL OR username_key LIKE $3 ESCAPE '!' OR email_key LIKE $3 ESCAPE '!') \
         ORDER BY created_at DESC, id DESC LIMIT $4"
    );
    Ok(sql::query_as(&text, params![before.0, before.1, like, limit]).await?)
}

/// Takes away what `%` and `_` mean in a pattern.
fn escape_like(text: &str) -> String {
    text.replace('!', "!!")
        .replace('%', "!%")
        .replace('_', "!_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_themselves() {
        assert_eq!(escape_like("50%_off!"), "50!%!_off!!");
    }
}
