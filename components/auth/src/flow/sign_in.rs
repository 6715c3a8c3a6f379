//! Signing in: the password, the second factor, and the session that follows.
//!
//! **Invariant:** whether an account exists shows neither in the answer nor in its time, nor in when waiting begins.

use super::end::{self, Extent};
use super::issue::{self, Account, Pair};
use super::second_factor::{self, Offered};
use crate::domain::argon::{self, Verdict};
use crate::domain::scope::{Scope, Scopes};
use crate::domain::{lockout, names, password, secret};
use crate::facts::{Facts, new_secret};
use crate::settings::settings;
use crate::store::attempts::{self, Counter};
use crate::store::audit::{self, Entry};
use crate::store::grants::{self, Grant, OWN_CLIENT};
use crate::store::sessions::{self, Origin, Session};
use crate::store::{second_factor as factors, users};
use exprsn_sdk::prelude::*;

/// How long a login waits for its second factor, in milliseconds.
pub const CHALLENGE_MS: i64 = 300_000;
/// Tries at the second factor before the password is asked for again.
const CHALLENGE_TRIES_MAX: i64 = 5;

/// What came of a name and a password.
pub enum Outcome {
    /// They are right, and enough.
    Right(Account),
    /// They are right; the challenge must be answered with a second factor.
    SecondFactor {
        challenge: String,
    },
    Wrong,
    /// Too many failures: nothing was looked at.
    Wait {
        retry_after_s: u64,
    },
}

/// What came of a second factor.
pub enum Second {
    Right {
        account: Account,
        method: &'static str,
    },
    /// The challenge is over: begin again with the password.
    Over,
    Wrong,
    Wait {
        retry_after_s: u64,
    },
}

fn account_counter(name: &str) -> Counter {
    // A digest, because the name may be anything that a stranger typed, a password by mistake included.
    Counter {
        id: format!("account:{}", secret::digest(&names::key(name))),
        schedule: settings().account_schedule,
    }
}

fn address_counter(facts: &Facts) -> Counter {
    let key = lockout::address_key(facts.address.as_deref().unwrap_or(""));
    Counter {
        id: format!("address:{key}"),
        schedule: settings().address_schedule,
    }
}

/// Looks at a name (or email address) and a password.
pub async fn password(name: &str, given: &str, facts: &Facts) -> Result<Outcome> {
    let found = users::by_login(name).await?;
    // Counted by the account where there is one, so that its name and its address share a counter.
    let counted = found.as_ref().map_or(name, |user| user.username.as_str());
    let counters = [account_counter(counted), address_counter(facts)];
    if let Some(wait_ms) = attempts::begin(&counters, facts.now).await? {
        // Not into the audit log: that would let anybody fill it at no cost.
        log::warn!("a login was delayed", wait_ms = wait_ms);
        return Ok(Outcome::Wait {
            retry_after_s: lockout::retry_after_s(wait_ms),
        });
    }
    let given = password::normalize(given);
    let verdict = argon::verify(
        &given,
        found.as_ref().map(|u| u.password_hash.as_str()),
        settings().cost,
    );
    let user = match (verdict, found) {
        (Verdict::Right | Verdict::RightButOutdated, Some(user)) => user,
        (_, found) => {
            let entry = Entry {
                kind: "login.failed",
                user_id: found.as_ref().map(|u| u.id.as_str()),
                client_id: None,
            };
            audit::refused(entry, facts, json!({})).await?;
            return Ok(Outcome::Wrong);
        }
    };
    if verdict == Verdict::RightButOutdated {
        users::rehash(&user.id, &user.password_hash, &hash(&given)?).await?;
    }
    right_password(user, &counters, facts).await
}

async fn right_password(
    user: users::User,
    counters: &[Counter; 2],
    facts: &Facts,
) -> Result<Outcome> {
    let needs_second = second_factor::confirmed(&user.id).await?.is_some();
    let tx = sql::begin().await?;
    attempts::forget(&tx, &counters[0].id).await?;
    attempts::give_back(&tx, &counters[1].id).await?;
    if !needs_second {
        tx.commit().await?;
        return Ok(Outcome::Right(Account::of(user).await?));
    }
    let challenge = new_secret();
    let expires_at = facts.now + CHALLENGE_MS;
    factors::insert_challenge(
        &tx,
        &secret::digest(&challenge),
        &user.id,
        facts.now,
        expires_at,
    )
    .await?;
    tx.commit().await?;
    Ok(Outcome::SecondFactor { challenge })
}

