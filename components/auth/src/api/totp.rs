//! The caller's authenticator: enrol, confirm, disable, recovery codes.

use super::view::NoStore;
use crate::domain::totp;
use crate::facts::{Facts, Person};
use crate::flow::second_factor::{self, Offered};
use crate::flow::sign_in;
use crate::store::audit::{self, Entry};
use crate::store::{second_factor as store, users};
use exprsn_sdk::prelude::*;

/// The name that authenticators show.
const ISSUER: &str = "Exprsn";

/// Where the second factor stands.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    enabled: bool,
    recovery_codes_left: i64,
}

/// The password, which changes of the second factor ask for.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct WithPassword {
    #[garde(length(bytes, min = 1, max = 4096))]
    password: String,
}

/// An enrolment to be confirmed with a first code.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Enrolment {
    /// Base32, to be typed.
    secret: String,
    /// To be shown as a QR code.
    otpauth_uri: String,
}

/// A code of the authenticator.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct WithCode {
    #[garde(length(chars, min = 1, max = 40))]
    code: String,
}

/// Recovery codes, shown this once.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryCodes {
    recovery_codes: Vec<String>,
}

/// Password and second factor together.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct WithBoth {
    #[garde(length(bytes, min = 1, max = 4096))]
    password: String,
    /// Six digits, or a recovery code.
    #[garde(length(chars, min = 1, max = 40))]
    code: String,
}

async fn myself(person: &Person) -> Result<users::User> {
    users::by_id(&person.id)
        .await?
        .ok_or_else(|| Problem::unauthorized("the account is gone"))
}

fn entry<'a>(kind: &'static str, person: &'a Person) -> Entry<'a> {
    Entry {
        kind,
        user_id: Some(&person.id),
        client_id: None,
    }
}

/// `GET /api/auth/totp`
pub async fn status(person: Person) -> Result<Json<Status>> {
    let enabled = second_factor::confirmed(&person.id).await?.is_some();
    let recovery_codes_left = store::recovery_codes_left(&person.id).await?;
    Ok(Json(Status {
        enabled,
        recovery_codes_left,
    }))
}

/// `POST /api/auth/totp`
pub async fn enrol(
    person: Person,
    facts: Facts,
    Json(given): Json<WithPassword>,
) -> Result<NoStore<Json<Enrolment>>> {
    let user = myself(&person).await?;
    sign_in::confirm_password(&user, &given.password, "/password", &facts).await?;
    let enrolment_id = uuid_v7();
    let tx = sql::begin().await?;
    if !store::enrol(&tx, &user.id, &enrolment_id, facts.now).await? {
        return Err(Problem::conflict(
            "an authenticator is enrolled: disable it first",
        ));
    }
    tx.commit().await?;
    let secret = second_factor::secret(&enrolment_id).await?;
    Ok(NoStore(Json(Enrolment {
        otpauth_uri: totp::otpauth_uri(ISSUER, &user.username, &secret),
        secret: totp::secret_text(&secret),
    })))
}

/// `POST /api/auth/totp/confirm`
pub async fn confirm(
    person: Person,
    facts: Facts,
    Json(given): Json<WithCode>,
) -> Result<NoStore<Json<RecoveryCodes>>> {
    let pending = store::totp(&person.id)
        .await?
        .filter(|totp| totp.confirmed_at.is_none());
    let pending = pending.ok_or_else(|| Problem::conflict("no enrolment awaits a code"))?;
    let wrong = || Problem::unprocessable("/code", "is not the present code of the authenticator");
    let code = totp::parse(&given.code).ok_or_else(wrong)?;
    let secret = second_factor::secret(&pending.enrolment_id).await?;
    let step = totp::accepted_step(&secret, &code, facts.now_s(), None).ok_or_else(wrong)?;
    let tx = sql::begin().await?;
    if !store::confirm(&tx, &pending, step, facts.now).await? {
        return Err(Problem::conflict("no enrolment awaits a code"));
    }
    let recovery_codes = second_factor::new_recovery_codes(&tx, &person.id, &facts).await?;
    audit::write(&tx, entry("totp.enabled", &person), &facts, json!({})).await?;
    tx.commit().await?;
    Ok(NoStore(Json(RecoveryCodes { recovery_codes })))
}

/// Checks password and second factor, and leaves the transaction in which the latter is used up.
async fn prove(person: &Person, given: &WithBoth, facts: &Facts) -> Result<sql::Tx> {
    let user = myself(person).await?;
    sign_in::confirm_password(&user, &given.password, "/password", facts).await?;
    let enrolled = second_factor::confirmed(&person.id).await?;
    let enrolled = enrolled.ok_or_else(|| Problem::conflict("no authenticator is enrolled"))?;
    sign_in::confirm_second(&enrolled, Offered::guess(&given.code), facts).await
}

/// `POST /api/auth/totp/disable`
pub async fn disable(
    person: Person,
    facts: Facts,
    Json(given): Json<WithBoth>,
) -> Result<NoContent> {
    let tx = prove(&person, &given, &facts).await?;
    store::remove(&tx, &person.id).await?;
    audit::write(&tx, entry("totp.disabled", &person), &facts, json!({})).await?;
    tx.commit().await?;
    Ok(NoContent)
}

/// `POST /api/auth/totp/recovery-codes`
pub async fn recovery_codes(
    person: Person,
    facts: Facts,
    Json(given): Json<WithBoth>,
) -> Result<NoStore<Json<RecoveryCodes>>> {
    let tx = prove(&person, &given, &facts).await?;
    let recovery_codes = second_factor::new_recovery_codes(&tx, &person.id, &facts).await?;
    audit::write(
        &tx,
        entry("recovery-codes.renewed", &person),
        &facts,
        json!({}),
    )
    .await?;
    tx.commit().await?;
    Ok(NoStore(Json(RecoveryCodes { recovery_codes })))
}
