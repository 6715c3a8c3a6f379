//! `GET /`: which services there are behind the gateway.

use exprsn_sdk::prelude::*;

/// What the gateway leads to.
#[derive(Serialize, JsonSchema)]
pub struct Index {
    /// The address that composes several calls.
    compose: &'static str,
    /// The gateway's own document.
    openapi: &'static str,
    services: Vec<Entry>,
}

/// A service behind the gateway.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: String,
    version: String,
    description: String,
    /// What its paths begin with here.
    base_path: String,
    openapi: String,
    /// Whether it answers now.
    live: bool,
}

/// Lists the services.
pub async fn index() -> Result<Json<Index>> {
    let services = platform::services().await?;
    let services = services.into_iter().filter_map(entry).collect();
    Ok(Json(Index {
        compose: "/api/compose",
        openapi: "/openapi.json",
        services,
    }))
}

fn entry(service: platform::Service) -> Option<Entry> {
    let short = service
        .name
        .strip_prefix("exprsn-")
        .filter(|short| *short != "nexus")?;
    Some(Entry {
        base_path: format!("/{short}"),
        openapi: format!("/{short}/openapi.json"),
        version: service.version,
        description: service.description,
        live: service.state == platform::ServiceState::Live,
        name: service.name,
    })
}
