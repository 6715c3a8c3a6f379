//! Issuing tokens: minted by the authority, remembered here so that they can be revoked.

use crate::domain::scope::{Scope, Scopes};
use crate::domain::{refresh, secret};
use crate::facts::{Facts, new_secret};
use crate::settings::settings;
use crate::store::grants::{self, AccessToken, Grant};
use crate::store::users::{self, User};
use exprsn_sdk::prelude::*;

/// The role whose bearers administer the platform.
pub const ADMIN_ROLE: &str = "admin";
/// What a token without any permission is good for.
const USERINFO: &str = "exprsn-auth/oauth/userinfo";

/// A person with roles, as tokens describe them.
#[derive(Clone, Debug)]
pub struct Account {
    pub user: User,
    pub roles: Vec<String>,
}

impl Account {
    /// The account of a user.
    pub async fn of(user: User) -> Result<Self> {
        Ok(Self {
            roles: users::roles(&user.id).await?,
            user,
        })
    }

    /// The account with an id.
    pub async fn by_id(id: &str) -> Result<Option<Self>> {
        match users::by_id(id).await? {
            Some(user) => Ok(Some(Self::of(user).await?)),
            None => Ok(None),
        }
    }

    fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == ADMIN_ROLE)
    }
}

/// A minted access token.
#[derive(Clone, Debug)]
pub struct Minted {
    pub token: String,
    pub record: AccessToken,
    pub lifetime_s: i64,
    /// What it is really good for.
    pub scopes: Scopes,
}

/// A pair for a grant.
#[derive(Clone, Debug)]
pub struct Pair {
    pub access: Minted,
    pub refresh: Option<Refresh>,
}

/// A refresh token before it is given away.
#[derive(Clone, Debug)]
pub struct Refresh {
    pub token: String,
    /// Milliseconds since the Unix epoch.
    pub expires_at: i64,
}

/// Scopes as permissions of the platform.
pub fn permissions(scopes: Scopes) -> Permissions {
    let named = scopes
        .iter()
        .filter_map(|scope| Permissions::named(scope.as_str()));
    named.fold(Permissions::empty(), |all, one| all | one)
}

async fn mint(
    subject: String,
    scopes: Scopes,
    extra: serde_json::Value,
    facts: &Facts,
) -> Result<Minted> {
    let lifetime_s = settings().access_token_s;
    let mut claims = Claims::new(subject, facts.now_s(), lifetime_s);
    claims.id = uuid_v7();
    claims.permissions = permissions(scopes);
    if claims.permissions.is_empty() {
        claims.permissions = Permissions::READ;
        claims.resources = vec![USERINFO.to_owned()];
    }
    claims.extra = extra.to_string();
    let record = AccessToken {
        id: claims.id.clone(),
        expires_at: claims.expires_at,
    };
    let token = ca::mint(claims).await.map_err(unmintable)?;
    Ok(Minted {
        token,
        record,
        lifetime_s,
        scopes,
    })
}

fn unmintable(error: ca::Error) -> Problem {
    match error {
        ca::Error::Unavailable(_) | ca::Error::LimitExceeded(_) => Problem::unavailable(1),
        other => Problem::fault("an access token could not be minted", format!("{other:?}")),
    }
}

/// Mints an access token of a person for a grant. `admin` is left out unless the person is an administrator now.
pub async fn mint_for_person(
    account: &Account,
    grant: &Grant,
    scopes: Scopes,
    facts: &Facts,
) -> Result<Minted> {
    let scopes = if account.is_admin() {
        scopes
    } else {
        scopes.without(Scope::Admin)
    };
    let mut extra = json!({
        "sid": grant.session_id,
        "scope": scopes.to_string(),
        "client_id": grant.client_id,
    });
    // A client that may only know who somebody is can read the token too, and shall not learn more from it.
    if !scopes.permissions().is_empty() {
        extra["username"] = account.user.username.clone().into();
        extra["roles"] = json!(account.roles);
    }
    mint(format!("user:{}", account.user.id), scopes, extra, facts).await
}

/// Mints an access token of a client in its own name.
pub async fn mint_for_client(client_id: &str, scopes: Scopes, facts: &Facts) -> Result<Minted> {
    let extra = json!({ "scope": scopes.to_string(), "client_id": client_id });
    mint(format!("client:{client_id}"), scopes, extra, facts).await
}

/// Remembers a minted token, and adds a refresh token where one is wanted. Part of the transaction that the grant is used in.
pub async fn remember(
    tx: &sql::Tx,
    grant: &Grant,
    access: Minted,
    with_refresh: bool,
    facts: &Facts,
) -> Result<Pair> {
    grants::insert_access(tx, &access.record, Some(&grant.id), &grant.client_id).await?;
    if !with_refresh {
        return Ok(Pair {
            access,
            refresh: None,
        });
    }
    let token = new_secret();
    let expires_at = refresh::expires_at(facts.now, settings().refresh_idle_ms, grant.expires_at);
    grants::insert_refresh(
        tx,
        &secret::digest(&token),
        &grant.id,
        facts.now,
        expires_at,
    )
    .await?;
    Ok(Pair {
        access,
        refresh: Some(Refresh { token, expires_at }),
    })
}
