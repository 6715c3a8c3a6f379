//! HTTP to the world outside: granted by pattern, and never to an address inside unless the grant names it.

use bytes::Bytes;
use http::{HeaderName, Uri, header};
use http_body_util::BodyExt as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{
            HttpConnector,
            dns::{GaiResolver, Name},
        },
    },
    rt::{TokioExecutor, TokioTimer},
};
use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tower_service::Service;
use wasmtime_wasi_http::{
    Error as HttpError, WasiBody,
    handler::{Request, Response},
};

/// How long a connection may take to be made, in milliseconds.
const CONNECT_MS_MAX: u64 = 5_000;
/// How long an unused connection is kept, in seconds.
const IDLE_S_MAX: u64 = 30;
/// Unused connections kept for one host.
const IDLE_PER_HOST_MAX: usize = 32;

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, HttpError>;
type Outgoing = Client<HttpsConnector<HttpConnector<Resolver>>, SyncBody>;

/// Clients for the outside: one that refuses inner addresses, and one for hosts that a grant names.
pub struct Egress {
    public_only: Outgoing,
    any_address: Outgoing,
}

impl Egress {
    /// Clients with no connection yet.
    pub fn new() -> Self {
        Self {
            public_only: client(true),
            any_address: client(false),
        }
    }

    /// Sends a request whose grant has been checked. Unless the grant names the host, inner addresses are refused
    /// after resolution, so that a name cannot be pointed inside (DNS rebinding).
    pub async fn send(&self, request: Request, host_is_named: bool) -> Result<Response, HttpError> {
        let literal = request.uri().host().and_then(literal_address);
        if !host_is_named && literal.is_some_and(is_inner) {
            return Err(HttpError::DestinationIpProhibited);
        }
        let client = if host_is_named {
            &self.any_address
        } else {
            &self.public_only
        };
        let response = client
            .request(prepare(request))
            .await
            .map_err(client_error)?;
        let (mut parts, body) = response.into_parts();
        strip_hop_by_hop(&mut parts.headers);
        Ok(http::Response::from_parts(
            parts,
            body.map_err(HttpError::from).boxed_unsync(),
        ))
    }
}

impl Default for Egress {
    fn default() -> Self {
        Self::new()
    }
}

fn client(public_only: bool) -> Outgoing {
    let mut connector = HttpConnector::new_with_resolver(Resolver {
        inner: GaiResolver::new(),
        public_only,
    });
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(Duration::from_millis(CONNECT_MS_MAX)));
    let connector = HttpsConnectorBuilder::new()
        .with_webpki_roots()
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(IDLE_S_MAX))
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .build(connector)
}

fn prepare(request: Request) -> http::Request<SyncBody> {
    let (mut parts, body) = request.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    parts.version = http::Version::HTTP_11;
    // hyper writes Host from the URI, whose authority is the one that was checked.
    parts.headers.remove(header::HOST);
    http::Request::from_parts(parts, SyncBody(std::sync::Mutex::new(body)))
}

fn strip_hop_by_hop(headers: &mut http::HeaderMap) {
    const HOP_BY_HOP: [HeaderName; 6] = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn client_error(error: hyper_util::client::legacy::Error) -> HttpError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::PermissionDenied => return HttpError::DestinationIpProhibited,
                io::ErrorKind::ConnectionRefused => return HttpError::ConnectionRefused,
                io::ErrorKind::TimedOut => return HttpError::ConnectionTimeout,
                _ => {}
            }
        }
        source = cause.source();
    }
    tracing::debug!(error = %error, "an outgoing request failed");
    if error.is_connect() {
        HttpError::DestinationUnavailable
    } else {
        HttpError::ConnectionTerminated
    }
}

fn literal_address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
}

/// Whether an address is not of the public internet: loopback, private, link-local (clouds' metadata), multicast, …
pub fn is_inner(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
                || (a == 192 && b == 0 && c == 0)
        }
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || first == 0x64
                || first == 0x2002
                || (first == 0x2001 && v6.segments()[1] < 0x200)
        }
    }
}

