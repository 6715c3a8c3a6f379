//! exprsn-herald: notifications into inboxes, onto open pages and to webhooks.
//!
//! Everything passes `notify`: requests to send (`send`), and what happens elsewhere (`reactions`). `deliveries` is the queue worker that
//! sends webhooks; `stream` the live stream; `quiet`, `webhook` and `address` are pure.

mod address;
mod deliveries;
mod endpoints;
mod inbox;
mod model;
mod notify;
mod preferences;
mod quiet;
mod reactions;
mod send;
mod stream;
mod upkeep;
mod webhook;

use exprsn_sdk::prelude::*;

fn routes() -> Router {
    let router = Router::new("Exprsn Herald", env!("CARGO_PKG_VERSION"))
        .post("/api/notifications/send", send::send)
        .summary("Notifies a user")
        .post("/api/notifications/bulk", send::bulk)
        .summary("Notifies up to 10,000 users of the same")
        .get("/api/notifications", inbox::list)
        .summary("Lists the caller's notifications, newest first")
        .get("/api/notifications/unread-count", inbox::unread_count)
        .summary("Counts the caller's unread notifications")
        .get("/api/notifications/stream", stream::stream)
        .summary("Streams the caller's notifications as they come (Server-Sent Events)")
        .post("/api/notifications/read-all", inbox::mark_all_read)
        .summary("Marks all of the caller's notifications as read")
        .get("/api/notifications/{id}", inbox::show)
        .summary("Reads a notification")
        .post("/api/notifications/{id}/read", inbox::mark_read)
        .summary("Marks a notification as read")
        .delete("/api/notifications/{id}", inbox::remove)
        .summary("Deletes a notification");
    webhooks(wishes(router))
}

fn wishes(router: Router) -> Router {
    router
        .get("/api/preferences", preferences::list)
        .summary("The caller's preferences per type and channel")
        .put("/api/preferences", preferences::replace)
        .summary("Replaces the caller's preferences")
        .get("/api/quiet-hours", preferences::quiet_hours)
        .summary("The caller's quiet hours")
        .put("/api/quiet-hours", preferences::set_quiet_hours)
        .summary("Sets the caller's quiet hours")
        .delete("/api/quiet-hours", preferences::clear_quiet_hours)
        .summary("Does away with the caller's quiet hours")
}

fn webhooks(router: Router) -> Router {
    router
        .get("/api/endpoints", endpoints::list)
        .summary("Lists the caller's webhook endpoints")
        .post("/api/endpoints", endpoints::create)
        .summary("Registers a webhook endpoint; the answer shows its secret, once")
        .get("/api/endpoints/{id}", endpoints::show)
        .summary("Reads a webhook endpoint")
        .patch("/api/endpoints/{id}", endpoints::edit)
        .summary("Changes a webhook endpoint")
        .delete("/api/endpoints/{id}", endpoints::remove)
        .summary("Deletes a webhook endpoint with its deliveries")
        .post("/api/endpoints/{id}/rotate", endpoints::rotate)
        .summary("Replaces an endpoint's secret; both sign for a day")
        .post("/api/endpoints/{id}/test", endpoints::test)
        .summary("Sends a webhook of type test")
        .get("/api/deliveries", deliveries::list)
        .summary("Lists webhook deliveries; status=failed lists the dead letters")
        .get("/api/deliveries/{id}", deliveries::show)
        .summary("Reads a webhook delivery")
        .post("/api/deliveries/{id}/replay", deliveries::replay)
        .summary("Sends a dead letter again")
}

fn jobs() -> Jobs {
    Jobs::new()
        .on(deliveries::QUEUE, deliveries::send)
        .on_named(upkeep::QUEUE, "rescue", upkeep::rescue)
        .on_named(upkeep::QUEUE, "prune", upkeep::prune)
}

fn events() -> Events {
    Events::new()
        .on("timeline.delivered", reactions::on_delivered)
        .on("like.created", reactions::on_liked)
        .on("comment.created", reactions::on_commented)
        .on("follow.created", reactions::on_followed)
        .on("user.deleted", reactions::on_user_deleted)
}

exprsn_sdk::export!(http = routes, jobs = jobs, events = events);
