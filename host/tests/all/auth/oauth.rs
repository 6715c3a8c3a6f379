//! The endpoints that clients call: discovery, token, userinfo, introspection, revocation, registration.

use super::browser::{Browser, parameter};
use super::{PASSWORD, register, text};
use crate::harness::{Answer, Platform};
use aws_lc_rs::{digest, signature};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub const CALLBACK: &str = "https://app.example.org/cb";
// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// A registered client.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: String,
    pub secret: String,
}

/// Registers a confidential client that may do everything; `changes` replace fields.
pub fn client(platform: &Platform, changes: &[(&str, Value)]) -> Client {
    let mut body = json!({
        "name": "Test <client>",
        "redirectUris": [CALLBACK, "http://127.0.0.1/cb"],
        "postLogoutRedirectUris": ["https://app.example.org/bye"],
        "grantTypes": ["authorization_code", "refresh_token", "client_credentials"],
        "scope": "openid profile email offline_access read write",
    });
    for (name, value) in changes {
        body[*name] = value.clone();
    }
    let answer = platform
        .call("auth", "POST", "/api/clients")
        .token(&platform.operator())
        .json(&body)
        .send();
    let answer = answer.expect_status(201).json();
    Client {
        id: text(&answer["id"]),
        secret: answer["clientSecret"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    }
}

/// The path of an authorization request; `changes` replace parameters.
pub fn authorize_path(client: &Client, changes: &[(&str, &str)]) -> String {
    let mut parameters = vec![
        ("response_type", "code"),
        ("client_id", client.id.as_str()),
        ("redirect_uri", CALLBACK),
        ("scope", "openid profile email"),
        ("state", "a state & more"),
        ("nonce", "n-1"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    parameters.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    parameters.extend(changes);
    let encode = |text: &str| {
        text.bytes()
            .map(|b| match b {
                b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => char::from(b).to_string(),
                b => format!("%{b:02X}"),
            })
            .collect::<String>()
    };
    let query: Vec<String> = parameters
        .iter()
        .map(|(n, v)| format!("{n}={}", encode(v)))
        .collect();
    format!("/oauth/authorize?{}", query.join("&"))
}

/// Goes through sign-in and consent; answers where the browser is sent.
pub fn sign_in_and_allow(
    browser: &mut Browser<'_>,
    client: &Client,
    name: &str,
    changes: &[(&str, &str)],
) -> String {
    let page = browser
        .open(&authorize_path(client, changes))
        .expect_status(200);
    let consent = browser.sign_in(&page, name, PASSWORD).expect_status(200);
    let answer = browser
        .submit(&consent, "consent", &[("decision", "allow")])
        .expect_status(303);
    answer.header("location").to_owned()
}

fn basic(client: &Client) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{}:{}", client.id, client.secret))
    )
}

fn token_call(platform: &Platform, client: &Client, fields: &[(&str, &str)]) -> Answer {
    platform
        .call("auth", "POST", "/oauth/token")
        .header("authorization", &basic(client))
        .form(fields)
        .send()
}

fn exchange(platform: &Platform, client: &Client, code: &str, verifier: &str) -> Answer {
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", CALLBACK),
        ("code_verifier", verifier),
    ];
    token_call(platform, client, &fields)
}

/// The tokens for the code in `location`.
pub fn tokens(platform: &Platform, client: &Client, location: &str) -> Value {
    let code = parameter(location, "code").unwrap_or_else(|| panic!("no code in {location}"));
    exchange(platform, client, &code, VERIFIER)
        .expect_status(200)
        .json()
}

/// The tokens of a new person who has signed in and allowed `scope`.
fn tokens_of_somebody(
    platform: &Platform,
    client: &Client,
    scope: &str,
) -> (super::Account, Value) {
    let account = register(platform, "oauth");
    let mut browser = Browser::new(platform);
    let location = sign_in_and_allow(&mut browser, client, &account.username, &[("scope", scope)]);
    (account, tokens(platform, client, &location))
}

