//! exprsn-nexus: the gateway. `/<service>/…` leads to the services, `POST /api/compose` to several at once.
//!
//! The host has verified who asks; the services asked authorise them. The gateway limits, explains and passes on.

mod compose;
mod cors;
mod forwarded;
mod gate;
mod index;
mod limits;
mod parts;
mod proxy;
mod settings;
mod target;

use exprsn_sdk::prelude::*;

fn routes() -> Router {
    Router::new("Exprsn Nexus", env!("CARGO_PKG_VERSION"))
        .get("/", index::index)
        .summary("Lists the services behind the gateway")
        .public()
        .post("/api/compose", parts::compose)
        .summary("Makes several calls at once, with the rights of the caller")
        .description("Each call has an answer of its own: one that fails does not fail the others. Each counts against the rate limits.")
        .public()
        .route(Method::OPTIONS, "/", options)
        .summary("What a browser asks before a script's request")
        .public()
        .route(Method::OPTIONS, "/api/compose", options)
        .summary("What a browser asks before a script's request")
        .public()
        .any("/{service}", proxy::pass)
        .any("/{service}/", proxy::pass)
        .any("/{service}/{*rest}", proxy::pass)
        .around(gate::gate)
}

/// Preflights are answered by the gate; what comes here is no script's.
async fn options() -> NoContent {
    NoContent
}

exprsn_sdk::export!(http = routes);
