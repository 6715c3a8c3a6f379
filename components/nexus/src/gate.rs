//! What every request passes, whatever answers it: identification, CORS, size, rate limits, and the fields of the answer.
//!
//! **Invariant:** what comes after the gate sees no forwarding field that the gate has not written itself.

use crate::{
    cors::Field,
    forwarded,
    limits::{Reading, Usage},
    settings::{Settings, settings},
};
use exprsn_sdk::{LocalBoxFuture, Next, prelude::*};
use std::net::IpAddr;

/// The path that load balancers ask all the time; it costs nobody anything.
const HEALTH: &str = "/health";

/// Fields that make a browser careful with an answer, unless the service said otherwise.
const SECURITY: [(&str, &str); 4] = [
    (
        "content-security-policy",
        "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];

/// A request as the gate knows it.
struct Arrival {
    origin: Option<String>,
    request_id: String,
    client: Option<IpAddr>,
    /// `http`, or what a trusted proxy says.
    proto: &'static str,
}

/// Goes around every answer of the gateway.
pub fn gate(request: Request, next: Next<'_>) -> LocalBoxFuture<'_, Response> {
    Box::pin(async move {
        let settings = settings();
        let (arrival, request) = Arrival::of(request, settings);
        let mut response = match preflight(&request, &arrival, settings) {
            Some(answer) => answer.into_response(),
            None => answer(request, next, &arrival, settings).await,
        };
        arrival.finish(&mut response.headers, settings);
        response
    })
}

async fn answer(
    request: Request,
    next: Next<'_>,
    arrival: &Arrival,
    settings: &Settings,
) -> Response {
    let mut usage = Usage::default();
    let mut response = match admit(&request, arrival, settings, &mut usage).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    if let Some((policies, left)) = usage.fields() {
        response.headers.set("ratelimit-policy", policies);
        response.headers.set("ratelimit", left);
    }
    add(
        &mut response.headers,
        settings.cors.actual(arrival.origin.as_deref()),
    );
    response
}

/// Refuses what cannot be passed on, what is too large, and what is too much.
async fn admit(
    request: &Request,
    arrival: &Arrival,
    settings: &Settings,
    usage: &mut Usage,
) -> Result<()> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED)
            .detail("the gateway passes on any method but CONNECT and TRACE"));
    }
    refuse_large(request.headers(), settings)?;
    if request.path() != HEALTH {
        *usage = take(arrival.client, request.caller(), settings).await;
        if !usage.allowed() {
            return Err(too_many(usage));
        }
    }
    Ok(())
}

/// The answer of a CORS preflight; none where the request is none.
fn preflight(
    request: &Request,
    arrival: &Arrival,
    settings: &Settings,
) -> Option<Result<Response>> {
    let origin = arrival.origin.as_deref()?;
    let method = request.headers().get("access-control-request-method")?;
    if request.method() != Method::OPTIONS {
        return None;
    }
    let headers = request.headers().get("access-control-request-headers");
    Some(match settings.cors.preflight(origin, method, headers) {
        Some(fields) => {
            let mut response = Response::new(StatusCode::NO_CONTENT);
            add(&mut response.headers, fields);
            Ok(response)
        }
        None => Err(Problem::forbidden(format!(
            "pages of {origin} may not use this platform; an operator allows them with `cors_origins` of exprsn-nexus"
        ))),
    })
}

fn refuse_large(headers: &Headers, settings: &Settings) -> Result<()> {
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length > settings.request_bytes_max) {
        return Err(Problem::too_large(
            usize::try_from(settings.request_bytes_max).unwrap_or(usize::MAX),
        ));
    }
    Ok(())
}

