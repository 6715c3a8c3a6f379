//! Problem details (RFC 9457): how the host itself answers what it refuses or cannot do.

use http::{HeaderValue, Response, StatusCode, header};
use wasmtime_wasi_http::handler::Response as WasiResponse;

/// The kind of a problem, in the extensions of its response: for the host itself, which reads no bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub &'static str);

/// A problem that the host answers a request with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    /// A short name of the kind of problem, the last part of its `type` URI.
    pub kind: &'static str,
    /// What happened and what to do about it.
    pub detail: String,
    /// Seconds for `Retry-After`.
    pub retry_after_s: Option<u64>,
    /// A further header, such as `Allow` or `WWW-Authenticate`.
    pub header: Option<(header::HeaderName, String)>,
}

impl Problem {
    /// A problem with nothing but status, kind and detail.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            detail: detail.into(),
            retry_after_s: None,
            header: None,
        }
    }

    /// The same of another kind.
    pub fn kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    /// The same, to be retried after some seconds.
    pub fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after_s: Some(seconds),
            ..self
        }
    }

    /// The same with one more header.
    pub fn with_header(self, name: header::HeaderName, value: impl Into<String>) -> Self {
        Self {
            header: Some((name, value.into())),
            ..self
        }
    }

    /// The response that tells it.
    pub fn into_response(self) -> WasiResponse {
        let body = serde_json::json!({
            "type": format!("urn:exprsn:problem:{}", self.kind),
            "title": self.status.canonical_reason().unwrap_or("Problem"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let body = crate::mesh::whole(body.to_string());
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        response.extensions_mut().insert(Kind(self.kind));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some((name, value)) = self.header
            && let Ok(value) = HeaderValue::try_from(value)
        {
            headers.insert(name, value);
        }
        response
    }
}
