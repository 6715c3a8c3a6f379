//! What clients get to see of accounts and tokens.

use crate::flow::issue::{Account, Pair};
use crate::store::users::User;
use exprsn_sdk::prelude::*;

/// An account as anybody may see it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    pub id: String,
    pub username: String,
    pub display_name: String,
    pub bio: String,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
}

impl From<&User> for Profile {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.clone(),
            username: user.username.clone(),
            display_name: user.display_name.clone(),
            bio: user.bio.clone(),
            created_at: user.created_at,
        }
    }
}

/// An account as its owner and administrators see it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    #[serde(flatten)]
    pub profile: Profile,
    pub email: Option<String>,
    /// Always false: addresses are not verified yet.
    pub email_verified: bool,
    pub roles: Vec<String>,
    /// Milliseconds since the Unix epoch.
    pub updated_at: i64,
}

impl From<&Account> for Me {
    fn from(account: &Account) -> Self {
        Self {
            profile: Profile::from(&account.user),
            email: account.user.email.clone(),
            email_verified: false,
            roles: account.roles.clone(),
            updated_at: account.user.updated_at,
        }
    }
}

/// A session with its tokens.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds that the access token lives.
    pub expires_in: i64,
    /// Good once: the answer to its use holds the next one.
    pub refresh_token: String,
    /// Seconds that the refresh token lives.
    pub refresh_expires_in: i64,
    pub session_id: String,
    pub user: Me,
}

impl Tokens {
    /// The answer to a sign-in or a refresh of the JSON API.
    pub fn new(account: &Account, session_id: String, pair: Pair, now: i64) -> Result<Self> {
        let refresh = pair
            .refresh
            .ok_or_else(|| Problem::fault("issuing tokens", "no refresh token was made"))?;
        Ok(Self {
            access_token: pair.access.token,
            token_type: "Bearer".to_owned(),
            expires_in: pair.access.lifetime_s,
            refresh_token: refresh.token,
            refresh_expires_in: (refresh.expires_at - now).div_euclid(1_000),
            session_id,
            user: Me::from(account),
        })
    }
}

/// An answer that no cache may keep, because it holds a secret.
pub struct NoStore<T>(pub T);

impl<T: IntoResponse> IntoResponse for NoStore<T> {
    fn into_response(self) -> Response {
        self.0.into_response().header("cache-control", "no-store")
    }

    fn describe(operation: &mut exprsn_sdk::openapi::Operation<'_>) {
        T::describe(operation);
    }
}
