//! Listeners: from a client's connection to an invocation. Identify → authorise the route → bound → admit.
//!
//! Requests from clients and calls from other services meet in [`enter`]: there is one way in.

use crate::{
    ca::Denial,
    clock,
    invocation::{Invocation, Permissions, Principal, TraceContext, Trigger},
    manifest::{Access, Route, RouteMatch},
    mesh::{self, Mesh},
    name::ServiceName,
    own,
    panics::{Panicked, caught},
    problem::Problem,
    service::{Service, State, Version},
    telemetry::spans::{self, Entered},
    tls::Tls,
    trigger::http::{self as pool, Bounds},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, Uri, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, watch},
};
use wasmtime::{Result, error::Context as _, format_err};
use wasmtime_wasi_http::{
    Error as HttpError,
    handler::{Request, Response},
};

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 1_024;

/// Bytes of a refused request's body that are still read, and for how long.
const LINGER_BYTES_MAX: usize = 16 << 20;
const LINGER_MAX: Duration = Duration::from_secs(2);

/// In whose right a request is made.
#[derive(Clone, Copy, Debug)]
pub enum Authority {
    /// The token of the user (or client, or service) that presented it must allow it.
    OfUser,
    /// A call grant allows it, with these permissions.
    Granted(Permissions),
}

/// A request's circumstances, established by the host.
#[derive(Clone)]
pub struct Arrival {
    pub caller: Arc<Principal>,
    pub user: Option<Arc<Principal>>,
    pub authority: Authority,
    pub address: Option<IpAddr>,
    pub trace: TraceContext,
    /// Services passed so far.
    pub path: Arc<[ServiceName]>,
    pub deadline: Instant,
    pub trigger: Trigger,
}

/// How connections of one listener are served.
#[derive(Clone)]
pub struct Settings {
    pub connections_max: usize,
    pub header_read_max: Duration,
    /// None where connections are in the clear.
    pub tls: Option<Arc<Tls>>,
}

/// Makes sure that nobody listens on `address`, which `SO_REUSEPORT` would hide.
pub fn probe(address: SocketAddr, service: &ServiceName) -> Result<()> {
    bind(address, false).map(drop).map_err(|error| {
        format_err!(
            "cannot listen on {address} for {service}: {error}; stop what uses the port (`ss -ltnp 'sport = :{}'`) or set [platform] port_offset",
            address.port()
        )
    })
}

fn bind(address: SocketAddr, shared: bool) -> std::io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Opens this core's share of a service's port. Call on the core's runtime.
pub fn open(address: SocketAddr) -> Result<tokio::net::TcpListener> {
    let listener = bind(address, true).with_context(|| format!("listening on {address}"))?;
    tokio::net::TcpListener::from_std(listener).context("registering the listener")
}

/// Accepts connections until `stop` says so, then lets those open finish what they have begun.
pub async fn accept(
    listener: tokio::net::TcpListener,
    service: Arc<Service>,
    mesh: Arc<Mesh>,
    settings: Settings,
    mut stop: watch::Receiver<bool>,
) {
    let connections = Arc::new(Semaphore::new(settings.connections_max));
    let graceful = GracefulShutdown::new();
    loop {
        let permit = connections
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or the client left already. Yield, so that others may free some.
                tracing::warn!(service = %service.name, %error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            service: service.clone(),
            mesh: mesh.clone(),
            peer,
            header_read_max: settings.header_read_max,
            watcher: graceful.watcher(),
        };
        let tls = settings.tls.clone();
        tokio::spawn(async move {
            let ended = match tls {
                None => connection.serve(stream, "http").await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => connection.serve(stream, "https").await,
                    Err(error) => Err(error.into()),
                },
            };
            if let Err(error) = ended {
                tracing::debug!(%peer, error, "a connection ended with an error");
            }
            drop(permit);
        });
    }
    graceful.shutdown().await;
}

/// A client's connection that has been accepted.
struct Connection {
    service: Arc<Service>,
    mesh: Arc<Mesh>,
    peer: SocketAddr,
    header_read_max: Duration,
    watcher: Watcher,
}

