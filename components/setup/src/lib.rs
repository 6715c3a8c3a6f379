//! exprsn-setup: which services there are, how they are, and who depends on whom.
//!
//! What the platform runs is read from the platform at each request; what registered itself is kept in the database,
//! for as long as its lease is renewed.

mod audit;
mod authority;
mod changes;
mod console;
mod graph;
mod health;
mod jobs;
mod probe;
mod queues;
mod registration;
mod registry;
mod services;
mod store;
mod view;
mod watch;

use exprsn_sdk::prelude::*;

fn routes() -> Router {
    Router::new("Exprsn Setup", env!("CARGO_PKG_VERSION"))
        .post("/api/registry/register", registry::register)
        .summary("Registers a service, or renews its registration")
        .problems(&[409])
        .get("/api/registry/services", registry::list)
        .summary("Lists what the platform runs and what has registered")
        .public()
        .get("/api/registry/services/{name}", registry::show)
        .summary("Shows a service")
        .public()
        .delete("/api/registry/services/{name}", registry::deregister)
        .summary("Takes a registration back")
        .post(
            "/api/registry/services/{name}/heartbeat",
            registry::heartbeat,
        )
        .summary("Renews a registration's lease")
        .get("/api/registry/events", watch::events)
        .summary("Streams changes: registered, renewed, expired, removed, state")
        .public()
        .get("/api/health", probe::health)
        .summary("Asks every service how it is")
        .public()
        .get("/api/graph", dependencies)
        .summary("Who depends on whom, in which order services start, and which circles there are")
        .public()
        .get("/api/queues", queues::list)
        .summary("Counts the jobs of every queue")
        .get("/api/jobs", jobs::recent)
        .summary(
            "The latest jobs of all queues, or those whose data holds a text: the way of a post",
        )
        .get("/api/queues/{name}/jobs", jobs::list)
        .summary("Lists a queue's jobs in a state, newest first")
        .problems(&[404])
        .post("/api/queues/{name}/jobs/{id}/retry", jobs::retry)
        .summary("Puts a failed job back to wait")
        .problems(&[404])
        .delete("/api/queues/{name}/jobs/{id}", jobs::remove)
        .summary("Removes a job that is not active")
        .problems(&[404])
        .post("/api/queues/{name}/pause", jobs::pause)
        .summary("Hands out no more jobs; active ones finish")
        .problems(&[404])
        .post("/api/queues/{name}/resume", jobs::resume)
        .summary("Hands out jobs again")
        .problems(&[404])
        .get("/api/metrics", console::metrics)
        .summary("Metrics of the whole host in the OpenMetrics text format")
        .post("/api/services/{name}/swap", services::swap)
        .summary("Gives a service another admitted version, or starts an installed one")
        .problems(&[404, 409])
        .post("/api/services/{name}/rollback", services::rollback)
        .summary("Returns to the version that was live before")
        .problems(&[404, 409])
        .post("/api/services/{name}/canary/promote", services::promote)
        .summary("Gives a canary everything")
        .problems(&[404, 409])
        .post("/api/services/{name}/canary/abort", services::abort)
        .summary("Ends a canary's trial")
        .problems(&[404, 409])
        .get("/api/services/{name}/history", services::history)
        .summary("What a service has run as, newest first")
        .problems(&[404])
        .delete("/api/services/{name}", services::remove)
        .summary("Takes an installed service off for good")
        .problems(&[404, 409])
        .merge(authority::routes())
        .merge(console::routes())
}

async fn dependencies() -> Result<Json<graph::GraphView>> {
    Ok(Json(view::graph(&registry::views().await?).view()))
}

fn jobs() -> Jobs {
    Jobs::new().on(watch::QUEUE, watch::sweep_job)
}

exprsn_sdk::export!(http = routes, jobs = jobs);
