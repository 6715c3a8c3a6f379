//! Registering, signing in, refreshing, signing out.

use super::valid;
use super::view::{NoStore, Tokens};
use crate::domain::names;
use crate::facts::{Facts, Person};
use crate::flow::end::{self, Extent};
use crate::flow::issue::{ADMIN_ROLE, Account};
use crate::flow::rotate::{Rotated, rotate};
use crate::flow::second_factor::Offered;
use crate::flow::sign_in::{self, CHALLENGE_MS, Outcome, Second};
use crate::settings::settings;
use crate::store::audit::{self, Entry};
use crate::store::grants::OWN_CLIENT;
use crate::store::users;
use exprsn_sdk::prelude::*;

/// A new account.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registration {
    /// 3 to 32 letters and digits, with single `.`, `_` or `-` between them.
    #[garde(custom(valid::username))]
    username: String,
    /// Not verified yet.
    #[garde(inner(custom(valid::email)))]
    email: Option<String>,
    /// Long and hard to guess; no rules about kinds of characters.
    #[garde(length(bytes, max = 4096))]
    password: String,
    /// The user name when absent.
    #[garde(inner(length(chars, min = 1, max = 80), custom(valid::shown)))]
    display_name: Option<String>,
}

/// `POST /api/auth/register`
pub async fn register(
    facts: Facts,
    Json(new): Json<Registration>,
) -> Result<NoStore<Created<Tokens>>> {
    bound_registrations(&facts).await?;
    refuse_taken(Some(&new.username), new.email.as_deref(), None).await?;
    let local = new
        .email
        .as_deref()
        .and_then(|e| e.split('@').next())
        .unwrap_or_default();
    let own = [new.username.as_str(), local];
    let password_hash = sign_in::new_password(&new.password, &own, "/password")?;
    let user = users::User {
        id: uuid_v7(),
        display_name: new.display_name.unwrap_or_else(|| new.username.clone()),
        username: new.username,
        email: new.email,
        bio: String::new(),
        password_hash,
        created_at: facts.now,
        updated_at: facts.now,
    };
    let by_config = user
        .email
        .as_deref()
        .is_some_and(|e| settings().admin_emails.contains(&names::key(e)));
    let roles = if by_config {
        vec![ADMIN_ROLE.to_owned()]
    } else {
        Vec::new()
    };
    let account = Account { user, roles };
    let tokens = insert(&account, &facts).await?;
    Ok(NoStore(Created::at(
        format!("/api/users/{}", account.user.id),
        tokens,
    )))
}

async fn insert(account: &Account, facts: &Facts) -> Result<Tokens> {
    let user = &account.user;
    let tx = sql::begin().await?;
    users::insert(&tx, user).await?;
    users::set_roles(&tx, &user.id, &account.roles, "config", facts.now).await?;
    tx.publish(Event::new("user.created", &super::view::Profile::from(user)).subject(&user.id))
        .await?;
    let entry = Entry {
        kind: "account.created",
        user_id: Some(&user.id),
        client_id: None,
    };
    audit::write(&tx, entry, facts, json!({ "roles": account.roles })).await?;
    let (session, pair) = sign_in::open_api_session(&tx, account, "pwd", facts).await?;
    tx.commit().await?;
    Tokens::new(account, session.id, pair, facts.now)
}

async fn bound_registrations(facts: &Facts) -> Result<()> {
    const HOUR_S: f64 = 3_600.0;
    let per_hour = settings().registrations_per_hour;
    if per_hour == 0 {
        return Ok(());
    }
    let address = crate::domain::lockout::address_key(facts.address.as_deref().unwrap_or(""));
    let refill = f64::from(u32::try_from(per_hour).unwrap_or(u32::MAX)) / HOUR_S;
    let bucket = cache::take_tokens(&format!("register:{address}"), per_hour, refill, 1).await?;
    if bucket.allowed {
        Ok(())
    } else {
        Err(Problem::too_many(
            bucket.retry_after_ms.div_ceil(1_000).max(1),
        ))
    }
}

/// Refuses a name or an address that another account has.
pub async fn refuse_taken(
    username: Option<&str>,
    email: Option<&str>,
    own_id: Option<&str>,
) -> Result<()> {
    for (field, name) in [("/username", username), ("/email", email)] {
        let Some(name) = name else { continue };
        let other = users::by_login(name)
            .await?
            .filter(|user| Some(user.id.as_str()) != own_id);
        if other.is_some() {
            return Err(
                Problem::conflict(format!("{} is taken", &field[1..])).field(field, "is taken")
            );
        }
    }
    Ok(())
}

/// A name and a password.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// A user name or an email address, also as `identifier`; either this or `email`.
    #[serde(alias = "identifier")]
    #[garde(inner(length(chars, min = 1, max = 254)))]
    username: Option<String>,
    #[garde(inner(length(chars, min = 1, max = 254)))]
    email: Option<String>,
    #[garde(length(bytes, min = 1, max = 4096))]
    password: String,
}

