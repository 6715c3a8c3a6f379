//! Dynamic client registration (RFC 7591), for administrators and bearers of an initial access token.

use super::error::{OAuthError, OAuthResult, answer, either};
use crate::api::clients::{INITIAL_TOKEN_CLAIM, add};
use crate::domain::client::{self, Asked, BadMetadata, Client};
use crate::domain::scope::{Scope, Scopes};
use crate::facts::{Facts, subject};
use exprsn_sdk::prelude::*;

/// Client metadata. What is not understood is ignored, as RFC 7591 §2 asks.
#[derive(Deserialize, JsonSchema, Validate)]
pub struct Metadata {
    #[serde(default)]
    #[garde(skip)]
    client_name: Option<String>,
    #[serde(default)]
    #[garde(skip)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    #[garde(skip)]
    post_logout_redirect_uris: Vec<String>,
    #[serde(default)]
    #[garde(skip)]
    grant_types: Option<Vec<String>>,
    #[serde(default)]
    #[garde(skip)]
    response_types: Option<Vec<String>>,
    #[serde(default)]
    #[garde(skip)]
    token_endpoint_auth_method: Option<String>,
    #[serde(default)]
    #[garde(skip)]
    scope: Option<String>,
    #[serde(default)]
    #[garde(skip)]
    client_uri: Option<String>,
}

/// `POST /oauth/register`
pub async fn register(user: User, facts: Facts, Json(metadata): Json<Metadata>) -> Response {
    either(try_register(user, facts, metadata).await)
}

/// What the bearer may give to a client: an administrator everything, an initial access token no administration.
fn allowed(user: &User) -> Option<Scopes> {
    let all: Scopes = Scope::ALL.into_iter().collect();
    if user.principal.permissions.contains(Permissions::ADMIN) {
        return Some(all);
    }
    let initial = user.principal.extra().get(INITIAL_TOKEN_CLAIM) == Some(&true.into());
    (initial && user.kind == Kind::Client).then(|| all.without(Scope::Admin))
}

async fn try_register(user: User, facts: Facts, metadata: Metadata) -> OAuthResult {
    let Some(allowed) = allowed(&user) else {
        let text = "registration needs an initial access token, or an administrator's";
        return Err(OAuthError::new("access_denied", text).status(StatusCode::FORBIDDEN));
    };
    let asked = Asked {
        name: metadata.client_name,
        redirect_uris: metadata.redirect_uris,
        post_logout_redirect_uris: metadata.post_logout_redirect_uris,
        grant_types: metadata.grant_types,
        response_types: metadata.response_types,
        auth_method: metadata.token_endpoint_auth_method,
        scope: metadata.scope,
        client_uri: metadata.client_uri,
    };
    let client = client::examine(&asked, &uuid_v7(), allowed, facts.now).map_err(bad_metadata)?;
    let (client, secret) = add(client, &subject(&user), &facts).await?;
    Ok(answer(StatusCode::CREATED, &document(client, secret)))
}

fn bad_metadata(bad: BadMetadata) -> OAuthError {
    let error = if bad.field == "redirect_uris" {
        "invalid_redirect_uri"
    } else {
        "invalid_client_metadata"
    };
    OAuthError::new(error, format!("{}: {}", bad.field, bad.message))
}

/// The client information response (RFC 7591 §3.2.1).
fn document(client: Client, secret: Option<String>) -> serde_json::Value {
    let grants: Vec<&str> = client.grant_types.iter().map(|g| g.as_str()).collect();
    let responses: &[&str] = if client.may(client::GrantType::AuthorizationCode) {
        &["code"]
    } else {
        &[]
    };
    let mut body = json!({
        "client_id": client.id,
        "client_id_issued_at": client.created_at.div_euclid(1_000),
        "client_name": client.name,
        "redirect_uris": client.redirect_uris,
        "post_logout_redirect_uris": client.post_logout_redirect_uris,
        "grant_types": grants,
        "response_types": responses,
        "token_endpoint_auth_method": client.auth_method.as_str(),
        "scope": client.scopes.to_string(),
        "id_token_signed_response_alg": "RS256",
    });
    if let Some(uri) = client.client_uri {
        body["client_uri"] = uri.into();
    }
    if let Some(secret) = secret {
        body["client_secret"] = secret.into();
        // RFC 7591 §3.2.1: zero is never.
        body["client_secret_expires_at"] = 0.into();
    }
    body
}
