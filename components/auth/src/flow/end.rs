//! Ending sessions and grants, and with them the tokens that still live.
//!
//! **Invariant:** what ends is marked in one transaction together with a job that revokes its access tokens; the tokens are
//! also revoked at once, so the job matters only when this host fails in between.

use crate::facts::Facts;
use crate::store::audit::{self, Entry};
use crate::store::grants::{self, AccessToken, Which};
use crate::store::{codes, sessions};
use exprsn_sdk::prelude::*;

/// The queue of the service's own chores.
pub const QUEUE: &str = "auth-maintenance";
/// The job that revokes access tokens.
pub const REVOKE_JOB: &str = "revoke-tokens";

/// Tokens to revoke with the authority.
#[derive(Debug, Serialize, Deserialize)]
pub struct Doomed {
    pub tokens: Vec<AccessToken>,
}

/// Which sessions of a person end.
#[derive(Clone, Copy, Debug)]
pub enum Extent<'a> {
    /// One, with the grants that live by it.
    Session(&'a str),
    /// All, with every grant, those of applications that go on by themselves included.
    Everything,
}

/// Marks sessions as ended. Answers what [`finish`] has to revoke once the transaction is durable.
pub async fn end(
    tx: &sql::Tx,
    user_id: &str,
    extent: Extent<'_>,
    reason: &'static str,
    facts: &Facts,
) -> Result<Doomed> {
    let (id, which) = match extent {
        Extent::Session(id) => (Some(id), Which::OnlineOfSession(id)),
        Extent::Everything => (None, Which::OfUser(user_id)),
    };
    let ended = sessions::end(tx, user_id, id, facts.now).await?;
    for id in &ended {
        let data = json!({ "id": id, "userId": user_id, "reason": reason });
        tx.publish(Event::new("session.revoked", &data).subject(id))
            .await?;
    }
    let entry = Entry {
        kind: "sessions.ended",
        user_id: Some(user_id),
        client_id: None,
    };
    audit::write(
        tx,
        entry,
        facts,
        json!({ "sessions": ended, "reason": reason }),
    )
    .await?;
    doom(tx, grants::revoke(tx, which, facts.now).await?).await
}

/// Revokes one grant: a stolen refresh token, a code used twice, an application that is no longer wanted.
pub async fn end_grant(
    user_id: &str,
    grant_id: &str,
    client_id: &str,
    kind: &'static str,
    facts: &Facts,
) -> Result<()> {
    let tx = sql::begin().await?;
    let tokens = grants::revoke(&tx, Which::One(grant_id), facts.now).await?;
    let entry = Entry {
        kind,
        user_id: Some(user_id),
        client_id: Some(client_id),
    };
    audit::write(&tx, entry, facts, json!({ "grant": grant_id })).await?;
    let doomed = doom(&tx, tokens).await?;
    tx.commit().await?;
    finish(doomed).await;
    Ok(())
}

/// Takes back what a person has allowed an application: the grant and the remembered consent.
pub async fn end_application(
    user_id: &str,
    grant_id: &str,
    client_id: &str,
    facts: &Facts,
) -> Result<()> {
    let tx = sql::begin().await?;
    codes::forget(&tx, user_id, client_id).await?;
    tx.commit().await?;
    end_grant(user_id, grant_id, client_id, "grant.revoked", facts).await
}

/// Adds the job that makes sure of the revocation.
pub async fn doom(tx: &sql::Tx, tokens: Vec<AccessToken>) -> Result<Doomed> {
    let doomed = Doomed { tokens };
    if !doomed.tokens.is_empty() {
        tx.add_job(QUEUE, REVOKE_JOB, &doomed, JobOptions::default())
            .await?;
    }
    Ok(doomed)
}

/// Revokes the tokens at once. What fails here, the job does again.
pub async fn finish(doomed: Doomed) {
    for token in doomed.tokens {
        if let Err(error) = ca::revoke(&token.id, token.expires_at).await {
            log::warn!(
                "a token will be revoked later",
                error = format!("{error:?}")
            );
        }
    }
}
