//! The second factor: codes of an authenticator, and recovery codes.
//!
//! The secret of an authenticator is derived from the enrolment's id by a key in the host, so the database holds no secret.

use crate::domain::totp;
use crate::facts::Facts;
use crate::store::second_factor as store;
use data_encoding::HEXLOWER;
use exprsn_sdk::prelude::*;

/// What a person offers as second factor.
#[derive(Clone, Copy, Debug)]
pub enum Offered<'a> {
    Code(&'a str),
    RecoveryCode(&'a str),
}

impl<'a> Offered<'a> {
    /// Takes text from a single field for what it looks like.
    pub fn guess(text: &'a str) -> Self {
        if totp::parse(text).is_some() {
            Self::Code(text)
        } else {
            Self::RecoveryCode(text)
        }
    }

    /// How it is named in `amr` and in the log.
    pub fn method(self) -> &'static str {
        match self {
            Self::Code(_) => "otp",
            Self::RecoveryCode(_) => "recovery",
        }
    }
}

/// The secret of an enrolment.
pub async fn secret(enrolment_id: &str) -> Result<Vec<u8>> {
    let mut bytes = ca::hmac("totp", enrolment_id).await?;
    bytes.truncate(totp::SECRET_BYTES);
    Ok(bytes)
}

/// What is stored of a recovery code.
pub async fn recovery_digest(user_id: &str, code: &str) -> Result<String> {
    Ok(HEXLOWER.encode(&ca::hmac("recovery", format!("{user_id}:{code}")).await?))
}

/// The confirmed authenticator of a person.
pub async fn confirmed(user_id: &str) -> Result<Option<store::Totp>> {
    Ok(store::totp(user_id)
        .await?
        .filter(|totp| totp.confirmed_at.is_some()))
}

/// Accepts a second factor within `tx`: a code or recovery code is good once. False when it is not good.
pub async fn accept(
    tx: &sql::Tx,
    enrolled: &store::Totp,
    offered: Offered<'_>,
    facts: &Facts,
) -> Result<bool> {
    match offered {
        Offered::Code(text) => {
            let Some(code) = totp::parse(text) else {
                return Ok(false);
            };
            let secret = secret(&enrolled.enrolment_id).await?;
            match totp::accepted_step(&secret, &code, facts.now_s(), enrolled.last_step) {
                Some(step) => store::accept_step(tx, enrolled, step).await,
                None => Ok(false),
            }
        }
        Offered::RecoveryCode(text) => {
            let Some(code) = totp::parse_recovery(text) else {
                return Ok(false);
            };
            let digest = recovery_digest(&enrolled.user_id, &code).await?;
            store::use_recovery_code(tx, &enrolled.user_id, &digest, facts.now).await
        }
    }
}

/// Makes new recovery codes and stores their digests. The codes are shown once.
pub async fn new_recovery_codes(tx: &sql::Tx, user_id: &str, facts: &Facts) -> Result<Vec<String>> {
    let mut codes = Vec::with_capacity(totp::RECOVERY_CODES);
    let mut digests = Vec::with_capacity(totp::RECOVERY_CODES);
    for _ in 0..totp::RECOVERY_CODES {
        let code = totp::recovery_code(&random_bytes());
        let canonical =
            totp::parse_recovery(&code).expect("a code that was just made is well formed");
        digests.push(recovery_digest(user_id, &canonical).await?);
        codes.push(code);
    }
    store::set_recovery_codes(tx, user_id, &digests, facts.now).await?;
    Ok(codes)
}
