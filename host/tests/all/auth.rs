//! exprsn-auth over real HTTP: accounts, sessions, second factor. `auth/` has OAuth 2.1 and OpenID Connect.

mod browser;
mod oauth;
mod pages;

use crate::harness::{Answer, Platform, Setup, eventually};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

const PASSWORD: &str = "correct horse battery staple";

/// A registered account with the tokens of its first session.
struct Account {
    id: String,
    username: String,
    access: String,
    refresh: String,
}

fn unique(name: &str) -> String {
    format!(
        "{name}-{}",
        &uuid::Uuid::new_v4().simple().to_string()[..12]
    )
}

fn register(platform: &Platform, name: &str) -> Account {
    let username = unique(name);
    let body = json!({ "username": username, "email": format!("{username}@example.org"), "password": PASSWORD });
    let answer = platform
        .call("auth", "POST", "/api/auth/register")
        .json(&body)
        .send()
        .expect_status(201)
        .json();
    Account {
        id: text(&answer["user"]["id"]),
        username,
        access: text(&answer["accessToken"]),
        refresh: text(&answer["refreshToken"]),
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no text: {value}"))
        .to_owned()
}

fn post(platform: &Platform, path: &str, body: &Value) -> Answer {
    platform.call("auth", "POST", path).json(body).send()
}

fn post_as(platform: &Platform, token: &str, path: &str, body: &Value) -> Answer {
    platform
        .call("auth", "POST", path)
        .token(token)
        .json(body)
        .send()
}

fn login(platform: &Platform, username: &str, password: &str) -> Answer {
    post(
        platform,
        "/api/auth/login",
        &json!({ "username": username, "password": password }),
    )
}

fn refresh(platform: &Platform, token: &str) -> Answer {
    post(
        platform,
        "/api/auth/refresh",
        &json!({ "refreshToken": token }),
    )
}

fn me(platform: &Platform, token: &str) -> Answer {
    platform
        .call("auth", "GET", "/api/users/me")
        .token(token)
        .send()
}

/// The code that an authenticator shows `steps` time steps from now.
fn totp(secret: &str, steps: i64) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let (mut bits, mut count, mut key) = (0_u32, 0, Vec::new());
    for letter in secret.bytes() {
        let value = letters.iter().position(|l| *l == letter).expect("base32");
        bits = (bits << 5) | u32::try_from(value).expect("five bits");
        count += 5;
        if count >= 8 {
            count -= 8;
            key.push(u8::try_from((bits >> count) & 0xff).expect("a byte"));
        }
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let step = i64::try_from(now / 30).expect("small") + steps;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let hash = aws_lc_rs::hmac::sign(&key, &step.to_be_bytes());
    let hash = hash.as_ref();
    let at = usize::from(hash[19] & 0xf);
    let word =
        u32::from_be_bytes([hash[at], hash[at + 1], hash[at + 2], hash[at + 3]]) & 0x7fff_ffff;
    format!("{:06}", word % 1_000_000)
}

/// Enrols an authenticator; answers its secret and the recovery codes. Uses up the code of the present step.
fn enrol(platform: &Platform, token: &str) -> (String, Vec<String>) {
    let answer = post_as(
        platform,
        token,
        "/api/auth/totp",
        &json!({ "password": PASSWORD }),
    )
    .expect_status(200)
    .json();
    assert!(
        text(&answer["otpauthUri"]).starts_with("otpauth://totp/Exprsn:"),
        "{answer}"
    );
    let secret = text(&answer["secret"]);
    let confirm = |steps| {
        post_as(
            platform,
            token,
            "/api/auth/totp/confirm",
            &json!({ "code": totp(&secret, steps) }),
        )
    };
    let codes = confirm(0).expect_status(200).json();
    let codes = codes["recoveryCodes"]
        .as_array()
        .expect("codes")
        .iter()
        .map(text)
        .collect();
    (secret, codes)
}

#[test]
fn registers_logs_in_and_shows_profiles() {
    let platform = Platform::shared();
    let username = unique("Ann");
    let email = format!("{username}@Example.org");
    let body = json!({ "username": username, "email": email, "password": PASSWORD, "displayName": "Ann Łee" });
    let answer = post(platform, "/api/auth/register", &body).expect_status(201);
    assert_eq!(answer.header("cache-control"), "no-store");
    let id = text(&answer.json()["user"]["id"]);
    assert_eq!(answer.header("location"), format!("/api/users/{id}"));

    for body in [
        json!({ "username": username.to_uppercase(), "password": PASSWORD }),
        json!({ "email": email.to_lowercase(), "password": PASSWORD }),
        json!({ "identifier": username, "password": PASSWORD }),
    ] {
        let answer = post(platform, "/api/auth/login", &body)
            .expect_status(200)
            .json();
        assert_eq!(answer["status"], "ok");
        assert_eq!(
            (&answer["tokenType"], &answer["expiresIn"]),
            (&json!("Bearer"), &json!(900))
        );
        let own = me(platform, &text(&answer["accessToken"]))
            .expect_status(200)
            .json();
        assert_eq!(
            (&own["email"], &own["emailVerified"]),
            (&json!(email), &json!(false))
        );
        assert_eq!(
            (&own["roles"], &own["displayName"]),
            (&json!([]), &json!("Ann Łee"))
        );
    }
    // The specification's example: anybody may see a profile, and no address in it.
    let profile = platform
        .call("auth", "GET", &format!("/api/users/{id}"))
        .send()
        .expect_status(200);
    assert!(!profile.text().contains('@'), "{}", profile.text());
    assert_eq!(profile.json()["username"], username);
    platform
        .call("auth", "GET", "/api/users/nobody")
        .send()
        .expect_problem(404, "nobody");
}

#[test]
fn refuses_registrations_and_names_the_field() {
    let platform = Platform::shared();
    let taken = register(platform, "taken");
    let refused = |body: &Value, status: u16, field: &str| {
        let answer = post(platform, "/api/auth/register", body).expect_problem(status, "");
        let fields = answer.json()["errors"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        assert!(
            fields.iter().any(|e| e["field"] == field),
            "{body}: {}",
            answer.text()
        );
        assert!(
            !answer.text().contains("horse"),
            "a password is in {}",
            answer.text()
        );
    };
    for name in [
        "",
        "ab",
        "admin",
        "-x-",
        "x y",
        "a@b",
        "'; DROP TABLE users; --",
        &"x".repeat(33),
    ] {
        refused(
            &json!({ "username": name, "password": PASSWORD }),
            422,
            "/username",
        );
    }
    for email in ["ann", "ann@", "a b@example.org", "ann@localhost"] {
        refused(
            &json!({ "username": unique("x"), "email": email, "password": PASSWORD }),
            422,
            "/email",
        );
    }
    for password in ["short", "password1234", "aaaaaaaaaaaaaaaa", "123456789012"] {
        refused(
            &json!({ "username": unique("x"), "password": password }),
            422,
            "/password",
        );
    }
    refused(
        &json!({ "username": unique("x"), "password": PASSWORD, "isAdmin": true }),
        422,
        "/isAdmin",
    );
    refused(
        &json!({ "username": 7, "password": PASSWORD }),
        422,
        "/username",
    );
    refused(&json!({ "username": unique("x") }), 422, "/password");
    refused(
        &json!({ "username": taken.username.to_uppercase(), "password": PASSWORD }),
        409,
        "/username",
    );
    let email = format!("{}@EXAMPLE.org", taken.username);
    refused(
        &json!({ "username": unique("x"), "email": email, "password": PASSWORD }),
        409,
        "/email",
    );

    let call = || platform.call("auth", "POST", "/api/auth/register");
    call()
        .body("application/json", "{\"username\": ")
        .send()
        .expect_problem(400, "malformed");
    call()
        .body("text/plain", "{}")
        .send()
        .expect_problem(415, "Content-Type");
    let huge = json!({ "username": "x".repeat(20_000), "password": PASSWORD });
    call().json(&huge).send().expect_status(413);
}

#[test]
fn a_wrong_name_and_a_wrong_password_look_the_same() {
    let platform = Platform::shared();
    let account = register(platform, "same");
    let wrong = login(platform, &account.username, "not the right words")
        .expect_problem(401, "name or password is wrong");
    let unknown = login(platform, &unique("nobody"), "not the right words").expect_status(401);
    assert_eq!(wrong.text(), unknown.text());
    login(platform, "' OR '1'='1", "x' OR '1'='1").expect_status(401);
    let both = json!({ "username": "a", "email": "b", "password": "c" });
    post(platform, "/api/auth/login", &both).expect_problem(422, "/username");
}

/// A platform of its own, whose lockout is quick to reach and to wait for.
fn impatient(failures_of_address: u32) -> Platform {
    let config = format!(
        "[service.exprsn-auth.config]\nlockout_account_failures_free = \"3\"\nlockout_wait_first_s = \"2\"\n\
         lockout_address_failures_free = \"{failures_of_address}\"\nadmin_emails = \"boss@example.org, x@example.org\""
    );
    Platform::start(&Setup {
        services: &["ca", "auth"],
        config: &config,
        ..Setup::default()
    })
}

#[test]
fn failures_lead_to_waiting_whether_the_account_exists_or_not() {
    let platform = impatient(1_000);
    let account = register(&platform, "locked");
    for name in [account.username.clone(), unique("nobody")] {
        for _ in 0..4 {
            login(&platform, &name, "not the right words").expect_status(401);
        }
        let refused = login(&platform, &name, "not the right words")
            .expect_problem(429, "too many failed attempts");
        let seconds: u64 = refused.header("retry-after").parse().expect("seconds");
        assert!((1..=2).contains(&seconds), "{seconds}");
    }
    // The right password does not help before the time is over, and neither does the other name of the account.
    let name = &account.username;
    for _ in 0..2 {
        eventually("a try is let through", || {
            let answer = login(&platform, name, "not the right words");
            (answer.status == 401).then_some(())
        });
    }
    login(&platform, name, PASSWORD).expect_status(429);
    login(&platform, &format!("{name}@example.org"), PASSWORD).expect_status(429);
    eventually("the right password is let through", || {
        (login(&platform, name, PASSWORD).status == 200).then_some(())
    });
    login(&platform, name, "not the right words").expect_status(401);
    login(&platform, name, PASSWORD).expect_status(200);
}

#[test]
fn an_address_that_tries_many_accounts_waits_and_admins_come_from_the_configuration() {
    let platform = impatient(6);
    let body = json!({ "username": "the-boss", "email": "Boss@example.org", "password": PASSWORD });
    let boss = post(&platform, "/api/auth/register", &body)
        .expect_status(201)
        .json();
    assert_eq!(boss["user"]["roles"], json!(["admin"]));
    platform
        .call("auth", "GET", "/api/users")
        .token(&text(&boss["accessToken"]))
        .send()
        .expect_status(200);

    let tried =
        (0..20).find(|_| login(&platform, &unique("guess"), "not the right words").status == 429);
    assert_eq!(tried, Some(7), "six are free, the seventh costs waiting");
    login(&platform, "the-boss", PASSWORD).expect_status(429);
}

#[test]
fn many_guesses_at_once_do_not_outrun_the_counter() {
    let platform = impatient(1_000);
    let account = register(&platform, "rush");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let guesses: Vec<_> = (0..24)
            .map(|_| {
                scope.spawn(|| login(&platform, &account.username, "not the right words").status)
            })
            .collect();
        guesses
            .into_iter()
            .map(|guess| guess.join().expect("the thread ends"))
            .collect()
    });
    let looked_at = statuses.iter().filter(|status| **status == 401).count();
    // Three are free; the fourth begins the waiting of two seconds, and a slow machine may see one or two more after it.
    assert!(looked_at <= 8, "{statuses:?}");
    assert!(
        statuses.iter().all(|status| [401, 429].contains(status)),
        "{statuses:?}"
    );
}

