//! The host's own answers, beside those of services: probes on every port, and on exprsn-setup's what the host keeps in
//! memory for its administrators.
//!
//! **Invariant:** what lies under [`ADMIN`] needs `admin` on that path, by the same check as a service's own routes.

use crate::{
    clock,
    invocation::Permission,
    listener::bearer,
    mesh::{self, Mesh},
    problem::Problem,
    service::{Service, State},
    telemetry,
};
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};
use wasmtime_wasi_http::handler::Response;

/// What begins the paths for administrators.
pub const ADMIN: &str = "/-/";
/// The service on whose port they are.
const PLACE: &str = "exprsn-setup";
/// Largest question, in bytes.
pub const QUESTION_BYTES_MAX: usize = 16 << 10;
/// Most lines of one answer.
const LINES_MAX: usize = 1_000;

/// `/livez` while the process serves, `/readyz` while all its services are live and it hears from the platform.
pub fn probed(mesh: &Mesh, path: &str) -> Option<Response> {
    let problem = match path {
        "/livez" => None,
        "/readyz" => unready(mesh),
        _ => return None,
    };
    Some(match problem {
        Some(problem) => problem.into_response(),
        None => answer(&json!({ "status": "ok" })),
    })
}

fn unready(mesh: &Mesh) -> Option<Problem> {
    if mesh.is_cut_off() {
        return Some(crate::listener::cut_off());
    }
    let services = mesh.registry.all();
    let waiting = services
        .iter()
        .find(|service| service.state().0 != State::Live)?;
    Some(crate::listener::not_live(waiting))
}

/// Whether a request is for the host itself.
pub fn is_admins(service: &Service, path: &str) -> bool {
    path.starts_with(ADMIN) && service.name.as_str() == PLACE
}

/// Answers an administrator.
pub async fn administer(
    mesh: &Mesh,
    service: &Service,
    request: http::Request<Incoming>,
) -> Response {
    let answered = async {
        authorise(mesh, service, &request).await?;
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let what = parts.uri.path().trim_start_matches(ADMIN).to_owned();
        match (&parts.method, what.as_str()) {
            (&Method::GET, "logs") => Ok(logs(&query)),
            (&Method::GET, "breakers") => Ok(breakers(mesh)),
            (&Method::GET, "levels") => Ok(json!({ "filter": telemetry::filter() })),
            (&Method::PUT, "levels") => set_levels(body).await,
            (&Method::GET, path) => match path.strip_prefix("traces/") {
                Some(id) => trace(id),
                None => Err(nothing(&what)),
            },
            _ => Err(nothing(&what)),
        }
    };
    match answered.await {
        Ok(value) => answer(&value),
        Err(problem) => problem.into_response(),
    }
}

fn nothing(what: &str) -> Problem {
    let detail = format!(
        "the host answers logs, traces/<id>, breakers and levels under {ADMIN}, not `{what}`"
    );
    Problem::new(StatusCode::NOT_FOUND, "no-route", detail)
}

async fn authorise<B>(
    mesh: &Mesh,
    service: &Service,
    request: &http::Request<B>,
) -> Result<(), Problem> {
    let value = request.headers().get(header::AUTHORIZATION);
    let token = value.and_then(|value| value.to_str().ok()).and_then(bearer);
    let token = token.ok_or_else(|| {
        let detail = "send a token with `admin` as `Authorization: Bearer <token>`";
        Problem::new(StatusCode::UNAUTHORIZED, "token-missing", detail)
            .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"exprsn\"")
    })?;
    let principal = mesh.authority.authenticate(token, clock::now_s()).await;
    let principal = principal.map_err(|refusal| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            refusal.kind(),
            refusal.to_string(),
        )
    })?;
    mesh.authority
        .authorise(
            &principal,
            &service.name,
            request.uri().path(),
            Permission::Admin,
        )
        .map_err(|denial| Problem::new(StatusCode::FORBIDDEN, "forbidden", denial.to_string()))
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .into_iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn logs(query: &str) -> Value {
    let after = parameter(query, "after")
        .and_then(|after| after.parse().ok())
        .unwrap_or(0);
    let lines = telemetry::recent::logs(parameter(query, "service"), after);
    // The newest: who follows has seen the others.
    let skipped = lines.len().saturating_sub(LINES_MAX);
    let next = lines.last().map_or(after, |(number, _)| *number);
    let items: Vec<Value> = lines[skipped..]
        .iter()
        .map(|(_, line)| json!(**line))
        .collect();
    json!({ "items": items, "next": next, "skipped": skipped })
}

fn trace(id: &str) -> Result<Value, Problem> {
    let parsed = (id.len() == 32)
        .then(|| u128::from_str_radix(id, 16).ok())
        .flatten();
    let id = parsed.ok_or_else(|| {
        let detail = "a trace's id is 32 hexadecimal digits: that of traceparent, or x-request-id";
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    })?;
    let spans = telemetry::recent::trace(id);
    let items: Vec<Value> = spans.iter().map(|span| json!(**span)).collect();
    Ok(json!({ "items": items }))
}

fn breakers(mesh: &Mesh) -> Value {
    let items: Vec<Value> = mesh
        .breakers()
        .iter()
        .map(|one| {
            json!({
                "from": one.from.as_str(), "target": one.target.as_str(), "route": one.route,
                "state": one.state.as_str(), "calls": one.calls, "failures": one.failures, "openMs": one.open_ms,
            })
        })
        .collect();
    json!({ "items": items })
}

async fn set_levels(body: Incoming) -> Result<Value, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad-request", detail);
    let body = Limited::new(body, QUESTION_BYTES_MAX).collect().await;
    let body = body.map_err(|_| bad("the question is too large or broke off".to_owned()))?;
    let bytes = body.to_bytes();
    let asked: Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    let filter = asked["filter"].as_str();
    let filter = filter
        .ok_or_else(|| bad("send {\"filter\": \"info,exprsn-timeline=debug\"}".to_owned()))?;
    telemetry::set_filter(filter).map_err(bad)?;
    Ok(json!({ "filter": telemetry::filter() }))
}

fn answer(value: &Value) -> Response {
    let body = mesh::whole(value.to_string());
    http::Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(body)
        .expect("a body and a media type make a response")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_name() {
        assert_eq!(parameter("a=1&service=x", "service"), Some("x"));
        assert_eq!(parameter("", "service"), None);
    }

    #[test]
    fn a_trace_is_named_by_its_whole_id() {
        for id in ["", "12", &"g".repeat(32), &"1".repeat(33)] {
            assert!(trace(id).is_err(), "{id}");
        }
        assert_eq!(
            trace(&"0".repeat(32)).map_or(1, |found| found["items"].as_array().map_or(1, Vec::len)),
            0
        );
    }
}
