//! Helpers of the SDK's own tests: nothing in them waits, so one poll runs a future to its end.

use futures_util::FutureExt;
use serde_json::Value;

use crate::bindings::exprsn::ca::caller::{Invocation, Kind, Permissions, Principal};
use crate::{Method, Request, Response, Router};

/// Runs a future that waits for nothing.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    Box::pin(future)
        .now_or_never()
        .expect("natively nothing waits")
}

/// Sends a request to a router.
pub(crate) fn send(router: &Router, request: Request) -> Response {
    now(router.handle(request))
}

/// A request with a JSON body.
pub(crate) fn with_json(method: Method, path: &str, body: &str) -> Request {
    Request::new(method, path)
        .header("content-type", "application/json; charset=utf-8")
        .body(body)
}

/// The body of a response as text.
pub(crate) fn text(response: Response) -> String {
    let bytes = now(response.content.bytes(1 << 20)).expect("the body is whole");
    String::from_utf8(bytes).expect("the body is text")
}

/// The body of a response as JSON, with its status.
pub(crate) fn json(response: Response) -> (u16, Value) {
    let status = response.status.as_u16();
    let text = text(response);
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

/// Status and fields of a problem, `/a: message` each.
pub(crate) fn problem(response: Response) -> (u16, Vec<(String, String)>) {
    assert_eq!(
        response.headers.get("content-type"),
        Some("application/problem+json")
    );
    let (status, body) = json(response);
    assert_eq!(body["status"], status);
    let member = |error: &Value, name: &str| error[name].as_str().unwrap_or_default().to_owned();
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    (
        status,
        errors
            .iter()
            .map(|e| (member(e, "field"), member(e, "message")))
            .collect(),
    )
}

/// An invocation by a caller, on behalf of a user or not.
pub(crate) fn invocation(caller: Principal, user: Option<Principal>) -> Invocation {
    Invocation {
        caller,
        user,
        address: Some("127.0.0.1".to_owned()),
        trace_id: "0".repeat(32),
        path: vec![],
        remaining_ms: 1000,
    }
}

/// A principal that may read.
pub(crate) fn principal(kind: Kind, subject: &str) -> Principal {
    Principal {
        kind,
        subject: subject.to_owned(),
        permissions: Permissions::READ,
        resources: vec![],
        token_id: None,
        expires_at: None,
        extra: r#"{"scope":"a"}"#.to_owned(),
    }
}