#[test]
fn refresh_tokens_rotate_and_a_second_use_ends_the_family() {
    let platform = Platform::shared();
    let account = register(platform, "rotate");
    let second = refresh(platform, &account.refresh)
        .expect_status(200)
        .json();
    me(platform, &text(&second["accessToken"])).expect_status(200);
    let third = refresh(platform, &text(&second["refreshToken"]))
        .expect_status(200)
        .json();
    assert_eq!(third["sessionId"], second["sessionId"]);

    refresh(platform, &account.refresh).expect_problem(401, "sign in again");
    refresh(platform, &text(&third["refreshToken"])).expect_status(401);
    for token in [
        &account.access,
        &text(&second["accessToken"]),
        &text(&third["accessToken"]),
    ] {
        me(platform, token).expect_problem(401, "revoked");
    }
    refresh(platform, "nonsense").expect_status(401);
    login(platform, &account.username, PASSWORD).expect_status(200);
}

#[test]
fn one_of_two_exchanges_at_once_wins_at_most() {
    let platform = Platform::shared();
    let account = register(platform, "twice");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let both: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| refresh(platform, &account.refresh).status))
            .collect();
        both.into_iter()
            .map(|one| one.join().expect("the thread ends"))
            .collect()
    });
    assert!(
        statuses.iter().filter(|status| **status == 200).count() <= 1,
        "{statuses:?}"
    );
    me(platform, &account.access).expect_status(401);
}