/// Looks at the second factor that answers a challenge.
pub async fn second(challenge: &str, offered: Offered<'_>, facts: &Facts) -> Result<Second> {
    let digest = secret::digest(challenge);
    let Some(user_id) = factors::try_challenge(&digest, facts.now, CHALLENGE_TRIES_MAX).await?
    else {
        return Ok(Second::Over);
    };
    let (Some(user), Some(enrolled)) = (
        users::by_id(&user_id).await?,
        second_factor::confirmed(&user_id).await?,
    ) else {
        return Ok(Second::Over);
    };
    let counter = second_counter(&user_id);
    if let Some(wait_ms) = attempts::begin(std::slice::from_ref(&counter), facts.now).await? {
        return Ok(Second::Wait {
            retry_after_s: lockout::retry_after_s(wait_ms),
        });
    }
    let tx = sql::begin().await?;
    let good = second_factor::accept(&tx, &enrolled, offered, facts).await?
        && factors::use_challenge(&tx, &digest, facts.now).await?;
    if !good {
        tx.rollback().await?;
        let entry = Entry {
            kind: "second-factor.failed",
            user_id: Some(&user_id),
            client_id: None,
        };
        audit::refused(entry, facts, json!({ "method": offered.method() })).await?;
        return Ok(Second::Wrong);
    }
    attempts::forget(&tx, &counter.id).await?;
    tx.commit().await?;
    Ok(Second::Right {
        account: Account::of(user).await?,
        method: offered.method(),
    })
}

/// What failures of a known person's second factor are counted under.
///
/// Not together with the password: a right password must not wipe out wrong codes.
fn second_counter(user_id: &str) -> Counter {
    Counter {
        id: format!("second:{user_id}"),
        schedule: settings().account_schedule,
    }
}

async fn begin_one(counter: &Counter, facts: &Facts) -> Result<()> {
    match attempts::begin(std::slice::from_ref(counter), facts.now).await? {
        Some(wait_ms) => Err(too_many(lockout::retry_after_s(wait_ms))),
        None => Ok(()),
    }
}

/// Makes sure that whoever holds an access token also knows the password, before something that cannot be undone.
pub async fn confirm_password(
    user: &users::User,
    given: &str,
    field: &str,
    facts: &Facts,
) -> Result<()> {
    let counter = Counter {
        id: format!("password:{}", user.id),
        schedule: settings().account_schedule,
    };
    begin_one(&counter, facts).await?;
    let given = password::normalize(given);
    if argon::verify(&given, Some(&user.password_hash), settings().cost) == Verdict::Wrong {
        let entry = Entry {
            kind: "password.refused",
            user_id: Some(&user.id),
            client_id: None,
        };
        audit::refused(entry, facts, json!({})).await?;
        return Err(Problem::forbidden("the password is wrong").field(field, "is wrong"));
    }
    let tx = sql::begin().await?;
    attempts::forget(&tx, &counter.id).await?;
    Ok(tx.commit().await?)
}

/// Makes sure of the second factor of somebody signed in. Answers the transaction in which it is used up.
pub async fn confirm_second(
    enrolled: &factors::Totp,
    offered: Offered<'_>,
    facts: &Facts,
) -> Result<sql::Tx> {
    let counter = second_counter(&enrolled.user_id);
    begin_one(&counter, facts).await?;
    let tx = sql::begin().await?;
    if second_factor::accept(&tx, enrolled, offered, facts).await? {
        attempts::forget(&tx, &counter.id).await?;
        return Ok(tx);
    }
    tx.rollback().await?;
    let entry = Entry {
        kind: "second-factor.failed",
        user_id: Some(&enrolled.user_id),
        client_id: None,
    };
    audit::refused(entry, facts, json!({ "method": offered.method() })).await?;
    let text = "is wrong or was used before";
    Err(Problem::forbidden(format!("the code {text}")).field("/code", text))
}

/// The answer when there were too many failures.
pub fn too_many(retry_after_s: u64) -> Problem {
    Problem::too_many(retry_after_s).detail(format!(
        "too many failed attempts; try again in {retry_after_s} s"
    ))
}

