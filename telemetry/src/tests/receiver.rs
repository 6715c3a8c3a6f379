//! Receivers of OTLP that behave as a collector may.

use crate::config::{Protocol, Signal};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::any_value,
    logs::v1::LogRecord,
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message;
use std::{
    collections::HashMap,
    convert::Infallible,
    io::Read as _,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

/// After which time a busy receiver may be asked again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How a receiver answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    Take,
    /// Never answers.
    Hang,
    /// The first request is to come again.
    BusyOnce,
    Refuse,
    /// Of each request one record.
    RejectOne,
}

/// What has come.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub traces: Vec<ExportTraceServiceRequest>,
    pub metrics: Vec<ExportMetricsServiceRequest>,
    pub logs: Vec<ExportLogsServiceRequest>,
    /// Values of the header `x-key`.
    pub keys: Vec<String>,
    /// When requests came.
    pub times: Vec<Instant>,
}

type Attributes = HashMap<String, String>;

impl Seen {
    pub fn spans(&self) -> Vec<(Attributes, Span)> {
        let resources = self
            .traces
            .iter()
            .flat_map(|request| &request.resource_spans);
        let of = |one: &opentelemetry_proto::tonic::trace::v1::ResourceSpans| {
            let attributes = attributes(one.resource.as_ref());
            let spans = one.scope_spans.iter().flat_map(|scope| scope.spans.clone());
            spans
                .map(|span| (attributes.clone(), span))
                .collect::<Vec<_>>()
        };
        resources.flat_map(of).collect()
    }

    pub fn lines(&self) -> Vec<(Attributes, LogRecord)> {
        let resources = self.logs.iter().flat_map(|request| &request.resource_logs);
        let of = |one: &opentelemetry_proto::tonic::logs::v1::ResourceLogs| {
            let attributes = attributes(one.resource.as_ref());
            let lines = one
                .scope_logs
                .iter()
                .flat_map(|scope| scope.log_records.clone());
            lines
                .map(|line| (attributes.clone(), line))
                .collect::<Vec<_>>()
        };
        resources.flat_map(of).collect()
    }
}

fn attributes(resource: Option<&Resource>) -> Attributes {
    let all = resource
        .into_iter()
        .flat_map(|resource| &resource.attributes);
    all.filter_map(|pair| match pair.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some((pair.key.clone(), text.clone())),
        _ => None,
    })
    .collect()
}

/// A receiver on a port of its own, until dropped.
pub struct Receiver {
    pub endpoint: String,
    pub protocol: Protocol,
    state: Arc<State>,
    _runtime: Option<tokio::runtime::Runtime>,
}

#[derive(Default)]
struct State {
    behaviour: Option<Behaviour>,
    seen: Mutex<Seen>,
}

impl State {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// How this request is answered.
    fn next(&self, key: Option<String>) -> Behaviour {
        let mut seen = self.seen();
        seen.times.push(Instant::now());
        seen.keys.extend(key);
        match self.behaviour.expect("a receiver that is there behaves") {
            Behaviour::BusyOnce if seen.times.len() > 1 => Behaviour::Take,
            behaviour => behaviour,
        }
    }
}

impl Receiver {
    pub fn start(protocol: Protocol, behaviour: Behaviour) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            behaviour: Some(behaviour),
            ..State::default()
        });
        match protocol {
            Protocol::Http => drop(runtime.spawn(serve_http(listener, state.clone()))),
            Protocol::Grpc => drop(runtime.spawn(serve_grpc(listener, state.clone()))),
        }
        Self {
            endpoint,
            protocol,
            state,
            _runtime: Some(runtime),
        }
    }

    /// Where nobody listens.
    pub fn absent(protocol: Protocol) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            endpoint: format!("http://{}", listener.local_addr().unwrap()),
            protocol,
            state: Arc::default(),
            _runtime: None,
        }
    }

    pub fn seen(&self) -> Seen {
        self.state.seen().clone()
    }
}

async fn serve_http(listener: TcpListener, state: Arc<State>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = state.clone();
        tokio::spawn(async move {
            let respond = hyper::service::service_fn(move |request| {
                let state = state.clone();
                async move { Ok::<_, Infallible>(respond(&state, request).await) }
            });
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server.serve_connection(TokioIo::new(stream), respond).await;
        });
    }
}

