//! What the server is and can do: OpenID Connect Discovery and RFC 8414.

use crate::domain::client::{AuthMethod, GrantType};
use crate::domain::scope::Scope;
use crate::settings::settings;
use exprsn_sdk::prelude::*;

/// Seconds that the document may be kept.
const MAX_AGE_S: u32 = 300;

/// `GET /.well-known/openid-configuration` and `/.well-known/oauth-authorization-server`: one document serves both.
pub async fn document() -> Response {
    Response::ok()
        .json(&metadata())
        .header("cache-control", format!("public, max-age={MAX_AGE_S}"))
        .header("access-control-allow-origin", "*")
}

fn metadata() -> serde_json::Value {
    let settings = settings();
    let scopes: Vec<&str> = Scope::ALL.iter().map(|s| s.as_str()).collect();
    let grants: Vec<&str> = GrantType::ALL.iter().map(|g| g.as_str()).collect();
    let methods: Vec<&str> = AuthMethod::ALL.iter().map(|m| m.as_str()).collect();
    let with_secret: Vec<&str> = methods
        .iter()
        .copied()
        .filter(|m| *m != AuthMethod::None.as_str())
        .collect();
    json!({
        "issuer": settings.issuer,
        "authorization_endpoint": settings.url("/oauth/authorize"),
        "token_endpoint": settings.url("/oauth/token"),
        "userinfo_endpoint": settings.url("/oauth/userinfo"),
        "jwks_uri": settings.url("/oauth/jwks"),
        "registration_endpoint": settings.url("/oauth/register"),
        "revocation_endpoint": settings.url("/oauth/revoke"),
        "introspection_endpoint": settings.url("/oauth/introspect"),
        "end_session_endpoint": settings.url("/oauth/logout"),
        "scopes_supported": scopes,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": grants,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_methods_supported": with_secret,
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "claim_types_supported": ["normal"],
        "claims_supported": [
            "iss", "sub", "aud", "azp", "exp", "iat", "auth_time", "amr", "nonce", "at_hash", "sid",
            "name", "preferred_username", "updated_at", "email", "email_verified"
        ],
        "claims_parameter_supported": false,
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
        "authorization_response_iss_parameter_supported": true,
        "ui_locales_supported": ["en"]
    })
}