#[test]
fn ending_a_session_ends_its_tokens_and_no_others() {
    let platform = Platform::shared();
    let account = register(platform, "sessions");
    let signed_in = || {
        login(platform, &account.username, PASSWORD)
            .expect_status(200)
            .json()
    };
    let (second, third) = (signed_in(), signed_in());
    let (second_token, third_token) = (text(&second["accessToken"]), text(&third["accessToken"]));

    let listed = platform
        .call("auth", "GET", "/api/auth/sessions")
        .token(&second_token)
        .send()
        .expect_status(200)
        .json();
    let items = listed["items"].as_array().expect("items");
    assert_eq!(items.len(), 3, "{listed}");
    let current: Vec<&Value> = items
        .iter()
        .filter(|item| item["current"] == true)
        .collect();
    assert_eq!(current.len(), 1);
    assert_eq!(current[0]["id"], second["sessionId"]);

    let path = format!("/api/auth/sessions/{}", text(&third["sessionId"]));
    let stranger = register(platform, "stranger");
    platform
        .call("auth", "DELETE", &path)
        .token(&stranger.access)
        .send()
        .expect_problem(404, "session");
    me(platform, &third_token).expect_status(200);
    platform
        .call("auth", "DELETE", &path)
        .token(&second_token)
        .send()
        .expect_status(204);
    me(platform, &third_token).expect_status(401);
    refresh(platform, &text(&third["refreshToken"])).expect_status(401);
    me(platform, &second_token).expect_status(200);

    platform
        .call("auth", "POST", "/api/auth/logout")
        .token(&second_token)
        .send()
        .expect_status(204);
    me(platform, &second_token).expect_status(401);
    refresh(platform, &text(&second["refreshToken"])).expect_status(401);

    platform
        .call("auth", "DELETE", "/api/auth/sessions")
        .token(&account.access)
        .send()
        .expect_status(204);
    me(platform, &account.access).expect_status(401);
}

