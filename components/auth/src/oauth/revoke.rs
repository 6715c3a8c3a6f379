//! Token revocation (RFC 7009).

use super::error::{OAuthError, OAuthResult, answer, authenticate, either, form};
use crate::domain::secret;
use crate::facts::{Facts, extra};
use crate::flow::end;
use crate::store::grants;
use exprsn_sdk::prelude::*;

/// `POST /oauth/revoke`
pub async fn revoke(request: Request) -> Response {
    either(try_revoke(request).await)
}

async fn try_revoke(mut request: Request) -> OAuthResult {
    let facts = Facts::of(&request);
    let form = form(&mut request).await?;
    let client = authenticate(&request, &form).await?;
    let token = form
        .get("token")
        .ok_or_else(|| OAuthError::invalid_request("token is missing"))?;
    // The hint is not needed: the two kinds of token look different.
    if token.split('.').count() == 3 {
        revoke_access(token, &client.id).await?;
    } else if let Some(stored) = grants::refresh_by_digest(&secret::digest(token)).await?
        && stored.client_id == client.id
    {
        end::end_grant(
            &stored.user_id,
            &stored.grant_id,
            &client.id,
            "grant.revoked",
            &facts,
        )
        .await?;
    }
    // RFC 7009 §2.2: what is unknown or another client's is answered alike.
    Ok(answer(StatusCode::OK, &json!({})))
}

async fn revoke_access(token: &str, client_id: &str) -> OAuthResult<()> {
    let verdict = ca::verify(token).await?;
    let Some(claims) = verdict.claims else {
        return Ok(());
    };
    if extra(&claims.extra, "client_id").as_deref() == Some(client_id) {
        ca::revoke(&claims.id, claims.expires_at).await?;
    }
    Ok(())
}
