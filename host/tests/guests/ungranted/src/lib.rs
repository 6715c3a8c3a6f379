//! Ungranted: uses a database that its manifest does not ask for.

use exprsn_sdk::prelude::*;

fn routes() -> Router {
    Router::new("Exprsn Ungranted", env!("CARGO_PKG_VERSION")).get("/rows", rows)
}

async fn rows() -> Result<Text> {
    Ok(Text(
        sql::execute("DELETE FROM rows", params![])
            .await?
            .to_string(),
    ))
}

exprsn_sdk::export!(http = routes);