/// The claims of a JWT, unverified.
pub fn payload(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

/// Verifies an RS256 token with the published keys, and answers its claims.
fn verified(platform: &Platform, token: &str) -> Value {
    let keys = platform
        .call("auth", "GET", "/oauth/jwks")
        .send()
        .expect_status(200)
        .json();
    let (signed, tag) = token.rsplit_once('.').expect("three parts");
    let header = signed.split('.').next().expect("a header");
    let header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).expect("base64url")).expect("JSON");
    assert_eq!(header["alg"], "RS256");
    let key = keys["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .find(|key| key["kid"] == header["kid"])
        .expect("the key");
    let part = |name: &str| {
        URL_SAFE_NO_PAD
            .decode(key[name].as_str().expect("text"))
            .expect("base64url")
    };
    let (n, e) = (part("n"), part("e"));
    let tag = URL_SAFE_NO_PAD.decode(tag).expect("base64url");
    signature::RsaPublicKeyComponents { n: &n, e: &e }
        .verify(
            &signature::RSA_PKCS1_2048_8192_SHA256,
            signed.as_bytes(),
            &tag,
        )
        .expect("the signature is good");
    payload(token)
}

#[test]
fn discovery_tells_what_clients_need() {
    let platform = Platform::shared();
    let issuer = "http://127.0.0.1:3001";
    for path in [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
    ] {
        let answer = platform.call("auth", "GET", path).send().expect_status(200);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let document = answer.json();
        assert_eq!(document["issuer"], issuer);
        assert_eq!(document["token_endpoint"], format!("{issuer}/oauth/token"));
        assert_eq!(
            document["code_challenge_methods_supported"],
            json!(["S256"])
        );
        assert_eq!(document["response_types_supported"], json!(["code"]));
        assert_eq!(
            document["id_token_signing_alg_values_supported"],
            json!(["RS256"])
        );
        assert_eq!(
            document["authorization_response_iss_parameter_supported"],
            true
        );
    }
    let keys = platform
        .call("auth", "GET", "/oauth/jwks")
        .send()
        .expect_status(200)
        .json();
    let has = |name: &str, value: &str| {
        keys["keys"]
            .as_array()
            .expect("keys")
            .iter()
            .any(|key| key[name] == value)
    };
    assert!(
        has("alg", "RS256") && has("kty", "OKP"),
        "keys of ID tokens and of the authority: {keys}"
    );
    assert!(!keys.to_string().contains("\"d\":"), "a private key");
}

#[test]
fn a_code_becomes_tokens_and_tokens_tell_about_the_person() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let (account, issued) = tokens_of_somebody(platform, &client, "openid profile email");
    assert_eq!(
        (&issued["token_type"], &issued["expires_in"]),
        (&json!("Bearer"), &json!(900))
    );
    assert_eq!(issued["scope"], "openid profile email");
    let claims = verified(platform, &text(&issued["id_token"]));
    assert_eq!(claims["iss"], "http://127.0.0.1:3001");
    assert_eq!(
        (&claims["sub"], &claims["aud"]),
        (&json!(account.id), &json!(client.id))
    );
    assert_eq!(
        (&claims["nonce"], &claims["preferred_username"]),
        (&json!("n-1"), &json!(account.username))
    );
    assert_eq!(
        (&claims["email_verified"], &claims["amr"]),
        (&json!(false), &json!(["pwd"]))
    );
    let hash = digest::digest(&digest::SHA256, text(&issued["access_token"]).as_bytes());
    assert_eq!(
        claims["at_hash"],
        URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16])
    );
    assert!(
        claims["auth_time"].as_i64().expect("a number")
            <= claims["iat"].as_i64().expect("a number")
    );

    let access = text(&issued["access_token"]);
    for method in ["GET", "POST"] {
        let answer = platform
            .call("auth", method, "/oauth/userinfo")
            .token(&access)
            .send()
            .expect_status(200)
            .json();
        assert_eq!(
            (&answer["sub"], &answer["name"]),
            (&json!(account.id), &json!(account.username))
        );
        assert_eq!(answer["email"], format!("{}@example.org", account.username));
    }
    // Signing in with an account does not hand the account over.
    platform
        .call("auth", "GET", "/api/users/me")
        .token(&access)
        .send()
        .expect_status(403);
    platform
        .call("auth", "DELETE", "/api/auth/sessions")
        .token(&access)
        .send()
        .expect_status(403);
}