#[test]
fn a_new_password_ends_every_session() {
    let platform = Platform::shared();
    let account = register(platform, "change");
    let change = |current: &str, new: &str| {
        let body = json!({ "currentPassword": current, "newPassword": new });
        post_as(platform, &account.access, "/api/auth/password", &body)
    };
    change("not the right words", "another good set of words")
        .expect_problem(403, "/currentPassword");
    change(PASSWORD, "password1234").expect_problem(422, "/newPassword");
    change(PASSWORD, PASSWORD).expect_problem(422, "/newPassword");
    change(PASSWORD, "another good set of words").expect_status(204);
    me(platform, &account.access).expect_status(401);
    refresh(platform, &account.refresh).expect_status(401);
    login(platform, &account.username, PASSWORD).expect_status(401);
    login(platform, &account.username, "another good set of words").expect_status(200);
}

#[test]
fn the_second_factor_is_asked_for_and_accepted_once() {
    let platform = Platform::shared();
    let account = register(platform, "factor");
    let enrol_with = |password: &str| {
        post_as(
            platform,
            &account.access,
            "/api/auth/totp",
            &json!({ "password": password }),
        )
    };
    enrol_with("not the right words").expect_problem(403, "/password");
    post_as(
        platform,
        &account.access,
        "/api/auth/totp/confirm",
        &json!({ "code": "123456" }),
    )
    .expect_status(409);
    let (secret, recovery) = enrol(platform, &account.access);
    assert_eq!(recovery.len(), 10);
    enrol_with(PASSWORD).expect_problem(409, "disable it first");

    let challenge = || {
        let answer = login(platform, &account.username, PASSWORD)
            .expect_status(200)
            .json();
        assert_eq!(answer["status"], "mfa_required", "{answer}");
        assert!(answer.get("accessToken").is_none());
        text(&answer["challenge"])
    };
    let answer_with = |challenge: &str, field: &str, code: &str| {
        post(
            platform,
            "/api/auth/login/mfa",
            &json!({ "challenge": challenge, field: code }),
        )
    };
    let first = challenge();
    answer_with(&first, "code", "000000").expect_status(401);
    let code = totp(&secret, 1);
    let signed_in = answer_with(&first, "code", &code).expect_status(200).json();
    me(platform, &text(&signed_in["accessToken"])).expect_status(200);
    answer_with(&first, "code", &totp(&secret, 1)).expect_problem(401, "challenge is over");
    answer_with(&challenge(), "code", &code).expect_problem(401, "used before");

    let used = &recovery[0];
    answer_with(&challenge(), "recoveryCode", &used.to_uppercase()).expect_status(200);
    answer_with(&challenge(), "recoveryCode", used).expect_status(401);
    answer_with("nonsense", "code", &code).expect_status(401);

    let disable = |password: &str, code: &str| {
        post_as(
            platform,
            &account.access,
            "/api/auth/totp/disable",
            &json!({ "password": password, "code": code }),
        )
    };
    disable(PASSWORD, used).expect_problem(403, "/code");
    disable("not the right words", &recovery[1]).expect_problem(403, "/password");
    disable(PASSWORD, &recovery[1]).expect_status(204);
    assert_eq!(
        login(platform, &account.username, PASSWORD)
            .expect_status(200)
            .json()["status"],
        "ok"
    );
}

