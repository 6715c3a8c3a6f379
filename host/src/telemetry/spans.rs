//! Spans of what the host does for services, named and described as OpenTelemetry's semantic conventions have it.
//!
//! An invocation's [`TraceContext`] is its span's own: what it causes is that span's child.

use super::{HttpLabels, telemetry};
use crate::{
    capability::queue::{Failure, Job},
    invocation::TraceContext,
    mesh::Destination,
    name::ServiceName,
    service::{Service, Version},
    store::ServiceContext,
};
use exprsn_telemetry::{Active, Ids, Kind, Source};
use http::{Method, StatusCode, Uri};
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// `messaging.system`: the broker's layout on Redis is BullMQ's, and embedded it behaves alike.
pub(super) const MESSAGING: &str = "bullmq";

/// The ids of a context's own span.
fn ids(trace: TraceContext) -> Ids {
    Ids {
        trace_id: trace.trace_id,
        span_id: trace.span_id,
        parent_id: trace.parent_id,
        sampled: trace.sampled,
    }
}

/// The span of what comes from outside, or from a time of which no trace is known: a child of `parent` or the first of a
/// trace. Whether it is recorded is decided here.
pub fn entering(parent: Option<TraceContext>) -> TraceContext {
    let trace = parent.map_or_else(TraceContext::new_root, TraceContext::child);
    let said = parent.map(|parent| parent.sampled);
    TraceContext {
        sampled: telemetry().samples(said, trace.trace_id),
        ..trace
    }
}

/// The name of a method in metrics and spans, of which there are few, whatever clients send.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PROPFIND" => "PROPFIND",
        "REPORT" => "REPORT",
        _ => "_OTHER",
    }
}

/// A request that a service answers, until it has. The time is that to the response's head.
pub struct Entered {
    span: Active,
    version: Option<Arc<Version>>,
    trace: TraceContext,
    method: &'static str,
    scheme: &'static str,
    route: Option<String>,
    began: Instant,
}

impl Entered {
    /// A request for `service` has come, from a client's `address` where it is one's.
    pub fn new(
        service: &Service,
        trace: TraceContext,
        method: &Method,
        uri: &Uri,
        (address, scheme): (Option<IpAddr>, &'static str),
    ) -> Self {
        let version = service.live();
        let source = match &version {
            Some(version) => version.context.source.clone(),
            None => Source::new(service.name.as_str(), ""),
        };
        let known = known(method);
        let mut span = telemetry().begin(&source, ids(trace), Kind::Server, known);
        if span.is_recorded() {
            span.set("http.request.method", known);
            if known == "_OTHER" {
                span.set("http.request.method_original", method.to_string());
            }
            span.set("url.path", uri.path().to_owned());
            span.set("url.scheme", scheme);
            span.set(
                "server.address",
                uri.host().unwrap_or(service.name.as_str()).to_owned(),
            );
            span.set("server.port", service.port);
            if let Some(address) = address {
                span.set("client.address", address.to_string());
            }
        }
        Self {
            span,
            version,
            trace,
            method: known,
            scheme,
            route: None,
            began: Instant::now(),
        }
    }

    /// The route that it takes.
    pub fn routed(&mut self, route: &str) {
        if self.span.is_recorded() {
            self.span.rename(format!("{} {route}", self.method));
            self.span.set("http.route", route.to_owned());
        }
        self.route = Some(route.to_owned());
    }

    /// Its answer. What is a client's fault is no failure of the server.
    pub fn answered(mut self, status: StatusCode) {
        self.span.set("http.response.status_code", status.as_u16());
        if status.is_server_error() {
            self.span.fail(status.as_str().to_owned(), "");
        }
        self.span.end();
        if let Some(version) = self.version {
            let labels = HttpLabels {
                service: version.context.name.as_str().into(),
                http_request_method: self.method,
                http_route: self.route.unwrap_or_default(),
                http_response_status_code: status.as_u16(),
                url_scheme: self.scheme,
            };
            version
                .metrics
                .answered(&labels, self.began.elapsed(), self.trace);
        }
    }
}

/// A request that a service makes, until it is answered.
pub struct Called(Active);

impl Called {
    /// A call of another service.
    pub fn service(
        from: &ServiceContext,
        trace: TraceContext,
        (method, path): (&Method, &str),
        to: &ServiceName,
    ) -> Self {
        let mut span = telemetry().begin(&from.source, ids(trace), Kind::Client, known(method));
        if span.is_recorded() {
            span.set("http.request.method", known(method));
            span.set("server.address", to.to_string());
            span.set("url.full", format!("http://{to}{path}"));
            span.set("peer.service", to.to_string());
        }
        Self(span)
    }