#[test]
fn a_scope_that_names_a_permission_gives_that_permission() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let (_, issued) = tokens_of_somebody(platform, &client, "read");
    assert!(issued.get("id_token").is_none(), "openid was not asked for");
    let access = text(&issued["access_token"]);
    platform
        .call("auth", "GET", "/api/users/me")
        .token(&access)
        .send()
        .expect_status(200);
    platform
        .call("auth", "PATCH", "/api/users/me")
        .token(&access)
        .json(&json!({ "bio": "x" }))
        .send()
        .expect_status(403);
    let refused = platform
        .call("auth", "GET", "/oauth/userinfo")
        .token(&access)
        .send()
        .expect_status(403);
    assert!(
        refused
            .header("www-authenticate")
            .contains("insufficient_scope")
    );
}

#[test]
fn a_code_is_good_once_for_its_client_and_its_verifier() {
    let platform = Platform::shared();
    let (client, other) = (client(platform, &[]), client(platform, &[]));
    let account = register(platform, "code");
    let mut browser = Browser::new(platform);
    let location = sign_in_and_allow(&mut browser, &client, &account.username, &[]);
    let code = parameter(&location, "code").expect("a code");
    let refused =
        |answer: Answer| assert_eq!(answer.expect_status(400).json()["error"], "invalid_grant");
    refused(exchange(platform, &other, &code, VERIFIER));
    refused(exchange(
        platform,
        &client,
        &code,
        &VERIFIER.replace('d', "e"),
    ));
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", "http://127.0.0.1/cb"),
        ("code_verifier", VERIFIER),
    ];
    refused(token_call(platform, &client, &fields));
    let issued = exchange(platform, &client, &code, VERIFIER)
        .expect_status(200)
        .json();
    let userinfo = || {
        platform
            .call("auth", "GET", "/oauth/userinfo")
            .token(&text(&issued["access_token"]))
            .send()
    };
    userinfo().expect_status(200);
    refused(exchange(platform, &client, &code, VERIFIER));
    userinfo().expect_status(401);
    let fields = [
        ("grant_type", "refresh_token"),
        (
            "refresh_token",
            issued["refresh_token"].as_str().expect("text"),
        ),
    ];
    refused(token_call(platform, &client, &fields));
}

#[test]
fn refresh_rotates_narrows_and_notices_a_second_use() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let (_, issued) = tokens_of_somebody(platform, &client, "openid offline_access read write");
    let exchange = |token: &str, scope: &str| {
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("scope", scope),
        ];
        token_call(platform, &client, &fields)
    };
    let first = text(&issued["refresh_token"]);
    let second = exchange(&first, "openid read admin")
        .expect_status(200)
        .json();
    assert_eq!(
        second["scope"], "openid read",
        "never more than was granted"
    );
    assert_eq!(
        verified(platform, &text(&second["id_token"]))["sub"],
        payload(&text(&issued["id_token"]))["sub"]
    );
    let third = exchange(&text(&second["refresh_token"]), "")
        .expect_status(200)
        .json();
    assert_eq!(
        third["scope"], "openid offline_access read write",
        "narrowing is for one token"
    );
    assert_eq!(
        exchange(&first, "").expect_status(400).json()["error"],
        "invalid_grant"
    );
    exchange(&text(&third["refresh_token"]), "").expect_status(400);
    platform
        .call("auth", "GET", "/oauth/userinfo")
        .token(&text(&third["access_token"]))
        .send()
        .expect_status(401);
}

