//! Userinfo (OpenID Connect Core §5.3).

use super::error::answer;
use crate::domain::scope::{Scope, Scopes};
use crate::facts::extra;
use crate::store::users::{self, User};
use exprsn_sdk::prelude::*;
use serde_json::{Map, Value};

/// `GET` and `POST /oauth/userinfo`. The host has verified the token, and answers itself when it is not good.
pub async fn userinfo(caller: Caller) -> Result<Response> {
    let principal = caller.principal();
    if principal.kind == Kind::Anonymous {
        // RFC 6750 §3.1: a request without a token is told nothing but the scheme.
        return Ok(refuse(StatusCode::UNAUTHORIZED, None));
    }
    let scopes = Scopes::parse(&extra(&principal.extra, "scope").unwrap_or_default());
    if principal.kind != Kind::User || !scopes.has(Scope::OpenId) {
        return Ok(refuse(
            StatusCode::FORBIDDEN,
            Some((
                "insufficient_scope",
                "the token does not have the scope openid",
            )),
        ));
    }
    let Some(user) = users::by_id(&principal.subject).await? else {
        return Ok(refuse(
            StatusCode::UNAUTHORIZED,
            Some(("invalid_token", "the account is gone")),
        ));
    };
    let mut body = claims(&user, scopes);
    body.insert("sub".into(), user.id.into());
    Ok(answer(StatusCode::OK, &Value::Object(body)))
}

fn refuse(status: StatusCode, error: Option<(&str, &str)>) -> Response {
    let challenge = match error {
        Some((error, text)) => {
            format!(
                "Bearer realm=\"exprsn\", error=\"{error}\", error_description=\"{text}\", scope=\"openid\""
            )
        }
        None => "Bearer realm=\"exprsn\"".to_owned(),
    };
    let body = error.map_or_else(
        || json!({}),
        |(error, text)| json!({ "error": error, "error_description": text }),
    );
    answer(status, &body).header("www-authenticate", challenge)
}

/// The claims about a person that scopes open (OpenID Connect Core §5.4).
pub fn claims(user: &User, scopes: Scopes) -> Map<String, Value> {
    let mut claims = Map::new();
    if scopes.has(Scope::Profile) {
        claims.insert("name".into(), user.display_name.clone().into());
        claims.insert("preferred_username".into(), user.username.clone().into());
        claims.insert(
            "updated_at".into(),
            user.updated_at.div_euclid(1_000).into(),
        );
    }
    if let Some(email) = user.email.as_ref().filter(|_| scopes.has(Scope::Email)) {
        claims.insert("email".into(), email.clone().into());
        claims.insert("email_verified".into(), false.into());
    }
    claims
}
