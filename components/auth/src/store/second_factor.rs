//! Authenticators, recovery codes, and logins that wait for one of them.

use exprsn_sdk::prelude::*;

/// A row of `totp`.
#[derive(Clone, Debug, Deserialize)]
pub struct Totp {
    pub user_id: String,
    pub enrolment_id: String,
    pub confirmed_at: Option<i64>,
    pub last_step: Option<i64>,
}

/// The authenticator of a person, confirmed or not.
pub async fn totp(user_id: &str) -> Result<Option<Totp>> {
    let text = "SELECT user_id, enrolment_id, confirmed_at, last_step FROM totp WHERE user_id = $1";
    Ok(sql::query_one_as(text, params![user_id]).await?)
}

/// Begins an enrolment in place of one that was not confirmed; false when one is confirmed.
pub async fn enrol(tx: &sql::Tx, user_id: &str, enrolment_id: &str, now: i64) -> Result<bool> {
    let changed = tx
        .execute(
            "INSERT INTO totp (user_id, enrolment_id, created_at) VALUES ($1, $2, $3) ON CONFLICT (user_id) DO UPDATE SET \
             enrolment_id = excluded.enrolment_id, created_at = excluded.created_at, last_step = NULL \
             WHERE totp.confirmed_at IS NULL",
            params![user_id, enrolment_id, now],
        )
        .await?;
    Ok(changed == 1)
}

/// Confirms an enrolment; false when it is not the present one, or confirmed already.
pub async fn confirm(tx: &sql::Tx, totp: &Totp, step: i64, now: i64) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE totp SET confirmed_at = $3, last_step = $4 WHERE user_id = $1 AND enrolment_id = $2 AND confirmed_at IS NULL",
            params![totp.user_id, totp.enrolment_id, now, step],
        )
        .await?;
    Ok(changed == 1)
}

/// Notes that the code of a step was accepted; false when it, or a later one, was before.
pub async fn accept_step(tx: &sql::Tx, totp: &Totp, step: i64) -> Result<bool> {
    let changed = tx
        .execute(
            "UPDATE totp SET last_step = $3 WHERE user_id = $1 AND enrolment_id = $2 AND (last_step IS NULL OR last_step < $3)",
            params![totp.user_id, totp.enrolment_id, step],
        )
        .await?;
    Ok(changed == 1)
}

/// Removes authenticator and recovery codes.
pub async fn remove(tx: &sql::Tx, user_id: &str) -> Result<()> {
    tx.execute("DELETE FROM totp WHERE user_id = $1", params![user_id])
        .await?;
    tx.execute(
        "DELETE FROM recovery_codes WHERE user_id = $1",
        params![user_id],
    )
    .await?;
    Ok(())
}

/// Makes these the recovery codes of a person.
pub async fn set_recovery_codes(
    tx: &sql::Tx,
    user_id: &str,
    digests: &[String],
    now: i64,
) -> Result<()> {
    tx.execute(
        "DELETE FROM recovery_codes WHERE user_id = $1",
        params![user_id],
    )
    .await?;
    for digest in digests {
        tx.execute(
            "INSERT INTO recovery_codes (user_id, digest, created_at) VALUES ($1, $2, $3)",
            params![user_id, digest, now],
        )
        .await?;
    }
    Ok(())
}

/// Uses a recovery code up; false when there is none such.
pub async fn use_recovery_code(
    tx: &sql::Tx,
    user_id: &str,
    digest: &str,
    now: i64,
) -> Result<bool> {
    let text = "UPDATE recovery_codes SET used_at = $3 WHERE user_id = $1 AND digest = $2 AND used_at IS NULL";
    Ok(tx.execute(text, params![user_id, digest, now]).await? == 1)
}

/// How many recovery codes are left.
pub async fn recovery_codes_left(user_id: &str) -> Result<i64> {
    let text = "SELECT COUNT(*) FROM recovery_codes WHERE user_id = $1 AND used_at IS NULL";
    Ok(sql::scalar(text, params![user_id]).await?)
}

/// Remembers that a password was right and a second factor is awaited.
pub async fn insert_challenge(
    tx: &sql::Tx,
    digest: &str,
    user_id: &str,
    now: i64,
    expires_at: i64,
) -> Result<()> {
    tx.execute(
        "INSERT INTO login_challenges (digest, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)",
        params![digest, user_id, now, expires_at],
    )
    .await?;
    Ok(())
}

/// Counts a try at a challenge and answers whose it is; none when it is over, unknown or tried too often.
pub async fn try_challenge(digest: &str, now: i64, tries_max: i64) -> Result<Option<String>> {
    let text = "UPDATE login_challenges SET tries = tries + 1 \
                WHERE digest = $1 AND used_at IS NULL AND expires_at > $2 AND tries < $3 RETURNING user_id";
    Ok(sql::query_one_as(text, params![digest, now, tries_max]).await?)
}

/// Marks a challenge as met; false when it was before.
pub async fn use_challenge(tx: &sql::Tx, digest: &str, now: i64) -> Result<bool> {
    let text = "UPDATE login_challenges SET used_at = $2 WHERE digest = $1 AND used_at IS NULL";
    Ok(tx.execute(text, params![digest, now]).await? == 1)
}