#[test]
fn an_offline_grant_outlives_its_session_until_its_owner_ends_it() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let (account, issued) = tokens_of_somebody(platform, &client, "openid offline_access");
    let sessions = platform
        .call("auth", "GET", "/api/auth/sessions")
        .token(&account.access)
        .send()
        .json();
    let browser = sessions["items"]
        .as_array()
        .expect("items")
        .iter()
        .find(|item| item["kind"] == "browser");
    let path = format!(
        "/api/auth/sessions/{}",
        text(&browser.expect("the page's session")["id"])
    );
    platform
        .call("auth", "DELETE", &path)
        .token(&account.access)
        .send()
        .expect_status(204);
    let fields = [
        ("grant_type", "refresh_token"),
        (
            "refresh_token",
            issued["refresh_token"].as_str().expect("text"),
        ),
    ];
    let refreshed = token_call(platform, &client, &fields)
        .expect_status(200)
        .json();

    let grants = platform
        .call("auth", "GET", "/api/auth/grants")
        .token(&account.access)
        .send()
        .expect_status(200)
        .json();
    assert_eq!(
        (
            &grants["items"][0]["clientName"],
            &grants["items"][0]["kind"]
        ),
        (&json!("Test <client>"), &json!("offline"))
    );
    let path = format!("/api/auth/grants/{}", text(&grants["items"][0]["id"]));
    platform
        .call("auth", "DELETE", &path)
        .token(&account.access)
        .send()
        .expect_status(204);
    let fields = [
        ("grant_type", "refresh_token"),
        (
            "refresh_token",
            refreshed["refresh_token"].as_str().expect("text"),
        ),
    ];
    token_call(platform, &client, &fields).expect_status(400);
    platform
        .call("auth", "DELETE", &path)
        .token(&account.access)
        .send()
        .expect_status(404);
}

#[test]
fn clients_act_in_their_own_name() {
    let platform = Platform::shared();
    let own = client(platform, &[]);
    let issued = token_call(
        platform,
        &own,
        &[
            ("grant_type", "client_credentials"),
            ("scope", "read openid admin"),
        ],
    );
    assert_eq!(
        (issued.header("cache-control"), issued.header("pragma")),
        ("no-store", "no-cache")
    );
    let issued = issued.expect_status(200).json();
    assert_eq!(issued["scope"], "read");
    assert!(issued.get("refresh_token").is_none() && issued.get("id_token").is_none());
    let access = text(&issued["access_token"]);
    assert_eq!(payload(&access)["sub"], format!("client:{}", own.id));
    platform
        .call("auth", "GET", "/api/users/me")
        .token(&access)
        .send()
        .expect_problem(403, "not a person's");
    // With the secret in the form, and with the method that was not registered: both are the same proof.
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", own.id.as_str()),
        ("client_secret", own.secret.as_str()),
    ];
    platform
        .call("auth", "POST", "/oauth/token")
        .form(&fields)
        .send()
        .expect_status(200);

    let path = format!("/api/clients/{}", own.id);
    platform
        .call("auth", "DELETE", &path)
        .token(&platform.operator())
        .send()
        .expect_status(204);
    platform
        .call("auth", "GET", "/api/users/me")
        .token(&access)
        .send()
        .expect_status(401);
    token_call(platform, &own, &[("grant_type", "client_credentials")]).expect_status(401);
}

