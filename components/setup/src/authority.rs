//! `/api/ca/…`: exprsn-ca's administration on this origin, for the console.
//!
//! **Invariant:** nothing is decided here. exprsn-ca asks for the rights that its routes need, of whoever asked here.

use exprsn_sdk::prelude::*;

const HERE: &str = "/api/ca/";

/// The routes that are passed on: no others.
pub fn routes() -> Router {
    Router::new("", "")
        .get("/api/ca/components", pass)
        .summary("exprsn-ca's admitted components")
        .post("/api/ca/components", pass)
        .summary("Has exprsn-ca admit a component that was sent in")
        .post("/api/ca/components/files", pass)
        .summary("Sends a component file to exprsn-ca")
        .post("/api/ca/components/{service}/revocations", pass)
        .summary("Has exprsn-ca withhold a grant")
        .delete("/api/ca/components/{service}/revocations", pass)
        .summary("Has exprsn-ca give a grant back")
        .get("/api/ca/certificates", pass)
        .summary("exprsn-ca's certificates")
        .post("/api/ca/certificates/{serial}/revoke", pass)
        .summary("Has exprsn-ca revoke a certificate")
        .get("/api/ca/audit", pass)
        .summary("exprsn-ca's audit log")
        .get("/api/ca/audit/verify", pass)
        .summary("Has exprsn-ca check the audit log")
}

async fn pass(request: Request) -> Result<Response> {
    let target = there(request.path_and_query());
    Ok(http::forward(request, "exprsn-ca", &target).await?)
}

/// The path at exprsn-ca.
fn there(path_and_query: &str) -> String {
    let rest = path_and_query.strip_prefix(HERE).unwrap_or_default();
    format!("/api/{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_their_prefix_and_keep_their_query() {
        assert_eq!(there("/api/ca/audit?limit=5"), "/api/audit?limit=5");
        assert_eq!(
            there("/api/ca/components/a%2Fb/revocations"),
            "/api/components/a%2Fb/revocations"
        );
    }
}