impl Connection {
    /// Answers its requests until it ends, by HTTP/1.1 or HTTP/2 as it begins.
    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        scheme: &'static str,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (service, mesh, address) = (self.service, self.mesh, self.peer.ip());
        let respond = hyper::service::service_fn(move |request| {
            let (service, mesh) = (service.clone(), mesh.clone());
            async move {
                let client = Client { address, scheme };
                let answered = caught(from_client(&mesh, &service, request, client)).await;
                Ok::<_, Infallible>(answered.unwrap_or_else(|panic| failed(&service, &panic)))
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_read_max);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(200);
        let connection = builder.serve_connection(TokioIo::new(stream), respond);
        self.watcher.watch(connection.into_owned()).await
    }
}

/// Where a request comes from, and by which scheme.
#[derive(Clone, Copy)]
struct Client {
    address: IpAddr,
    scheme: &'static str,
}

/// The answer where the host itself failed.
fn failed(service: &Service, panic: &Panicked) -> Response {
    tracing::error!(service = %service.name, error = %panic, "a request failed");
    if let Some(version) = service.live() {
        version.metrics.panics.inc();
    }
    let detail = "the host failed; the operator finds why in the log";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "host-failed", detail).into_response()
}

/// A client's request: who it is, then in.
async fn from_client(
    mesh: &Arc<Mesh>,
    service: &Arc<Service>,
    request: http::Request<Incoming>,
    client: Client,
) -> Response {
    if let Some(probed) = own::probed(mesh, request.uri().path()) {
        return probed;
    }
    if own::is_admins(service, request.uri().path()) {
        return own::administer(mesh, service, request).await;
    }
    let parent = request
        .headers()
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
        .and_then(TraceContext::parse);
    let trace = spans::entering(parent);
    let from = (Some(client.address), client.scheme);
    let mut entered = Entered::new(service, trace, request.method(), request.uri(), from);
    let answered = identified(mesh, service, request, client, trace, &mut entered).await;
    let mut response = answered.unwrap_or_else(Problem::into_response);
    entered.answered(response.status());
    if let Ok(id) = HeaderValue::try_from(format!("{:032x}", trace.trace_id)) {
        response.headers_mut().entry("x-request-id").or_insert(id);
    }
    response
}

async fn identified(
    mesh: &Arc<Mesh>,
    service: &Arc<Service>,
    request: http::Request<Incoming>,
    client: Client,
    trace: TraceContext,
    entered: &mut Entered,
) -> Result<Response, Problem> {
    let mut request = absolute(request, client.scheme)?;
    let caller = match identify(mesh, service, &mut request).await {
        Ok(caller) => caller,
        Err(problem) => {
            linger(request.map(incoming)).await;
            return Err(problem);
        }
    };
    let user = (!caller.is_anonymous()).then(|| caller.clone());
    let arrival = Arrival {
        caller,
        user,
        authority: Authority::OfUser,
        address: Some(client.address),
        trace,
        path: Arc::new([]),
        deadline: Instant::now() + Duration::from_secs(365 * 86_400),
        trigger: Trigger::Http,
    };
    admitted(mesh, service, request.map(incoming), arrival, entered).await
}

fn incoming(body: Incoming) -> wasmtime_wasi_http::WasiBody {
    body.map_err(HttpError::from).boxed_unsync()
}

/// Gives the request an absolute URI from its authority (absolute form, HTTP/2) or Host header, which must not differ.
fn absolute(
    request: http::Request<Incoming>,
    scheme: &str,
) -> Result<http::Request<Incoming>, Problem> {
    let (mut parts, body) = request.into_parts();
    let host = parts
        .headers
        .get(header::HOST)
        .map(|host| host.to_str().unwrap_or_default().to_owned());
    if parts.headers.get_all(header::HOST).iter().count() > 1 {
        return Err(bad_request("the request has several Host headers"));
    }
    let authority = match (parts.uri.authority(), host) {
        (Some(authority), Some(host)) if authority.as_str() != host => {
            return Err(bad_request(
                "the request's target and its Host header name different authorities",
            ));
        }
        (Some(authority), _) => authority.to_string(),
        (None, Some(host)) => host,
        (None, None) => return Err(bad_request("the request has no Host header")),
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path == "*" { "/" } else { path };
    parts.uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|_| bad_request("the Host header is not an authority"))?;
    Ok(http::Request::from_parts(parts, body))
}

fn bad_request(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-request", detail)
}

/// The principal of a request's bearer token, which is taken from the request: guests see principals, not tokens.
async fn identify(
    mesh: &Mesh,
    service: &Service,
    request: &mut http::Request<Incoming>,
) -> Result<Arc<Principal>, Problem> {
    let Some(value) = request.headers().get(header::AUTHORIZATION) else {
        return Ok(Principal::anonymous());
    };
    let token = value.to_str().ok().and_then(bearer);
    let Some(token) = token.filter(|token| token.split('.').count() == 3) else {
        // Another scheme, or a token that is not of the CA: the guest may know it.
        return Ok(Principal::anonymous());
    };
    match mesh.authority.authenticate(token, clock::now_s()).await {
        Ok(principal) => {
            request.headers_mut().remove(header::AUTHORIZATION);
            Ok(principal)
        }
        Err(rejection) => {
            tracing::warn!(service = %service.name, reason = %rejection, path = request.uri().path(), "a token was rejected");
            Err(Problem::new(StatusCode::UNAUTHORIZED, rejection.kind(), rejection.to_string()).with_header(
                header::WWW_AUTHENTICATE,
                format!("Bearer realm=\"exprsn\", error=\"invalid_token\", error_description=\"{rejection}\""),
            ))
        }
    }
}

