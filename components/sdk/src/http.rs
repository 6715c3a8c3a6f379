//! Calls to other services and, where granted, to the world.
//!
//! `http://exprsn-herald/api/…` reaches a service in-process. A call carries the caller's identity as the grant says.

use futures_util::future::{Either, select};
use http::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::wasi::http::client;
use crate::bindings::wasi::http::types::{self as wire, ErrorCode, Scheme};
use crate::body::{BodyStream, Content, End, HostBody};
use crate::problem::{Document, PROBLEM_JSON, Problem};
use crate::request::method_to_wire;
use crate::{Body, Headers, Request, runtime, time};

/// Most bytes of an answer that [`Response::json`] and [`Response::text`] read.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The URL or a header field is wrong.
    Invalid(String),
    /// The grant does not cover the call.
    Denied,
    /// Nobody is there, or the connection broke.
    Unavailable(String),
    /// It took longer than `timeout_ms`.
    Timeout,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invalid(what) => write!(f, "the request is invalid: {what}"),
            Self::Denied => f.write_str("the grant does not cover the call"),
            Self::Unavailable(what) => write!(f, "no answer: {what}"),
            Self::Timeout => f.write_str("no answer in time"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(_) | Error::Denied => {
                Problem::fault("a call to another service failed", error)
            }
            Error::Unavailable(_) => {
                Problem::unavailable(1).detail("another service does not answer")
            }
            Error::Timeout => Problem::new(StatusCode::GATEWAY_TIMEOUT)
                .detail("another service did not answer in time"),
        }
    }
}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::HttpRequestDenied
            | ErrorCode::DestinationIpProhibited
            | ErrorCode::ConfigurationError
            | ErrorCode::LoopDetected => Self::Denied,
            ErrorCode::HttpRequestUriInvalid | ErrorCode::HttpRequestMethodInvalid => {
                Self::Invalid(format!("{code:?}"))
            }
            ErrorCode::ConnectionTimeout
            | ErrorCode::HttpResponseTimeout
            | ErrorCode::ConnectionReadTimeout => Self::Timeout,
            other => Self::Unavailable(format!("{other:?}")),
        }
    }
}

/// A call with GET.
pub fn get(url: impl Into<String>) -> Call {
    request(Method::GET, url)
}

/// A call with POST.
pub fn post(url: impl Into<String>) -> Call {
    request(Method::POST, url)
}

/// A call with PUT.
pub fn put(url: impl Into<String>) -> Call {
    request(Method::PUT, url)
}

/// A call with PATCH.
pub fn patch(url: impl Into<String>) -> Call {
    request(Method::PATCH, url)
}

/// A call with DELETE.
pub fn delete(url: impl Into<String>) -> Call {
    request(Method::DELETE, url)
}

/// A call with any method.
pub fn request(method: Method, url: impl Into<String>) -> Call {
    Call {
        method,
        url: url.into(),
        headers: Headers::new(),
        body: Body::empty(),
        timeout_ms: None,
        invalid: None,
    }
}

/// A request to send.
#[must_use = "nothing happens before `send`"]
pub struct Call {
    method: Method,
    url: String,
    headers: Headers,
    body: Body,
    timeout_ms: Option<u64>,
    invalid: Option<String>,
}

impl Call {
    /// With a header field.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.append(name, value);
        self
    }

    /// With a token.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// With a query parameter.
    pub fn query(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let pair = form_urlencoded::Serializer::new(String::new())
            .append_pair(name, &value.to_string())
            .finish();
        self.url
            .push(if self.url.contains('?') { '&' } else { '?' });
        self.url.push_str(&pair);
        self
    }

    /// With a JSON body.
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(text) => self.body = text.into(),
            Err(error) => self.invalid = Some(error.to_string()),
        }
        self.header("content-type", "application/json")
    }

    /// With bytes or a stream as body.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// With a limit to the time until the answer's headers are there, in milliseconds.
    pub fn timeout_ms(mut self, ms: u64) -> Self {
        self.timeout_ms = Some(ms);
        self
    }

    /// Sends it and waits for the answer's status and headers.
    pub async fn send(self) -> Result<Response, Error> {
        if let Some(reason) = self.invalid {
            return Err(Error::Invalid(reason));
        }
        let target = Target::parse(&self.url)?;
        let request = outgoing(&self.method, &target, self.headers, self.body)?;
        let answer = match self.timeout_ms {
            None => client::send(request).await,
            Some(ms) => match select(
                Box::pin(client::send(request)),
                Box::pin(time::sleep_ms(ms)),
            )
            .await
            {
                Either::Left((answer, _)) => answer,
                Either::Right(_) => return Err(Error::Timeout),
            },
        };
        Ok(Response::from_wire(answer?))
    }
}

/// Passes a request on to `authority` and gives back the answer, streaming both ways; hop-by-hop fields are removed.
///
/// The bodies never enter the component's memory.
pub async fn forward(
    mut request: Request,
    authority: &str,
    path_and_query: &str,
) -> Result<crate::response::Response, Error> {
    let mut headers = request.headers().clone();
    headers.remove_hop_by_hop();
    headers.remove("host");
    let target = Target {
        scheme: Scheme::Http,
        authority,
        path_and_query: path_and_query.to_owned(),
    };
    let body = request.take_body();
    let answer = client::send(outgoing(request.method(), &target, headers, body)?).await?;
    let Response {
        status,
        mut headers,
        body,
    } = Response::from_wire(answer);
    headers.remove_hop_by_hop();
    Ok(crate::response::Response {
        status,
        headers,
        content: body,
    })
}

