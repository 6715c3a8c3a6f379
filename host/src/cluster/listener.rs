//! Where other hosts come in: TLS 1.3, HTTP/2, and a certificate of this platform's authority for all but enrolment.

use super::{
    CONNECTION_WINDOW_BYTES, Cluster, STREAM_WINDOW_BYTES,
    routes::{Asker, QUESTION_BYTES_MAX},
    wire::{ENVELOPE, Envelope, UNTOUCHED},
};
use crate::{
    ca::HostCertificate,
    listener::{self, Arrival},
    mesh::{self, Mesh},
    panics::caught,
    problem::Problem,
    service::State,
};
use http::{HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use wasmtime_wasi_http::{
    Error as HttpError,
    handler::{Request, Response},
};

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long the head of a request may take.
const HEADER_READ_MAX: Duration = Duration::from_secs(10);

/// What a connection's requests are answered with.
#[derive(Clone)]
struct Door {
    cluster: Arc<Cluster>,
    mesh: Arc<Mesh>,
    host: Option<Arc<HostCertificate>>,
}

/// Accepts other hosts until `stop` says so, then lets calls under way finish. Runs on a core.
pub async fn accept(
    listener: TcpListener,
    cluster: Arc<Cluster>,
    mesh: Arc<Mesh>,
    mut stop: watch::Receiver<bool>,
) {
    let connections = Arc::new(Semaphore::new(cluster.config.connections_max));
    let graceful = GracefulShutdown::new();
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection of another host could not be accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let (cluster, mesh, watcher) = (cluster.clone(), mesh.clone(), graceful.watcher());
        tokio::spawn(async move {
            let served = serve(stream, cluster, mesh, watcher).await;
            if let Err(error) = served {
                tracing::debug!(error, "a connection of another host ended");
            }
            drop(permit);
        });
    }
    graceful.shutdown().await;
}

async fn serve(
    stream: TcpStream,
    cluster: Arc<Cluster>,
    mesh: Arc<Mesh>,
    watcher: hyper_util::server::graceful::Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let ends = cluster.identity.ends();
    let stream = tokio::time::timeout(HANDSHAKE_MAX, ends.acceptor.accept(stream)).await??;
    let (_, session) = stream.get_ref();
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let host = match shown {
        Some(der) => Some(Arc::new(cluster.identity.peer(der)?)),
        None => None,
    };
    let streams_max = cluster.config.streams_max;
    let ping = Duration::from_millis(cluster.config.ping_ms);
    let door = Door {
        cluster,
        mesh,
        host,
    };
    let respond = hyper::service::service_fn(move |request| {
        let door = door.clone();
        async move {
            let answered = caught(door.open(request)).await;
            Ok::<_, Infallible>(answered.unwrap_or_else(|panic| {
                tracing::error!(error = %panic, "a call of another host failed");
                let detail = "the host failed; the operator finds why in the log";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "host-failed", detail)
                    .into_response()
            }))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(ping)
        .keep_alive_timeout(ping * 2);
    let connection = builder.serve_connection(TokioIo::new(stream), respond);
    watcher.watch(connection.into_owned()).await
}

impl Door {
    async fn open(self, request: http::Request<Incoming>) -> Response {
        let envelope = request.headers().get(ENVELOPE).cloned();
        let answered = match (envelope, &self.host) {
            (Some(envelope), Some(host)) => self.pass_on(host, request, &envelope).await,
            (Some(_), None) => Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "calls come with a host's certificate: mutual TLS",
            )),
            (None, _) => self.ask(request).await,
        };
        answered.unwrap_or_else(Problem::into_response)
    }

    /// A call of a service on another host.
    async fn pass_on(
        &self,
        host: &HostCertificate,
        request: http::Request<Incoming>,
        envelope: &HeaderValue,
    ) -> Result<Response, Problem> {
        let envelope = envelope.to_str().ok().and_then(Envelope::open);
        let envelope = envelope.ok_or_else(|| bad("the envelope cannot be read"))?;
        // Checked at each call: a host that is removed says nothing more, on connections that are open too.
        if !host.may_speak_for(&envelope.from) || self.mesh.authority.is_revoked(&host.serial) {
            tracing::warn!(
                host = host.host,
                service = envelope.from,
                "a host speaks for a service that it may not"
            );
            let detail = format!("host {} may not speak for {}", host.host, envelope.from);
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        let service = self.mesh.registry.get(&envelope.to);
        let Some(service) =
            service.filter(|service| service.state().0 == State::Live || service.live().is_some())
        else {
            return Ok(untouched(&format!(
                "{} is not live on this host",
                envelope.to
            )));
        };
        if self.cluster.is_deaf() {
            return Ok(untouched("this host does not hear from the platform"));
        }
        let request = addressed(request, &envelope.authority)?;
        let arrival: Arrival = envelope
            .arrival(Instant::now())
            .ok_or_else(|| bad("the envelope names what is none"))?;
        Ok(listener::enter(&self.mesh, &service, request, arrival).await)
    }

    /// What a host or an operator asks this host itself.
    async fn ask(&self, request: http::Request<Incoming>) -> Result<Response, Problem> {
        let (parts, body) = request.into_parts();
        let body = Limited::new(body, QUESTION_BYTES_MAX).collect().await;
        let body = body
            .map_err(|_| bad("the question is too large or broke off"))?
            .to_bytes();
        let token = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(listener::bearer);
        let revoked = |host: &&HostCertificate| !self.mesh.authority.is_revoked(&host.serial);
        let asker = Asker {
            host: self.host.as_deref().filter(revoked),
            token,
        };
        let told = self
            .cluster
            .answer(&parts.method, parts.uri.path(), &asker, &body)
            .await?;
        let body = mesh::whole(told.to_string());
        Ok(http::Response::builder()
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .expect("a body and a media type make a response"))
    }
}

fn bad(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-request", detail)
}

/// Nothing was begun: whoever asked may ask another host.
fn untouched(detail: &str) -> Response {
    let mut response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-live", detail)
        .retry_after(1)
        .into_response();
    response
        .headers_mut()
        .insert(UNTOUCHED, HeaderValue::from_static("1"));
    response
}

/// The request as a call within one host has it.
fn addressed(request: http::Request<Incoming>, authority: &str) -> Result<Request, Problem> {
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(ENVELOPE);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|_| bad("the envelope's authority is none"))?;
    parts.version = http::Version::HTTP_11;
    let body = body.map_err(HttpError::from).boxed_unsync();
    Ok(http::Request::from_parts(parts, body))
}