async fn respond(state: &State, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    assert_eq!(parts.headers["content-type"], "application/x-protobuf");
    let key = parts
        .headers
        .get("x-key")
        .map(|key| key.to_str().unwrap().to_owned());
    let mut body = body.collect().await.unwrap().to_bytes().to_vec();
    if parts
        .headers
        .get("content-encoding")
        .is_some_and(|encoding| encoding == "gzip")
    {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*body)
            .read_to_end(&mut plain)
            .unwrap();
        body = plain;
    }
    let behaviour = state.next(key);
    let answer = |status: u16, body: Vec<u8>| {
        Response::builder()
            .status(status)
            .body(Full::new(body.into()))
            .unwrap()
    };
    match behaviour {
        Behaviour::Hang => std::future::pending().await,
        Behaviour::BusyOnce => {
            let mut answer = answer(503, Vec::new());
            let seconds = RETRY_AFTER.as_secs().to_string();
            answer
                .headers_mut()
                .insert("retry-after", seconds.parse().unwrap());
            answer
        }
        Behaviour::Refuse => answer(400, Vec::new()),
        Behaviour::Take | Behaviour::RejectOne => {
            let rejected = keep(state, parts.uri.path(), &body, behaviour);
            answer(StatusCode::OK.as_u16(), rejected)
        }
    }
}

fn keep(state: &State, path: &str, body: &[u8], behaviour: Behaviour) -> Vec<u8> {
    let mut seen = state.seen();
    match path.strip_prefix("/v1/") {
        Some(signal) if signal == Signal::Traces.as_str() => {
            seen.traces.push(Message::decode(body).unwrap());
            return partly(behaviour).encode_to_vec();
        }
        Some(signal) if signal == Signal::Metrics.as_str() => {
            seen.metrics.push(Message::decode(body).unwrap());
        }
        Some(signal) if signal == Signal::Logs.as_str() => {
            seen.logs.push(Message::decode(body).unwrap());
        }
        _ => panic!("{path}"),
    }
    Vec::new()
}

fn partly(behaviour: Behaviour) -> ExportTraceServiceResponse {
    let partial_success = (behaviour == Behaviour::RejectOne).then(|| ExportTracePartialSuccess {
        rejected_spans: 1,
        error_message: "one is too many".to_owned(),
    });
    ExportTraceServiceResponse { partial_success }
}

async fn serve_grpc(listener: TcpListener, state: Arc<State>) {
    let gzip = tonic::codec::CompressionEncoding::Gzip;
    let service = Collector(state);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(service.clone()).accept_compressed(gzip))
        .add_service(MetricsServiceServer::new(service.clone()).accept_compressed(gzip))
        .add_service(LogsServiceServer::new(service).accept_compressed(gzip))
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

#[derive(Clone)]
struct Collector(Arc<State>);

impl Collector {
    async fn take<T>(
        &self,
        request: tonic::Request<T>,
        keep: impl FnOnce(&mut Seen, T),
    ) -> Result<Behaviour, tonic::Status> {
        let key = request
            .metadata()
            .get("x-key")
            .map(|key| key.to_str().unwrap().to_owned());
        let behaviour = self.0.next(key);
        match behaviour {
            Behaviour::Hang => std::future::pending().await,
            Behaviour::BusyOnce => Err(busy()),
            Behaviour::Refuse => Err(tonic::Status::invalid_argument("no")),
            Behaviour::Take | Behaviour::RejectOne => {
                keep(&mut self.0.seen(), request.into_inner());
                Ok(behaviour)
            }
        }
    }
}

/// UNAVAILABLE with `google.rpc.RetryInfo`.
fn busy() -> tonic::Status {
    let delay = [0x08, u8::try_from(RETRY_AFTER.as_secs()).unwrap()];
    let info = [&[0x0a, 2][..], &delay].concat();
    let url = b"type.googleapis.com/google.rpc.RetryInfo";
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let any = [&[0x0a, length(url)][..], url, &[0x12, length(&info)], &info].concat();
    let status = [&[0x08, 14, 0x1a, length(&any)][..], &any].concat();
    tonic::Status::with_details(tonic::Code::Unavailable, "busy", status.into())
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let behaviour = self
            .take(request, |seen, one| seen.traces.push(one))
            .await?;
        Ok(tonic::Response::new(partly(behaviour)))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.take(request, |seen, one| seen.metrics.push(one))
            .await?;
        Ok(tonic::Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        self.take(request, |seen, one| seen.logs.push(one)).await?;
        Ok(tonic::Response::new(Default::default()))
    }
}
