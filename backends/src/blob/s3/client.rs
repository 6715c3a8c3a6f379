//! Requests to the bucket: signed, timed, and sent again where that does no harm.

use super::settings::{Limits, Settings, Target};
use crate::{
    blob::backend::{Error, Result, away},
    clock,
};
use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::{
    fmt, io,
    time::{Duration, UNIX_EPOCH},
};
use tokio::time::timeout;

/// Longest answer that is read whole, in bytes: a page of 1,000 keys has less than 2 MiB.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// How long an unused connection is kept; servers often close them after a minute or two.
const UNUSED_MAX: Duration = Duration::from_secs(20);
/// What no URL has to escape, beside letters and digits.
const UNRESERVED: &[u8] = b"-_.~";

/// What is asked of the bucket.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub method: Method,
    /// Empty is the bucket itself.
    pub key: String,
    pub query: Vec<(&'static str, String)>,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// Whether it does no harm when it is done twice.
    pub repeatable: bool,
}

/// Why there is no answer to go on with.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server refused.
    Refused {
        status: StatusCode,
        /// As S3 names it: "NoSuchKey". Answers without a body have none.
        code: String,
        message: String,
    },
    /// It did not answer, or not to its end.
    Lost(io::Error),
    /// The request cannot be made.
    Unfit(String),
}

impl Fault {
    pub fn is(&self, wanted: StatusCode) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == wanted)
    }

    /// The condition of a write does not hold, or another write came between.
    pub fn is_condition(&self) -> bool {
        match self {
            Self::Refused { status, code, .. } => {
                *status == StatusCode::PRECONDITION_FAILED || code == "ConditionalRequestConflict"
            }
            _ => false,
        }
    }

    /// Whether another attempt may do better.
    fn passes(&self, repeatable: bool) -> bool {
        match self {
            // Told before anything was done.
            Self::Refused { status, .. }
                if [
                    StatusCode::SERVICE_UNAVAILABLE,
                    StatusCode::TOO_MANY_REQUESTS,
                ]
                .contains(status) =>
            {
                true
            }
            Self::Refused { status, code, .. } => {
                repeatable
                    && (status.is_server_error() || code == "RequestTimeout")
                    && *status != StatusCode::NOT_IMPLEMENTED
            }
            Self::Lost(_) => repeatable,
            Self::Unfit(_) => false,
        }
    }

    /// What it is to the caller: a limit of the server's, or the host's fault.
    pub fn into_error(self, doing: &'static str) -> Error {
        match self {
            Self::Unfit(text) => Error::Invalid(text),
            Self::Lost(source) => away(doing)(source),
            Self::Refused { status, code, .. }
                if status == StatusCode::INSUFFICIENT_STORAGE
                    || ["EntityTooLarge", "QuotaExceeded", "XMinioStorageFull"]
                        .contains(&code.as_str()) =>
            {
                Error::LimitExceeded("the server of the objects takes no more".to_owned())
            }
            refused => away(doing)(io::Error::other(refused.to_string())),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                status,
                code,
                message,
            } => write!(f, "the S3 server answered {status} {code}: {message}"),
            Self::Lost(error) => write!(f, "the S3 server did not answer: {error}"),
            Self::Unfit(text) => f.write_str(text),
        }
    }
}

pub(super) type Answer<T> = std::result::Result<T, Fault>;

/// The bucket, as all services share it.
pub(super) struct Client {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    target: Target,
    credentials: Credentials,
    region: String,
    pub bucket: String,
    pub limits: Limits,
}

