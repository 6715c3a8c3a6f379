//! The mesh: from an outgoing request of a service to another service, here without a socket or on another host, or to
//! the world outside.
//!
//! **Invariant:** nothing leaves a service but through [`Mesh::call`], which asks the service's grants first.

mod call;
mod egress;
mod elsewhere;
mod policy;

use crate::{
    cluster::Cluster,
    invocation::{Invocation, Permission, Permissions, Principal, Trigger},
    listener::{self, Arrival, Authority},
    name::ServiceName,
    problem::Problem,
    service::{Registry, Service},
    store::ServiceContext,
    telemetry::spans::Called,
};
use call::Call;
pub use call::whole;
use http::StatusCode;
use policy::Trip;
use std::{
    borrow::Cow,
    cell::Cell,
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks,
    handler::{Request, Response},
};

pub use policy::{
    BreakerView, Policies,
    announce::TOPIC as BREAKER_TOPIC,
    config::{Rules, Settings},
};

pub use egress::{
    Connection, Destination, Egress, EgressPattern, Host, Permitted, Reach, Refusal, Resolver,
    Scheme, ServiceEgress, parse_all,
};

/// Addresses by which a service on this machine may be meant.
const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

thread_local! {
    static CORE: Cell<usize> = const { Cell::new(0) };
}

/// Says which core's runtime this thread drives.
pub fn enter_core(core: usize) {
    CORE.set(core);
}

/// The core whose runtime this thread drives: calls stay on it.
pub fn current_core() -> usize {
    CORE.get()
}

/// What calls between services go through.
pub struct Mesh {
    pub registry: Arc<Registry>,
    pub authority: Arc<crate::ca::Authority>,
    /// The other hosts; none where this one is alone.
    pub cluster: Option<Arc<Cluster>>,
    hops_max: usize,
    policies: Arc<Policies>,
}

/// In whose right a service calls another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActAs {
    /// In its own: the call grant is its right.
    Service,
    /// In that of whoever called it: a gateway.
    User,
}

/// Where an outgoing request leads.
enum Target {
    Service(Arc<Service>),
    /// A service that is not live here, and is on another host.
    Elsewhere(ServiceName),
    Outside,
}

impl Mesh {
    /// A mesh over the services in `registry`.
    pub fn new(
        registry: Arc<Registry>,
        authority: Arc<crate::ca::Authority>,
        cluster: Option<Arc<Cluster>>,
        policies: Arc<Policies>,
        config: &crate::config::PlatformConfig,
    ) -> Arc<Self> {
        Arc::new(Self {
            registry,
            authority,
            cluster,
            hops_max: config.hops_max,
            policies,
        })
    }

    /// The breakers of all calls that this host's services have made.
    pub fn breakers(&self) -> Vec<BreakerView> {
        self.policies.breakers()
    }

    /// Whether this host has not heard from the others for too long. Where it is alone: one load.
    pub fn is_cut_off(&self) -> bool {
        self.cluster
            .as_ref()
            .is_some_and(|cluster| cluster.is_deaf())
    }

    /// Sends `request` of the service `from`, made while it handled `cause`.
    async fn call(
        self: Arc<Self>,
        from: Arc<ServiceContext>,
        cause: Arc<Invocation>,
        request: Request,
        options: Option<RequestOptions>,
    ) -> Result<Response, HttpError> {
        let destination = Destination::of_uri(request.uri()).map_err(|reason| {
            tracing::debug!(service = %from.name, reason, "an outgoing request leads nowhere");
            HttpError::HttpRequestUriInvalid
        })?;
        let options = options.unwrap_or_default();
        match self.target(&destination) {
            Target::Service(service) => {
                let to = (service.name.clone(), Some(service));
                self.call_service(&from, &cause, to, request, options.first_byte_timeout)
                    .await
            }
            Target::Elsewhere(name) => {
                let to = (name, None);
                self.call_service(&from, &cause, to, request, options.first_byte_timeout)
                    .await
            }
            Target::Outside => call_outside(&from, &cause, destination, request, options).await,
        }
    }

    /// A service by its name, or by the loopback address that it listens on.
    fn target(&self, destination: &Destination) -> Target {
        let on_port = || self.registry.by_port(destination.port);
        let found = match &destination.host {
            Host::Name(name) if &**name == "localhost" => on_port(),
            Host::Name(name) => self.registry.get(name),
            Host::Address(address) if LOOPBACK.contains(address) => on_port(),
            Host::Address(_) => None,
        };
        match found {
            Some(service) => self.best(service),
            None => self
                .elsewhere(destination)
                .map_or(Target::Outside, Target::Elsewhere),
        }
    }

