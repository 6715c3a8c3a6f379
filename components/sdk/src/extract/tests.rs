//! What extractors accept, and which field they name when they do not.

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;
use crate::bindings::exprsn::ca::caller::Kind;
use crate::page::PageQuery;
use crate::response::{Json, Text};
use crate::testing::{invocation, json, principal, problem, send, text, with_json};
use crate::{Body, Method, Response, Router};

#[derive(Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Order {
    #[garde(length(chars, min = 1, max = 5))]
    buyer_name: String,
    #[garde(dive)]
    order_lines: Vec<Line>,
    #[serde(default)]
    #[garde(skip)]
    urgent: bool,
}

#[derive(Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    #[garde(range(min = 1, max = 9))]
    unit_count: u32,
}

#[derive(Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
struct Search {
    #[garde(length(min = 2))]
    search_text: String,
    #[serde(default)]
    #[garde(skip)]
    tag: Vec<String>,
    #[garde(skip)]
    deep: Option<bool>,
    #[garde(skip)]
    kind: Option<Sort>,
    #[serde(flatten)]
    #[garde(dive)]
    page: PageQuery,
}

#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Sort {
    New,
    Top,
}

async fn order(Json(order): Json<Order>) -> Json<Order> {
    Json(order)
}

async fn form(Form(order): Form<Search>) -> Json<Search> {
    Json(order)
}

async fn search(query: Query<Search>) -> Result<Json<Search>> {
    query.page.cursor::<i64>()?;
    Ok(Json(query.0))
}

async fn page(page: Query<PageQuery>) -> Result<Text> {
    page.cursor::<i64>()?;
    Ok(Text(page.limit().to_string()))
}

async fn number(Path(n): Path<u32>) -> Text {
    Text(n.to_string())
}

#[derive(Deserialize)]
struct Ids {
    a: String,
    n: i64,
}

async fn ids(Path(ids): Path<Ids>) -> Text {
    Text(format!("{} {}", ids.a, ids.n))
}

async fn user(body: Body, user: User) -> Result<Text> {
    Ok(Text(format!("{} {}", user.id, body.bytes(3).await?.len())))
}

async fn maybe(user: Option<User>, caller: Caller) -> Text {
    Text(format!(
        "{} {}",
        user.is_some(),
        caller.has(Permission::Read)
    ))
}

async fn key(key: IdempotencyKey) -> Text {
    Text(key.0.unwrap_or_default())
}

fn router() -> Router {
    Router::new("Test", "1")
        .post("/orders", order)
        .post("/form", form)
        .get("/search", search)
        .get("/page", page)
        .get("/number/{n}", number)
        .get("/ids/{a}/{n}", ids)
        .post("/user", user)
        .get("/maybe", maybe)
        .post("/key", key)
}

fn post(body: &str) -> Response {
    send(&router(), with_json(Method::POST, "/orders", body))
}

fn get(target: &str) -> Response {
    send(&router(), Request::new(Method::GET, target))
}

/// The one wrong field of a problem.
fn wrong(response: Response) -> (u16, String) {
    let (status, mut errors) = problem(response);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(!errors[0].1.is_empty());
    (status, errors.remove(0).0)
}

const GOOD: &str = r#"{"buyerName":"Ann","orderLines":[{"unitCount":2}]}"#;

#[test]
fn a_good_body_arrives() {
    let (status, body) = json(post(GOOD));
    assert_eq!(
        (status, body["orderLines"][0]["unitCount"].as_u64()),
        (200, Some(2))
    );
}

#[test]
fn malformed_json_is_400_with_the_position() {
    for (body, line, column) in [
        ("", 1, 0),
        ("{\n  \"buyerName\": }", 2, 16),
        ("{} x", 1, 4),
        ("\u{0}", 1, 1),
    ] {
        let (status, document) = json(post(body));
        let position = (document["line"].as_u64(), document["column"].as_u64());
        assert_eq!(
            (status, position),
            (400, (Some(line), Some(column))),
            "{document}"
        );
    }
    let deep = "[".repeat(100_000);
    assert_eq!(post(&deep).status, 400);
    assert_eq!(
        send(&any(), with_json(Method::POST, "/", &deep)).status,
        400
    );
}

