//! The one HTTP client of the command line.

use super::output::{CliError, Failure, Result};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{
    DefaultServerNameResolver, HttpsConnector, HttpsConnectorBuilder, ResolveServerName,
};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// How long a request may take in all, in milliseconds.
const REQUEST_MS_MAX: u64 = 30_000;
/// How long a connection may take to come about, in milliseconds.
const CONNECT_MS_MAX: u64 = 3_000;
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A client that keeps its connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// The name that a certificate must be for: that in the URL, or one that stands for its address.
struct Names(Option<ServerName<'static>>);

impl ResolveServerName for Names {
    fn resolve(
        &self,
        uri: &Uri,
    ) -> std::result::Result<ServerName<'static>, Box<dyn std::error::Error + Sync + Send>> {
        let named = DefaultServerNameResolver::default().resolve(uri)?;
        match (&self.0, named) {
            (Some(name), ServerName::IpAddress(_)) => Ok(name.clone()),
            (_, named) => Ok(named),
        }
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    pub method: Method,
    pub url: &'a str,
    pub token: Option<&'a str>,
    pub body: Option<Content>,
    /// How long it may take in all.
    pub patience: Duration,
}

/// What is sent along.
#[derive(Clone, Debug)]
pub enum Content {
    Json(Value),
    /// Bytes of a media type.
    Bytes(&'static str, Bytes),
}

impl<'a> Ask<'a> {
    /// A question without body and token.
    pub fn new(method: Method, url: &'a str) -> Self {
        Self {
            method,
            url,
            token: None,
            body: None,
            patience: Duration::from_millis(REQUEST_MS_MAX),
        }
    }

    /// With a bearer token.
    pub fn token(self, token: &'a str) -> Self {
        Self {
            token: Some(token),
            ..self
        }
    }

    /// With JSON.
    pub fn json(self, body: Value) -> Self {
        Self {
            body: Some(Content::Json(body)),
            ..self
        }
    }

    /// With bytes of a media type.
    pub fn bytes(self, media_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        Self {
            body: Some(Content::Bytes(media_type, bytes.into())),
            ..self
        }
    }

    /// With more time than a question usually takes.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }
}

impl Client {
    /// A client for http and https, which trusts the public certificates.
    pub fn new() -> Self {
        Self::with(RootCertStore::empty(), None)
    }

    /// A client of one platform: it trusts `roots` too, and where an address is asked, expects the certificate to be
    /// for `name` if there is one.
    pub fn with(mut roots: RootCertStore, name: Option<ServerName<'static>>) -> Self {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_millis(CONNECT_MS_MAX)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .with_server_name_resolver(Names(name))
            .enable_http1()
            .wrap_connector(connector);
        Self {
            http: legacy::Client::builder(TokioExecutor::new()).build(connector),
        }
    }

    /// Asks, and answers whatever comes back with any status.
    pub async fn send(&self, ask: Ask<'_>) -> Result<Answer> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.url)
            .header(header::ACCEPT, "application/json");
        if let Some(token) = ask.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let (media_type, body) = match ask.body {
            Some(Content::Json(body)) => (Some("application/json"), Bytes::from(body.to_string())),
            Some(Content::Bytes(media_type, bytes)) => (Some(media_type), bytes),
            None => (None, Bytes::new()),
        };
        if let Some(media_type) = media_type {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        let request = request.body(Full::new(body)).map_err(|error| {
            CliError::failed(format!("`{}` cannot be asked: {error}", ask.url))
                .remedy("check the address and the token")
        })?;
        let exchange = tokio::time::timeout(ask.patience, self.exchange(request, ask.url));
        exchange.await.unwrap_or_else(|_| {
            Err(CliError::failed(format!(
                "{} did not answer within {} s",
                ask.url,
                ask.patience.as_secs()
            ))
            .code(Failure::Unreachable))
        })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>, url: &str) -> Result<Answer> {
        let response = self
            .http
            .request(request)
            .await
            .map_err(|error| unreachable(url, &error))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| {
                CliError::failed(format!("the answer of {url} broke off: {error}"))
                    .code(Failure::Unreachable)
            })?;
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    /// Asks for JSON; any status but 2xx is an error that tells the problem.
    pub async fn json<T: DeserializeOwned>(&self, ask: Ask<'_>) -> Result<T> {
        let url = ask.url;
        let answer = self.send(ask).await?;
        answer.json(url)
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Answer {
    /// The body as JSON, where the status is good.
    pub fn json<T: DeserializeOwned>(&self, url: &str) -> Result<T> {
        if !self.status.is_success() {
            return Err(self.refusal(url));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            CliError::failed(format!(
                "the answer of {url} is not what it should be: {error}"
            ))
        })
    }

    /// The problem that the answer tells.
    pub fn refusal(&self, url: &str) -> CliError {
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let detail = problem
            .get("detail")
            .or_else(|| problem.get("title"))
            .and_then(Value::as_str);
        let fields = problem["errors"].as_array().into_iter().flatten();
        let told = fields.map(|error| {
            let text = |name: &str| error[name].as_str().unwrap_or_default();
            format!(
                "{} {}",
                text("field").trim_start_matches('/'),
                text("message")
            )
        });
        let told: Vec<_> = detail.map(str::to_owned).into_iter().chain(told).collect();
        let error = CliError::failed(match told.join("; ").as_str() {
            "" => format!("{url} answered {}", self.status),
            told => format!("{url} answered {}: {told}", self.status),
        });
        match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => error.code(Failure::Refused),
            _ => error,
        }
    }

    /// Seconds of `Retry-After`, if the answer has it.
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds = self
            .headers
            .get(header::RETRY_AFTER)?
            .to_str()
            .ok()?
            .parse()
            .ok()?;
        Some(Duration::from_secs(seconds))
    }
}

/// The error of a request that came to nobody, with what people do about it.
fn unreachable(url: &str, error: &legacy::Error) -> CliError {
    let address = url
        .parse::<http::Uri>()
        .ok()
        .and_then(|uri| uri.authority().map(ToString::to_string));
    let address = address.unwrap_or_else(|| url.to_owned());
    let mut reason: &dyn std::error::Error = error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    CliError::failed(format!("platform not reachable at {address}: {reason}"))
        .remedy(
            "start it with `cargo xtask up` (or `exprsn up`), or name another address; see --help",
        )
        .code(Failure::Unreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer {
            status,
            headers: http::HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn refusals_tell_the_problem() {
        let refused = answer(403, r#"{"detail":"the token lacks `admin`"}"#).refusal("http://x/");
        assert_eq!(
            (refused.failure, refused.cause.as_str()),
            (
                Failure::Refused,
                "http://x/ answered 403 Forbidden: the token lacks `admin`"
            )
        );
        let broken = answer(502, "<html>")
            .json::<Value>("http://x/")
            .unwrap_err();
        assert_eq!(
            (broken.failure, broken.cause.as_str()),
            (Failure::Failed, "http://x/ answered 502 Bad Gateway")
        );
        assert!(answer(200, "nonsense").json::<Value>("http://x/").is_err());
    }

    #[tokio::test]
    async fn nobody_there_says_how_to_start() {
        // A port that was free a moment ago: bound, learnt, closed.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let url = format!("http://127.0.0.1:{port}/");
        let error = Client::new()
            .send(Ask::new(Method::GET, &url))
            .await
            .unwrap_err();
        assert_eq!(error.failure, Failure::Unreachable);
        assert!(
            error
                .cause
                .contains(&format!("not reachable at 127.0.0.1:{port}")),
            "{error}"
        );
        assert!(error.remedy.contains("cargo xtask up"));
    }
}
