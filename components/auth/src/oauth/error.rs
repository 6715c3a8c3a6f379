//! Errors and answers of the endpoints that clients call (RFC 6749 §5.2), and what is common to their requests.

use crate::domain::client::{self, Client};
use crate::domain::form::Parameters;
use crate::store::clients;
use exprsn_sdk::prelude::*;

/// Most bytes of a form.
const FORM_BYTES_MAX: usize = 65_536;
/// Most characters of a client's id that are logged: anybody may send any.
const LOGGED_CHARS_MAX: usize = 64;
const FORM: &str = "application/x-www-form-urlencoded";

/// An error of the OAuth endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OAuthError {
    status: StatusCode,
    error: &'static str,
    description: String,
    challenge: Option<&'static str>,
    retry_after_s: Option<u64>,
}

/// What an OAuth endpoint comes to.
pub type OAuthResult<T = Response> = std::result::Result<T, OAuthError>;

impl OAuthError {
    /// 400 with a code of RFC 6749 or a sister of it.
    pub fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
            description: description.into(),
            challenge: None,
            retry_after_s: None,
        }
    }

    /// The request is malformed.
    pub fn invalid_request(description: impl Into<String>) -> Self {
        Self::new("invalid_request", description)
    }

    /// A code or refresh token is not good; why is nobody's business.
    pub fn invalid_grant() -> Self {
        Self::new(
            "invalid_grant",
            "the code or token is unknown, used, expired, revoked or another client's",
        )
    }

    /// 401: the client did not prove who it is.
    pub fn invalid_client(basic: bool) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            challenge: basic.then_some("Basic realm=\"exprsn\", charset=\"UTF-8\""),
            ..Self::new(
                "invalid_client",
                "the client is unknown or did not prove who it is",
            )
        }
    }

    /// What is wrong, for people.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// With another status.
    pub fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl From<Problem> for OAuthError {
    fn from(problem: Problem) -> Self {
        let status = problem.status();
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                retry_after_s: Some(1),
                ..Self::new("temporarily_unavailable", "try again in a moment")
            },
            status if status.is_client_error() => {
                Self::invalid_request(problem.detail.clone().unwrap_or_default()).status(status)
            }
            _ => Self::new("server_error", "the request could not be handled").status(status),
        }
    }
}

impl From<sql::Error> for OAuthError {
    fn from(error: sql::Error) -> Self {
        Problem::from(error).into()
    }
}

impl From<ca::Error> for OAuthError {
    fn from(error: ca::Error) -> Self {
        match error {
            ca::Error::Unavailable(_) | ca::Error::LimitExceeded(_) => {
                Problem::unavailable(1).into()
            }
            other => Problem::fault("the authority refused a call", format!("{other:?}")).into(),
        }
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "error_description": self.description });
        let mut response = answer(self.status, &body);
        if let Some(challenge) = self.challenge {
            response = response.header("www-authenticate", challenge);
        }
        match self.retry_after_s {
            Some(seconds) => response.header("retry-after", seconds.to_string()),
            None => response,
        }
    }
}

/// Either side of a result as a response.
pub fn either(result: OAuthResult) -> Response {
    result.unwrap_or_else(IntoResponse::into_response)
}

/// A JSON answer that nobody may keep. Pages of any origin may read it: nothing in it depends on a cookie.
pub fn answer(status: StatusCode, body: &serde_json::Value) -> Response {
    Response::new(status)
        .json(body)
        .header("cache-control", "no-store")
        .header("pragma", "no-cache")
        .header("access-control-allow-origin", "*")
}

/// The answer to a browser that asks whether a page of another origin may call (Fetch §4.8).
pub async fn preflight() -> Response {
    Response::new(StatusCode::NO_CONTENT)
        .header("access-control-allow-origin", "*")
        .header("access-control-allow-methods", "GET, POST")
        .header(
            "access-control-allow-headers",
            "authorization, content-type",
        )
        .header("access-control-max-age", "7200")
}

/// Reads a form.
pub async fn form(request: &mut Request) -> OAuthResult<Parameters> {
    let media_type = request.headers().get("content-type").unwrap_or_default();
    if !media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case(FORM)
    {
        return Err(OAuthError::invalid_request(format!(
            "the Content-Type must be {FORM}"
        )));
    }
    let bytes = request.take_body().bytes(FORM_BYTES_MAX).await?;
    let text = String::from_utf8(bytes)
        .map_err(|_| OAuthError::invalid_request("the form is not UTF-8"))?;
    Parameters::parse(&text).map_err(OAuthError::invalid_request)
}

/// The client that makes a request, having proved who it is as far as it can.
pub async fn authenticate(request: &Request, form: &Parameters) -> OAuthResult<Client> {
    let header = request.headers().get("authorization");
    let offered = client::credentials(header, form).map_err(OAuthError::invalid_request)?;
    let found = clients::by_id(&offered.id).await?;
    let proved = found.filter(|client| client::authentic(client, &offered));
    proved.ok_or_else(|| {
        // Not into the audit log: that would let anybody fill it at no cost.
        let id: String = offered.id.chars().take(LOGGED_CHARS_MAX).collect();
        log::warn!("a client was refused", client = id);
        OAuthError::invalid_client(offered.basic)
    })
}
