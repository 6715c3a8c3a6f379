//! Policies of calls between services: breaker → bulkhead → attempt within the timeout → retry → fallback.
//!
//! What says that a target failed: a 5xx, a timeout, a connection that was refused or lost. What says nothing of it:
//! - 501 and 508, which are about the request and about the way that it came;
//! - `withheld` (503): the operator's word, which is no fault, and which a breaker would outlast when it is taken back;
//! - `host-cut-off` (503): this host has not heard from the platform, whatever the target does;
//! - a timeout that left the target less than half of its own, because the caller's time was nearly over;
//! - an end by the caller, which gave up or sent what it must not.
//!
//! **Invariant:** what a service may be answered from memory was answered to the same caller, for the same user with the
//! same rights, and a target that is withheld is not answered for.

pub mod announce;
pub mod config;
mod lane;
mod metrics;

use super::call::{self, Call, Content};
use crate::{
    capability::queue::Broker,
    invocation::{Invocation, Principal, Trigger},
    listener::Arrival,
    name::ServiceName,
    problem::{Kind, Problem},
    service::Service,
    telemetry::Metrics,
};
use config::{Rules, Settings};
use exprsn_policies::{Answer, Fallback, Place, State, Verdict, may_keep, varying};
use http::StatusCode;
use lane::{Lane, Lanes};
use metrics::{CallMetrics, End, Reason};
use rand::Rng as _;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use wasmtime_wasi_http::{
    Error as HttpError,
    handler::{Request, Response},
};

/// All policies, and what they remember.
pub struct Policies {
    lanes: Lanes,
    fallback: Fallback,
    /// Until somebody announces them.
    changes: Mutex<Option<announce::Receiver>>,
}

/// A breaker for whoever watches the platform.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BreakerView {
    pub from: ServiceName,
    pub target: ServiceName,
    /// `*`, or the route of the target that has policies of its own.
    pub route: String,
    pub state: State,
    /// Calls in the window.
    pub calls: u32,
    /// How many of them failed.
    pub failures: u32,
    /// How long it stays open, in milliseconds; 0 where it is not.
    pub open_ms: u64,
}

/// One call on its way.
pub struct Trip<'a> {
    pub from: &'a ServiceName,
    pub cause: &'a Invocation,
    pub to: &'a ServiceName,
    /// The target, where it is on this host.
    pub here: Option<&'a Arc<Service>>,
    /// How it arrives: `deadline` is when the caller's patience ends, `trace` the span of the whole call.
    pub arrival: Arrival,
}

/// Where attempts go.
pub trait Attempt: Sync {
    /// Makes one.
    fn attempt(
        &self,
        call: &mut Call,
        arrival: Arrival,
    ) -> impl Future<Output = Result<Response, HttpError>> + Send;
}

/// How an attempt ended.
enum Ended {
    Answered(Result<Response, HttpError>, Verdict),
    Rejected(Reason, Duration),
}

impl Ended {
    fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Answered(_, Verdict::Failure) | Self::Rejected(..)
        )
    }
}

impl Policies {
    /// The policies that `rules` say, counted in `metrics`.
    pub fn new(rules: Rules, metrics: &Metrics) -> Arc<Self> {
        let counted = CallMetrics::default();
        counted.register(metrics);
        let (sender, receiver) = announce::channel();
        Arc::new(Self {
            fallback: Fallback::new(rules.fallback_bytes_max),
            lanes: Lanes::new(rules, counted, sender),
            changes: Mutex::new(Some(receiver)),
        })
    }

    /// Has changes of breakers announced by `broker` from now on.
    pub fn announce(&self, broker: Arc<Broker>) {
        let changes = self
            .changes
            .lock()
            .expect("no holder of this lock panics")
            .take();
        if let Some(changes) = changes {
            tokio::spawn(announce::run(changes, broker));
        }
    }

    /// The policies of a call.
    pub(super) fn lane(
        &self,
        from: &ServiceName,
        to: &ServiceName,
        request: &Request,
    ) -> Arc<Lane> {
        let (method, path) = (request.method().as_str(), request.uri().path());
        self.lanes.of_call(from, to, method, path)
    }

    /// Every breaker that has seen a call, by caller, target and route.
    pub fn breakers(&self) -> Vec<BreakerView> {
        let now = Instant::now();
        let view = |(from, target, lane): (ServiceName, ServiceName, Arc<Lane>)| {
            let view = lane.breaker.view(now);
            let open_ms = view.open_for.unwrap_or_default().as_millis();
            BreakerView {
                from,
                target,
                route: lane.route.to_string(),
                state: view.state,
                calls: view.calls,
                failures: view.failures,
                open_ms: u64::try_from(open_ms).unwrap_or(u64::MAX),
            }
        };
        let mut views: Vec<_> = self.lanes.all().into_iter().map(view).collect();
        views.sort_by(|a, b| (&a.from, &a.target, &a.route).cmp(&(&b.from, &b.target, &b.route)));
        views
    }

