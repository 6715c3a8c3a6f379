//! Signing out at the request of a client (OpenID Connect RP-Initiated Logout 1.0).

use super::authorize::{page_or_error, parse};
use super::browser::Browser;
use super::error::{self, OAuthError, OAuthResult};
use super::jwks;
use crate::domain::form::Parameters;
use crate::domain::redirect;
use crate::facts::Facts;
use crate::flow::end::{self, Extent};
use crate::page;
use crate::store::clients;
use exprsn_sdk::prelude::*;

/// `GET /oauth/logout`
pub async fn get(request: Request) -> Response {
    page_or_error(ask(request).await)
}

async fn ask(request: Request) -> OAuthResult {
    let facts = Facts::of(&request);
    let browser = Browser::of(&request, &facts).await?;
    let parameters = parse(request.query().unwrap_or_default())?;
    Logout::read(parameters, browser)
        .await?
        .proceed(false, &facts)
        .await
}

/// `POST /oauth/logout`: the client's request as a form, or the person's answer to our question.
pub async fn post(request: Request) -> Response {
    page_or_error(answer(request).await)
}

async fn answer(mut request: Request) -> OAuthResult {
    let facts = Facts::of(&request);
    let form = error::form(&mut request).await?;
    let browser = Browser::of(&request, &facts).await?;
    let Some(token) = form.get("form_token") else {
        return Logout::read(form, browser)
            .await?
            .proceed(false, &facts)
            .await;
    };
    let text = form.get("request").unwrap_or_default();
    if !browser.gave(text, token).await? {
        return Err(
            OAuthError::invalid_request("This form is not valid any more.")
                .status(StatusCode::FORBIDDEN),
        );
    }
    Logout::read(parse(text)?, browser)
        .await?
        .proceed(true, &facts)
        .await
}

/// A request to sign out.
struct Logout {
    browser: Browser,
    text: String,
    /// Where to go afterwards, with `state`; registered by the client.
    target: Option<String>,
    /// The session that a valid hint names.
    hinted_session: Option<String>,
}

impl Logout {
    async fn read(parameters: Parameters, browser: Browser) -> OAuthResult<Self> {
        let hint = jwks::read_hint(parameters.get("id_token_hint")).await?;
        let named = parameters.get("client_id");
        if let (Some(hint), Some(named)) = (&hint, named)
            && hint.aud != named
        {
            return Err(OAuthError::invalid_request(
                "client_id and id_token_hint name different applications.",
            ));
        }
        let client_id = named.or(hint.as_ref().map(|hint| hint.aud.as_str()));
        let target = target(&parameters, client_id).await?;
        let text = parameters.to_query();
        Ok(Self {
            browser,
            text,
            target,
            hinted_session: hint.and_then(|hint| hint.sid),
        })
    }

    /// Signs out when it is certain who asks: the person said so, or the client holds an ID token of this very session.
    async fn proceed(mut self, confirmed: bool, facts: &Facts) -> OAuthResult {
        let Some((session, user)) = &self.browser.session else {
            return Ok(self.done());
        };
        if !confirmed && self.hinted_session.as_deref() != Some(session.id.as_str()) {
            let token = self.browser.form_token(&self.text).await?;
            let page = page::confirm_logout(
                &self.text,
                &token,
                self.target.as_deref().unwrap_or_default(),
            );
            return Ok(self.browser.show(StatusCode::OK, page));
        }
        let tx = sql::begin().await?;
        let doomed = end::end(&tx, &user.id, Extent::Session(&session.id), "logout", facts).await?;
        tx.commit().await?;
        end::finish(doomed).await;
        self.browser.signed_out();
        Ok(self.done())
    }

    fn done(&self) -> Response {
        match &self.target {
            Some(target) => self.browser.send_to(target),
            None => self.browser.show(
                StatusCode::OK,
                page::message("You are signed out", "You can close this page."),
            ),
        }
    }
}

async fn target(parameters: &Parameters, client_id: Option<&str>) -> OAuthResult<Option<String>> {
    let Some(uri) = parameters.get("post_logout_redirect_uri") else {
        return Ok(None);
    };
    let client = match client_id {
        Some(id) => clients::by_id(id).await?,
        None => None,
    };
    let registered = client.is_some_and(|c| {
        c.post_logout_redirect_uris
            .iter()
            .any(|r| redirect::matches(r, uri))
    });
    if !registered {
        return Err(OAuthError::invalid_request(
            "post_logout_redirect_uri is not registered for this application.",
        ));
    }
    let state: Vec<(&str, &str)> = parameters
        .get("state")
        .map(|s| ("state", s))
        .into_iter()
        .collect();
    Ok(Some(redirect::with_query(uri, &state)))
}