fn any() -> Router {
    async fn any(AnyJson(value): AnyJson) -> AnyJson {
        AnyJson(value)
    }
    Router::new("Any", "1").post("/", any)
}

#[test]
fn a_wrong_field_is_422_with_its_pointer() {
    for (body, field) in [
        (r#"{"buyerName":1,"orderLines":[]}"#, "/buyerName"),
        (r#"{"orderLines":[]}"#, "/buyerName"),
        (r#"{"buyerName":"a"}"#, "/orderLines"),
        (r#"{"buyerName":"a","orderLines":[],"a/b~c":1}"#, "/a~1b~0c"),
        (
            r#"{"buyerName":"a","orderLines":[{"unitCount":1},{"unitCount":"2"}]}"#,
            "/orderLines/1/unitCount",
        ),
        (
            r#"{"buyerName":"a","orderLines":[{"unitCount":1},{}]}"#,
            "/orderLines/1/unitCount",
        ),
        (
            r#"{"buyerName":"a","orderLines":[{"unitCount":1,"x":1}]}"#,
            "/orderLines/0/x",
        ),
        (
            r#"{"buyerName":"a","orderLines":[{"unitCount":-1}]}"#,
            "/orderLines/0/unitCount",
        ),
        (
            r#"{"buyerName":"a","orderLines":[],"urgent":"yes"}"#,
            "/urgent",
        ),
        (
            r#"{"buyerName":"a","buyerName":"b","orderLines":[]}"#,
            "/buyerName",
        ),
        ("[]", ""),
        ("7", ""),
    ] {
        assert_eq!(wrong(post(body)), (422, field.to_owned()), "{body}");
    }
}

#[test]
fn failed_rules_name_every_field_as_the_body_does() {
    let body = r#"{"buyerName":"","orderLines":[{"unitCount":1},{"unitCount":10}]}"#;
    let (status, errors) = problem(post(body));
    let mut fields: Vec<&str> = errors.iter().map(|(field, _)| field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(
        (status, fields),
        (422, vec!["/buyerName", "/orderLines/1/unitCount"])
    );
}

#[test]
fn only_json_is_json() {
    for media_type in [
        "application/json",
        "Application/JSON;charset=utf-8",
        "application/merge-patch+json",
    ] {
        let request = Request::new(Method::POST, "/orders")
            .header("content-type", media_type)
            .body(GOOD);
        assert_eq!(send(&router(), request).status, 200, "{media_type}");
    }
    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "json",
        "",
    ] {
        let request = Request::new(Method::POST, "/orders")
            .header("content-type", media_type)
            .body(GOOD);
        assert_eq!(
            wrong(send(&router(), request)),
            (415, "Content-Type".to_owned()),
            "{media_type}"
        );
    }
    assert_eq!(
        send(&router(), Request::new(Method::POST, "/orders").body(GOOD)).status,
        415
    );
}

#[test]
fn queries_are_typed() {
    let (status, body) = json(get(
        "/search?searchText=a%20b%2Bc+d&tag=x&tag=y&deep=true&kind=top&limit=5",
    ));
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["searchText"], "a b+c d");
    assert_eq!(body["tag"], serde_json::json!(["x", "y"]));
    assert_eq!(
        (&body["deep"], &body["kind"], &body["limit"]),
        (&true.into(), &"top".into(), &5.into())
    );
}

#[test]
fn a_wrong_parameter_is_400_with_its_name() {
    for (query, field) in [
        ("", "searchText"),
        ("searchText=a", "searchText"),
        ("searchText=ab&searchText=cd", "searchText"),
        ("searchText=ab&deep=perhaps", "deep"),
        ("searchText=ab&kind=old", "kind"),
        ("searchText=ab&limit=0", "limit"),
        ("searchText=ab&limit=ten", "limit"),
        ("searchText=ab&cursor=%00garbage", "cursor"),
    ] {
        assert_eq!(
            wrong(get(&format!("/search?{query}"))),
            (400, field.to_owned()),
            "{query}"
        );
    }
}

#[test]
fn limits_of_pages() {
    assert_eq!(text(get("/page")), "20");
    assert_eq!(text(get("/page?limit=100")), "100");
    for limit in [
        "0",
        "-1",
        "101",
        "ten",
        "",
        "1.5",
        "99999999999999999999",
        "'; DROP TABLE notes",
    ] {
        assert_eq!(
            wrong(get(&format!("/page?limit={limit}"))),
            (400, "limit".to_owned()),
            "{limit}"
        );
    }
    assert_eq!(
        wrong(get("/page?cursor=nonsense")),
        (400, "cursor".to_owned())
    );
}

#[test]
fn forms_are_queries_in_the_body() {
    let form = |text: &str| {
        let request = Request::new(Method::POST, "/form")
            .header("content-type", "application/x-www-form-urlencoded");
        send(&router(), request.body(text))
    };
    assert_eq!(form("searchText=abc").status, 200);
    assert_eq!(wrong(form("searchText=a")), (422, "searchText".to_owned()));
    assert_eq!(
        send(&router(), with_json(Method::POST, "/form", "{}")).status,
        415
    );
}

#[test]
fn path_values_are_typed() {
    assert_eq!(text(get("/number/7")), "7");
    assert_eq!(wrong(get("/number/seven")), (400, "n".to_owned()));
    assert_eq!(text(get("/ids/x/-7")), "x -7");
    assert_eq!(wrong(get("/ids/x/y")), (400, "n".to_owned()));
}

#[test]
fn a_user_is_whoever_the_request_is_for() {
    let alice = || Some(principal(Kind::User, "alice"));
    for (caller, user, expected) in [
        (principal(Kind::Anonymous, ""), None, None),
        (principal(Kind::User, "alice"), None, Some("alice 2")),
        (
            principal(Kind::Service, "exprsn-nexus"),
            alice(),
            Some("alice 2"),
        ),
        (
            principal(Kind::Service, "exprsn-nexus"),
            None,
            Some("exprsn-nexus 2"),
        ),
        (principal(Kind::Client, "app"), None, Some("app 2")),
    ] {
        let request = Request::new(Method::POST, "/user")
            .body("ab")
            .invocation(invocation(caller, user));
        let response = send(&router(), request);
        match expected {
            Some(expected) => assert_eq!(text(response), expected),
            None => assert_eq!(
                (
                    response.status.as_u16(),
                    response.headers.get("www-authenticate")
                ),
                (401, Some("Bearer"))
            ),
        }
    }
    let anonymous = invocation(principal(Kind::Anonymous, ""), None);
    assert_eq!(
        text(send(
            &router(),
            Request::new(Method::GET, "/maybe").invocation(anonymous)
        )),
        "false true"
    );
}

#[test]
fn bodies_have_a_limit() {
    let request = Request::new(Method::POST, "/user")
        .body("abcd")
        .invocation(invocation(principal(Kind::User, "a"), None));
    assert_eq!(send(&router(), request).status, 413);
}

#[test]
fn idempotency_keys_are_bare_or_quoted() {
    let key = |value: &str| {
        send(
            &router(),
            Request::new(Method::POST, "/key").header("Idempotency-Key", value),
        )
    };
    assert_eq!(text(key("abc")), "abc");
    assert_eq!(text(key("\"abc\"")), "abc");
    assert_eq!(wrong(key("")), (400, "Idempotency-Key".to_owned()));
    assert_eq!(
        wrong(key(&"x".repeat(256))),
        (400, "Idempotency-Key".to_owned())
    );
}