    /// Makes a call, as its lane allows.
    pub(super) async fn call(
        &self,
        lane: &Lane,
        trip: Trip<'_>,
        request: Request,
        by: &impl Attempt,
    ) -> Result<Response, HttpError> {
        let key = self.key(lane, &trip, &request);
        let ended = match place(lane, &trip) {
            Some(_place) => tried(lane, &trip, request, by).await?,
            None => Ended::Rejected(Reason::Shed, Duration::ZERO),
        };
        let ended = match &key {
            Some(key) => self.remembered(key, lane, &trip, ended).await,
            None => ended,
        };
        let ended = match ended {
            failed if failed.is_failure() => {
                let again = key.and_then(|key| self.again(&key, lane, &trip));
                match again {
                    Some(answer) => {
                        lane.metrics.fallbacks.inc();
                        lane.metrics.end(End::Fallback);
                        return Ok(answer);
                    }
                    None => failed,
                }
            }
            ended => ended,
        };
        finish(lane, &trip, ended)
    }

    /// What an answer to this request is remembered by; none where it is not.
    fn key(&self, lane: &Lane, trip: &Trip<'_>, request: &Request) -> Option<String> {
        if lane.settings.fallback_ms_max == 0 {
            return None;
        }
        let varying = varying(request.method(), request.headers())?;
        let path = request.uri().path_and_query()?;
        let who = |principal: &Principal| {
            format!(
                "{} {:?} {:?} {:?} {:?}",
                principal.kind.as_str(),
                principal.subject,
                principal.permissions,
                principal.resources,
                principal.extra
            )
        };
        let user = trip.arrival.user.as_deref().map(who);
        let user = user.unwrap_or_default();
        let (from, to) = (trip.from, trip.to);
        Some(format!("{from}\n{to}\n{path}\n{user}\n{varying}"))
    }

    /// Keeps a good answer, for which it has to be read: where that fails, the call has failed.
    async fn remembered(&self, key: &str, lane: &Lane, trip: &Trip<'_>, ended: Ended) -> Ended {
        let Ended::Answered(Ok(response), Verdict::Success) = ended else {
            return ended;
        };
        if !may_keep(response.status(), response.headers()) {
            return Ended::Answered(Ok(response), Verdict::Success);
        }
        let (parts, body) = response.into_parts();
        let bytes_max = lane.settings.retry_bytes_max;
        let read = call::keep(body, bytes_max);
        let read = tokio::time::timeout_at(trip.arrival.deadline.into(), read).await;
        match read.unwrap_or(Err(HttpError::HttpResponseTimeout)) {
            Err(error) => Ended::Answered(Err(error), Verdict::Failure),
            Ok(content) => {
                if let Content::Whole(body) = &content {
                    let (headers, body) = (parts.headers.clone(), body.clone());
                    self.fallback
                        .keep(key, Answer { headers, body }, Instant::now());
                }
                let response = Response::from_parts(parts, content.into_body());
                Ended::Answered(Ok(response), Verdict::Success)
            }
        }
    }

    /// An earlier answer, where the operator has not withheld the target.
    fn again(&self, key: &str, lane: &Lane, trip: &Trip<'_>) -> Option<Response> {
        let live = trip.here.and_then(|service| service.live());
        if live.is_some_and(|version| version.context.check("*", "").is_err()) {
            return None;
        }
        let age_max = Duration::from_millis(lane.settings.fallback_ms_max);
        let answer = self.fallback.find(key, age_max, Instant::now())?;
        tracing::debug!(service = %trip.from, target = %trip.to, "a call is answered from memory");
        let mut response = Response::new(Content::Whole(answer.body).into_body());
        *response.headers_mut() = answer.headers;
        Some(response)
    }
}

/// Until when a caller waits for its call.
///
/// A caller keeps some of its own time to answer in, or its failure would follow from its target's. A gateway's callers
/// wait as long as they like, unless the operator chose a timeout for just this target or route.
pub(super) fn patience(
    settings: &Settings,
    cause: &Invocation,
    is_gateway: bool,
    now: Instant,
) -> Instant {
    let left = cause.deadline.saturating_duration_since(now);
    let own = now + left.saturating_sub(settings.reserve().min(left / 4));
    match is_gateway && !settings.has_own_timeout {
        true => own,
        false => own.min(now + settings.timeout()),
    }
}

/// A place at the target; none where the call is to be turned away.
fn place<'a>(lane: &'a Lane, trip: &Trip<'_>) -> Option<Place<'a>> {
    let priority = match trip.cause.trigger {
        Trigger::Http => lane.settings.priority,
        // Nobody waits for it, and it comes again.
        Trigger::Job | Trigger::Event => lane.settings.priority.lowered(),
    };
    lane.shedder.admit(priority)
}

