//! exprsn-pulse: analytics. The read model (CQRS) of what happens on the platform, kept from events alone.
//!
//! `effects` says what an event changes, `apply` writes that once, `stats` answers questions, `custom` takes events from outside.

mod apply;
mod custom;
mod effects;
mod stats;
mod subscribers;
mod upkeep;
mod window;

use exprsn_sdk::prelude::*;

/// The media type that Prometheus asks for first.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn routes() -> Router {
    Router::new("Exprsn Pulse", env!("CARGO_PKG_VERSION"))
        .get("/metrics", exposition)
        .summary("Metrics of the whole host in the OpenMetrics text format")
        .public()
        .post("/api/event", custom::create)
        .summary("Takes down a custom event")
        .get("/api/stats/posts/{id}", stats::post)
        .summary("What a post got")
        .get("/api/stats/users/{id}", stats::user)
        .summary("What a user did and got")
        .get("/api/stats/hourly", stats::hourly)
        .summary("A metric by the hour")
        .get("/api/stats/top-posts", stats::top_posts)
        .summary("The posts that got the most likes and comments within a window")
        .get("/api/stats/active-users", stats::active_users)
        .summary("How many users did something within a window")
        .get("/api/stats/events", stats::top_events)
        .summary("The custom events that happened most within a window")
        .get("/api/stats/summary", stats::summary)
        .summary("The platform in numbers")
}

async fn exposition() -> Result<Text> {
    Ok(Text::of(OPEN_METRICS, platform::metrics().await?))
}

fn jobs() -> Jobs {
    Jobs::new().on_named(upkeep::QUEUE, "prune", upkeep::prune)
}

exprsn_sdk::export!(http = routes, jobs = jobs, events = subscribers::events);
