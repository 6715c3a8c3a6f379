//! As much of HTTP as this component needs, over `wasi:http`.

use crate::wasi::http0_3_0::client;
use crate::wasi::http0_3_0::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use crate::{wit_future, wit_stream};
use serde::{Serialize, de::DeserializeOwned};
use wit_bindgen::{StreamReader, StreamResult};

/// Largest body that is read; the host has a limit of its own.
const BODY_BYTES_MAX: usize = 1 << 20;
const CHUNK_BYTES: usize = 16 << 10;

/// An answer, ours or another service's.
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

/// Why there is no better answer (RFC 9457).
pub struct Problem {
    status: u16,
    detail: String,
}

/// An answer in JSON.
pub fn json(status: u16, value: &impl Serialize) -> Reply {
    let body = serde_json::to_vec(value).expect("our types are JSON");
    Reply { status, content_type: "application/json", body }
}

impl Problem {
    pub fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    pub fn reply(self) -> Reply {
        let problem = serde_json::json!({ "status": self.status, "detail": self.detail });
        Reply { content_type: "application/problem+json", ..json(self.status, &problem) }
    }
}

impl From<ErrorCode> for Problem {
    fn from(error: ErrorCode) -> Self {
        match error {
            ErrorCode::HttpRequestDenied => Self::new(403, "access-denied: the call is not granted"),
            other => Self::new(502, format!("{other:?}")),
        }
    }
}

impl Reply {
    pub fn into_response(self) -> Response {
        let headers = Fields::new();
        let _ = headers.append("content-type", self.content_type.as_bytes());
        let (mut writer, reader) = wit_stream::new();
        // A writer dropped unused writes the default: no trailers.
        let (_, no_trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(headers, Some(reader), no_trailers);
        let _ = response.set_status_code(self.status);
        // Goes on after the response has been handed to the host.
        wit_bindgen::spawn_local(async move {
            writer.write_all(self.body).await;
        });
        response
    }
}

pub fn method(request: &Request) -> &'static str {
    match request.get_method() {
        Method::Get => "GET",
        Method::Post => "POST",
        _ => "other",
    }
}

/// The path without the query.
pub fn path(request: &Request) -> String {
    let path = request.get_path_with_query().unwrap_or_default();
    path.split('?').next().unwrap_or_default().to_owned()
}

pub async fn read_json<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let (_, processed) = wit_future::new(|| Ok(()));
    let (body, _trailers) = Request::consume_body(request, processed);
    let body = read(body).await?;
    serde_json::from_slice(&body).map_err(|error| Problem::new(400, format!("the body: {error}")))
}

/// Asks a service of the platform, or a host outside, whichever the grants name.
pub async fn get(host: &str, path: &str) -> Result<Reply, Problem> {
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, no_trailers, None);
    let _ = request.set_scheme(Some(&Scheme::Http));
    let invalid = |()| Problem::new(500, format!("http://{host}{path} is no address"));
    request.set_authority(Some(host)).map_err(invalid)?;
    request.set_path_with_query(Some(path)).map_err(invalid)?;
    let response = client::send(request).await?;
    let status = response.get_status_code();
    let (_, processed) = wit_future::new(|| Ok(()));
    let (body, _trailers) = Response::consume_body(response, processed);
    Ok(Reply { status, content_type: "", body: read(body).await? })
}

async fn read(mut body: StreamReader<u8>) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    loop {
        let (status, chunk) = body.read(Vec::with_capacity(CHUNK_BYTES)).await;
        bytes.extend_from_slice(&chunk);
        if bytes.len() > BODY_BYTES_MAX {
            return Err(Problem::new(413, format!("more than {BODY_BYTES_MAX} bytes")));
        }
        if !matches!(status, StreamResult::Complete(_)) {
            return Ok(bytes);
        }
    }
}