#[test]
fn token_errors_are_those_of_the_rfc() {
    let platform = Platform::shared();
    let own = client(platform, &[("grantTypes", json!(["authorization_code"]))]);
    let public = client(
        platform,
        &[
            ("tokenEndpointAuthMethod", json!("none")),
            ("grantTypes", json!(["authorization_code"])),
        ],
    );
    assert_eq!(public.secret, "");
    let error = |answer: Answer, status: u16, error: &str| {
        let answer = answer.expect_status(status);
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.json()["error"], error, "{}", answer.text());
        answer
    };
    let wrong = Client {
        secret: "wrong".to_owned(),
        ..own.clone()
    };
    let refused = error(
        token_call(platform, &wrong, &[("grant_type", "authorization_code")]),
        401,
        "invalid_client",
    );
    assert!(refused.header("www-authenticate").starts_with("Basic "));
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", own.id.as_str()),
    ];
    let refused = error(
        platform
            .call("auth", "POST", "/oauth/token")
            .form(&fields)
            .send(),
        401,
        "invalid_client",
    );
    assert_eq!(refused.header("www-authenticate"), "");
    error(
        token_call(platform, &own, &[("grant_type", "password")]),
        400,
        "unsupported_grant_type",
    );
    error(
        token_call(platform, &own, &[("grant_type", "client_credentials")]),
        400,
        "unauthorized_client",
    );
    error(token_call(platform, &own, &[]), 400, "invalid_request");
    error(
        token_call(platform, &own, &[("grant_type", "authorization_code")]),
        400,
        "invalid_request",
    );
    error(
        exchange(platform, &own, "nonsense", VERIFIER),
        400,
        "invalid_grant",
    );
    let twice = [
        ("grant_type", "authorization_code"),
        ("grant_type", "authorization_code"),
    ];
    error(token_call(platform, &own, &twice), 400, "invalid_request");
    let call = platform
        .call("auth", "POST", "/oauth/token")
        .header("authorization", &basic(&own))
        .json(&json!({}));
    error(call.send(), 400, "invalid_request");
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", public.id.as_str()),
        ("code", "x"),
        ("code_verifier", VERIFIER),
    ];
    error(
        platform
            .call("auth", "POST", "/oauth/token")
            .form(&fields)
            .send(),
        400,
        "invalid_grant",
    );
}

#[test]
fn a_public_client_needs_no_secret_and_its_grants_end_with_their_session() {
    let platform = Platform::shared();
    let public = client(
        platform,
        &[
            ("tokenEndpointAuthMethod", json!("none")),
            ("grantTypes", json!(["authorization_code", "refresh_token"])),
        ],
    );
    let account = register(platform, "native");
    let mut browser = Browser::new(platform);
    let redirect = "http://127.0.0.1:51004/cb";
    let location = sign_in_and_allow(
        &mut browser,
        &public,
        &account.username,
        &[("redirect_uri", redirect)],
    );
    assert!(location.starts_with(redirect));
    let call = |fields: &[(&str, &str)]| {
        platform
            .call("auth", "POST", "/oauth/token")
            .form(fields)
            .send()
    };
    let code = parameter(&location, "code").expect("a code");
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", public.id.as_str()),
        ("code", code.as_str()),
        ("redirect_uri", redirect),
        ("code_verifier", VERIFIER),
    ];
    let issued = call(&fields).expect_status(200).json();
    platform
        .call("auth", "DELETE", "/api/auth/sessions")
        .token(&account.access)
        .send()
        .expect_status(204);
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", public.id.as_str()),
        (
            "refresh_token",
            issued["refresh_token"].as_str().expect("text"),
        ),
    ];
    call(&fields).expect_status(400);
}

