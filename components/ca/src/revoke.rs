//! Revoking tokens (RFC 7009).

use crate::{audit, lenient::Lenient, store};
use exprsn_sdk::prelude::*;

/// What to revoke: a token, or the record of one by its id.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Revocation {
    /// The token itself; whoever holds it may revoke it.
    token: Option<String>,
    /// RFC 7009's hint, which is not needed here.
    #[serde(rename = "token_type_hint")]
    #[allow(dead_code, reason = "accepted, since clients send it")]
    token_type_hint: Option<String>,
    /// The id of a token issued here, for an administrator and for its subject.
    id: Option<String>,
}

/// What has been revoked.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevocationResult {
    /// Ids, that of the token first; those narrowed from it follow. Empty if there was nothing to revoke.
    revoked: Vec<String>,
}

/// `POST /api/tokens/revoke`
pub async fn revoke(
    caller: Caller,
    Lenient(body): Lenient<Revocation>,
) -> Result<Json<RevocationResult>> {
    let by = caller.caller.full_subject();
    let found = match (body.token, body.id) {
        (Some(token), None) => presented(&token).await?,
        (None, Some(id)) => Some(by_id(&caller, &by, &id).await?),
        _ => {
            return Err(Problem::unprocessable(
                "/token",
                "name either `token` or `id`",
            ));
        }
    };
    let revoked = match found {
        Some((id, expires_at)) => revoke_family(&id, expires_at, &by).await?,
        // RFC 7009 §2.2: a token that is good for nothing anyway is not an error.
        None => Vec::new(),
    };
    Ok(Json(RevocationResult { revoked }))
}

/// The id and expiry of a token that is presented; none if it is not one of this authority's.
async fn presented(token: &str) -> Result<Option<(String, i64)>> {
    let verdict = ca::verify(token).await?;
    Ok(verdict.claims.map(|claims| (claims.id, claims.expires_at)))
}

async fn by_id(caller: &Caller, by: &str, id: &str) -> Result<(String, i64)> {
    let record = store::token(id).await?;
    let own = record.as_ref().is_some_and(|record| record.subject == by);
    if !caller.has(Permission::Admin) && !own {
        return Err(Problem::forbidden(
            "by its id you can revoke your own tokens only; present the token itself",
        ));
    }
    let record = record.ok_or_else(|| Problem::not_found("token", id))?;
    Ok((record.id, record.expires_at))
}

/// Revokes a token and all that were narrowed from it.
async fn revoke_family(id: &str, expires_at: i64, by: &str) -> Result<Vec<String>> {
    let now = now_s();
    let tx = sql::begin().await?;
    let family = store::revoke_tokens(&tx, id, by, now).await?;
    let mut revoked = vec![id.to_owned()];
    revoked.extend(
        family
            .iter()
            .filter(|token| token.id != id)
            .map(|token| token.id.clone()),
    );
    audit::append(
        &tx,
        by,
        "token.revoked",
        id,
        &json!({ "revoked": revoked, "expiresAt": expires_at }),
    )
    .await?;
    // In force before it is on record: a failure in between is told to the caller, who asks again.
    ca::revoke(id, expires_at).await?;
    for token in family.iter().filter(|token| token.id != id) {
        ca::revoke(&token.id, token.expires_at).await?;
    }
    tx.commit().await?;
    Ok(revoked)
}
