//! Problems: RFC 9457 documents, and how every error of the SDK becomes one.

use std::fmt;
use std::ops::{Deref, DerefMut};

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::openapi::Operation;
use crate::response::{IntoResponse, Response};

/// The result of a handler and of most of the SDK.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// An error as the client sees it (RFC 9457).
///
/// Boxed, because it travels in every `Result`.
#[derive(Clone, PartialEq)]
pub struct Problem(Box<Document>);

/// The members of a problem document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct Document {
    /// A URI that identifies the kind of problem; `about:blank` says no more than the status does.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// The kind in a few words, the same for every occurrence.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What is wrong this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// A URI of this occurrence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The fields that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Further members.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
    /// Header fields that the answer carries.
    #[serde(skip)]
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldError {
    /// A JSON pointer into the body (`/text`), or the name of a parameter (`limit`) or header field.
    pub field: String,
    /// What is wrong, without the value itself.
    pub message: String,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

impl Problem {
    /// A problem that says no more than `status` does.
    pub fn new(status: StatusCode) -> Self {
        Self(Box::new(Document {
            kind: about_blank(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: None,
            instance: None,
            errors: Vec::new(),
            extra: Map::new(),
            headers: Vec::new(),
        }))
    }

    /// 400: a parameter, header field or malformed part of the request, by its name.
    pub fn bad_request(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST).field(field, message)
    }

    /// 401 with a `Bearer` challenge.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED)
            .detail(message)
            .header("www-authenticate", "Bearer")
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN).detail(message)
    }

    /// 404: there is no `kind` called `id`.
    pub fn not_found(kind: &str, id: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND).detail(format!("there is no {kind} {id}"))
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT).detail(message)
    }

    /// 410: it was there once.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE).detail(message)
    }

    /// 413: more than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE)
            .detail(format!("the body is larger than {limit} bytes"))
    }

    /// 415.
    pub fn unsupported_media_type(expected: &str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            .field("Content-Type", format!("must be {expected}"))
            .header("accept", expected)
    }

    /// 422: well-formed, but `field` (a JSON pointer) is wrong.
    pub fn unprocessable(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY).field(field, message)
    }

    /// 429 with `Retry-After` in seconds.
    pub fn too_many(retry_after_s: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS).header("retry-after", retry_after_s.to_string())
    }

    /// 503 with `Retry-After` in seconds.
    pub fn unavailable(retry_after_s: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE).header("retry-after", retry_after_s.to_string())
    }

    /// 500. The client learns nothing; log the cause first, or use [`Problem::fault`].
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// 500 whose cause goes to the service's log and not to the client.
    pub fn fault(what: &str, cause: impl fmt::Display) -> Self {
        crate::log::error!("{what}", cause = cause);
        Self::internal()
    }

    /// With a detail.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With a URI for the kind of problem, and its title.
    pub fn kind(mut self, kind: impl Into<String>, title: impl Into<String>) -> Self {
        self.kind = kind.into();
        self.title = title.into();
        self
    }

    /// With one more wrong field; the first one's message becomes the detail where there is none.
    pub fn field(mut self, field: impl Into<String>, message: impl Into<String>) -> Self {
        let error = FieldError {
            field: field.into(),
            message: message.into(),
        };
        if self.detail.is_none() {
            self.detail = Some(format!("{}: {}", error.field, error.message));
        }
        self.errors.push(error);
        self
    }

    /// With a further member.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.insert(name.into(), value.into());
        self
    }

    /// With a header field in the answer.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<Document> for Problem {
    fn from(document: Document) -> Self {
        Self(Box::new(document))
    }
}

impl Deref for Problem {
    type Target = Document;
    fn deref(&self) -> &Document {
        &self.0
    }
}

impl DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut Document {
        &mut self.0
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "{} {}: {detail}", self.status, self.title),
            None => write!(f, "{} {}", self.status, self.title),
        }
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.status());
        response.headers.append("content-type", PROBLEM_JSON);
        for (name, value) in &self.headers {
            response.headers.append(name, value.as_str());
        }
        let text = serde_json::to_vec(&*self.0).expect("a problem has string keys only");
        response.body(text)
    }
}

impl<T: IntoResponse, E: Into<Problem>> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(value) => value.into_response(),
            Err(error) => error.into().into_response(),
        }
    }

    fn describe(operation: &mut Operation<'_>) {
        T::describe(operation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_an_rfc_9457_document() {
        let problem = Problem::unprocessable("/text", "length is lower than 1").with("limit", 1);
        let json = serde_json::to_value(&*problem.0).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "about:blank", "title": "Unprocessable Entity", "status": 422,
                "detail": "/text: length is lower than 1",
                "errors": [{ "field": "/text", "message": "length is lower than 1" }],
                "limit": 1,
            })
        );
        let back: Document = serde_json::from_value(json).unwrap();
        assert_eq!(Problem::from(back), problem);
    }

    #[test]
    fn answers_carry_the_media_type_and_the_headers_of_their_status() {
        let response = Problem::too_many(7).into_response();
        assert_eq!(response.status, 429);
        assert_eq!(response.headers.get("content-type"), Some(PROBLEM_JSON));
        assert_eq!(response.headers.get("retry-after"), Some("7"));
        let challenge = Problem::unauthorized("no token").into_response();
        assert_eq!(challenge.headers.get("www-authenticate"), Some("Bearer"));
    }
}