/// What a sign-in leads to.
#[derive(Serialize, JsonSchema)]
#[serde(
    tag = "status",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum LoginAnswer {
    /// Signed in.
    Ok(Box<Tokens>),
    /// The password was right; send the challenge with a second factor to `/api/auth/login/mfa`.
    MfaRequired {
        challenge: String,
        /// `totp`, `recovery_code`.
        methods: Vec<String>,
        /// Seconds that the challenge lives.
        expires_in: i64,
    },
}

/// `POST /api/auth/login`
pub async fn login(facts: Facts, Json(login): Json<Login>) -> Result<NoStore<Json<LoginAnswer>>> {
    let name = match (&login.username, &login.email) {
        (Some(name), None) | (None, Some(name)) => name,
        _ => {
            return Err(Problem::unprocessable(
                "/username",
                "must be there, or email, but not both",
            ));
        }
    };
    match sign_in::password(name, &login.password, &facts).await? {
        Outcome::Right(account) => signed_in(&account, "pwd", &facts).await,
        Outcome::SecondFactor { challenge } => Ok(NoStore(Json(LoginAnswer::MfaRequired {
            challenge,
            methods: vec!["totp".to_owned(), "recovery_code".to_owned()],
            expires_in: CHALLENGE_MS / 1_000,
        }))),
        Outcome::Wrong => Err(Problem::unauthorized("name or password is wrong")),
        Outcome::Wait { retry_after_s } => Err(sign_in::too_many(retry_after_s)),
    }
}

/// A second factor for a challenge: either a code or a recovery code.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecondFactor {
    #[garde(length(chars, min = 1, max = 100))]
    challenge: String,
    /// Six digits of an authenticator.
    #[garde(inner(length(chars, min = 1, max = 40)))]
    code: Option<String>,
    #[garde(inner(length(chars, min = 1, max = 40)))]
    recovery_code: Option<String>,
}

/// `POST /api/auth/login/mfa`
pub async fn login_mfa(
    facts: Facts,
    Json(given): Json<SecondFactor>,
) -> Result<NoStore<Json<LoginAnswer>>> {
    let offered = match (&given.code, &given.recovery_code) {
        (Some(code), None) => Offered::Code(code),
        (None, Some(code)) => Offered::RecoveryCode(code),
        _ => {
            return Err(Problem::unprocessable(
                "/code",
                "must be there, or recoveryCode, but not both",
            ));
        }
    };
    match sign_in::second(&given.challenge, offered, &facts).await? {
        Second::Right { account, method } => {
            signed_in(&account, &format!("pwd {method} mfa"), &facts).await
        }
        Second::Over => Err(Problem::unauthorized(
            "the challenge is over: sign in with the password again",
        )),
        Second::Wrong => Err(Problem::unauthorized(
            "the code is wrong or was used before",
        )),
        Second::Wait { retry_after_s } => Err(sign_in::too_many(retry_after_s)),
    }
}

async fn signed_in(
    account: &Account,
    methods: &str,
    facts: &Facts,
) -> Result<NoStore<Json<LoginAnswer>>> {
    let tx = sql::begin().await?;
    let (session, pair) = sign_in::open_api_session(&tx, account, methods, facts).await?;
    tx.commit().await?;
    let tokens = Tokens::new(account, session.id, pair, facts.now)?;
    Ok(NoStore(Json(LoginAnswer::Ok(Box::new(tokens)))))
}

/// A refresh token to exchange.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RefreshRequest {
    #[garde(length(chars, min = 1, max = 200))]
    refresh_token: String,
}

/// `POST /api/auth/refresh`
pub async fn refresh(
    facts: Facts,
    Json(given): Json<RefreshRequest>,
) -> Result<NoStore<Json<Tokens>>> {
    let rotated = rotate(&given.refresh_token, OWN_CLIENT, None, &facts).await?;
    let Some(Rotated {
        account,
        stored,
        pair,
    }) = rotated
    else {
        return Err(Problem::unauthorized(
            "the refresh token is not good: sign in again",
        ));
    };
    Ok(NoStore(Json(Tokens::new(
        &account,
        stored.session_id,
        pair,
        facts.now,
    )?)))
}

/// `POST /api/auth/logout`
pub async fn logout(person: Person, facts: Facts) -> Result<NoContent> {
    let session_id = person
        .session_id
        .as_deref()
        .ok_or_else(|| Problem::forbidden("the token belongs to no session"))?;
    let tx = sql::begin().await?;
    let doomed = end::end(
        &tx,
        &person.id,
        Extent::Session(session_id),
        "logout",
        &facts,
    )
    .await?;
    tx.commit().await?;
    end::finish(doomed).await;
    Ok(NoContent)
}
