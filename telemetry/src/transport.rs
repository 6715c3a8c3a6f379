//! OTLP's two transports: protobuf over HTTP, and gRPC, which is unary calls over HTTP/2 and needs no more than this.

use crate::config::{Compression, Config, Protocol, Signal};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use prost::Message;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::{io::Write as _, sync::Arc, time::Duration};

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// gRPC's prefix of a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// How a batch fared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Taken, but for this many records, with what the collector says of them.
    Taken { rejected: u64, message: String },
    /// Not now; perhaps after this time.
    Later {
        after: Option<Duration>,
        why: String,
    },
    /// Never.
    Refused(String),
}

/// A way to a collector.
pub(crate) struct Transport {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uris: [Uri; 3],
    headers: HeaderMap,
    protocol: Protocol,
    compression: Compression,
    timeout: Duration,
}

impl Transport {
    /// Prepares the way, asking nobody yet.
    pub fn new(config: &Config) -> Result<Self, String> {
        let tls = tls(&config.ca_file)?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(config.timeout()));
        let builder = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http();
        let connector = match config.protocol {
            Protocol::Http => builder.enable_all_versions().wrap_connector(connector),
            Protocol::Grpc => builder.enable_http2().wrap_connector(connector),
        };
        let client = Client::builder(TokioExecutor::new())
            .http2_only(config.protocol == Protocol::Grpc)
            .build(connector);
        Ok(Self {
            client,
            uris: uris(config)?,
            headers: headers(config)?,
            protocol: config.protocol,
            compression: config.compression,
            timeout: config.timeout(),
        })
    }

    /// Sends an encoded request once.
    pub async fn send(&self, signal: Signal, message: &Bytes) -> Answer {
        match tokio::time::timeout(self.timeout, self.exchange(signal, message)).await {
            Ok(answer) => answer,
            Err(_) => later("the collector does not answer in time"),
        }
    }

    async fn exchange(&self, signal: Signal, message: &Bytes) -> Answer {
        let mut request = http::Request::post(self.uris[signal as usize].clone())
            .body(Full::new(self.body(message)))
            .expect("a URI makes a request");
        request.headers_mut().clone_from(&self.headers);
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return later(&chain(&error)),
        };
        let (parts, body) = response.into_parts();
        let body = match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
            Ok(body) => body,
            Err(error) => return later(&format!("the collector's answer broke off: {error}")),
        };
        match self.protocol {
            Protocol::Http => http_answer(signal, parts.status, &parts.headers, &body.to_bytes()),
            Protocol::Grpc => {
                // What fails at once has its status in the head.
                let trailers = body.trailers().cloned().unwrap_or_default();
                grpc_answer(
                    signal,
                    parts.status,
                    [&trailers, &parts.headers],
                    &body.to_bytes(),
                )
            }
        }
    }

    fn body(&self, message: &Bytes) -> Bytes {
        let compressed = match self.compression {
            Compression::None => message.clone(),
            Compression::Gzip => gzip(message),
        };
        match self.protocol {
            Protocol::Http => compressed,
            Protocol::Grpc => {
                let mut framed = BytesMut::with_capacity(PREFIX_BYTES + compressed.len());
                framed.put_u8(u8::from(self.compression == Compression::Gzip));
                framed.put_u32(u32::try_from(compressed.len()).unwrap_or(u32::MAX));
                framed.put(compressed);
                framed.freeze()
            }
        }
    }
}

fn gzip(message: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(message).expect("memory takes all");
    encoder.finish().expect("memory takes all").into()
}

