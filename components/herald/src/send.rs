//! `POST /api/notifications/send` and `/bulk`: services and people telling users something.

use exprsn_sdk::prelude::*;

use crate::model::{Bulk, Send, Sent};
use crate::notify::{Message, notify};

/// Notifies one user.
pub async fn send(
    caller: Caller,
    key: IdempotencyKey,
    user: User,
    Json(new): Json<Send>,
) -> Result<Once<Accepted<Sent>>> {
    once(&key, &caller, &("send", &new), async {
        let message = Message {
            kind: new.kind.clone(),
            actor_id: actor(&user, new.actor_id.as_ref()),
            post_id: new.post_id.clone().map(Id::into),
            title: new.title.clone(),
            body: new.body.clone(),
            data: new.data.clone(),
            dedupe_key: new.dedupe_key.as_deref().map(|key| sender_key(&user, key)),
        };
        Ok(Accepted(notify(&message, &[new.user_id.as_str()]).await?))
    })
    .await
}

/// Notifies up to 10,000 users of the same.
pub async fn bulk(
    caller: Caller,
    key: IdempotencyKey,
    user: User,
    Json(new): Json<Bulk>,
) -> Result<Once<Accepted<Sent>>> {
    once(&key, &caller, &("bulk", &new), async {
        let message = Message {
            kind: new.kind.clone(),
            actor_id: actor(&user, new.actor_id.as_ref()),
            post_id: new.post_id.clone().map(Id::into),
            title: new.title.clone(),
            body: new.body.clone(),
            data: new.data.clone(),
            dedupe_key: new.dedupe_key.as_deref().map(|key| sender_key(&user, key)),
        };
        let user_ids: Vec<&str> = new.user_ids.iter().map(Id::as_str).collect();
        Ok(Accepted(notify(&message, &user_ids).await?))
    })
    .await
}

/// Users act for themselves; services say for whom, and otherwise nobody did it.
fn actor(user: &User, named: Option<&Id>) -> Option<String> {
    if user.kind == ca::Kind::Service {
        named.cloned().map(Id::into)
    } else {
        Some(user.id.clone())
    }
}

/// Senders cannot take each other's keys, nor those of herald's own notifications.
fn sender_key(user: &User, key: &str) -> String {
    format!("sent:{}:{key}", user.id)
}
