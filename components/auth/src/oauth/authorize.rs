//! The authorization endpoint: from a client's request to a page, a code or an error.

use super::browser::Browser;
use super::error::{OAuthError, OAuthResult};
use super::jwks;
use crate::domain::authorize::{self, Answer, Present, Progress, Refusal, Step};
use crate::domain::client::Client;
use crate::domain::form::Parameters;
use crate::domain::scope::Scopes;
use crate::domain::{redirect, secret};
use crate::facts::{Facts, new_secret};
use crate::page::{self, Context, Page};
use crate::settings::settings;
use crate::store::audit::{self, Entry};
use crate::store::clients;
use crate::store::codes::{self, Code};
use crate::store::sessions::Session;
use exprsn_sdk::prelude::*;

/// Most characters of a request, which the forms carry along.
const REQUEST_CHARS_MAX: usize = 16_384;

/// `GET /oauth/authorize`
pub async fn get(request: Request) -> Response {
    page_or_error(begin(request).await)
}

/// `POST /oauth/authorize`: the same with GET, for which the browser also sends its cookies.
pub async fn post(mut request: Request) -> Response {
    let form = super::error::form(&mut request).await;
    page_or_error(form.map(|form| {
        let location = format!("{}?{}", settings().url("/oauth/authorize"), form.to_query());
        Response::new(StatusCode::SEE_OTHER)
            .header("location", location)
            .header("cache-control", "no-store")
    }))
}

/// A fault on the way to a page is a page too: a person looks at it.
pub fn page_or_error(result: OAuthResult) -> Response {
    result.unwrap_or_else(|error| {
        let response = error.clone().into_response();
        let Page { html, policy } = page::message("This did not work", error.description());
        let retry = response.headers.get("retry-after").map(str::to_owned);
        let answer = Response::new(response.status)
            .header("content-type", "text/html; charset=utf-8")
            .header("content-security-policy", policy)
            .header("cache-control", "no-store")
            .body(html);
        match retry {
            Some(seconds) => answer.header("retry-after", seconds),
            None => answer,
        }
    })
}

async fn begin(request: Request) -> OAuthResult {
    let facts = Facts::of(&request);
    let query = request.query().unwrap_or_default();
    let parameters = parse(query)?;
    let mut pending = match Pending::read(parameters, Browser::of(&request, &facts).await?).await? {
        Ok(pending) => pending,
        Err(response) => return Ok(response),
    };
    pending.advance(Progress::default(), &facts).await
}

/// Parses a request that came as a query, or in a form of ours.
pub fn parse(text: &str) -> OAuthResult<Parameters> {
    if text.len() > REQUEST_CHARS_MAX {
        return Err(OAuthError::invalid_request("the request is too long"));
    }
    Parameters::parse(text).map_err(OAuthError::invalid_request)
}

/// An authorization request of a known client, under way in a browser.
pub struct Pending {
    pub browser: Browser,
    pub client: Client,
    pub request: authorize::Request,
    /// The request as a query, as forms carry it.
    pub text: String,
}

impl Pending {
    /// Examines a request; a response is the answer to one that is not good.
    pub async fn read(
        parameters: Parameters,
        browser: Browser,
    ) -> OAuthResult<std::result::Result<Self, Response>> {
        let refuse = |text: &str| {
            browser.show(
                StatusCode::BAD_REQUEST,
                page::message("This request is not valid", text),
            )
        };
        let Some(client_id) = parameters.get("client_id") else {
            return Ok(Err(refuse("client_id is missing.")));
        };
        let Some(client) = clients::by_id(client_id).await? else {
            return Ok(Err(refuse("The application is not registered here.")));
        };
        match authorize::examine(&parameters, &client) {
            Ok(request) => Ok(Ok(Self {
                text: parameters.to_query(),
                browser,
                client,
                request,
            })),
            Err(Refusal::Page(text)) => Ok(Err(refuse(&text))),
            Err(Refusal::Redirect(answer)) => Ok(Err(browser.send_to(&error_location(&answer)))),
        }
    }

    /// Does what comes next.
    pub async fn advance(&mut self, done: Progress, facts: &Facts) -> OAuthResult {
        let present = match &self.browser.session {
            Some((session, user)) => Some(Present {
                user_id: user.id.clone(),
                authenticated_at_s: session.authenticated_at.div_euclid(1_000),
                consented: codes::consented(&user.id, &self.client.id).await?,
            }),
            None => None,
        };
        let hint = jwks::read_hint(self.request.id_token_hint.as_deref()).await?;
        let hinted = hint.as_ref().map(|hint| hint.sub.as_str());
        match authorize::next(
            &self.request,
            &self.client,
            present.as_ref(),
            hinted,
            done,
            facts.now_s(),
        ) {
            Step::Login => self.show_login(None, None).await,
            Step::Consent => self.show_consent().await,
            Step::Refuse(error) => {
                Ok(self.refuse(error, "this cannot be done without asking the person"))
            }
            Step::IssueCode => self.issue(done.agreed, facts).await,
        }
    }