    /// A call of the world outside. A query may hold what is nobody's business, so it is left out.
    pub fn outside(
        from: &ServiceContext,
        trace: TraceContext,
        (method, uri): (&Method, &Uri),
        destination: &Destination,
    ) -> Self {
        let mut span = telemetry().begin(&from.source, ids(trace), Kind::Client, known(method));
        if span.is_recorded() {
            span.set("http.request.method", known(method));
            span.set("server.address", uri.host().unwrap_or_default().to_owned());
            span.set("server.port", destination.port);
            let scheme = uri.scheme_str().unwrap_or("http");
            let authority = uri.host().unwrap_or_default();
            span.set(
                "url.full",
                format!("{scheme}://{authority}:{}{}", destination.port, uri.path()),
            );
        }
        Self(span)
    }

    /// How it was answered, if it was.
    pub fn answered<E: std::fmt::Debug>(mut self, status: Result<StatusCode, &E>) {
        match status {
            Ok(status) => {
                self.0.set("http.response.status_code", status.as_u16());
                if status.is_client_error() || status.is_server_error() {
                    self.0.fail(status.as_str().to_owned(), "");
                }
            }
            Err(error) if self.0.is_recorded() => {
                let error = format!("{error:?}");
                let kind = error
                    .split(['(', ' ', '{'])
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                self.0.fail(kind, error);
            }
            Err(_) => {}
        }
        self.0.end();
    }
}

/// What a service sends: a job or an event. Its trace is that of `trace`, which goes with the message.
pub fn sending(
    from: &ServiceContext,
    trace: TraceContext,
    destination: &str,
    id: Option<&str>,
) -> Active {
    if !trace.sampled {
        return Active::NONE;
    }
    let name = format!("send {destination}");
    let mut span = telemetry().begin(&from.source, ids(trace), Kind::Producer, name);
    span.set("messaging.system", MESSAGING);
    span.set("messaging.operation.name", "send");
    span.set("messaging.operation.type", "send");
    span.set("messaging.destination.name", destination.to_owned());
    if let Some(id) = id {
        span.set("messaging.message.id", id.to_owned());
    }
    span
}

/// The way of a message from the outbox, where it was put at `since_ms`, to the broker.
pub fn relaying(
    from: &ServiceName,
    trace: TraceContext,
    destination: &str,
    since_ms: i64,
) -> Active {
    if !trace.sampled {
        return Active::NONE;
    }
    let source = Source::new(from.as_str(), "");
    let name = format!("outbox {destination}");
    let mut span = telemetry().begin(&source, ids(trace), Kind::Internal, name);
    span.set("messaging.system", MESSAGING);
    span.set("messaging.destination.name", destination.to_owned());
    let since_ms = u64::try_from(since_ms).unwrap_or_default();
    span.began_at(since_ms.saturating_mul(1_000_000));
    span
}

/// A job or an event that a service works on, until it has.
pub struct Consumed {
    span: Active,
    destination: String,
    began: Instant,
}

impl Consumed {
    /// An attempt begins, of a job of a queue or the delivery of an event of a topic.
    pub fn new(version: &Version, trace: TraceContext, job: &Job, destination: &str) -> Self {
        let name = format!("process {destination}");
        let mut span = telemetry().begin(&version.context.source, ids(trace), Kind::Consumer, name);
        if span.is_recorded() {
            span.set("messaging.system", MESSAGING);
            span.set("messaging.operation.name", "process");
            span.set("messaging.operation.type", "process");
            span.set("messaging.destination.name", destination.to_owned());
            span.set("messaging.message.id", job.id.clone());
            span.set("exprsn.job.name", job.name.clone());
            span.set("exprsn.job.attempt", job.attempt);
            let waited = crate::clock::now_ms().saturating_sub(job.created_at).max(0);
            span.set("exprsn.queue.wait_ms", waited);
        }
        Self {
            span,
            destination: destination.to_owned(),
            began: Instant::now(),
        }
    }

    /// How it went.
    pub fn ended<T>(mut self, version: &Version, result: &Result<T, Failure>) {
        let mut error_type = "";
        if let Err(failure) = result {
            error_type = if failure.retry { "retry" } else { "failed" };
            self.span.fail(error_type, failure.reason.clone());
        }
        self.span.end();
        let took: Duration = self.began.elapsed();
        version
            .metrics
            .processed(&version.context.name, self.destination, error_type, took);
    }
}