fn tls(ca_file: &str) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if ca_file.is_empty() {
        return Ok(builder.with_root_certificates(roots).with_no_client_auth());
    }
    let at_fault =
        |error: &dyn std::fmt::Display| format!("[telemetry] ca_file `{ca_file}`: {error}");
    for certificate in CertificateDer::pem_file_iter(ca_file).map_err(|error| at_fault(&error))? {
        let certificate = certificate.map_err(|error| at_fault(&error))?;
        roots.add(certificate).map_err(|error| at_fault(&error))?;
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Where each signal goes, in the order of [`Signal::ALL`].
fn uris(config: &Config) -> Result<[Uri; 3], String> {
    let base = config.endpoint.trim_end_matches('/');
    let path = |signal: Signal| match (config.protocol, signal) {
        (Protocol::Http, signal) => format!("/v1/{}", signal.as_str()),
        (Protocol::Grpc, Signal::Traces) => service_path("trace", "Trace"),
        (Protocol::Grpc, Signal::Metrics) => service_path("metrics", "Metrics"),
        (Protocol::Grpc, Signal::Logs) => service_path("logs", "Logs"),
    };
    let parse = |signal| {
        let uri: Result<Uri, _> = format!("{base}{}", path(signal)).parse();
        let known = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https"));
        uri.ok().filter(known).ok_or_else(|| {
            format!("[telemetry] endpoint `{base}` must be like http://localhost:4318")
        })
    };
    Ok([
        parse(Signal::Traces)?,
        parse(Signal::Metrics)?,
        parse(Signal::Logs)?,
    ])
}

fn service_path(package: &str, service: &str) -> String {
    format!("/opentelemetry.proto.collector.{package}.v1.{service}Service/Export")
}

fn headers(config: &Config) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in config.header_pairs()? {
        let at_fault = || format!("[telemetry] headers: `{name}` cannot be sent");
        let header = HeaderName::try_from(&*name).map_err(|_| at_fault())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| at_fault())?;
        value.set_sensitive(true);
        headers.append(header, value);
    }
    let agent = concat!("exprsn-otlp/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    let gzip = config.compression == Compression::Gzip;
    let media = match config.protocol {
        Protocol::Http => "application/x-protobuf",
        Protocol::Grpc => "application/grpc",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    match config.protocol {
        Protocol::Http if gzip => {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Protocol::Http => {}
        Protocol::Grpc => {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            let timeout = format!("{}m", config.timeout_ms_max.min(99_999_999));
            let timeout = HeaderValue::try_from(timeout).expect("digits make a header");
            headers.insert("grpc-timeout", timeout);
            if gzip {
                headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
            }
        }
    }
    Ok(headers)
}

fn http_answer(signal: Signal, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    match status.as_u16() {
        200..=299 => taken(signal, body),
        429 | 502 | 503 | 504 => Answer::Later {
            after: seconds(headers),
            why: format!("the collector answers {status}"),
        },
        _ => Answer::Refused(format!("the collector answers {status}")),
    }
}

/// `Retry-After` in seconds; a date is as good as nothing said.
fn seconds(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

fn grpc_answer(
    signal: Signal,
    http: StatusCode,
    [trailers, head]: [&HeaderMap; 2],
    body: &[u8],
) -> Answer {
    let find = |name: &str| {
        let value = trailers.get(name).or_else(|| head.get(name));
        value.and_then(|value| value.to_str().ok())
    };
    let Some(code) = find("grpc-status").and_then(|code| code.parse::<u32>().ok()) else {
        return match http.as_u16() {
            429 | 502 | 503 | 504 => later(&format!("the collector answers {http}")),
            _ => Answer::Refused(format!("what answers {http} speaks no gRPC")),
        };
    };
    let details = find("grpc-status-details-bin");
    let after = details.and_then(retry_delay);
    let why = || {
        let message = find("grpc-message").unwrap_or_default();
        format!("the collector answers gRPC status {code} {message}")
    };
    match code {
        0 => taken(signal, body.get(PREFIX_BYTES..).unwrap_or_default()),
        // Cancelled, deadline exceeded, aborted, out of range, unavailable, data loss.
        1 | 4 | 10 | 11 | 14 | 15 => Answer::Later { after, why: why() },
        // Resource exhausted: worth another try only where the collector says so.
        8 if after.is_some() => Answer::Later { after, why: why() },
        _ => Answer::Refused(why()),
    }
}

/// What a collector took, and what it did not. All three signals' answers have the same form.
fn taken(signal: Signal, body: &[u8]) -> Answer {
    use opentelemetry_proto::tonic::collector::{
        logs::v1::ExportLogsServiceResponse, metrics::v1::ExportMetricsServiceResponse,
        trace::v1::ExportTraceServiceResponse,
    };
    let partly = match signal {
        Signal::Traces => ExportTraceServiceResponse::decode(body).map(|answer| {
            answer
                .partial_success
                .map(|p| (p.rejected_spans, p.error_message))
        }),
        Signal::Metrics => ExportMetricsServiceResponse::decode(body).map(|answer| {
            let partly = answer.partial_success;
            partly.map(|p| (p.rejected_data_points, p.error_message))
        }),
        Signal::Logs => ExportLogsServiceResponse::decode(body).map(|answer| {
            let partly = answer.partial_success;
            partly.map(|p| (p.rejected_log_records, p.error_message))
        }),
    };
    // What was taken with an answer that cannot be read was taken.
    let (rejected, message) = partly.ok().flatten().unwrap_or_default();
    Answer::Taken {
        rejected: u64::try_from(rejected).unwrap_or_default(),
        message,
    }
}

fn later(why: &str) -> Answer {
    Answer::Later {
        after: None,
        why: why.to_owned(),
    }
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += ": ";
        text += &error.to_string();
        cause = error.source();
    }
    text
}

/// `google.rpc.Status`, as far as it matters here.
#[derive(Clone, PartialEq, Message)]
struct RichStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Span>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Span {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// When gRPC's details say that it may be tried again.
fn retry_delay(details: &str) -> Option<Duration> {
    let bytes = BASE64.decode(details.trim_end_matches('=')).ok()?;
    let status = RichStatus::decode(&*bytes).ok()?;
    let mut details = status.details.into_iter();
    let info = details.find(|detail| detail.type_url.ends_with("google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.retry_delay?;
    let (seconds, nanos) = (
        u64::try_from(delay.seconds).ok()?,
        u32::try_from(delay.nanos).ok()?,
    );
    Some(Duration::from_secs(seconds) + Duration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(seconds: i64) -> String {
        let info = RetryInfo {
            retry_delay: Some(Span { seconds, nanos: 0 }),
        };
        let detail = Detail {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: info.encode_to_vec(),
        };
        let status = RichStatus {
            details: vec![detail],
        };
        BASE64.encode(status.encode_to_vec())
    }

    #[test]
    fn statuses_of_grpc_are_retried_as_the_specification_says() {
        let answer = |code: &'static str, details: Option<&str>| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static(code));
            if let Some(details) = details {
                let details = HeaderValue::try_from(details).unwrap();
                trailers.insert("grpc-status-details-bin", details);
            }
            grpc_answer(
                Signal::Traces,
                StatusCode::OK,
                [&trailers, &HeaderMap::new()],
                &[],
            )
        };
        assert!(matches!(
            answer("0", None),
            Answer::Taken { rejected: 0, .. }
        ));
        assert!(matches!(
            answer("14", None),
            Answer::Later { after: None, .. }
        ));
        assert!(matches!(answer("8", None), Answer::Refused(_)));
        let told = answer("8", Some(&details(7)));
        let seven = Some(Duration::from_secs(7));
        assert!(
            matches!(told, Answer::Later { after, .. } if after == seven),
            "{told:?}"
        );
        assert!(matches!(answer("3", None), Answer::Refused(_)));
    }

    #[test]
    fn an_endpoint_that_is_none_is_named() {
        for endpoint in ["localhost:4318", "ftp://collector", "http://"] {
            let config = Config {
                endpoint: endpoint.to_owned(),
                ..Config::default()
            };
            let error = uris(&config).expect_err(endpoint);
            assert!(error.contains("http://localhost:4318"), "{error}");
        }
    }
}
