//! Token introspection (RFC 7662), for clients that can prove who they are.

use super::error::{OAuthError, OAuthResult, answer, authenticate, either, form};
use crate::domain::client::Client;
use crate::domain::refresh::{self, Decision};
use crate::domain::secret;
use crate::facts::Facts;
use crate::settings::settings;
use crate::store::grants;
use exprsn_sdk::prelude::*;

/// `POST /oauth/introspect`
pub async fn introspect(request: Request) -> Response {
    either(try_introspect(request).await)
}

async fn try_introspect(mut request: Request) -> OAuthResult {
    let facts = Facts::of(&request);
    let form = form(&mut request).await?;
    let client = authenticate(&request, &form).await?;
    if !client.is_confidential() {
        // RFC 7662 §2.1: otherwise anybody could scan for tokens.
        return Err(OAuthError::invalid_client(false));
    }
    let token = form
        .get("token")
        .ok_or_else(|| OAuthError::invalid_request("token is missing"))?;
    let found = if token.split('.').count() == 3 {
        access(token).await?
    } else {
        refresh_token(token, &client, &facts).await?
    };
    Ok(answer(
        StatusCode::OK,
        &found.unwrap_or_else(|| json!({ "active": false })),
    ))
}

async fn access(token: &str) -> OAuthResult<Option<serde_json::Value>> {
    let verdict = ca::verify(token).await?;
    let Some(claims) = verdict.claims.filter(|_| verdict.rejection.is_none()) else {
        return Ok(None);
    };
    let mut body = serde_json::Value::Object(claims.extra());
    let (_, subject) = claims
        .subject
        .split_once(':')
        .unwrap_or(("", &claims.subject));
    body["active"] = true.into();
    body["token_type"] = "Bearer".into();
    body["sub"] = subject.into();
    body["iss"] = settings().issuer.clone().into();
    body["jti"] = claims.id.clone().into();
    body["iat"] = claims.issued_at.into();
    body["nbf"] = claims.not_before.into();
    body["exp"] = claims.expires_at.into();
    body["permissions"] = json!(claims.permissions.names());
    if !claims.audience.is_empty() {
        body["aud"] = json!(claims.audience);
    }
    Ok(Some(body))
}

/// Only its own client learns about a refresh token.
async fn refresh_token(
    token: &str,
    client: &Client,
    facts: &Facts,
) -> OAuthResult<Option<serde_json::Value>> {
    let Some(stored) = grants::refresh_by_digest(&secret::digest(token)).await? else {
        return Ok(None);
    };
    if refresh::decide(&stored.presented(), &client.id, facts.now) != Decision::Rotate {
        return Ok(None);
    }
    Ok(Some(json!({
        "active": true,
        "client_id": stored.client_id,
        "sub": stored.user_id,
        "scope": stored.scope,
        "iss": settings().issuer,
        "exp": stored.expires_at.div_euclid(1_000),
    })))
}
