//! Invitations: how a host that nobody knows yet becomes one of the platform.

use super::{Error, Shared, statements::Say};
use aws_lc_rs::constant_time::verify_slices_are_equal;

/// What lets hosts join.
#[derive(Clone, Debug)]
pub struct Invitation {
    pub id: String,
    /// SHA-256 of the secret that the host shows.
    pub secret_hash: Vec<u8>,
    /// Names of services that the host may speak for; empty is all.
    pub services: Vec<String>,
    pub uses_left: i32,
    /// Seconds since the epoch.
    pub expires_at: i64,
}

impl Shared {
    /// Keeps an invitation. Its id must be new, and its hash of 32 bytes.
    pub async fn invite(&self, invitation: Invitation) -> Result<(), Error> {
        let facts = &self.0.facts;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] = [
            &invitation.id,
            &invitation.secret_hash,
            &invitation.services,
            &invitation.uses_left,
            &invitation.expires_at,
        ];
        let kept = facts
            .ask(facts.deadline(), Say::Invite, &parameters)
            .await?;
        if kept.is_empty() {
            let told = format!("there is an invitation `{}` already", invitation.id);
            return Err(Error::Fault(told));
        }
        Ok(())
    }

    /// Spends one use of an invitation, and answers what is left of it: none if it does not exist, has expired, is used up,
    /// or the hash differs (compared in constant time).
    pub async fn accept(
        &self,
        id: &str,
        secret_hash: &[u8],
        now_s: i64,
    ) -> Result<Option<Invitation>, Error> {
        let facts = &self.0.facts;
        let deadline = facts.deadline();
        let found = facts
            .ask_again(deadline, Say::InvitationHash, &[&id, &now_s])
            .await?;
        let Some(row) = found.first() else {
            return Ok(None);
        };
        let kept: Vec<u8> = row.get(0);
        if verify_slices_are_equal(&kept, secret_hash).is_err() {
            return Ok(None);
        }
        let spent = facts
            .ask(deadline, Say::Accept, &[&id, &now_s, &kept])
            .await?;
        Ok(spent.first().map(|row| Invitation {
            id: id.to_owned(),
            secret_hash: kept,
            services: row.get(0),
            uses_left: row.get(1),
            expires_at: row.get(2),
        }))
    }
}
