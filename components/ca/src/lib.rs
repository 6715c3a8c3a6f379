//! exprsn-ca: decides which tokens and certificates there are, and keeps the log of it.
//!
//! The host holds the keys, signs, and enforces; what is issued, revoked or admitted is recorded here.
//!
//! **Invariant:** nothing is issued or revoked without an entry of the audit log in the same transaction.

mod admit;
mod audit;
mod certificates;
mod chain;
mod components;
mod crl;
mod issue;
mod lenient;
mod narrowing;
// The host's own file: what a pattern covers is decided in one way only.
#[allow(dead_code, reason = "the host also matches paths with it")]
#[path = "../../../host/src/ca/pattern.rs"]
mod pattern;
mod policy;
mod publishers;
mod resolver;
mod revoke;
mod store;
mod validate;
mod withhold;

use exprsn_sdk::prelude::*;

fn routes() -> Router {
    Router::new("Exprsn CA", env!("CARGO_PKG_VERSION"))
        .post("/api/tokens", issue::issue)
        .summary("Issues a token")
        .description("An administrator issues any token; whoever may write narrows its own.")
        .problems(&[401, 403])
        .get("/api/tokens", issue::list)
        .summary("Lists the tokens issued here, newest first")
        .get("/api/tokens/{id}", issue::show)
        .summary("Shows a token's record")
        .problems(&[404])
        .post("/api/tokens/validate", validate::validate)
        .summary("Says whether a token is good, and if not, why")
        .public()
        .post("/api/tokens/introspect", validate::introspect)
        .summary("Introspects a token (RFC 7662)")
        .post("/api/tokens/revoke", revoke::revoke)
        .summary("Revokes a token (RFC 7009), and those narrowed from it")
        .problems(&[403, 404])
        .get("/.well-known/jwks.json", validate::jwks)
        .summary("The keys that verify tokens (RFC 7517)")
        .public()
        .get("/api/certificates/root", certificates::root)
        .summary("The root certificate, PEM")
        .public()
        .get("/api/certificates/intermediate", certificates::intermediate)
        .summary("The intermediate certificate, PEM")
        .public()
        .get("/api/certificates", certificates::list)
        .summary("Lists certificates, newest first")
        .post("/api/certificates/{serial}/revoke", certificates::revoke)
        .summary("Revokes a component's certificate")
        .problems(&[404, 409])
        .get("/api/crl", crl::show)
        .summary("The certificate revocation list (RFC 5280), DER or PEM")
        .public()
        .get("/api/components", components::list)
        .summary("Lists admitted components: decision, signer, certificate, grants and what of them is withheld")
        .post("/api/components", admit::admit)
        .summary("Admits a component that was sent in")
        .description("What no trusted publisher has signed is refused unless `allowUnsigned` says otherwise.")
        .problems(&[403])
        .post("/api/components/files", admit::receive)
        .summary("Takes a component file in and says what it asks for; nothing is admitted by that")
        .problems(&[403, 422])
        .get("/api/components/files/{digest}", admit::inspect)
        .summary("Says what a component that was sent in is and asks for")
        .problems(&[403, 422])
        .post("/api/components/{service}/revocations", withhold::revoke)
        .summary("Withholds a grant of a service, or all, from the next call on")
        .problems(&[403, 404])
        .delete("/api/components/{service}/revocations", withhold::restore)
        .summary("Gives back what was withheld")
        .problems(&[403, 404])
        .get("/api/publishers", publishers::list)
        .summary("Lists the publishers whose signature is trusted")
        .post("/api/publishers", publishers::trust)
        .summary("Trusts a publisher by the public key")
        .problems(&[403, 409])
        .delete("/api/publishers/{key}", publishers::remove)
        .summary("Trusts a publisher no longer; what was admitted stays admitted")
        .problems(&[403, 404])
        .get("/api/audit", audit::list)
        .summary("Lists the audit log, newest first")
        .post("/api/audit", audit::note)
        .summary("Records what a service did for somebody")
        .description("Services only. The host says which service, and for whom; neither can be claimed.")
        .problems(&[403])
        .get("/api/audit/verify", audit::verify)
        .summary("Checks the audit log's chain of hashes")
}

fn jobs() -> Jobs {
    Jobs::new().on("ca-maintenance", sweep)
}

/// What has to be done from time to time, whether anybody asks or not.
async fn sweep(_job: Job<serde_json::Value>) -> JobResult {
    components::record().await?;
    withhold::reconcile().await?;
    crl::renew().await?;
    store::forget_tokens(now_s()).await?;
    Ok(())
}

exprsn_sdk::export!(http = routes, jobs = jobs);
