//! What people see while a client waits: the authorization endpoint and its pages.

use super::browser::{Browser, parameter};
use super::oauth::{CALLBACK, Client, authorize_path, client, sign_in_and_allow, tokens};
use super::{PASSWORD, enrol, register, text, totp};
use crate::harness::Platform;

/// The location of a redirect to the client.
fn sent_to(answer: &crate::harness::Answer) -> String {
    assert_eq!(answer.status, 303, "{}", answer.text());
    answer.header("location").to_owned()
}

#[test]
fn pages_are_bound_to_a_strict_policy() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let page = Browser::new(platform)
        .open(&authorize_path(&client, &[]))
        .expect_status(200);
    let policy = page.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "frame-ancestors 'none'",
        "form-action 'self' https://app.example.org;",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert_eq!(
        (page.header("x-frame-options"), page.header("cache-control")),
        ("DENY", "no-store")
    );
    assert_eq!(page.header("referrer-policy"), "no-referrer");
    assert!(
        page.text().contains("Test &lt;client&gt;"),
        "the client's name is escaped"
    );
}

#[test]
fn a_person_signs_in_allows_and_is_not_asked_again() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let account = register(platform, "page");
    let mut browser = Browser::new(platform);
    let page = browser
        .open(&authorize_path(&client, &[]))
        .expect_status(200);
    let again = browser
        .sign_in(&page, &account.username, "not the right words")
        .expect_status(401);
    assert!(again.text().contains("role=\"alert\"") && again.text().contains(&account.username));
    let consent = browser
        .sign_in(&again, &account.username, PASSWORD)
        .expect_status(200);
    assert!(
        consent.text().contains("See your email address"),
        "{}",
        consent.text()
    );
    let location = sent_to(&browser.submit(&consent, "consent", &[("decision", "allow")]));
    assert!(
        location.starts_with(&format!("{CALLBACK}?code=")),
        "{location}"
    );
    assert_eq!(
        parameter(&location, "state").as_deref(),
        Some("a state & more")
    );
    assert_eq!(
        parameter(&location, "iss").as_deref(),
        Some("http://127.0.0.1:3001")
    );

    // The same browser is neither asked who it is nor whether it agrees; a further scope is asked for.
    assert!(sent_to(&browser.open(&authorize_path(&client, &[]))).contains("code="));
    assert!(
        sent_to(&browser.open(&authorize_path(&client, &[("prompt", "none")]))).contains("code=")
    );
    browser
        .open(&authorize_path(&client, &[("prompt", "consent")]))
        .expect_status(200);
    let more = browser
        .open(&authorize_path(&client, &[("scope", "openid read")]))
        .expect_status(200);
    assert!(more.text().contains("Read what you can read"));
    let login = browser
        .open(&authorize_path(&client, &[("prompt", "login")]))
        .expect_status(200);
    assert!(login.text().contains("<h1>Sign in</h1>"));
    assert!(sent_to(&browser.sign_in(&login, &account.username, PASSWORD)).contains("code="));
    let stale = browser.open(&authorize_path(&client, &[("max_age", "0")]));
    assert!(
        stale.status == 200 || stale.header("location").contains("code="),
        "within the same second it is fresh"
    );
}

#[test]
fn denying_tells_the_client() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let account = register(platform, "deny");
    let mut browser = Browser::new(platform);
    let page = browser.open(&authorize_path(&client, &[]));
    let cancelled = sent_to(&browser.submit(&page, "consent", &[("decision", "deny")]));
    assert_eq!(
        parameter(&cancelled, "error").as_deref(),
        Some("access_denied")
    );
    // Nobody is signed in here, so nobody can have agreed.
    let forced = sent_to(&browser.submit(&page, "consent", &[("decision", "allow")]));
    assert_eq!(
        parameter(&forced, "error").as_deref(),
        Some("access_denied")
    );
    let consent = browser
        .sign_in(&page, &account.username, PASSWORD)
        .expect_status(200);
    let denied = sent_to(&browser.submit(&consent, "consent", &[("decision", "deny")]));
    assert_eq!(
        parameter(&denied, "error").as_deref(),
        Some("access_denied")
    );
    assert_eq!(
        parameter(&denied, "state").as_deref(),
        Some("a state & more")
    );
}

#[test]
fn the_second_factor_is_asked_for_on_the_page_too() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let account = register(platform, "page-mfa");
    let (secret, _) = enrol(platform, &account.access);
    let mut browser = Browser::new(platform);
    let page = browser.open(&authorize_path(&client, &[]));
    let second = browser
        .sign_in(&page, &account.username, PASSWORD)
        .expect_status(200);
    assert!(second.text().contains("one-time-code"), "{}", second.text());
    let wrong = browser
        .submit(&second, "mfa", &[("code", "000000")])
        .expect_status(401);
    let consent = browser
        .submit(&wrong, "mfa", &[("code", &totp(&secret, 1))])
        .expect_status(200);
    let location = sent_to(&browser.submit(&consent, "consent", &[("decision", "allow")]));
    let issued = tokens(platform, &client, &location);
    let claims = super::oauth::payload(&text(&issued["id_token"]));
    assert_eq!(claims["amr"], serde_json::json!(["pwd", "otp", "mfa"]));
}

