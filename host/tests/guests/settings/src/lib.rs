//! Settings: shows its configuration.

use exprsn_sdk::prelude::*;

fn routes() -> Router {
    Router::new("Exprsn Settings", env!("CARGO_PKG_VERSION")).get("/value/{key}", value)
}

async fn value(Path(key): Path<String>) -> Result<Text> {
    config::get(&key)
        .map(Text)
        .ok_or_else(|| Problem::not_found("value", &key))
}

exprsn_sdk::export!(http = routes);