/// The token of a bearer's `Authorization`.
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The way into a service for calls of others, whose span begins here.
pub async fn enter(
    mesh: &Mesh,
    service: &Arc<Service>,
    request: Request,
    arrival: Arrival,
) -> Response {
    let (method, uri) = (request.method(), request.uri());
    let mut entered = Entered::new(service, arrival.trace, method, uri, (None, "http"));
    let answered = admitted(mesh, service, request, arrival, &mut entered).await;
    let response = answered.unwrap_or_else(Problem::into_response);
    entered.answered(response.status());
    response
}

/// The one way into a service: route, right, bounds, then the pool of instances.
async fn admitted(
    mesh: &Mesh,
    service: &Arc<Service>,
    request: Request,
    arrival: Arrival,
    entered: &mut Entered,
) -> Result<Response, Problem> {
    let version = service.pick().ok_or_else(|| not_live(service));
    let checked = version.and_then(|version| {
        check(mesh, service, &version, &request, &arrival, entered).map(|way| (version, way))
    });
    let (version, way) = match checked {
        Ok(checked) => checked,
        Err(problem) => {
            linger(request).await;
            return Err(problem);
        }
    };
    let request = bound(request, way.body_bytes_max);
    let invocation = invocation(&version, arrival);
    Ok(pool::handle(
        &version,
        mesh::current_core(),
        invocation,
        request,
        way.bounds,
    )
    .await)
}

/// How an admitted request is bounded.
struct Way {
    bounds: Bounds,
    body_bytes_max: u64,
}

/// Finds the route, asks for its right, and compares the declared length of the body with its limit.
fn check(
    mesh: &Mesh,
    service: &Service,
    version: &Version,
    request: &Request,
    arrival: &Arrival,
    entered: &mut Entered,
) -> Result<Way, Problem> {
    version
        .context
        .check("*", "")
        .map_err(|reason| withheld(service, version.context.in_force.is_deaf(), &reason))?;
    if mesh.is_cut_off() {
        return Err(cut_off());
    }
    let (method, path) = (request.method().as_str(), request.uri().path());
    let route = match version.routes.find(method, path) {
        RouteMatch::Found(route) => route,
        RouteMatch::OtherMethods(allowed) => return Err(other_methods(method, path, &allowed)),
        RouteMatch::Nothing => {
            let detail = format!(
                "{} has no route {path}; its routes are in /openapi.json",
                service.name
            );
            return Err(Problem::new(StatusCode::NOT_FOUND, "no-route", detail));
        }
    };
    entered.routed(&route.path);
    authorise(mesh, service, route, arrival, method, path)?;
    let limits = &version.context.limits;
    let body_bytes_max = route.body_bytes_max.unwrap_or(limits.body_bytes_max);
    if request.body().size_hint().lower() > body_bytes_max {
        let detail = format!("the body is larger than {body_bytes_max} bytes");
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            detail,
        ));
    }
    let bounds = Bounds {
        stream: route.stream,
        response_bytes_max: limits.response_bytes_max,
    };
    Ok(Way {
        bounds,
        body_bytes_max,
    })
}

/// Reads on for a while what a client still sends, so that it comes to read why it was refused.
async fn linger(request: Request) {
    if request.headers().contains_key(header::EXPECT) {
        return;
    }
    let mut body = request.into_body();
    let read = async {
        let mut read = 0;
        while read < LINGER_BYTES_MAX
            && let Some(Ok(frame)) = body.frame().await
        {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // What takes longer is cut off: the answer is worth no more than this.
    let _ = tokio::time::timeout(LINGER_MAX, read).await;
}

pub(crate) fn not_live(service: &Service) -> Problem {
    let (state, reason) = service.state();
    let detail = match reason {
        Some(reason) if state != State::Live => {
            format!("{} is {}: {reason}", service.name, state.as_str())
        }
        _ => format!("{} is {}", service.name, state.as_str()),
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-live", detail).retry_after(1)
}

/// All of the service's grants are withheld: it does nothing until its operator restores them, or this host hears again.
fn withheld(service: &Service, deaf: bool, reason: &str) -> Problem {
    tracing::debug!(service = %service.name, reason, "a request is refused");
    if deaf {
        return cut_off();
    }
    let detail = format!("{} is suspended by its operator", service.name);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "withheld", detail).retry_after(5)
}

/// This host knows nothing of revocations by now.
pub(crate) fn cut_off() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "host-cut-off",
        crate::withheld::DEAF,
    )
    .retry_after(1)
}

