//! One request outside over HTTP/1.1 or HTTP/2. Redirects are answers as any other: whoever follows one asks again.

use super::{
    Permitted, Refusal, ServiceEgress,
    connection::Connection,
    destination::Destination,
    pool::{Key, Sender},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::sync::Arc;
use wasmtime_wasi_http::{
    Error as HttpError, WasiBody,
    handler::{Request, Response},
};

/// Fields that are about one connection.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

impl ServiceEgress {
    /// Sends a request to where it is permitted to go, which its URI and its `Host` are made to say.
    pub async fn send(
        self: &Arc<Self>,
        permitted: &Permitted,
        request: Request,
    ) -> Result<Response, HttpError> {
        let mut request = prepared(request)?;
        let key = permitted.key();
        // A server may have closed a kept connection meanwhile: then nothing was sent over it.
        while let Some(sender) = self.pool.take(&key) {
            match self.exchange(sender, &key, request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(sending_error(error.into_error())),
                },
            }
        }
        let sender = self.open(permitted, &key).await?;
        let response = self.exchange(sender, &key, request).await;
        response.map_err(|error| sending_error(error.into_error()))
    }

    /// A new connection that takes requests.
    async fn open(&self, permitted: &Permitted, key: &Key) -> Result<Sender, Refusal> {
        let connection = self.connect(permitted).await?;
        let is_http2 = connection.speaks_http2();
        let failed = |error: hyper::Error| {
            tracing::debug!(%error, "HTTP did not begin");
            Refusal::Broken
        };
        if is_http2 {
            let (sender, driver) = http2_handshake(connection).await.map_err(failed)?;
            tokio::spawn(driver);
            self.pool.keep(key.clone(), Sender::Http2(sender.clone()));
            return Ok(Sender::Http2(sender));
        }
        let (sender, driver) = http1::handshake(TokioIo::new(connection))
            .await
            .map_err(failed)?;
        // What went wrong is told to the request or body that it happened to.
        tokio::spawn(async { drop(driver.await) });
        Ok(Sender::Http1(sender))
    }

    /// One request and the head of its response. The connection waits for its next request once the body has been read.
    async fn exchange(
        self: &Arc<Self>,
        sender: Sender,
        key: &Key,
        request: http::Request<WasiBody>,
    ) -> Result<Response, TrySendError<http::Request<WasiBody>>> {
        let response = match sender {
            Sender::Http2(mut sender) => sender.try_send_request(absolute(request, &key.0)).await?,
            Sender::Http1(mut sender) => {
                let response = sender.try_send_request(relative(request, &key.0)).await?;
                let (pool, key) = (self.pool.clone(), key.clone());
                tokio::spawn(async move {
                    if sender.ready().await.is_ok() {
                        pool.keep(key, Sender::Http1(sender));
                    }
                });
                response
            }
        };
        Ok(received(response))
    }
}

async fn http2_handshake(
    connection: Connection,
) -> Result<(http2::SendRequest<WasiBody>, impl Future<Output = ()>), hyper::Error> {
    let (sender, driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .handshake(TokioIo::new(connection))
        .await?;
    Ok((sender, async { drop(driver.await) }))
}

/// The request without what is about the guest's own connection, which is none. A path that is none, or a tunnel, is refused.
fn prepared(request: Request) -> Result<http::Request<WasiBody>, HttpError> {
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT {
        return Err(HttpError::HttpRequestMethodInvalid);
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let asterisk = parts.method == Method::OPTIONS && path == "*";
    if !path.starts_with('/') && !asterisk {
        return Err(HttpError::HttpRequestUriInvalid);
    }
    strip_hop_by_hop(&mut parts.headers);
    parts.headers.remove(header::HOST);
    Ok(http::Request::from_parts(parts, body))
}

/// With the path alone and a `Host`, as HTTP/1.1 has it.
fn relative(
    mut request: http::Request<WasiBody>,
    destination: &Destination,
) -> http::Request<WasiBody> {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    *request.version_mut() = http::Version::HTTP_11;
    let host = HeaderValue::try_from(destination.authority().as_str());
    request
        .headers_mut()
        .insert(header::HOST, host.expect("an authority is a field's value"));
    request
}

/// With scheme and authority, as HTTP/2 has it.
fn absolute(
    mut request: http::Request<WasiBody>,
    destination: &Destination,
) -> http::Request<WasiBody> {
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTPS);
    parts.authority = Some(destination.authority());
    parts
        .path_and_query
        .get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(parts).expect("all three parts are there");
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().remove(header::HOST);
    request
}

fn received(response: http::Response<Incoming>) -> Response {
    let (mut parts, body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    http::Response::from_parts(parts, body.map_err(HttpError::from).boxed_unsync())
}

/// Removes fields that are about one connection, those that `Connection` names included.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn sending_error(error: hyper::Error) -> HttpError {
    tracing::debug!(%error, "an outgoing request failed");
    if error.is_user() || error.is_parse() {
        return HttpError::from(error);
    }
    HttpError::ConnectionTerminated
}

impl From<Refusal> for HttpError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(_) => Self::HttpRequestDenied,
            Refusal::Inside => Self::DestinationIpProhibited,
            Refusal::Limit(_) => Self::ConnectionLimitReached,
            Refusal::Unknown => Self::DnsError {
                rcode: None,
                info_code: None,
            },
            Refusal::Refused => Self::ConnectionRefused,
            Refusal::TimedOut => Self::ConnectionTimeout,
            Refusal::Unreachable => Self::DestinationUnavailable,
            Refusal::Broken => Self::ConnectionTerminated,
            Refusal::Certificate(_) => Self::TlsCertificateError,
            Refusal::Tls(_) => Self::TlsProtocolError,
        }
    }
}
