//! The person at the browser: the session's cookie, and the proof that a form is ours.
//!
//! **Invariant:** a form's token is an HMAC over the browser's own random cookie, its session and the request that the form
//! carries, so it is good in this browser, for this person, for this request, and nowhere else.

use super::error::OAuthResult;
use crate::domain::secret;
use crate::facts::{Facts, new_secret};
use crate::page::Page;
use crate::settings::settings;
use crate::store::sessions::{self, Session};
use crate::store::users::{self, User};
use data_encoding::BASE64URL_NOPAD;
use exprsn_sdk::prelude::*;

const SESSION_COOKIE: &str = "exprsn_session";
const FORM_COOKIE: &str = "exprsn_form";
/// Characters of the cookies' values; others are not ours.
const COOKIE_CHARS: usize = 43;

/// A browser, and who is signed in there.
pub struct Browser {
    pub session: Option<(Session, User)>,
    /// Of the session's cookie; empty without one.
    session_digest: String,
    form_cookie: String,
    /// `Set-Cookie` fields that the answer must carry.
    set_cookies: Vec<String>,
}

impl Browser {
    /// Reads the cookies of a request.
    pub async fn of(request: &Request, facts: &Facts) -> OAuthResult<Self> {
        let mut browser = Self {
            session: None,
            session_digest: String::new(),
            form_cookie: cookie(request, FORM_COOKIE).unwrap_or_default(),
            set_cookies: Vec::new(),
        };
        if browser.form_cookie.is_empty() {
            browser.form_cookie = new_secret();
            browser
                .set_cookies
                .push(set_cookie(FORM_COOKIE, &browser.form_cookie, None));
        }
        if let Some(value) = cookie(request, SESSION_COOKIE) {
            let digest = secret::digest(&value);
            if let Some(session) = sessions::by_cookie(&digest, facts.now).await?
                && let Some(user) = users::by_id(&session.user_id).await?
            {
                browser.session = Some((session, user));
                browser.session_digest = digest;
            }
        }
        Ok(browser)
    }

    /// Notes that a person has signed in: later forms are theirs, and the answer carries the cookie.
    pub fn signed_in(&mut self, session: Session, user: User, cookie: &str) {
        self.session_digest = secret::digest(cookie);
        self.session = Some((session, user));
        let max_age_s = settings().browser_session_ms / 1_000;
        self.set_cookies
            .push(set_cookie(SESSION_COOKIE, cookie, Some(max_age_s)));
    }

    /// Notes that the person has signed out.
    pub fn signed_out(&mut self) {
        self.session_digest.clear();
        self.session = None;
        self.set_cookies
            .push(set_cookie(SESSION_COOKIE, "", Some(0)));
    }

    /// The token of a form that carries `request`.
    pub async fn form_token(&self, request: &str) -> OAuthResult<String> {
        let text = format!("{}\n{}\n{request}", self.form_cookie, self.session_digest);
        Ok(BASE64URL_NOPAD.encode(&ca::hmac("form", text).await?))
    }

    /// Whether a form that carries `request` is one that we gave to this browser.
    pub async fn gave(&self, request: &str, token: &str) -> OAuthResult<bool> {
        Ok(secret::same(&self.form_token(request).await?, token))
    }

    /// A page as answer.
    pub fn show(&self, status: StatusCode, page: Page) -> Response {
        self.dress(
            Response::new(status)
                .header("content-type", "text/html; charset=utf-8")
                .header("content-security-policy", page.policy)
                .header("x-frame-options", "DENY")
                .body(page.html),
        )
    }

    /// A redirect as answer: 303, so that a form's content is never sent on (RFC 9700 §4.12).
    pub fn send_to(&self, location: &str) -> Response {
        self.dress(Response::new(StatusCode::SEE_OTHER).header("location", location))
    }

    fn dress(&self, response: Response) -> Response {
        let mut response = response
            .header("cache-control", "no-store")
            .header("referrer-policy", "no-referrer")
            .header("x-content-type-options", "nosniff");
        for cookie in &self.set_cookies {
            response.headers.append("set-cookie", cookie.as_str());
        }
        response
    }
}

fn cookie(request: &Request, name: &str) -> Option<String> {
    let pairs = request
        .headers()
        .get_all("cookie")
        .flat_map(|value| value.split(';'));
    let found = pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(n, _)| *n == name);
    let ours = |value: &&str| {
        value.len() == COOKIE_CHARS && BASE64URL_NOPAD.decode(value.as_bytes()).is_ok()
    };
    found
        .map(|(_, value)| value)
        .filter(ours)
        .map(str::to_owned)
}

fn set_cookie(name: &str, value: &str, max_age_s: Option<i64>) -> String {
    let settings = settings();
    let age = max_age_s
        .map(|s| format!("; Max-Age={s}"))
        .unwrap_or_default();
    let secure = if settings.is_https() { "; Secure" } else { "" };
    format!(
        "{name}={value}; Path={}; HttpOnly; SameSite=Lax{age}{secure}",
        settings.cookie_path()
    )
}