fn other_methods(method: &str, path: &str, allowed: &[&str]) -> Problem {
    let allow = allowed.join(", ");
    let problem = if method == "OPTIONS" {
        Problem::new(StatusCode::NO_CONTENT, "options", "")
    } else {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            format!("{path} allows {allow}, not {method}"),
        )
    };
    problem.with_header(header::ALLOW, allow)
}

/// Asks for the right that a route needs.
fn authorise(
    mesh: &Mesh,
    service: &Service,
    route: &Route,
    arrival: &Arrival,
    method: &str,
    path: &str,
) -> Result<(), Problem> {
    let Access::Needs(permission) = route.access else {
        return Ok(());
    };
    let needs = permission.as_str();
    let denied = |detail: String| {
        tracing::warn!(service = %service.name, caller = %arrival.caller.subject, method, path, needs, reason = %detail, "denied");
        Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
    };
    match arrival.authority {
        Authority::Granted(permissions) if permissions.contains(permission) => Ok(()),
        Authority::Granted(_) => Err(denied(format!(
            "the call grant of {} for {} does not include `{needs}`: add it to `permissions` in its [grants.http] call",
            arrival.caller.subject, service.name
        ))),
        Authority::OfUser => {
            let Some(principal) = &arrival.user else {
                return Err(unauthenticated(method, path, needs));
            };
            mesh.authority
                .authorise(principal, &service.name, path, permission)
                .map_err(|denial| match denial {
                    Denial::Path(_) => bad_request(&denial.to_string()),
                    other => denied(other.to_string()),
                })
        }
    }
}

fn unauthenticated(method: &str, path: &str, needs: &str) -> Problem {
    let detail = format!(
        "{method} {path} needs a token with `{needs}`: send it as `Authorization: Bearer <token>`"
    );
    Problem::new(StatusCode::UNAUTHORIZED, "token-missing", detail)
        .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"exprsn\"")
}

/// Bounds a body whose length is not known while it arrives.
fn bound(request: Request, bytes_max: u64) -> Request {
    if request
        .body()
        .size_hint()
        .upper()
        .is_some_and(|upper| upper <= bytes_max)
    {
        return request;
    }
    let max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    request.map(|body| Limited::new(body, max).map_err(limit_error).boxed_unsync())
}

fn limit_error(error: Box<dyn std::error::Error + Send + Sync>) -> HttpError {
    if error.is::<LengthLimitError>() {
        return HttpError::HttpRequestBodySize(None);
    }
    match error.downcast::<HttpError>() {
        Ok(error) => *error,
        Err(_) => HttpError::ConnectionTerminated,
    }
}

fn invocation(version: &Version, arrival: Arrival) -> Arc<Invocation> {
    let wall = Duration::from_millis(version.context.limits.wall_ms_max);
    let path = arrival
        .path
        .iter()
        .chain([&version.context.name])
        .cloned()
        .collect();
    Arc::new(Invocation {
        trigger: arrival.trigger,
        caller: arrival.caller,
        user: arrival.user,
        address: arrival.address,
        trace: arrival.trace,
        path,
        deadline: arrival.deadline.min(Instant::now() + wall),
    })
}

/// Calls a route of a service as the host itself, for health checks. Needs no right.
pub async fn internal_get(version: &Arc<Version>, path: &str) -> (StatusCode, Bytes) {
    let uri = format!("http://{}{path}", version.context.name);
    let body = http_body_util::Empty::new()
        .map_err(|never: Infallible| match never {})
        .boxed_unsync();
    let request = http::Request::get(uri)
        .body(body)
        .expect("a name and a path make a URI");
    let arrival = Arrival {
        caller: Principal::anonymous(),
        user: None,
        authority: Authority::OfUser,
        address: None,
        trace: TraceContext::unrecorded(),
        path: Arc::new([]),
        deadline: Instant::now() + Duration::from_secs(30),
        trigger: Trigger::Http,
    };
    let bounds = Bounds {
        stream: false,
        response_bytes_max: version.context.limits.response_bytes_max,
    };
    let response = pool::handle(
        version,
        mesh::current_core(),
        invocation(version, arrival),
        request,
        bounds,
    )
    .await;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    (status, body)
}