/// Resolves names, leaving out inner addresses.
#[derive(Clone)]
struct Resolver {
    inner: GaiResolver,
    public_only: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolved = self.inner.call(name);
        let public_only = self.public_only;
        Box::pin(async move {
            let addresses: Vec<_> = resolved
                .await?
                .filter(|address| !(public_only && is_inner(address.ip())))
                .collect();
            if addresses.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the name leads to inner addresses only",
                ));
            }
            Ok(addresses.into_iter())
        })
    }
}

/// A body that the pooled client can hold: it asks for `Sync`, which a body of a guest is not.
struct SyncBody(std::sync::Mutex<WasiBody>);

impl http_body::Body for SyncBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, HttpError>>> {
        let body: &mut Body = self
            .get_mut()
            .0
            .get_mut()
            .expect("no holder of this lock panics");
        Pin::new(body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .lock()
            .expect("no holder of this lock panics")
            .is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0
            .lock()
            .expect("no holder of this lock panics")
            .size_hint()
    }
}

/// An egress pattern, `scheme://host:port`, in which host may begin with `*.` or be `*`, and port may be `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressPattern {
    scheme: String,
    host: String,
    /// None is any port.
    port: Option<u16>,
}

impl EgressPattern {
    /// Parses a pattern; the error says what it should look like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "egress pattern `{text}` should look like https://api.example.com:443, https://*.example.com or https://*"
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        if !matches!(scheme, "http" | "https" | "tcp" | "tls")
            || rest.is_empty()
            || rest.contains('/')
        {
            return Err(wrong());
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (rest, ""),
        };
        let port = match port {
            "*" => None,
            "" => Some(default_port(scheme)),
            digits => Some(digits.parse().map_err(|_| wrong())?),
        };
        Ok(Self {
            scheme: scheme.to_owned(),
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// Whether the pattern covers a URI.
    pub fn covers(&self, uri: &Uri) -> bool {
        let scheme = uri.scheme_str().unwrap_or("http");
        let port = uri.port_u16().unwrap_or(default_port(scheme));
        scheme == self.scheme
            && self.port.is_none_or(|wanted| wanted == port)
            && self.covers_host(uri)
    }

    fn covers_host(&self, uri: &Uri) -> bool {
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        match self.host.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == self.host,
        }
    }

    /// Whether the pattern spells the host out.
    pub fn names_host(&self) -> bool {
        !self.host.starts_with('*')
    }
}

pub(super) fn default_port(scheme: &str) -> u16 {
    if matches!(scheme, "https" | "tls") {
        443
    } else {
        80
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_what_they_say() {
        let check = |pattern: &str, uri: &str| {
            EgressPattern::parse(pattern)
                .unwrap()
                .covers(&uri.parse().unwrap())
        };
        assert!(check("https://*", "https://example.com/a"));
        assert!(!check("https://*", "http://example.com/a"));
        assert!(!check("https://*", "https://example.com:8443/a"));
        assert!(check("http://127.0.0.1:*", "http://127.0.0.1:9/a"));
        assert!(check("https://*.example.com", "https://a.EXAMPLE.com/"));
        assert!(!check(
            "https://*.example.com",
            "https://example.com.evil.org/"
        ));
        assert!(!check(
            "https://api.example.com",
            "https://user@api.example.com.evil/"
        ));
        assert!(EgressPattern::parse("example.com").is_err());
        assert!(EgressPattern::parse("ftp://example.com").is_err());
    }

    #[test]
    fn inner_addresses_are_known() {
        for inner in [
            "127.0.0.1",
            "10.1.2.3",
            "169.254.169.254",
            "::1",
            "::ffff:127.0.0.1",
            "fd00::1",
            "100.64.0.1",
            "0.0.0.0",
        ] {
            assert!(is_inner(inner.parse().unwrap()), "{inner}");
        }
        for public in ["93.184.216.34", "2606:2800:220:1::1"] {
            assert!(!is_inner(public.parse().unwrap()), "{public}");
        }
    }
}