#[test]
fn guessing_codes_leads_to_waiting_though_the_password_is_right() {
    let platform = impatient(1_000);
    let account = register(&platform, "codes");
    let (_, recovery) = enrol(&platform, &account.access);
    let disable = |code: &str| {
        let body = json!({ "password": PASSWORD, "code": code });
        post_as(&platform, &account.access, "/api/auth/totp/disable", &body)
    };
    for _ in 0..4 {
        disable("000000").expect_problem(403, "/code");
    }
    disable(&recovery[0]).expect_problem(429, "too many failed attempts");
    eventually("a good code is let through", || {
        (disable(&recovery[0]).status == 204).then_some(())
    });
}

#[test]
fn of_two_registrations_of_one_name_one_wins() {
    let platform = Platform::shared();
    let body = json!({ "username": unique("race"), "password": PASSWORD });
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let both: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| post(platform, "/api/auth/register", &body).status))
            .collect();
        both.into_iter()
            .map(|one| one.join().expect("the thread ends"))
            .collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409]);
}

#[test]
fn a_challenge_bears_five_tries() {
    let platform = Platform::shared();
    let account = register(platform, "tries");
    let (_, recovery) = enrol(platform, &account.access);
    let challenge = text(&login(platform, &account.username, PASSWORD).json()["challenge"]);
    let attempt = |field: &str, code: &str| {
        post(
            platform,
            "/api/auth/login/mfa",
            &json!({ "challenge": challenge, field: code }),
        )
    };
    for _ in 0..5 {
        attempt("code", "000000").expect_status(401);
    }
    attempt("recoveryCode", &recovery[0]).expect_problem(401, "challenge is over");
}

