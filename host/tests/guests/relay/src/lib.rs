//! Relay: is called by another service, and says by whom.

use exprsn_sdk::prelude::*;

#[derive(Serialize, JsonSchema)]
struct Who {
    caller: String,
    user: Option<String>,
    path: Vec<String>,
}

fn routes() -> Router {
    Router::new("Exprsn Relay", env!("CARGO_PKG_VERSION"))
        .get("/hello", hello)
        .get("/who", who)
        .get("/admin", hello)
}

async fn hello() -> Text {
    Text("{\"message\":\"hello\"}")
}

async fn who() -> Json<Who> {
    let invocation = ca::current();
    Json(Who {
        caller: invocation.caller.subject.clone(),
        user: invocation.user.as_ref().map(|user| user.subject.clone()),
        path: invocation.path.clone(),
    })
}

exprsn_sdk::export!(http = routes);
