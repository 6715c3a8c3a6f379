//! The circumstances of a request that decisions and the audit log need.

use crate::domain::secret;
use exprsn_sdk::prelude::*;

/// Most characters of a `User-Agent` that are kept.
const USER_AGENT_CHARS_MAX: usize = 200;

/// When and from where a request came.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Milliseconds since the Unix epoch.
    pub now: i64,
    pub address: Option<String>,
    pub user_agent: Option<String>,
}

impl Facts {
    /// Reads them from a request.
    pub fn of(request: &Request) -> Self {
        let agent = request.headers().get("user-agent");
        Self {
            now: now_ms(),
            address: request.caller().address.clone(),
            user_agent: agent.map(|text| text.chars().take(USER_AGENT_CHARS_MAX).collect()),
        }
    }

    /// Seconds since the Unix epoch.
    pub fn now_s(&self) -> i64 {
        self.now.div_euclid(1_000)
    }
}

impl FromRequest for Facts {
    async fn from_request(request: &mut Request) -> Result<Self> {
        Ok(Self::of(request))
    }
}

/// The person who calls: services, clients and operators are refused, for they have no account.
#[derive(Clone, Debug)]
pub struct Person {
    pub id: String,
    /// The session that the access token belongs to.
    pub session_id: Option<String>,
}

impl FromRequest for Person {
    async fn from_request(request: &mut Request) -> Result<Self> {
        let user = User::from_request(request).await?;
        if user.kind != Kind::User {
            return Err(Problem::forbidden(
                "this is about the account of a person, and the token is not a person's",
            ));
        }
        Ok(Self {
            session_id: extra(&user.principal.extra, "sid"),
            id: user.id,
        })
    }

    fn describe(operation: &mut exprsn_sdk::openapi::Operation<'_>) {
        User::describe(operation);
    }
}

/// A text among the further claims of a token.
pub fn extra(claims: &str, name: &str) -> Option<String> {
    let claims: serde_json::Value = serde_json::from_str(claims).ok()?;
    claims.get(name)?.as_str().map(str::to_owned)
}

/// The subject of a principal with its kind, as the log names it: `user:…`.
pub fn subject(user: &User) -> String {
    let kind = match user.kind {
        Kind::Anonymous => "anonymous",
        Kind::User => "user",
        Kind::Service => "service",
        Kind::Client => "client",
        Kind::Operator => "operator",
    };
    format!("{kind}:{}", user.id)
}

/// A new bearer secret.
pub fn new_secret() -> String {
    secret::encode(&random_bytes::<{ secret::SECRET_BYTES }>())
}
