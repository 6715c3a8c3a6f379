//! Another host: its connections, how busy it is, and whether it is passed over for now.

use super::{
    CONNECTION_WINDOW_BYTES, Config, HostState, STREAM_WINDOW_BYTES,
    identity::Identity,
    wire::{ENVELOPE, UNTOUCHED},
};
use http::{HeaderValue, StatusCode, Uri};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::Mutex,
};
use wasmtime::{Result, error::Context as _, format_err};
use wasmtime_wasi_http::{
    Error as HttpError, WasiBody,
    handler::{Request, Response},
};

/// How a call to another host ended.
pub enum Reached {
    Answered(Response),
    /// Nothing of it was begun there; the request is given back where it still is whole.
    Untouched(Option<Request>),
    /// It may have been begun.
    Lost(String),
}

impl Reached {
    /// The name in metrics.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Answered(_) => "answered",
            Self::Untouched(_) => "untouched",
            Self::Lost(_) => "lost",
        }
    }
}

/// A connection, and the certificate that the host showed on it.
#[derive(Clone)]
struct Connection {
    sender: SendRequest<WasiBody>,
    serial: Arc<str>,
}

/// Another host.
pub struct Peer {
    pub name: String,
    pub address: String,
    config: Config,
    identity: Arc<Identity>,
    /// One for each core and one for what belongs to no request, made when it is first needed.
    connections: Vec<Mutex<Option<Connection>>>,
    /// Calls of this host that are under way there.
    under_way: AtomicU32,
    /// What it said itself.
    load: AtomicU32,
    draining: AtomicBool,
    failures: AtomicU32,
    born: Instant,
    /// Until when it is passed over, in milliseconds since `born`.
    ejected_until_ms: AtomicU64,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.name)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Peer {
    pub(super) fn new(name: &str, address: &str, config: &Config, identity: Arc<Identity>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            name: name.to_owned(),
            address: address.to_owned(),
            config: config.clone(),
            identity,
            connections: (0..=cores).map(|_| Mutex::default()).collect(),
            under_way: AtomicU32::new(0),
            load: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            born: Instant::now(),
            ejected_until_ms: AtomicU64::new(0),
        }
    }

    /// Takes in what the host says of itself.
    pub(super) fn hear(&self, state: &HostState) {
        self.load.store(state.load, Relaxed);
        self.draining.store(state.draining, Relaxed);
    }

    /// The smaller, the better: whether it is passed over, whether it is about to stop, how busy it is.
    pub fn rank(&self) -> (bool, bool, u32) {
        let busy = self
            .under_way
            .load(Relaxed)
            .saturating_add(self.load.load(Relaxed));
        (self.is_ejected(), self.draining.load(Relaxed), busy)
    }

    /// Whether it failed lately, and is passed over while others answer.
    pub fn is_ejected(&self) -> bool {
        self.age_ms() < self.ejected_until_ms.load(Relaxed)
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Passes the host over for a while, twice as long with each failure in a row.
    fn eject(&self, reason: &str) {
        let failures = self.failures.fetch_add(1, Relaxed).min(16);
        let span = (self.config.eject_ms << failures).min(self.config.eject_ms_max);
        self.ejected_until_ms.store(self.age_ms() + span, Relaxed);
        tracing::warn!(
            host = self.name,
            address = self.address,
            reason,
            span_ms = span,
            "a host is passed over"
        );
    }

    fn recovered(&self) {
        if self.failures.swap(0, Relaxed) > 0 {
            self.ejected_until_ms.store(0, Relaxed);
            tracing::info!(host = self.name, "a host answers again");
        }
    }

    /// Sends a call with its envelope. Resolves with the head of the answer.
    pub async fn call(&self, request: Request, envelope: &str) -> Reached {
        let request = match enveloped(request, envelope, &self.name) {
            Ok(request) => request,
            Err(error) => return Reached::Lost(error.to_string()),
        };
        let _under_way = UnderWay::begin(&self.under_way);
        let mut connection = match self.connection(self.of_core()).await {
            Ok(connection) => connection,
            Err(error) => {
                self.eject(&crate::telemetry::chain(&error));
                return Reached::Untouched(Some(request));
            }
        };
        match connection.sender.try_send_request(request).await {
            Ok(answer) => {
                self.recovered();
                answered(answer)
            }
            Err(mut failed) => {
                *self.connections[self.of_core()].lock().await = None;
                match failed.take_message() {
                    Some(request) => Reached::Untouched(Some(request)),
                    None => {
                        let reason = failed.into_error().to_string();
                        self.eject(&reason);
                        Reached::Lost(reason)
                    }
                }
            }
        }
    }

    /// The place of this core's connection: a connection stays on the runtime that drives it.
    fn of_core(&self) -> usize {
        crate::mesh::current_core() % (self.connections.len() - 1)
    }

    /// The connection at `place`, made anew where it is lost.
    async fn connection(&self, place: usize) -> Result<Connection> {
        let mut slot = self.connections[place].lock().await;
        // A host that was removed is spoken to no more, on connections that are open neither.
        let good =
            |one: &&Connection| !one.sender.is_closed() && !self.identity.is_revoked(&one.serial);
        if let Some(connection) = slot.as_ref().filter(good) {
            return Ok(connection.clone());
        }
        let limit = Duration::from_millis(self.config.connect_ms_max);
        let connection = tokio::time::timeout(limit, self.connect())
            .await
            .map_err(|_| format_err!("no connection within connect_ms_max"))??;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    async fn connect(&self) -> Result<Connection> {
        let stream = self
            .reach()
            .await
            .with_context(|| format!("connecting to {}", self.address))?;
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        let name = ServerName::try_from(self.name.clone()).context("the host's name")?;
        let stream = self
            .identity
            .ends()
            .connector
            .connect(name, stream)
            .await
            .context("the handshake with the host")?;
        let (_, session) = stream.get_ref();
        let shown = session.peer_certificates().and_then(<[_]>::first);
        let shown = self
            .identity
            .peer(shown.context("the host showed no certificate")?)?;
        let ping = Duration::from_millis(self.config.ping_ms);
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(ping)
            .keep_alive_timeout(ping)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .context("beginning HTTP/2")?;
        let host = self.name.clone();
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::debug!(host, %error, "a connection to another host ended");
            }
        });
        Ok(Connection {
            sender,
            serial: shown.serial.into(),
        })
    }

    /// Connects from the address that others reach this host by, so that networks may be told apart by it.
    async fn reach(&self) -> std::io::Result<TcpStream> {
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for address in tokio::net::lookup_host(&self.address).await? {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            let own = self.config.listen_address().ok().map(|own| own.ip());
            if let Some(own) =
                own.filter(|own| !own.is_unspecified() && own.is_ipv4() == address.is_ipv4())
            {
                socket.bind(SocketAddr::new(own, 0))?;
            }
            match socket.connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Asks the host itself for something: JSON there and back.
    pub async fn ask(&self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value> {
        let body = crate::mesh::whole(body.to_string());
        let uri: Uri = format!("https://{}{path}", self.name).parse()?;
        let request = http::Request::post(uri)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)?;
        let mut connection = self.connection(self.connections.len() - 1).await?;
        let answer = connection.sender.send_request(request).await?;
        let status = answer.status();
        let body =
            http_body_util::Limited::new(answer.into_body(), super::routes::ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|error| format_err!("the answer broke off: {error}"))?
                .to_bytes();
        let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        match status {
            StatusCode::OK => Ok(said),
            _ => Err(format_err!(
                "host {} answered {status}: {}",
                self.name,
                said["detail"].as_str().unwrap_or_default()
            )),
        }
    }
}

/// The request as it travels: to the host, with its envelope; connection headers are each hop's own.
fn enveloped(request: Request, envelope: &str, host: &str) -> Result<Request> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.headers.remove(http::header::HOST);
    parts
        .headers
        .insert(ENVELOPE, HeaderValue::try_from(envelope)?);
    parts.uri = format!("https://{host}{path}").parse()?;
    parts.version = http::Version::HTTP_2;
    Ok(http::Request::from_parts(parts, body))
}

fn answered(answer: http::Response<hyper::body::Incoming>) -> Reached {
    let (mut parts, body) = answer.into_parts();
    if parts.headers.remove(UNTOUCHED).is_some() {
        return Reached::Untouched(None);
    }
    parts.version = http::Version::HTTP_11;
    let body = body.map_err(HttpError::from).boxed_unsync();
    Reached::Answered(http::Response::from_parts(parts, body))
}

/// A call that is under way, until dropped.
struct UnderWay<'a>(&'a AtomicU32);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