#[test]
fn tokens_are_introspected_and_revoked_by_those_who_may() {
    let platform = Platform::shared();
    let (own, other) = (client(platform, &[]), client(platform, &[]));
    let public = client(
        platform,
        &[
            ("tokenEndpointAuthMethod", json!("none")),
            ("grantTypes", json!(["authorization_code"])),
        ],
    );
    let (account, issued) = tokens_of_somebody(platform, &own, "openid read");
    let (access, refresh) = (
        text(&issued["access_token"]),
        text(&issued["refresh_token"]),
    );
    let ask = |client: &Client, token: &str| {
        let call = platform
            .call("auth", "POST", "/oauth/introspect")
            .header("authorization", &basic(client));
        call.form(&[("token", token)])
            .send()
            .expect_status(200)
            .json()
    };
    let seen = ask(&other, &access);
    assert_eq!(
        (&seen["active"], &seen["sub"], &seen["client_id"]),
        (&json!(true), &json!(account.id), &json!(own.id))
    );
    assert_eq!(
        (&seen["scope"], &seen["permissions"]),
        (&json!("openid read"), &json!(["read"]))
    );
    assert_eq!(ask(&own, &refresh)["active"], true);
    assert_eq!(
        ask(&other, &refresh),
        json!({ "active": false }),
        "another client's refresh token"
    );
    assert_eq!(ask(&own, "a.b.c"), json!({ "active": false }));
    assert_eq!(ask(&own, "nonsense"), json!({ "active": false }));
    let fields = [
        ("token", access.as_str()),
        ("client_id", public.id.as_str()),
    ];
    platform
        .call("auth", "POST", "/oauth/introspect")
        .form(&fields)
        .send()
        .expect_status(401);

    let revoke = |client: &Client, token: &str| {
        let call = platform
            .call("auth", "POST", "/oauth/revoke")
            .header("authorization", &basic(client));
        call.form(&[("token", token), ("token_type_hint", "access_token")])
            .send()
            .expect_status(200);
    };
    revoke(&other, &access);
    revoke(&other, &refresh);
    revoke(&own, "nonsense");
    assert_eq!(
        ask(&own, &access)["active"],
        true,
        "another client cannot revoke it"
    );
    revoke(&own, &access);
    assert_eq!(ask(&own, &access), json!({ "active": false }));
    assert_eq!(ask(&own, &refresh)["active"], true);
    revoke(&own, &refresh);
    assert_eq!(ask(&own, &refresh), json!({ "active": false }));
}

#[test]
fn userinfo_answers_as_bearer_tokens_want_it() {
    let platform = Platform::shared();
    let without = platform
        .call("auth", "GET", "/oauth/userinfo")
        .send()
        .expect_status(401);
    assert_eq!(
        without.header("www-authenticate"),
        "Bearer realm=\"exprsn\""
    );
    let wrong = platform
        .call("auth", "GET", "/oauth/userinfo")
        .token("a.b.c")
        .send()
        .expect_status(401);
    assert!(
        wrong
            .header("www-authenticate")
            .contains("error=\"invalid_token\""),
        "{}",
        wrong.header("www-authenticate")
    );
    for path in ["/oauth/token", "/oauth/userinfo", "/oauth/revoke"] {
        let preflight = platform
            .call("auth", "OPTIONS", path)
            .header("origin", "https://app.example.org")
            .send()
            .expect_status(204);
        assert_eq!(preflight.header("access-control-allow-origin"), "*");
        assert!(
            preflight
                .header("access-control-allow-headers")
                .contains("authorization")
        );
    }
}