/// Attempts, until one succeeds or no further one is allowed. The error is one of the request itself.
async fn tried(
    lane: &Lane,
    trip: &Trip<'_>,
    request: Request,
    by: &impl Attempt,
) -> Result<Ended, HttpError> {
    let until = trip.arrival.deadline;
    let prepared = Call::of(request, lane.settings.retry_bytes_max, trip.here.is_some());
    let prepared = tokio::time::timeout_at(until.into(), prepared).await;
    let mut call = prepared.unwrap_or(Err(HttpError::HttpResponseTimeout))?;
    lane.budget.deposit();
    let mut ended = attempted(lane, trip, &mut call, by).await;
    for number in 1..lane.settings.attempts_max {
        let failed = matches!(ended, Ended::Answered(_, Verdict::Failure));
        if !failed || !call.may_repeat() || !rested(lane, number - 1, until).await {
            break;
        }
        lane.metrics.retries.inc();
        match attempted(lane, trip, &mut call, by).await {
            // The failure says more than that no more calls are made now.
            Ended::Rejected(..) => break,
            again => ended = again,
        }
    }
    Ok(ended)
}

/// Waits for the next attempt; false where the budget or the time does not allow one.
async fn rested(lane: &Lane, number: u32, until: Instant) -> bool {
    let jitter = |most: Duration| rand::rng().random_range(Duration::ZERO..=most);
    let at = Instant::now() + lane.settings.backoff().wait(number, jitter);
    if at >= until || !lane.budget.withdraw() {
        return false;
    }
    tokio::time::sleep_until(at.into()).await;
    true
}

/// One attempt, where breaker and bulkhead let it through.
async fn attempted(lane: &Lane, trip: &Trip<'_>, call: &mut Call, by: &impl Attempt) -> Ended {
    let (begun, until) = (Instant::now(), trip.arrival.deadline);
    let pass = match lane.breaker.admit(begun) {
        Ok(pass) => pass,
        Err(refused) => return Ended::Rejected(Reason::CircuitOpen, refused.retry_after),
    };
    let Ok(_permit) = lane.bulkhead.enter(until, begun).await else {
        return Ended::Rejected(Reason::BulkheadFull, Duration::ZERO);
    };
    // A span of its own for each attempt.
    let mut arrival = trip.arrival.clone();
    arrival.trace = trip.arrival.trace.child();
    let answer = tokio::time::timeout_at(until.into(), by.attempt(call, arrival)).await;
    let answer = answer.unwrap_or(Err(HttpError::HttpResponseTimeout));
    let had_time = until.saturating_duration_since(begun) * 2 >= lane.settings.timeout();
    let verdict = verdict(&answer, had_time);
    pass.end(verdict, Instant::now());
    Ended::Answered(answer, verdict)
}

/// What an answer says of the target.
fn verdict(answer: &Result<Response, HttpError>, had_time: bool) -> Verdict {
    match answer {
        Ok(response) => {
            let kind = response.extensions().get::<Kind>().map(|kind| kind.0);
            match (response.status(), kind) {
                (StatusCode::NOT_IMPLEMENTED | StatusCode::LOOP_DETECTED, _)
                | (_, Some("withheld" | "host-cut-off")) => Verdict::Neither,
                (_, Some("deadline-exceeded")) if !had_time => Verdict::Neither,
                (status, _) if status.is_server_error() => Verdict::Failure,
                _ => Verdict::Success,
            }
        }
        Err(HttpError::HttpResponseTimeout) if !had_time => Verdict::Neither,
        Err(
            HttpError::HttpRequestDenied
            | HttpError::HttpRequestBodySize(_)
            | HttpError::HttpRequestMethodInvalid
            | HttpError::HttpRequestUriInvalid,
        ) => Verdict::Neither,
        Err(_) => Verdict::Failure,
    }
}

/// Counts a call's end and answers the caller.
fn finish(lane: &Lane, trip: &Trip<'_>, ended: Ended) -> Result<Response, HttpError> {
    match ended {
        Ended::Rejected(reason, retry_after) => {
            lane.metrics.reject(reason);
            lane.metrics.end(End::Rejected);
            Ok(problem(trip.to, reason, retry_after).into_response())
        }
        Ended::Answered(answer, verdict) => {
            let refused = match &answer {
                Ok(response) => {
                    !response.status().is_success() && !response.status().is_redirection()
                }
                Err(_) => true,
            };
            lane.metrics.end(match verdict {
                Verdict::Failure => End::Failure,
                _ if refused => End::Refused,
                _ => End::Success,
            });
            answer
        }
    }
}

/// Tells a caller that its call was not made, why, and when to come again.
fn problem(to: &ServiceName, reason: Reason, retry_after: Duration) -> Problem {
    let detail = match reason {
        Reason::CircuitOpen => {
            format!(
                "{to} failed too often of late: it is left alone for a while and then tried again"
            )
        }
        Reason::BulkheadFull => format!(
            "as many calls of {to} are under way as [mesh] bulkhead_max allows, and none ended in time"
        ),
        Reason::Shed => {
            format!("{to} is busy, and calls that matter more go before this one ([mesh] priority)")
        }
    };
    let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason.as_str(), detail)
        .retry_after(seconds.max(1))
}

#[cfg(test)]
mod tests;
