//! Responses, and the values that handlers return in their place.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use crate::openapi::Operation;
use crate::{Body, Headers, Problem};

/// What a handler may return.
pub trait IntoResponse {
    /// The response itself.
    fn into_response(self) -> Response;

    /// Adds the responses of this type to the OpenAPI operation; without it the document says nothing of them.
    fn describe(_operation: &mut Operation<'_>) {}
}

/// An HTTP response, built field by field.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The header fields. `Content-Length` is added where the body's length is known.
    pub headers: Headers,
    /// The body.
    pub content: Body,
}

impl Response {
    /// An empty response.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            headers: Headers::new(),
            content: Body::empty(),
        }
    }

    /// An empty response with status 200.
    pub fn ok() -> Self {
        Self::new(StatusCode::OK)
    }

    /// With another status.
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// With a header field in place of those of its name.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.set(name, value);
        self
    }

    /// With bytes or a stream as body.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.content = body.into();
        self
    }

    /// With a value as JSON body.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(text) => self.header("content-type", "application/json").body(text),
            Err(error) => {
                Problem::fault("a response is not representable as JSON", error).into_response()
            }
        }
    }
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

impl IntoResponse for StatusCode {
    fn into_response(self) -> Response {
        Response::new(self)
    }
}

impl IntoResponse for () {
    fn into_response(self) -> Response {
        NoContent.into_response()
    }

    fn describe(operation: &mut Operation<'_>) {
        NoContent::describe(operation);
    }
}

/// JSON in and out: a validated request body as an extractor, a 200 answer as a return value.
#[derive(Clone, Debug, PartialEq)]
pub struct Json<T>(pub T);

impl<T: Serialize + JsonSchema> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        Response::ok().json(&self.0)
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.json_response::<T>(StatusCode::OK);
    }
}

/// The document says `default`, as the status is known only at run time.
impl<T: Serialize + JsonSchema> IntoResponse for (StatusCode, Json<T>) {
    fn into_response(self) -> Response {
        self.1.into_response().status(self.0)
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.json_response::<T>(StatusCode::OK);
    }
}

/// 201 with `Location` and the new thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Created<T> {
    location: Option<String>,
    value: T,
}

impl<T> Created<T> {
    /// Created at a path or URL.
    pub fn at(location: impl Into<String>, value: T) -> Self {
        Self {
            location: Some(location.into()),
            value,
        }
    }

    /// Created, without a place of its own.
    pub fn new(value: T) -> Self {
        Self {
            location: None,
            value,
        }
    }
}

impl<T: Serialize + JsonSchema> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        let response = Response::new(StatusCode::CREATED).json(&self.value);
        match self.location {
            Some(location) => response.header("location", location),
            None => response,
        }
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.json_response::<T>(StatusCode::CREATED);
    }
}

/// 202: it will be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Accepted<T>(pub T);

impl<T: Serialize + JsonSchema> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        Response::new(StatusCode::ACCEPTED).json(&self.0)
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.json_response::<T>(StatusCode::ACCEPTED);
    }
}

/// 204.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        Response::new(StatusCode::NO_CONTENT)
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.response(StatusCode::NO_CONTENT, None);
    }
}

/// An HTML page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Html<T>(pub T);

impl<T: Into<String>> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        Response::ok()
            .header("content-type", "text/html; charset=utf-8")
            .body(self.0.into())
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.text_response("text/html");
    }
}

/// Plain text; [`Text::of`] sets another text type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    media_type: &'static str,
    text: String,
}

/// Plain text in UTF-8.
#[allow(
    non_snake_case,
    reason = "reads as the other responses do: Ok(Text(text))"
)]
pub fn Text(text: impl Into<String>) -> Text {
    Text {
        media_type: "text/plain; charset=utf-8",
        text: text.into(),
    }
}

impl Text {
    /// Text of a media type.
    pub fn of(media_type: &'static str, text: impl Into<String>) -> Self {
        Self {
            media_type,
            text: text.into(),
        }
    }
}

impl IntoResponse for Text {
    fn into_response(self) -> Response {
        Response::ok()
            .header("content-type", self.media_type)
            .body(self.text)
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.text_response("text/plain");
    }
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    status: StatusCode,
    location: String,
}

impl Redirect {
    /// 303: look there with GET.
    pub fn to(location: impl Into<String>) -> Self {
        Self {
            status: StatusCode::SEE_OTHER,
            location: location.into(),
        }
    }

    /// 307: the same request there.
    pub fn temporary(location: impl Into<String>) -> Self {
        Self {
            status: StatusCode::TEMPORARY_REDIRECT,
            location: location.into(),
        }
    }

    /// 308: the same request there, from now on.
    pub fn permanent(location: impl Into<String>) -> Self {
        Self {
            status: StatusCode::PERMANENT_REDIRECT,
            location: location.into(),
        }
    }
}

impl IntoResponse for Redirect {
    fn into_response(self) -> Response {
        Response::new(self.status).header("location", self.location)
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.response(StatusCode::SEE_OTHER, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_says_where() {
        let response = Created::at("/api/notes/1", 1).into_response();
        assert_eq!(
            (response.status.as_u16(), response.headers.get("location")),
            (201, Some("/api/notes/1"))
        );
        assert!(!Created::new(1).into_response().headers.contains("location"));
    }

    #[test]
    fn what_json_cannot_say_is_a_fault() {
        let value = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert_eq!(Response::ok().json(&value).status, 500);
    }
}