    /// This host's own service where it is live: nothing is nearer. Else another host's.
    fn best(&self, service: Arc<Service>) -> Target {
        let here = service.live().is_some();
        match &self.cluster {
            Some(cluster) if !here && cluster.directory().has(&service.name) => {
                Target::Elsewhere(service.name.clone())
            }
            _ => Target::Service(service),
        }
    }

    /// A service that runs on other hosts only.
    fn elsewhere(&self, destination: &Destination) -> Option<ServiceName> {
        let directory = self.cluster.as_ref()?.directory();
        match &destination.host {
            Host::Name(name) if &**name == "localhost" => directory.by_port(destination.port),
            Host::Name(name) => directory.find(name),
            Host::Address(address) if LOOPBACK.contains(address) => {
                directory.by_port(destination.port)
            }
            Host::Address(_) => None,
        }
    }

    async fn call_service(
        &self,
        from: &ServiceContext,
        cause: &Invocation,
        (to, here): (ServiceName, Option<Arc<Service>>),
        request: Request,
        within: Option<Duration>,
    ) -> Result<Response, HttpError> {
        let method = request.method().as_str();
        let grant = from
            .lent
            .http
            .as_ref()
            .and_then(|http| http.call_grant(&to, method, request.uri().path()));
        let Some(grant) = grant else {
            tracing::warn!(service = %from.name, target = %to, method, path = request.uri().path(),
                "call denied: not in [grants.http] call");
            return Err(HttpError::HttpRequestDenied);
        };
        in_force(from, "call", || to.as_str().into())?;
        if let Some(problem) = self.refuse_hop(cause, &to) {
            return Ok(problem.into_response());
        }
        // Held until the answer's head is there; what follows is the callee's invocation, bounded by its own limits.
        let Ok(_call) = from.allowance.calls.clone().try_acquire_owned() else {
            tracing::warn!(service = %from.name, target = %to, "call refused: calls_max are under way");
            return Err(HttpError::ConnectionLimitReached);
        };
        let lane = self.policies.lane(&from.name, &to, &request);
        let now = Instant::now();
        let patience = policy::patience(&lane.settings, cause, grant.act_as == ActAs::User, now);
        let patience = within.map_or(patience, |within| patience.min(now + within));
        let arrival = arrival(from, cause, grant.act_as, grant.permissions, patience);
        let what = (request.method(), request.uri().path());
        let called = Called::service(from, arrival.trace, what, &to);
        let trip = Trip {
            from: &from.name,
            cause,
            to: &to,
            here: here.as_ref(),
            arrival,
        };
        let way = Way {
            mesh: self,
            to: &to,
            here: here.as_ref(),
        };
        let answered = self.policies.call(&lane, trip, request, &way).await;
        called.answered(answered.as_ref().map(http::Response::status));
        answered
    }

    /// A chain that is too long, or that comes back to where it was, is refused with the path in the detail.
    fn refuse_hop(&self, cause: &Invocation, to: &ServiceName) -> Option<Problem> {
        let path = || {
            cause
                .path
                .iter()
                .chain([to])
                .map(ServiceName::as_str)
                .collect::<Vec<_>>()
                .join(" → ")
        };
        if cause.path.contains(to) {
            let detail = format!("the call would come back to where it was: {}", path());
            return Some(Problem::new(
                StatusCode::LOOP_DETECTED,
                "call-cycle",
                detail,
            ));
        }
        (cause.path.len() >= self.hops_max).then(|| {
            let detail = format!(
                "the call passes more than {} services: {}",
                self.hops_max,
                path()
            );
            Problem::new(StatusCode::LOOP_DETECTED, "too-many-hops", detail)
        })
    }
}

/// Where the attempts of one call go.
struct Way<'a> {
    mesh: &'a Mesh,
    to: &'a ServiceName,
    here: Option<&'a Arc<Service>>,
}

impl policy::Attempt for Way<'_> {
    /// Hands a call to the service here, or to another host.
    async fn attempt(&self, call: &mut Call, arrival: Arrival) -> Result<Response, HttpError> {
        match (self.here, &self.mesh.cluster) {
            (Some(service), _) => {
                let request = call.next().ok_or(HttpError::ConnectionTerminated)?;
                Ok(listener::enter(self.mesh, service, request, arrival).await)
            }
            (None, Some(cluster)) => elsewhere::call(cluster, self.to, call, &arrival).await,
            (None, None) => Err(HttpError::DestinationNotFound),
        }
    }
}

