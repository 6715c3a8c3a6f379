//! Hello: the smallest service, for tests and benchmarks of the host itself.

use exprsn_sdk::prelude::*;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Hello {
    message: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WhoAmI {
    caller: String,
    subject: String,
    user: Option<String>,
    path: Vec<String>,
    trace_id: String,
    authorization_seen: bool,
}

fn routes() -> Router {
    Router::new("Exprsn Hello", env!("CARGO_PKG_VERSION"))
        .get("/hello", hello)
        .get("/whoami", who_am_i)
        .get("/read", hello)
        .post("/write", write)
        .post("/echo", echo)
        .get("/pass/{service}/{*path}", pass)
}

async fn hello() -> Json<Hello> {
    Json(Hello {
        message: "hello".to_owned(),
    })
}

async fn write(user: User) -> Json<Hello> {
    Json(Hello { message: user.id })
}

async fn who_am_i(caller: Caller, headers: Headers) -> Json<WhoAmI> {
    let invocation = ca::current();
    Json(WhoAmI {
        caller: invocation.caller.kind.name().to_owned(),
        subject: invocation.caller.subject.clone(),
        user: invocation.user.as_ref().map(|user| user.subject.clone()),
        path: invocation.path.clone(),
        trace_id: invocation.trace_id.clone(),
        authorization_seen: headers.get("authorization").is_some()
            || caller.principal().subject == "leaked",
    })
}

async fn echo(body: Body) -> Result<Response> {
    let bytes = body.bytes(64 << 20).await?;
    Ok(Response::ok()
        .header("content-type", "application/octet-stream")
        .body(bytes))
}

async fn pass(Path((service, path)): Path<(String, String)>) -> Result<Response> {
    let answer = http::get(format!("http://{service}/{path}")).send().await?;
    let status = answer.status();
    let media_type = answer
        .headers()
        .get("content-type")
        .unwrap_or("text/plain")
        .to_owned();
    Ok(Response::new(status)
        .header("content-type", media_type)
        .body(answer.bytes(1 << 20).await?))
}

exprsn_sdk::export!(http = routes);