#[test]
fn administration_needs_the_role_and_the_operator_gives_it() {
    let platform = Platform::shared();
    let (boss, clerk) = (register(platform, "boss"), register(platform, "clerk"));
    let path = format!("/api/users/{}/roles", boss.id);
    let set = |token: &str, roles: Value| {
        platform
            .call("auth", "PUT", &path)
            .token(token)
            .json(&json!({ "roles": roles }))
            .send()
    };
    set(&boss.access, json!(["admin"])).expect_status(403);
    platform
        .call("auth", "GET", "/api/users")
        .token(&boss.access)
        .send()
        .expect_status(403);
    set(&platform.operator(), json!(["Admin!"])).expect_problem(422, "/roles/0");
    let changed = set(&platform.operator(), json!(["admin", "moderator", "admin"]))
        .expect_status(200)
        .json();
    assert_eq!(changed["roles"], json!(["admin", "moderator"]));

    let boss_token =
        text(&refresh(platform, &boss.refresh).expect_status(200).json()["accessToken"]);
    let list = |query: &str| {
        platform
            .call("auth", "GET", &format!("/api/users?{query}"))
            .token(&boss_token)
            .send()
    };
    let found = list(&format!("search={}", clerk.username))
        .expect_status(200)
        .json();
    assert_eq!(found["items"][0]["id"], clerk.id, "{found}");
    assert_eq!(
        list("search=%25").expect_status(200).json()["items"],
        json!([])
    );
    let first = list("limit=1").expect_status(200).json();
    let next = list(&format!("limit=1&cursor={}", text(&first["nextCursor"])))
        .expect_status(200)
        .json();
    assert_ne!(first["items"][0]["id"], next["items"][0]["id"]);
    list("cursor=nonsense").expect_problem(400, "cursor");
    list("limit=0").expect_problem(400, "limit");

    set(&boss_token, json!([])).expect_problem(409, "themselves");
    let sessions = format!("/api/users/{}/sessions", clerk.id);
    platform
        .call("auth", "DELETE", &sessions)
        .token(&boss_token)
        .send()
        .expect_status(204);
    me(platform, &clerk.access).expect_status(401);
    platform
        .call("auth", "DELETE", &format!("/api/users/{}", clerk.id))
        .token(&boss_token)
        .send()
        .expect_status(204);
    login(platform, &clerk.username, PASSWORD).expect_status(401);
    let audit = platform
        .call(
            "auth",
            "GET",
            &format!("/api/auth/audit?userId={}", clerk.id),
        )
        .token(&boss_token)
        .send();
    assert!(audit.expect_status(200).text().contains("account.deleted"));

    // Who loses a role loses it at once; the session goes on without it.
    let second = refresh(platform, &boss.refresh).expect_status(401);
    assert!(second.text().contains("sign in again"), "used above");
    let again = login(platform, &boss.username, PASSWORD).expect_status(200);
    let again = again.json();
    list("limit=1").expect_status(401);
    set(&platform.operator(), json!(["moderator"])).expect_status(200);
    me(platform, &text(&again["accessToken"])).expect_status(401);
    let lesser = refresh(platform, &text(&again["refreshToken"]))
        .expect_status(200)
        .json();
    assert_eq!(lesser["user"]["roles"], json!(["moderator"]));
    platform
        .call("auth", "GET", "/api/users")
        .token(&text(&lesser["accessToken"]))
        .send()
        .expect_status(403);
}

