//! The forms of the pages: sign in, second factor, consent.

use super::authorize::{Pending, page_or_error, parse};
use super::browser::Browser;
use super::error::{self, OAuthError, OAuthResult};
use crate::domain::authorize::Progress;
use crate::domain::form::Parameters;
use crate::facts::Facts;
use crate::flow::issue::Account;
use crate::flow::second_factor::Offered;
use crate::flow::sign_in::{self, Outcome, Second};
use exprsn_sdk::prelude::*;

/// A form of ours, given to this browser for this request.
struct Posted {
    pending: Pending,
    form: Parameters,
    facts: Facts,
}

/// Reads a form; one that is not ours is refused, and a request that is no longer good is answered.
async fn read(mut request: Request) -> OAuthResult<std::result::Result<Posted, Response>> {
    let facts = Facts::of(&request);
    let mut form = error::form(&mut request).await?;
    let text = form.take("request").unwrap_or_default();
    let token = form.take("form_token").unwrap_or_default();
    let browser = Browser::of(&request, &facts).await?;
    if !browser.gave(&text, &token).await? {
        let message = "This form is not valid any more. Go back to the application and start again; cookies must be allowed.";
        return Err(OAuthError::invalid_request(message).status(StatusCode::FORBIDDEN));
    }
    let pending = Pending::read(parse(&text)?, browser).await?;
    Ok(pending.map(|pending| Posted {
        pending,
        form,
        facts,
    }))
}

/// `POST /oauth/login`
pub async fn login(request: Request) -> Response {
    page_or_error(try_login(request).await)
}

async fn try_login(request: Request) -> OAuthResult {
    let posted = match read(request).await? {
        Ok(posted) => posted,
        Err(response) => return Ok(response),
    };
    let name = posted
        .form
        .get("username")
        .unwrap_or_default()
        .trim()
        .to_owned();
    let password = posted.form.get("password").unwrap_or_default();
    let Posted { pending, facts, .. } = &posted;
    match sign_in::password(&name, password, facts).await? {
        Outcome::Right(account) => signed_in(posted, account, "pwd").await,
        Outcome::SecondFactor { challenge } => pending.show_second_factor(&challenge, None).await,
        Outcome::Wrong => {
            pending
                .show_login(Some(&name), Some("Name or password is wrong."))
                .await
        }
        Outcome::Wait { retry_after_s } => {
            let shown = pending
                .show_login(Some(&name), Some(&wait_text(retry_after_s)))
                .await?;
            Ok(wait(shown, retry_after_s))
        }
    }
}

/// `POST /oauth/mfa`
pub async fn second_factor(request: Request) -> Response {
    page_or_error(try_second_factor(request).await)
}

async fn try_second_factor(request: Request) -> OAuthResult {
    let posted = match read(request).await? {
        Ok(posted) => posted,
        Err(response) => return Ok(response),
    };
    let challenge = posted.form.get("challenge").unwrap_or_default().to_owned();
    let code = posted.form.get("code").unwrap_or_default();
    let Posted { pending, facts, .. } = &posted;
    match sign_in::second(&challenge, Offered::guess(code), facts).await? {
        Second::Right { account, method } => {
            signed_in(posted, account, &format!("pwd {method} mfa")).await
        }
        Second::Over => {
            pending
                .show_login(
                    None,
                    Some("That took too long, or too many tries. Sign in again."),
                )
                .await
        }
        Second::Wrong => {
            pending
                .show_second_factor(&challenge, Some("The code is wrong, or was used before."))
                .await
        }
        Second::Wait { retry_after_s } => {
            let shown = pending
                .show_second_factor(&challenge, Some(&wait_text(retry_after_s)))
                .await?;
            Ok(wait(shown, retry_after_s))
        }
    }
}

fn wait_text(retry_after_s: u64) -> String {
    format!("Too many failed attempts. Try again in {retry_after_s} seconds.")
}

fn wait(shown: Response, retry_after_s: u64) -> Response {
    shown
        .status(StatusCode::TOO_MANY_REQUESTS)
        .header("retry-after", retry_after_s.to_string())
}

async fn signed_in(posted: Posted, account: Account, methods: &str) -> OAuthResult {
    let Posted {
        mut pending, facts, ..
    } = posted;
    let present = pending.browser.session.as_ref().map(|(session, _)| session);
    let (session, cookie) =
        sign_in::open_browser_session(present, &account, methods, &facts).await?;
    pending.browser.signed_in(session, account.user, &cookie);
    pending
        .advance(
            Progress {
                logged_in: true,
                agreed: false,
            },
            &facts,
        )
        .await
}

/// `POST /oauth/consent`
pub async fn consent(request: Request) -> Response {
    page_or_error(try_consent(request).await)
}

async fn try_consent(request: Request) -> OAuthResult {
    let Posted {
        mut pending,
        form,
        facts,
    } = match read(request).await? {
        Ok(posted) => posted,
        Err(response) => return Ok(response),
    };
    // The token of the form binds the session, so whoever agrees is who was asked. Without a session nobody was asked.
    let agreed = form.get("decision") == Some("allow") && pending.browser.session.is_some();
    if agreed {
        pending
            .advance(
                Progress {
                    logged_in: false,
                    agreed: true,
                },
                &facts,
            )
            .await
    } else {
        Ok(pending.refuse("access_denied", "the person did not allow it"))
    }
}