/// Hashes a normalised password at today's cost.
pub fn hash(password: &str) -> Result<String> {
    argon::hash(password, &random_bytes(), settings().cost).map_err(|e| {
        Problem::fault(
            "argon2_memory_kib, argon2_passes or argon2_lanes is out of bounds",
            e,
        )
    })
}

/// Checks a new password and hashes it. `own` are words that are tied to the account.
pub fn new_password(given: &str, own: &[&str], field: &str) -> Result<String> {
    let given = password::normalize(given);
    password::check(&given, own, settings().password_chars_min)
        .map_err(|m| Problem::unprocessable(field, m))?;
    hash(&given)
}

/// All that the JSON API gives to its own client.
pub fn own_scopes() -> Scopes {
    Scope::ALL
        .into_iter()
        .filter(|s| *s != Scope::OfflineAccess)
        .collect()
}

/// Opens a session through the JSON API, within `tx`, with a grant of everything and the tokens for it.
pub async fn open_api_session(
    tx: &sql::Tx,
    account: &Account,
    methods: &str,
    facts: &Facts,
) -> Result<(Session, Pair)> {
    let session = new_session(account, methods, settings().session_ms, facts);
    sessions::insert(tx, &session, Origin::Api, facts).await?;
    announce(tx, &session, OWN_CLIENT, facts).await?;
    let grant = Grant {
        id: uuid_v7(),
        user_id: account.user.id.clone(),
        session_id: session.id.clone(),
        client_id: OWN_CLIENT.to_owned(),
        offline: false,
        scope: own_scopes().to_string(),
        expires_at: session.expires_at,
    };
    let access = issue::mint_for_person(account, &grant, own_scopes(), facts).await?;
    grants::insert(tx, &grant, facts.now).await?;
    let pair = issue::remember(tx, &grant, access, true, facts).await?;
    Ok((session, pair))
}

/// Opens a session at the browser's page, or renews the one that is there if it is the same person's. Answers the cookie.
pub async fn open_browser_session(
    present: Option<&Session>,
    account: &Account,
    methods: &str,
    facts: &Facts,
) -> Result<(Session, String)> {
    let cookie = new_secret();
    let digest = secret::digest(&cookie);
    let mut session = new_session(account, methods, settings().browser_session_ms, facts);
    let tx = sql::begin().await?;
    let same = present.filter(|p| p.user_id == account.user.id);
    if let Some(same) = same {
        session.id.clone_from(&same.id);
    }
    if same.is_some() && sessions::renew(&tx, &session, &digest, facts.now).await? {
        tx.commit().await?;
        return Ok((session, cookie));
    }
    let doomed = match present.filter(|p| p.user_id != account.user.id) {
        Some(other) => Some(
            end::end(
                &tx,
                &other.user_id,
                Extent::Session(&other.id),
                "replaced",
                facts,
            )
            .await?,
        ),
        None => None,
    };
    session.id = uuid_v7();
    sessions::insert(
        &tx,
        &session,
        Origin::Browser {
            cookie_digest: &digest,
        },
        facts,
    )
    .await?;
    announce(&tx, &session, "browser", facts).await?;
    tx.commit().await?;
    if let Some(doomed) = doomed {
        end::finish(doomed).await;
    }
    Ok((session, cookie))
}

fn new_session(account: &Account, methods: &str, lifetime_ms: i64, facts: &Facts) -> Session {
    Session {
        id: uuid_v7(),
        user_id: account.user.id.clone(),
        methods: methods.to_owned(),
        authenticated_at: facts.now,
        expires_at: facts.now.saturating_add(lifetime_ms),
    }
}

async fn announce(tx: &sql::Tx, session: &Session, client_id: &str, facts: &Facts) -> Result<()> {
    let data = json!({ "id": session.id, "userId": session.user_id, "clientId": client_id });
    tx.publish(Event::new("session.created", &data).subject(&session.id))
        .await?;
    let entry = Entry {
        kind: "login.succeeded",
        user_id: Some(&session.user_id),
        client_id: Some(client_id),
    };
    audit::write(
        tx,
        entry,
        facts,
        json!({ "session": session.id, "methods": session.methods }),
    )
    .await
}
