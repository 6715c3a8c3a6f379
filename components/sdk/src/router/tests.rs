//! Paths, methods, and what is answered where there is no handler.

use super::*;
use crate::extract::Path as Params;
use crate::response::Text;
use crate::testing::{json, send, text};

async fn show(Params(id): Params<String>) -> Text {
    Text(format!("note {id}"))
}

async fn list() -> Text {
    Text("list")
}

async fn pair(Params((a, b)): Params<(String, u32)>) -> Text {
    Text(format!("{a} {b}"))
}

async fn method(method: Method) -> Text {
    Text(method.as_str())
}

fn router() -> Router {
    Router::new("Notes", "1.0.0")
        .get("/notes", list)
        .post("/notes", list)
        .get("/notes/{id}", show)
        .delete("/notes/{id}", show)
        .get("/pair/{a}/{b}", pair)
        .any("/files/{*rest}", method)
}

fn request(method: Method, path: &str) -> Response {
    send(&router(), Request::new(method, path))
}

#[test]
fn a_path_and_method_find_their_handler() {
    assert_eq!(text(request(Method::GET, "/notes?x=/notes/7")), "list");
    assert_eq!(text(request(Method::GET, "/notes/7")), "note 7");
    assert_eq!(text(request(Method::GET, "/pair/a/7")), "a 7");
    assert_eq!(text(request(Method::PATCH, "/files/a/b")), "PATCH");
}

#[test]
fn parameters_are_decoded_after_matching() {
    assert_eq!(
        text(request(Method::GET, "/notes/a%2Fb%20%C3%BC")),
        "note a/b ü"
    );
    assert_eq!(request(Method::GET, "/notes/%FF").status, 400);
}

#[test]
fn unknown_paths_are_problems_404() {
    for path in ["/", "/notes/", "/notes/1/2", "/Notes", "//"] {
        let response = request(Method::GET, path);
        assert_eq!(
            (
                response.status.as_u16(),
                response.headers.get("content-type")
            ),
            (404, Some("application/problem+json")),
            "{path}"
        );
    }
}

#[test]
fn other_methods_are_refused_with_those_allowed() {
    let response = request(Method::PUT, "/notes");
    assert_eq!(
        (response.status.as_u16(), response.headers.get("allow")),
        (405, Some("GET, POST, HEAD, OPTIONS"))
    );
    let response = request(Method::HEAD, "/unknown");
    assert_eq!(response.status, 404);
}

#[test]
fn options_and_head_are_answered() {
    let response = request(Method::OPTIONS, "/notes/7");
    assert_eq!(
        (response.status.as_u16(), response.headers.get("allow")),
        (204, Some("GET, DELETE, HEAD, OPTIONS"))
    );
    let response = request(Method::HEAD, "/notes");
    assert_eq!(
        (
            response.status.as_u16(),
            response.headers.get("content-length")
        ),
        (200, Some("4"))
    );
    assert_eq!(text(response), "");
    assert_eq!(text(request(Method::OPTIONS, "/files/x")), "OPTIONS");
}

#[test]
fn a_fallback_takes_the_rest() {
    let router = router().fallback(method);
    assert_eq!(
        text(send(&router, Request::new(Method::GET, "/nowhere"))),
        "GET"
    );
}

#[test]
fn merged_routes_keep_what_is_said_of_them() {
    let more = Router::new("More", "2")
        .get("/more", list)
        .summary("More")
        .public();
    let router = router().merge(more);
    assert_eq!(
        text(send(&router, Request::new(Method::GET, "/more"))),
        "list"
    );
    assert_eq!(router.openapi()["paths"]["/more"]["get"]["summary"], "More");
    assert_eq!(router.openapi()["info"]["title"], "Notes");
}

#[test]
fn the_document_is_served() {
    let (status, body) = json(request(Method::GET, "/openapi.json"));
    assert_eq!((status, body["openapi"].as_str()), (200, Some("3.1.0")));
    assert!(router().routes().any(|route| route == ("GET", "/health")));
    assert!(
        router()
            .routes()
            .any(|route| route == ("*", "/files/{*rest}"))
    );
}

#[test]
#[should_panic(expected = "two routes")]
fn one_path_and_method_have_one_handler() {
    let _ = router().get("/notes", list);
}

#[test]
fn what_is_around_sees_every_answer() {
    fn gate(mut request: Request, next: Next<'_>) -> LocalBoxFuture<'_, Response> {
        Box::pin(async move {
            if request.path() == "/closed" {
                return Response::new(StatusCode::FORBIDDEN);
            }
            request.headers_mut().set("x-seen", "1");
            next.run(request).await.header("x-around", "1")
        })
    }
    async fn seen(headers: crate::Headers) -> Text {
        Text(headers.get("x-seen").unwrap_or("0"))
    }
    let router = Router::new("t", "1").get("/open", seen).around(gate);
    let answer = |path: &str| send(&router, Request::new(Method::GET, path));
    for (path, status) in [("/open", 200), ("/nowhere", 404)] {
        let answer = answer(path);
        let seen = (answer.status.as_u16(), answer.headers.get("x-around"));
        assert_eq!(seen, (status, Some("1")));
    }
    assert_eq!(answer("/closed").status, 403);
    assert_eq!(text(answer("/open")), "1");
}