#[test]
fn a_profile_is_changed_and_an_account_deleted_by_its_owner() {
    let platform = Platform::shared();
    let (account, other) = (register(platform, "owner"), register(platform, "other"));
    let patch = |body: Value| {
        platform
            .call("auth", "PATCH", "/api/users/me")
            .token(&account.access)
            .json(&body)
            .send()
    };
    let changed = patch(json!({ "displayName": "The Owner", "bio": "hello" }))
        .expect_status(200)
        .json();
    assert_eq!(
        (&changed["displayName"], &changed["username"]),
        (&json!("The Owner"), &json!(account.username))
    );
    patch(json!({ "bio": "x".repeat(501) })).expect_problem(422, "/bio");
    patch(json!({ "username": other.username })).expect_problem(409, "/username");
    let email = format!("{}@example.net", account.username);
    patch(json!({ "email": email })).expect_problem(422, "/password");
    patch(json!({ "email": email, "password": "not the right words" }))
        .expect_problem(403, "/password");
    assert_eq!(
        patch(json!({ "email": email, "password": PASSWORD }))
            .expect_status(200)
            .json()["email"],
        email
    );

    let delete = |password: &str| {
        platform
            .call("auth", "DELETE", "/api/users/me")
            .token(&account.access)
            .json(&json!({ "password": password }))
            .send()
    };
    delete("not the right words").expect_problem(403, "/password");
    let log = platform
        .call("auth", "GET", "/api/users/me/audit")
        .token(&account.access)
        .send()
        .expect_status(200)
        .text();
    for kind in [
        "account.created",
        "login.succeeded",
        "account.updated",
        "password.refused",
    ] {
        assert!(log.contains(kind), "{kind}: {log}");
    }
    delete(PASSWORD).expect_status(204);
    me(platform, &account.access).expect_status(401);
    platform
        .call("auth", "GET", &format!("/api/users/{}", account.id))
        .send()
        .expect_status(404);
    login(platform, &account.username, PASSWORD).expect_status(401);
}

#[test]
fn what_is_not_a_person_has_no_account() {
    let platform = Platform::shared();
    me(platform, &platform.operator()).expect_problem(403, "not a person's");
    platform
        .call("auth", "GET", "/api/users/me")
        .send()
        .expect_status(401);
}

#[test]
fn no_secret_is_stored_or_logged_and_everything_survives_a_kill() {
    let platform = impatient(1_000);
    let account = register(&platform, "quiet");
    let (secret, recovery) = enrol(&platform, &account.access);
    let challenge = text(
        &login(&platform, &account.username, PASSWORD)
            .expect_status(200)
            .json()["challenge"],
    );
    login(&platform, "not a name", PASSWORD).expect_status(401);

    let secrets = [
        PASSWORD,
        &account.refresh,
        &account.access,
        &secret,
        &recovery[0],
        &recovery[0].replace('-', ""),
        &challenge,
    ];
    let mut files = vec![platform.data.clone()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                std::fs::read_dir(&path)
                    .expect("readable")
                    .map(|entry| entry.expect("an entry").path()),
            );
            continue;
        }
        let bytes = std::fs::read(&path).expect("readable");
        for secret in secrets {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a secret in plain text", path.display());
        }
    }
    let log = platform.log();
    assert!(
        secrets.iter().all(|secret| !log.contains(secret)),
        "a secret is in the log"
    );

    platform.kill();
    platform.restart();
    me(&platform, &account.access).expect_status(200);
    refresh(&platform, &account.refresh).expect_status(200);
    let body = json!({ "challenge": challenge, "code": totp(&secret, 1) });
    post(&platform, "/api/auth/login/mfa", &body).expect_status(200);
}

#[test]
fn the_document_tells_of_every_route_and_its_problems() {
    let platform = Platform::shared();
    let document = platform
        .call("auth", "GET", "/openapi.json")
        .send()
        .expect_status(200)
        .json();
    assert_eq!(document["openapi"], "3.1.0");
    let register = &document["paths"]["/api/auth/register"]["post"];
    assert!(
        register["responses"]["201"].is_object() && register["responses"]["409"].is_object(),
        "{register}"
    );
    assert!(document["paths"]["/oauth/token"]["post"].is_object());
    let health = platform
        .call("auth", "GET", "/health")
        .send()
        .expect_status(200)
        .json();
    assert_eq!(
        (&health["service"], &health["database"]),
        (&json!("exprsn-auth"), &json!(true))
    );
}