#[test]
fn nobody_is_sent_to_an_address_in_doubt() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let mut browser = Browser::new(platform);
    let unknown = Client {
        id: "unknown".to_owned(),
        ..client.clone()
    };
    for path in [
        authorize_path(&unknown, &[]),
        authorize_path(&client, &[("redirect_uri", "https://evil.example/cb")]),
        authorize_path(&client, &[("redirect_uri", "https://app.example.org/cb/")]),
        authorize_path(
            &client,
            &[("redirect_uri", "http://127.0.0.1.evil.example/cb")],
        ),
        "/oauth/authorize".to_owned(),
        format!("{}&client_id=other", authorize_path(&client, &[])),
    ] {
        let page = browser.open(&path).expect_status(400);
        assert_eq!(page.header("location"), "", "{path}");
        assert!(
            page.header("content-type").starts_with("text/html"),
            "{path}"
        );
    }
    // The port of a loopback address is free (RFC 8252).
    browser
        .open(&authorize_path(
            &client,
            &[("redirect_uri", "http://127.0.0.1:49152/cb")],
        ))
        .expect_status(200);
}

#[test]
fn other_faults_are_told_to_the_client() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let mut browser = Browser::new(platform);
    for (change, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("scope", "everything"), "invalid_scope"),
        (("prompt", "none"), "login_required"),
        (("prompt", "none login"), "invalid_request"),
        (("request", "x.y.z"), "request_not_supported"),
    ] {
        let location = sent_to(&browser.open(&authorize_path(&client, &[change])));
        assert!(location.starts_with(CALLBACK), "{location}");
        assert_eq!(
            parameter(&location, "error").as_deref(),
            Some(error),
            "{change:?}"
        );
        assert_eq!(
            parameter(&location, "state").as_deref(),
            Some("a state & more")
        );
        assert_eq!(
            parameter(&location, "iss").as_deref(),
            Some("http://127.0.0.1:3001")
        );
    }
}

#[test]
fn a_form_is_good_in_its_own_browser_only() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let account = register(platform, "forged");
    let page = Browser::new(platform).open(&authorize_path(&client, &[]));
    let mut other = Browser::new(platform);
    other.open(&authorize_path(&client, &[]));
    let refused = other
        .sign_in(&page, &account.username, PASSWORD)
        .expect_status(403);
    assert!(refused.text().contains("not valid any more"));
    let fields = [
        ("username", account.username.as_str()),
        ("password", PASSWORD),
        ("request", "client_id=x"),
    ];
    platform
        .call("auth", "POST", "/oauth/login")
        .form(&fields)
        .send()
        .expect_status(403);
}

#[test]
fn the_request_may_come_as_a_form() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let path = authorize_path(&client, &[]);
    let query = path.split_once('?').expect("a query").1.to_owned();
    let call = platform
        .call("auth", "POST", "/oauth/authorize")
        .body("application/x-www-form-urlencoded", query);
    let location = sent_to(&call.send());
    assert!(
        location.starts_with("http://127.0.0.1:3001/oauth/authorize?"),
        "{location}"
    );
    assert_eq!(parameter(&location, "client_id"), Some(client.id));
}

#[test]
fn a_client_signs_its_person_out() {
    let platform = Platform::shared();
    let client = client(platform, &[]);
    let account = register(platform, "leave");
    let mut browser = Browser::new(platform);
    let location = sign_in_and_allow(&mut browser, &client, &account.username, &[]);
    let issued = tokens(platform, &client, &location);
    let after = "https%3A%2F%2Fapp.example.org%2Fbye";
    let logout = |rest: &str| format!("/oauth/logout?client_id={}{rest}", client.id);

    browser
        .open(&logout(
            "&post_logout_redirect_uri=https%3A%2F%2Fevil.example%2F",
        ))
        .expect_status(400);
    // Without an ID token anybody may have made the link: the person is asked.
    let question = browser
        .open(&logout(&format!(
            "&post_logout_redirect_uri={after}&state=s"
        )))
        .expect_status(200);
    assert!(question.text().contains("Sign out?"));
    assert!(
        sent_to(&browser.open(&authorize_path(&client, &[("prompt", "none")]))).contains("code=")
    );

    let hint = format!(
        "&id_token_hint={}&post_logout_redirect_uri={after}&state=s",
        text(&issued["id_token"])
    );
    let location = sent_to(&browser.open(&logout(&hint)));
    assert_eq!(location, "https://app.example.org/bye?state=s");
    let location = sent_to(&browser.open(&authorize_path(&client, &[("prompt", "none")])));
    assert_eq!(
        parameter(&location, "error").as_deref(),
        Some("login_required")
    );
    let userinfo = platform
        .call("auth", "GET", "/oauth/userinfo")
        .token(&text(&issued["access_token"]))
        .send();
    userinfo.expect_status(401);

    let page = browser.open(&authorize_path(&client, &[]));
    sent_to(&browser.sign_in(&page, &account.username, PASSWORD));
    let question = browser.open("/oauth/logout").expect_status(200);
    let done = browser
        .submit(&question, "logout", &[("decision", "allow")])
        .expect_status(200);
    assert!(done.text().contains("You are signed out"));
    assert!(
        sent_to(&browser.open(&authorize_path(&client, &[("prompt", "none")])))
            .contains("login_required")
    );
}
