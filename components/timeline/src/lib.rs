//! exprsn-timeline: posts, likes, comments, follows, blocks, and the timelines made of them.
//!
//! Handlers are grouped by resource; `fanout` and `home` are the queue workers that keep home timelines. Everything that others learn
//! of (`post.created`, `timeline.delivered`, …) is published in the transaction that makes it true.

mod accounts;
mod blocks;
mod comments;
mod erase;
mod fanout;
mod feeds;
mod follows;
mod home;
mod likes;
mod model;
mod posts;

use exprsn_sdk::prelude::*;

fn routes() -> Router {
    let router = Router::new("Exprsn Timeline", env!("CARGO_PKG_VERSION"))
        .post("/api/posts", posts::create)
        .summary("Writes a post")
        .get("/api/posts/{id}", posts::show)
        .summary("Reads a post")
        .put("/api/posts/{id}", posts::edit)
        .summary("Edits one's own post")
        .patch("/api/posts/{id}", posts::edit)
        .summary("Edits one's own post")
        .delete("/api/posts/{id}", posts::remove)
        .summary("Deletes one's own post")
        .get("/api/posts/{id}/history", posts::history)
        .summary("Lists what a post has said, newest first")
        .get("/api/timeline/home", feeds::home)
        .summary("Posts of those whom the caller follows, and their own, newest first")
        .get("/api/timeline/public", feeds::public)
        .summary("Everybody's posts, newest first")
        .public();
    users(reactions(router))
}

fn reactions(router: Router) -> Router {
    router
        .put("/api/posts/{id}/like", likes::like)
        .summary("Likes a post; repeating is harmless")
        .post("/api/posts/{id}/like", likes::like)
        .summary("Likes a post; repeating is harmless")
        .delete("/api/posts/{id}/like", likes::unlike)
        .summary("Takes a like back; repeating is harmless")
        .post("/api/posts/{id}/unlike", likes::unlike)
        .summary("Takes a like back; repeating is harmless")
        .get("/api/posts/{id}/likes", likes::list)
        .summary("Lists who likes a post")
        .get("/api/posts/{id}/comments", comments::list)
        .summary("Lists the comments on a post, oldest first")
        .post("/api/posts/{id}/comments", comments::create)
        .summary("Comments on a post")
        .delete("/api/comments/{id}", comments::remove)
        .summary("Deletes a comment of one's own, or on one's own post")
}

fn users(router: Router) -> Router {
    router
        .get("/api/users/{id}", accounts::show)
        .summary("A user's counters, and whether they and the caller follow each other")
        .get("/api/users/{id}/posts", feeds::of_user)
        .summary("Lists a user's posts, newest first")
        .get("/api/users/{id}/followers", follows::followers)
        .summary("Lists who follows a user, newest first")
        .get("/api/users/{id}/following", follows::following)
        .summary("Lists whom a user follows, newest first")
        .put("/api/users/{id}/follow", follows::follow)
        .summary("Follows a user; repeating is harmless")
        .post("/api/users/{id}/follow", follows::follow)
        .summary("Follows a user; repeating is harmless")
        .delete("/api/users/{id}/follow", follows::unfollow)
        .summary("Stops following a user; repeating is harmless")
        .post("/api/users/{id}/unfollow", follows::unfollow)
        .summary("Stops following a user; repeating is harmless")
        .post("/api/follows/bulk", follows::bulk)
        .summary("Follows up to 1,000 users, as when moving here")
        .put("/api/users/{id}/block", blocks::block)
        .summary("Blocks a user: ends follows and hides both from each other")
        .post("/api/users/{id}/block", blocks::block)
        .summary("Blocks a user: ends follows and hides both from each other")
        .delete("/api/users/{id}/block", blocks::unblock)
        .summary("Lifts one's own block")
        .post("/api/users/{id}/unblock", blocks::unblock)
        .summary("Lifts one's own block")
        .get("/api/blocks", blocks::list)
        .summary("Lists whom the caller blocks")
}

fn jobs() -> Jobs {
    Jobs::new()
        .on(fanout::QUEUE, fanout::run)
        .on_named(home::QUEUE, "backfill", home::backfill)
        .on_named(home::QUEUE, "cleanup", home::cleanup)
        .on_named(home::QUEUE, "trim", home::trim)
        .on_named(home::QUEUE, "erase", erase::run)
}

fn events() -> Events {
    Events::new().on("user.deleted", erase::on_user_deleted)
}

exprsn_sdk::export!(http = routes, jobs = jobs, events = events);