#[test]
fn clients_register_with_an_initial_access_token_as_often_as_it_says() {
    let platform = Platform::shared();
    let person = register(platform, "registrar");
    let call = || platform.call("auth", "POST", "/oauth/register");
    let metadata =
        json!({ "client_name": "Dynamic", "redirect_uris": [CALLBACK], "software_id": "ignored" });
    call().json(&metadata).send().expect_status(401);
    call()
        .token(&person.access)
        .json(&metadata)
        .send()
        .expect_status(403);
    let form = json!({ "uses": 2 });
    let path = "/api/clients/initial-access-tokens";
    platform
        .call("auth", "POST", path)
        .token(&person.access)
        .json(&form)
        .send()
        .expect_status(403);
    let issued = platform
        .call("auth", "POST", path)
        .token(&platform.operator())
        .json(&form)
        .send()
        .expect_status(201)
        .json();
    let token = text(&issued["initialAccessToken"]);

    let bad = json!({ "redirect_uris": ["javascript:alert(1)"] });
    assert_eq!(
        call()
            .token(&token)
            .json(&bad)
            .send()
            .expect_status(400)
            .json()["error"],
        "invalid_redirect_uri"
    );
    let made = call()
        .token(&token)
        .json(&metadata)
        .send()
        .expect_status(201)
        .json();
    assert_eq!(
        (&made["client_name"], &made["grant_types"]),
        (&json!("Dynamic"), &json!(["authorization_code"]))
    );
    assert_eq!(
        (&made["scope"], &made["client_secret_expires_at"]),
        (&json!("openid profile email"), &json!(0))
    );
    call()
        .token(&token)
        .json(&metadata)
        .send()
        .expect_status(401);
    platform
        .call("auth", "GET", "/api/clients")
        .token(&token)
        .send()
        .expect_status(401);
    let admin = json!({ "redirect_uris": [CALLBACK], "scope": "openid admin" });
    call()
        .token(&platform.operator())
        .json(&admin)
        .send()
        .expect_status(201);

    let client = Client {
        id: text(&made["client_id"]),
        secret: text(&made["client_secret"]),
    };
    let mut browser = Browser::new(platform);
    let location = sign_in_and_allow(&mut browser, &client, &person.username, &[]);
    let issued = tokens(platform, &client, &location);
    assert!(
        issued.get("refresh_token").is_none(),
        "the grant refresh_token was not registered"
    );
}

#[test]
fn the_administration_of_clients_is_checked() {
    let platform = Platform::shared();
    let operator = platform.operator();
    let create = |body: Value| {
        platform
            .call("auth", "POST", "/api/clients")
            .token(&operator)
            .json(&body)
            .send()
    };
    create(json!({ "name": "x", "redirectUris": ["http://app.example.org/cb"] }))
        .expect_problem(422, "/redirectUris");
    create(json!({ "name": "x", "redirectUris": [CALLBACK], "scope": "root" }))
        .expect_problem(422, "/scope");
    create(json!({ "name": "x" })).expect_problem(422, "/redirectUris");
    create(json!({ "name": "x", "redirectUris": [CALLBACK], "secret": "mine" }))
        .expect_problem(422, "/secret");

    let own = client(platform, &[]);
    let path = format!("/api/clients/{}", own.id);
    let show = platform
        .call("auth", "GET", &path)
        .token(&operator)
        .send()
        .expect_status(200);
    assert!(!show.text().contains("Secret"), "{}", show.text());
    let body = json!({ "name": "Renamed", "redirectUris": [CALLBACK], "grantTypes": ["client_credentials"], "scope": "read" });
    let changed = platform
        .call("auth", "PUT", &path)
        .token(&operator)
        .json(&body)
        .send()
        .expect_status(200)
        .json();
    assert_eq!(changed["name"], "Renamed");
    token_call(platform, &own, &[("grant_type", "client_credentials")]).expect_status(200);
    let renewed = platform
        .call("auth", "POST", &format!("{path}/secret"))
        .token(&operator)
        .send()
        .expect_status(200)
        .json();
    token_call(platform, &own, &[("grant_type", "client_credentials")]).expect_status(401);
    let own = Client {
        secret: text(&renewed["clientSecret"]),
        ..own
    };
    token_call(platform, &own, &[("grant_type", "client_credentials")]).expect_status(200);
    let listed = platform
        .call("auth", "GET", "/api/clients?limit=100")
        .token(&operator)
        .send()
        .expect_status(200);
    assert!(!listed.text().contains(&own.secret));
    platform
        .call("auth", "GET", "/api/clients/nobody")
        .token(&operator)
        .send()
        .expect_problem(404, "nobody");
}
