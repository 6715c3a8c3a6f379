//! One function per kind of event: what it changes is in `effects`.

use exprsn_sdk::prelude::*;

use crate::apply::apply;
use crate::effects::{
    self, Account, Comment, Delivered, Follow, Import, Like, PostCreated, PostDeleted, PostUpdated,
};

/// Which function takes which topic. Topics of these families that change nothing here are taken and forgotten.
pub fn events() -> Events {
    Events::new()
        .on("post.created", |event: Event<PostCreated>| async move {
            apply(&event, effects::of_post_created(&event.data)).await
        })
        .on("post.updated", |event: Event<PostUpdated>| async move {
            apply(&event, effects::of_post_updated(&event.data)).await
        })
        .on("post.deleted", |event: Event<PostDeleted>| async move {
            apply(&event, effects::of_post_deleted(&event.data)).await
        })
        .on("like.created", |event: Event<Like>| async move {
            apply(&event, effects::of_like(&event.data, 1)).await
        })
        .on("like.deleted", |event: Event<Like>| async move {
            apply(&event, effects::of_like(&event.data, -1)).await
        })
        .on("comment.created", |event: Event<Comment>| async move {
            apply(&event, effects::of_comment(&event.data, 1)).await
        })
        .on("comment.deleted", |event: Event<Comment>| async move {
            apply(&event, effects::of_comment(&event.data, -1)).await
        })
        .on("follow.created", |event: Event<Follow>| async move {
            apply(&event, effects::of_follow(&event.data, 1)).await
        })
        .on("follow.deleted", |event: Event<Follow>| async move {
            apply(&event, effects::of_follow(&event.data, -1)).await
        })
        .on("follow.imported", |event: Event<Import>| async move {
            apply(&event, effects::of_import(&event.data)).await
        })
        .on("timeline.delivered", |event: Event<Delivered>| async move {
            apply(&event, effects::of_delivered(&event.data)).await
        })
        .on("user.created", |event: Event<Account>| async move {
            apply(&event, effects::of_user_created(&event.data)).await
        })
        .on("user.deleted", |event: Event<Account>| async move {
            apply(&event, effects::of_user_deleted(&event.data)).await
        })
        .on("*", ignore)
}

async fn ignore(event: Event<serde_json::Value>) -> EventResult {
    log::debug!("an event that changes no statistics", topic = event.topic);
    Ok(())
}