/// Counts a request in the buckets of its address and of its principal.
pub async fn take(client: Option<IpAddr>, caller: &ca::Invocation, settings: &Settings) -> Usage {
    let mut usage = Usage::default();
    let principal = caller.user.as_ref().unwrap_or(&caller.caller);
    let buckets = [
        client.map(|client| {
            (
                &settings.address,
                format!("address:{}", forwarded::address_key(client)),
            )
        }),
        (!principal.subject.is_empty()).then(|| {
            (
                &settings.principal,
                format!("principal:{:?}:{}", principal.kind, principal.subject),
            )
        }),
    ];
    for (policy, key) in buckets.into_iter().flatten() {
        match cache::take_tokens(&key, policy.burst, policy.per_second, 1).await {
            Ok(bucket) => {
                let reading = Reading {
                    allowed: bucket.allowed,
                    remaining: bucket.remaining,
                    retry_after_ms: bucket.retry_after_ms,
                    reset_ms: bucket.reset_ms,
                };
                usage.note(policy, reading);
            }
            // Without its counters the gateway serves rather than refuses: services defend themselves too.
            Err(error) => log::error!(
                "a rate limit cannot be checked",
                error = format!("{error:?}")
            ),
        }
        if !usage.allowed() {
            break;
        }
    }
    usage
}

/// 429 as the draft on rate limit fields has it.
pub fn too_many(usage: &Usage) -> Problem {
    let seconds = usage.retry_after_s();
    Problem::too_many(seconds)
        .kind(
            "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "Request cannot be satisfied as assigned quota has been exceeded",
        )
        .detail(format!("too many requests; try again in {seconds} s"))
        .with("violated-policies", usage.violated())
}

impl Arrival {
    /// Reads what the client says, and writes what the services behind are told instead.
    fn of(mut request: Request, settings: &Settings) -> (Self, Request) {
        let peer = request
            .caller()
            .address
            .as_ref()
            .and_then(|address| address.parse::<IpAddr>().ok());
        let authority = request.authority();
        let trace_id = request.caller().trace_id.clone();
        let headers = request.headers_mut();
        let lines: Vec<&str> = headers.get_all("x-forwarded-for").collect();
        let client = peer.map(|peer| settings.proxies.client(peer, &lines));
        let trusted = peer.is_some_and(|peer| settings.proxies.trusts(peer));
        let proto = match headers.get("x-forwarded-proto") {
            Some("https") if trusted => "https",
            _ => "http",
        };
        let host = headers
            .get("x-forwarded-host")
            .filter(|_| trusted)
            .map(str::to_owned)
            .or(authority);
        let own_id = headers
            .get("x-request-id")
            .filter(|id| forwarded::is_request_id(id))
            .map(str::to_owned);
        let arrival = Self {
            origin: headers.get("origin").map(str::to_owned),
            request_id: own_id.unwrap_or(trace_id),
            client,
            proto,
        };
        remove(headers, forwarded::is_forwarding_field);
        headers.set("x-request-id", arrival.request_id.as_str());
        if let Some(client) = client {
            add(headers, forwarded::fields(client, host.as_deref(), proto));
        }
        (arrival, request)
    }

    /// Writes the fields that every answer has.
    fn finish(&self, headers: &mut Headers, settings: &Settings) {
        headers.set("x-request-id", self.request_id.as_str());
        for (name, value) in SECURITY {
            if !headers.contains(name) {
                headers.set(name, value);
            }
        }
        if self.proto == "https" && settings.hsts_s > 0 {
            headers.set(
                "strict-transport-security",
                format!("max-age={}", settings.hsts_s),
            );
        }
    }
}

/// Adds fields; `Vary` beside what a service says itself, others in place of it.
pub fn add(headers: &mut Headers, fields: impl IntoIterator<Item = Field>) {
    for (name, value) in fields {
        if name == "vary" {
            headers.append(name, value);
        } else {
            headers.set(name, value);
        }
    }
}

/// Removes the fields whose name is unwanted.
pub fn remove(headers: &mut Headers, unwanted: impl Fn(&str) -> bool) {
    let names: Vec<String> = headers
        .iter()
        .map(|(name, _)| name)
        .filter(|name| unwanted(name))
        .map(str::to_owned)
        .collect();
    for name in names {
        headers.remove(&name);
    }
}