impl Client {
    /// Connects when it is first asked.
    pub fn new(settings: &Settings) -> Result<Self> {
        let target = settings.target()?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(settings.limits.connect));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(settings.tls()?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(UNUSED_MAX)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self {
            http,
            target,
            credentials: settings.credentials(),
            region: settings.region.clone(),
            bucket: settings.bucket.clone(),
            limits: settings.limits,
        })
    }

    /// Asks, and again where that makes sense, until the head of an answer is there.
    pub async fn send(&self, request: &Request) -> Answer<Response<Incoming>> {
        let mut wait = self.limits.backoff;
        let mut attempt = 1;
        loop {
            match self.send_once(request).await {
                Err(fault)
                    if attempt < self.limits.attempts_max && fault.passes(request.repeatable) =>
                {
                    tracing::debug!(%fault, attempt, "a request to S3 is sent again");
                }
                answer => return answer,
            }
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.5))).await;
            wait *= 2;
            attempt += 1;
        }
    }

    /// Asks, and reads the answer to its end.
    pub async fn ask(&self, request: &Request) -> Answer<(HeaderMap, Bytes)> {
        let (head, body) = self.send(request).await?.into_parts();
        Ok((head.headers, self.whole(body).await?))
    }

    async fn send_once(&self, request: &Request) -> Answer<Response<Incoming>> {
        let signed = self.signed(request)?;
        let answer = timeout(self.limits.answer, self.http.request(signed))
            .await
            .map_err(|_| Fault::Lost(io::ErrorKind::TimedOut.into()))?
            .map_err(|error| Fault::Lost(io::Error::other(chain(&error))))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        // What an answer to HEAD says is in its status alone.
        let told = self.whole(body).await.unwrap_or_default();
        let (code, message) = super::xml::fault(&told).unwrap_or_default();
        Err(Fault::Refused {
            status: head.status,
            code,
            message,
        })
    }

    async fn whole(&self, body: Incoming) -> Answer<Bytes> {
        let read = timeout(
            self.limits.answer,
            Limited::new(body, ANSWER_BYTES_MAX).collect(),
        );
        let collected = read
            .await
            .map_err(|_| Fault::Lost(io::ErrorKind::TimedOut.into()))?;
        let collected = collected.map_err(|error| Fault::Lost(io::Error::other(error)))?;
        Ok(collected.to_bytes())
    }

    fn signed(&self, request: &Request) -> Answer<http::Request<Full<Bytes>>> {
        let unsigned = self.unsigned(request)?;
        let failed = |error: &dyn fmt::Display| Fault::Lost(io::Error::other(error.to_string()));
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let now = Duration::from_millis(clock::now_ms().unsigned_abs());
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(UNIX_EPOCH + now)
            .settings(settings)
            .build()
            .map_err(|error| failed(&error))?
            .into();
        let headers = unsigned.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str(), value.to_str().unwrap_or("")));
        let uri = unsigned.uri().to_string();
        let body = SignableBody::Bytes(&request.body);
        let signable = SignableRequest::new(request.method.as_str(), &uri, headers, body)
            .map_err(|error| failed(&error))?;
        let (instructions, _) = sign(signable, &params)
            .map_err(|error| failed(&error))?
            .into_parts();
        let mut signed = unsigned.map(|()| Full::new(request.body.clone()));
        instructions.apply_to_request_http1x(&mut signed);
        Ok(signed)
    }

    fn unsigned(&self, request: &Request) -> Answer<http::Request<()>> {
        let Target { base, host, path } = &self.target;
        let mut uri = format!("{base}{path}{}", encoded(&request.key, b"/"));
        for (number, (name, value)) in request.query.iter().enumerate() {
            let mark = if number == 0 { '?' } else { '&' };
            uri.push_str(&format!("{mark}{name}={}", encoded(value, b"")));
        }
        let mut builder: request::Builder = http::Request::builder()
            .method(&request.method)
            .uri(uri)
            .header("host", host);
        for (name, value) in &request.headers {
            // Signatures hold for visible text only.
            let fit = value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
            let header = HeaderValue::from_str(value).ok().filter(|_| fit);
            let header = header.ok_or_else(|| {
                Fault::Unfit(format!("{name} must be printable ASCII to be kept in S3"))
            })?;
            builder = builder.header(HeaderName::from_static(name), header);
        }
        builder
            .body(())
            .map_err(|error| Fault::Lost(io::Error::other(error)))
    }

    /// Where a key is, as `x-amz-copy-source` names it.
    pub fn source(&self, key: &str) -> String {
        format!("/{}/{}", self.bucket, encoded(key, b"/"))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.target.base)
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

/// Percent-encodes as signatures want it, all but `also`.
fn encoded(text: &str, also: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || UNRESERVED.contains(&byte) || also.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
