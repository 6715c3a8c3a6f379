//! Exchanging a refresh token for the next pair: see [`crate::domain::refresh`].

use super::end::{self, Extent};
use super::issue::{self, Account, Pair};
use crate::domain::refresh::{self, Decision};
use crate::domain::scope::Scopes;
use crate::domain::secret;
use crate::facts::Facts;
use crate::store::grants::{self, OWN_CLIENT, StoredRefresh};
use crate::store::sessions;
use exprsn_sdk::prelude::*;

/// A refresh token that was exchanged.
pub struct Rotated {
    pub account: Account,
    pub stored: StoredRefresh,
    pub pair: Pair,
}

/// Exchanges a refresh token of `client_id`, for fewer scopes if `narrowed`. None when it is not good; a second use has then
/// ended its family.
pub async fn rotate(
    token: &str,
    client_id: &str,
    narrowed: Option<Scopes>,
    facts: &Facts,
) -> Result<Option<Rotated>> {
    let digest = secret::digest(token);
    let Some(stored) = grants::refresh_by_digest(&digest).await? else {
        return Ok(None);
    };
    match refresh::decide(&stored.presented(), client_id, facts.now) {
        Decision::Refuse => return Ok(None),
        Decision::RevokeFamily => return reused(&stored, facts).await,
        Decision::Rotate => {}
    }
    let Some(account) = Account::by_id(&stored.user_id).await? else {
        return Ok(None);
    };
    let grant = stored.grant();
    let granted = Scopes::parse(&stored.scope);
    let access = issue::mint_for_person(
        &account,
        &grant,
        narrowed.map_or(granted, |n| n.and(granted)),
        facts,
    )
    .await?;
    let tx = sql::begin().await?;
    if !grants::hold(&tx, &grant.id, facts.now).await? {
        return Ok(None);
    }
    if !grants::use_refresh(&tx, &digest, facts.now).await? {
        // Two exchanges at once: one of them is not its owner's.
        tx.rollback().await?;
        return reused(&stored, facts).await;
    }
    sessions::touch(&tx, &grant.session_id, facts.now).await?;
    let pair = issue::remember(&tx, &grant, access, true, facts).await?;
    tx.commit().await?;
    Ok(Some(Rotated {
        account,
        stored,
        pair,
    }))
}

async fn reused(stored: &StoredRefresh, facts: &Facts) -> Result<Option<Rotated>> {
    log::warn!(
        "a refresh token was used twice; its family is revoked",
        grant = stored.grant_id
    );
    let kind = "refresh-token.reused";
    end::end_grant(
        &stored.user_id,
        &stored.grant_id,
        &stored.client_id,
        kind,
        facts,
    )
    .await?;
    if stored.client_id == OWN_CLIENT {
        let tx = sql::begin().await?;
        let doomed = end::end(
            &tx,
            &stored.user_id,
            Extent::Session(&stored.session_id),
            "reuse",
            facts,
        )
        .await?;
        tx.commit().await?;
        end::finish(doomed).await;
    }
    Ok(None)
}