    /// Shows the sign-in form, with the name that was typed before.
    pub async fn show_login(&self, name: Option<&str>, error: Option<&str>) -> OAuthResult {
        let name = name
            .or(self.request.login_hint.as_deref())
            .unwrap_or_default();
        let token = self.browser.form_token(&self.text).await?;
        let status = if error.is_some() {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        };
        let page = page::login(&self.context(&token, error), name);
        Ok(self.browser.show(status, page))
    }

    /// Shows the form for the second factor.
    pub async fn show_second_factor(&self, challenge: &str, error: Option<&str>) -> OAuthResult {
        let token = self.browser.form_token(&self.text).await?;
        let status = if error.is_some() {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::OK
        };
        let page = page::second_factor(&self.context(&token, error), challenge);
        Ok(self.browser.show(status, page))
    }

    async fn show_consent(&self) -> OAuthResult {
        let Some((_, user)) = &self.browser.session else {
            return self.show_login(None, None).await;
        };
        let token = self.browser.form_token(&self.text).await?;
        let uri = self.client.client_uri.as_deref();
        let page = page::consent(
            &self.context(&token, None),
            &user.username,
            self.request.scopes,
            uri,
        );
        Ok(self.browser.show(StatusCode::OK, page))
    }

    fn context<'a>(&'a self, form_token: &'a str, error: Option<&'a str>) -> Context<'a> {
        Context {
            client: &self.client.name,
            request: &self.text,
            form_token,
            target: &self.request.redirect_uri,
            error,
        }
    }

    /// Tells the client that it gets nothing.
    pub fn refuse(&self, error: &'static str, description: &str) -> Response {
        let answer = Answer {
            redirect_uri: self.request.redirect_uri.clone(),
            state: self.request.state.clone(),
            error,
            description: description.to_owned(),
        };
        self.browser.send_to(&error_location(&answer))
    }

    async fn issue(&self, agreed: bool, facts: &Facts) -> OAuthResult {
        let Some((session, _)) = &self.browser.session else {
            return self.show_login(None, None).await;
        };
        let code = new_secret();
        self.remember(session, &code, agreed, facts).await?;
        let issuer = &settings().issuer;
        let mut answer = vec![("code", code.as_str()), ("iss", issuer.as_str())];
        if let Some(state) = &self.request.state {
            answer.push(("state", state));
        }
        Ok(self
            .browser
            .send_to(&redirect::with_query(&self.request.redirect_uri, &answer)))
    }

    async fn remember(
        &self,
        session: &Session,
        code: &str,
        agreed: bool,
        facts: &Facts,
    ) -> OAuthResult<()> {
        let scopes = self.request.scopes;
        let code = Code {
            digest: secret::digest(code),
            client_id: self.client.id.clone(),
            user_id: session.user_id.clone(),
            session_id: session.id.clone(),
            redirect_uri: self.request.redirect_uri.clone(),
            scope: scopes.to_string(),
            nonce: self.request.nonce.clone(),
            code_challenge: self.request.code_challenge.clone(),
            expires_at: facts.now + settings().authorization_code_ms,
            used_at: None,
            grant_id: None,
        };
        let before = if agreed {
            codes::consented(&session.user_id, &self.client.id).await?
        } else {
            Scopes::NONE
        };
        let tx = sql::begin().await?;
        codes::insert(&tx, &code, facts.now).await?;
        if agreed {
            codes::remember(
                &tx,
                &session.user_id,
                &self.client.id,
                before.or(scopes),
                facts.now,
            )
            .await?;
            let entry = Entry {
                kind: "consent.given",
                user_id: Some(&session.user_id),
                client_id: Some(&self.client.id),
            };
            audit::write(&tx, entry, facts, json!({ "scope": scopes.to_string() })).await?;
        }
        Ok(tx.commit().await?)
    }
}

fn error_location(answer: &Answer) -> String {
    let issuer = &settings().issuer;
    let mut query = vec![
        ("error", answer.error),
        ("error_description", answer.description.as_str()),
        ("iss", issuer.as_str()),
    ];
    if let Some(state) = &answer.state {
        query.push(("state", state));
    }
    redirect::with_query(&answer.redirect_uri, &query)
}