/// Refuses, and logs, what has been withheld from `from` since it was granted.
fn in_force<'a>(
    from: &ServiceContext,
    kind: &'static str,
    scope: impl FnOnce() -> Cow<'a, str>,
) -> Result<(), HttpError> {
    from.in_force.check_lazily(kind, scope).map_err(|reason| {
        tracing::warn!(service = %from.name, kind, reason, "an outgoing request is denied");
        HttpError::HttpRequestDenied
    })
}

/// Sends a request outside, where the grant covers it.
async fn call_outside(
    from: &ServiceContext,
    cause: &Invocation,
    destination: Destination,
    mut request: Request,
    options: RequestOptions,
) -> Result<Response, HttpError> {
    let http = from.lent.http.as_ref();
    let patterns = http.map_or(&[][..], |http| http.egress());
    let permitted = Permitted::ask(from, patterns, destination)?;
    let permitted = permitted.within(options.connect_timeout.unwrap_or(Duration::MAX));
    let Some(http) = http else {
        return Err(HttpError::HttpRequestDenied);
    };
    let trace = cause.trace.child();
    let what = (request.method(), request.uri());
    let called = Called::outside(from, trace, what, permitted.destination());
    let header = trace.to_header().parse();
    request.headers_mut().insert(
        "traceparent",
        header.map_err(|_| HttpError::HttpProtocolError)?,
    );
    let limit = cause
        .deadline
        .saturating_duration_since(Instant::now())
        .min(options.first_byte_timeout.unwrap_or(Duration::MAX));
    let sent = tokio::time::timeout(limit, http.outside().send(&permitted, request)).await;
    let answered = sent.unwrap_or(Err(HttpError::HttpResponseTimeout));
    called.answered(answered.as_ref().map(http::Response::status));
    answered
}

/// How a call of `from` leaves it. Its trace is the call's, whose child is the target's.
fn arrival(
    from: &ServiceContext,
    cause: &Invocation,
    act_as: ActAs,
    granted: Permissions,
    deadline: Instant,
) -> Arrival {
    let user = match act_as {
        ActAs::Service => cause
            .user
            .clone()
            .or_else(|| (!is_service(&cause.caller)).then(|| cause.caller.clone())),
        ActAs::User => Some(cause.principal().clone()),
    };
    Arrival {
        caller: Principal::service(&from.name),
        user: user.filter(|user| !user.is_anonymous()),
        authority: match act_as {
            ActAs::Service => Authority::Granted(granted),
            ActAs::User => Authority::OfUser,
        },
        address: cause.address,
        trace: cause.trace.child(),
        path: cause.path.clone(),
        deadline,
        trigger: Trigger::Http,
    }
}

fn is_service(principal: &Principal) -> bool {
    principal.kind == crate::invocation::PrincipalKind::Service || principal.is_anonymous()
}

/// The permission that a call grant without `permissions` gives for a method.
pub fn permission_of_method(method: &str) -> Permission {
    match method {
        "GET" | "HEAD" | "OPTIONS" | "PROPFIND" | "REPORT" => Permission::Read,
        "PATCH" => Permission::Update,
        "DELETE" => Permission::Delete,
        _ => Permission::Write,
    }
}

/// The seam in wasmtime's HTTP client through which every outgoing request of a store goes.
pub struct Hooks {
    mesh: Arc<Mesh>,
    service: Arc<ServiceContext>,
    invocation: Arc<Invocation>,
}

impl Hooks {
    pub(crate) fn new(
        mesh: Arc<Mesh>,
        service: Arc<ServiceContext>,
        invocation: Arc<Invocation>,
    ) -> Self {
        Self {
            mesh,
            service,
            invocation,
        }
    }

    pub(crate) fn begin(&mut self, invocation: Arc<Invocation>) {
        self.invocation = invocation;
    }
}

type Sent = Result<
    (
        http::Response<WasiBody>,
        Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ),
    HttpError,
>;

impl WasiHttpHooks for Hooks {
    fn default_scheme(&mut self) -> Option<http::uri::Scheme> {
        Some(http::uri::Scheme::HTTP)
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _response_read: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let call = self.mesh.clone().call(
            self.service.clone(),
            self.invocation.clone(),
            request,
            options,
        );
        Box::new(async move {
            let response = call.await?;
            Ok((
                response,
                Box::new(std::future::ready(Ok(()))) as Box<dyn Future<Output = _> + Send>,
            ))
        })
    }
}