/// An answer whose body has not been read.
pub struct Response {
    status: StatusCode,
    headers: Headers,
    body: Body,
}

impl Response {
    fn from_wire(wire: wire::Response) -> Self {
        let status =
            StatusCode::from_u16(wire.get_status_code()).unwrap_or(StatusCode::BAD_GATEWAY);
        let headers = Headers(wire.get_headers().copy_all());
        let length = headers
            .get("content-length")
            .and_then(|value| value.parse().ok());
        let (_processed, processed) = crate::bindings::wit_future::new(|| Ok(()));
        let (stream, end) = wire::Response::consume_body(wire, processed);
        Self {
            status,
            headers,
            body: Body(Content::Host(HostBody {
                stream,
                end: End::Http(end),
                length,
            })),
        }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The body as JSON.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Problem> {
        let bytes = self.bytes(ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&bytes).map_err(|error| {
            crate::log::error!(
                "another service's answer is not what was expected",
                error = error
            );
            Problem::new(StatusCode::BAD_GATEWAY)
        })
    }

    /// The body as text.
    pub async fn text(self) -> Result<String, Problem> {
        let bytes = self.bytes(ANSWER_BYTES_MAX).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The body's bytes, at most `limit`.
    pub async fn bytes(self, limit: usize) -> Result<Vec<u8>, Problem> {
        // What is wrong with an answer is not the client's fault: 400 and 413 are about its own body.
        self.body.bytes(limit).await.map_err(|problem| {
            crate::log::error!("another service's answer cannot be read", error = problem);
            Problem::new(StatusCode::BAD_GATEWAY)
        })
    }

    /// The body's chunks as they arrive.
    pub fn body_stream(self) -> BodyStream {
        self.body.stream()
    }

    /// The answer itself, unless its status is an error: then its problem document, as it is.
    pub async fn error_for_status(self) -> Result<Self, Problem> {
        if !self.status.is_client_error() && !self.status.is_server_error() {
            return Ok(self);
        }
        let status = self.status;
        let retry_after = self.headers.get("retry-after").map(str::to_owned);
        let is_problem = self
            .headers
            .get("content-type")
            .is_some_and(|value| value.starts_with(PROBLEM_JSON));
        let bytes = if is_problem {
            self.bytes(ANSWER_BYTES_MAX).await?
        } else {
            Vec::new()
        };
        let document = serde_json::from_slice::<Document>(&bytes).ok();
        let mut problem = document.map_or_else(|| Problem::new(status), Problem::from);
        problem.status = status.as_u16();
        Err(match retry_after {
            Some(value) => problem.header("retry-after", value),
            None => problem,
        })
    }
}

struct Target<'a> {
    scheme: Scheme,
    authority: &'a str,
    path_and_query: String,
}

impl<'a> Target<'a> {
    fn parse(url: &'a str) -> Result<Self, Error> {
        let invalid = || Error::Invalid(format!("{url} is not an http or https URL"));
        let (scheme, rest) = url.split_once("://").ok_or_else(invalid)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(invalid()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path_and_query) =
            rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() || authority.contains('@') {
            return Err(invalid());
        }
        let slash = if path_and_query.starts_with('/') {
            ""
        } else {
            "/"
        };
        Ok(Self {
            scheme,
            authority,
            path_and_query: format!("{slash}{path_and_query}"),
        })
    }
}

fn outgoing(
    method: &Method,
    target: &Target<'_>,
    mut headers: Headers,
    body: Body,
) -> Result<wire::Request, Error> {
    if let (Some(length), false) = (body.length(), headers.contains("content-length"))
        && (length > 0 || matches!(*method, Method::POST | Method::PUT | Method::PATCH))
    {
        headers.set("content-length", length.to_string());
    }
    let fields = wire::Fields::from_list(&headers.0)
        .map_err(|error| Error::Invalid(format!("{error:?}")))?;
    let (contents, trailers) = runtime::send_body(body);
    let (request, _sent) = wire::Request::new(fields, contents, trailers, None);
    let invalid = |what: &str| Error::Invalid(what.to_owned());
    request
        .set_method(&method_to_wire(method))
        .map_err(|()| invalid("method"))?;
    request
        .set_scheme(Some(&target.scheme))
        .map_err(|()| invalid("scheme"))?;
    request
        .set_authority(Some(target.authority))
        .map_err(|()| invalid("authority"))?;
    request
        .set_path_with_query(Some(&target.path_and_query))
        .map_err(|()| invalid("path"))?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_fall_into_scheme_authority_and_path() {
        for (url, authority, path) in [
            (
                "http://exprsn-herald/api/x?y=1#z",
                "exprsn-herald",
                "/api/x?y=1",
            ),
            ("HTTPS://example.org:8443", "example.org:8443", "/"),
            ("http://[::1]:80?q", "[::1]:80", "/?q"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(
                (target.authority, target.path_and_query.as_str()),
                (authority, path)
            );
        }
        for url in [
            "",
            "exprsn-herald/api",
            "ftp://x/",
            "http:///x",
            "http://user:pass@x/",
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn query_parameters_are_encoded() {
        assert_eq!(
            get("http://a/b").query("q", "x&y=z").query("n", 2).url,
            "http://a/b?q=x%26y%3Dz&n=2"
        );
    }
}
