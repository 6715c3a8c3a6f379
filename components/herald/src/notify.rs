//! The one way in which a notification comes about: into inboxes, onto webhooks, to open pages.
//!
//! **At most once.** A user's inbox and an endpoint's deliveries each hold a dedupe key once, and jobs are added in the transaction that
//! writes them. So being told the same thing again, by a repeated event or request, changes nothing.

use std::collections::HashMap;

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::{ToValue, Tx};
use serde_json::Map;

use crate::deliveries;
use crate::model::{Channel, EVERY_TYPE, Kind, Notification, Sent};
use crate::quiet::QuietHours;
use crate::webhook;

/// Users served in one transaction.
const CHUNK_USERS_MAX: usize = 500;
/// Webhook deliveries written by one statement.
const CHUNK_DELIVERIES_MAX: usize = 100;

/// What is to be told.
pub struct Message {
    pub kind: Kind,
    pub actor_id: Option<String>,
    pub post_id: Option<String>,
    pub title: Option<String>,
    pub body: Option<String>,
    pub data: Map<String, serde_json::Value>,
    /// What it is about, once; none is always new.
    pub dedupe_key: Option<String>,
}

/// One user's copy.
struct Copy {
    user_id: String,
    id: String,
    dedupe_key: String,
}

/// Tells users. Users named twice count twice and get it once.
pub async fn notify(message: &Message, user_ids: &[&str]) -> Result<Sent> {
    let mut sent = Sent {
        id: None,
        notified: 0,
        skipped: 0,
        webhooks: 0,
    };
    for chunk in user_ids.chunks(CHUNK_USERS_MAX) {
        let (stored, webhooks) = notify_chunk(message, chunk).await?;
        if user_ids.len() == 1 {
            sent.id = stored.first().map(|copy| copy.id.clone());
        }
        sent.notified += stored.len();
        sent.webhooks += webhooks;
    }
    sent.skipped = user_ids.len() - sent.notified;
    metrics::count(
        "notifications",
        sent.notified as u64,
        &[("type", message.kind.as_str())],
    );
    Ok(sent)
}

async fn notify_chunk(message: &Message, user_ids: &[&str]) -> Result<(Vec<Copy>, usize)> {
    let at = now_ms();
    let mut copies: Vec<Copy> = user_ids
        .iter()
        .map(|user_id| copy_for(message, user_id))
        .collect();
    // In the order of users, so that transactions in parallel cannot wait for each other; and each user once.
    copies.sort_by(|a, b| a.user_id.cmp(&b.user_id));
    copies.dedup_by(|a, b| a.user_id == b.user_id);
    let tx = sql::begin().await?;
    let stored = store(&tx, message, &copies, at).await?;
    let webhooks = add_webhooks(&tx, message, &copies, at).await?;
    tx.commit().await?;
    copies.retain(|copy| stored.contains_key(&copy.user_id));
    for copy in &copies {
        announce(message, copy, at).await;
    }
    Ok((copies, webhooks))
}

fn copy_for(message: &Message, user_id: &str) -> Copy {
    let id = uuid_v7();
    let dedupe_key = message.dedupe_key.clone().unwrap_or_else(|| id.clone());
    Copy {
        user_id: user_id.to_owned(),
        id,
        dedupe_key,
    }
}

/// SQL: whether user `r.user_id` wants type `$1` on a channel; a preference for the type goes before one for all.
fn wanted(channel: Channel) -> String {
    let enabled = |kind: &str| {
        format!(
            "(SELECT enabled FROM preferences w WHERE w.user_id = r.user_id AND w.type = {kind} AND w.channel = '{}')",
            channel.as_str()
        )
    };
    format!(
        "COALESCE({}, {}, 1) = 1",
        enabled("$1"),
        enabled(&format!("'{EVERY_TYPE}'"))
    )
}

#[derive(Deserialize)]
struct Stored {
    user_id: String,
    id: String,
}

/// Writes the copies of those who want them in the inbox and have none yet; answers whose were new.
async fn store(
    tx: &Tx,
    message: &Message,
    copies: &[Copy],
    at: i64,
) -> Result<HashMap<String, String>> {
    let data = serde_json::to_string(&message.data)
        .map_err(|error| Problem::fault("data is not JSON", error))?;
    let mut parameters = params![
        message.kind.as_str(),
        message.actor_id,
        message.post_id,
        message.title,
        message.body,
        data,
        at
    ];
    let mut rows = Vec::with_capacity(copies.len());
    for copy in copies {
        let first = parameters.len() + 1;
        rows.push(format!("(${first}, ${}, ${})", first + 1, first + 2));
        parameters.extend([&copy.user_id, &copy.id, &copy.dedupe_key].map(ToValue::to_value));
    }
    let text = format!(
        "WITH recipients (user_id, id, dedupe_key) AS (VALUES {rows}) \
         INSERT INTO notifications (user_id, id, dedupe_key, type, actor_id, post_id, title, body, data, created_at) \
         SELECT r.user_id, r.id, r.dedupe_key, CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), \
             CAST($5 AS TEXT), CAST($6 AS TEXT), CAST($7 AS BIGINT) FROM recipients r WHERE {wanted} \
         ON CONFLICT (user_id, dedupe_key) DO NOTHING RETURNING user_id, id",
        rows = rows.join(", "),
        wanted = wanted(Channel::Inbox),
    );
    let stored: Vec<Stored> = tx.query_as(&text, parameters).await?;
    Ok(stored
        .into_iter()
        .map(|row| (row.user_id, row.id))
        .collect())
}

/// Pushes the notification to the user's open pages; they look into the database now and then, so a failure loses nothing.
async fn announce(message: &Message, copy: &Copy, at: i64) {
    let notification = Notification {
        id: copy.id.clone(),
        kind: message.kind.as_str().to_owned(),
        actor_id: message.actor_id.clone(),
        post_id: message.post_id.clone(),
        title: message.title.clone(),
        body: message.body.clone(),
        data: message.data.clone(),
        created_at: at,
        read_at: None,
    };
    if let Err(error) = events::live::broadcast(&channel_of(&copy.user_id), &notification).await {
        log::warn!("could not reach open pages", error = error);
    }
}

/// The live channel of a user.
pub fn channel_of(user_id: &str) -> String {
    format!("user:{user_id}")
}

/// An endpoint that may be concerned.
#[derive(Deserialize)]
struct Candidate {
    id: String,
    owner_id: String,
    owner_kind: String,
    types: String,
}

impl Candidate {
    fn takes(&self, kind: &Kind) -> bool {
        let types: Vec<String> = serde_json::from_str(&self.types).unwrap_or_default();
        types
            .iter()
            .any(|wanted| wanted == EVERY_TYPE || wanted == kind.as_str())
    }

    fn concerns(&self, user_id: &str) -> bool {
        self.owner_kind == "service" || self.owner_id == user_id
    }
}

/// Adds a delivery and its job for each endpoint concerned; answers how many.
async fn add_webhooks(tx: &Tx, message: &Message, copies: &[Copy], at: i64) -> Result<usize> {
    let candidates = candidates(tx, message, copies).await?;
    if candidates.is_empty() {
        return Ok(0);
    }
    let willing = willing(tx, message, copies).await?;
    let mut planned = Vec::new();
    for copy in copies {
        let Some(quiet) = willing.get(&copy.user_id) else {
            continue;
        };
        let not_before = quiet.and_then(|quiet| quiet.until(at)).unwrap_or(at);
        for endpoint in candidates
            .iter()
            .filter(|endpoint| endpoint.concerns(&copy.user_id))
        {
            planned.push(deliveries::Planned {
                id: uuid_v7(),
                endpoint_id: endpoint.id.clone(),
                owner_id: endpoint.owner_id.clone(),
                user_id: copy.user_id.clone(),
                dedupe_key: copy.dedupe_key.clone(),
                kind: message.kind.as_str().to_owned(),
                payload: payload(message, copy, at),
                not_before,
            });
        }
    }
    let mut added = 0;
    for chunk in planned.chunks(CHUNK_DELIVERIES_MAX) {
        added += deliveries::add(tx, chunk, at).await?;
    }
    Ok(added)
}

async fn candidates(tx: &Tx, message: &Message, copies: &[Copy]) -> Result<Vec<Candidate>> {
    let places: Vec<String> = (1..=copies.len()).map(|n| format!("${n}")).collect();
    let columns = "SELECT id, owner_id, owner_kind, types FROM endpoints WHERE disabled_at IS NULL";
    let text = format!(
        "{columns} AND owner_kind = 'service' UNION ALL {columns} AND owner_kind = 'user' AND owner_id IN ({})",
        places.join(", ")
    );
    let parameters = copies.iter().map(|copy| copy.user_id.to_value()).collect();
    let mut found: Vec<Candidate> = tx.query_as(&text, parameters).await?;
    found.retain(|candidate| candidate.takes(&message.kind));
    Ok(found)
}

#[derive(Deserialize)]
struct Willing {
    user_id: String,
    utc_offset_minutes: Option<i64>,
    start_minute: Option<i64>,
    end_minute: Option<i64>,
}

impl Willing {
    fn quiet(&self) -> Option<QuietHours> {
        Some(QuietHours {
            utc_offset_minutes: self.utc_offset_minutes?,
            start_minute: self.start_minute?,
            end_minute: self.end_minute?,
        })
    }
}

/// Who wants this type by webhook, with their quiet hours.
async fn willing(
    tx: &Tx,
    message: &Message,
    copies: &[Copy],
) -> Result<HashMap<String, Option<QuietHours>>> {
    let mut parameters = params![message.kind.as_str()];
    parameters.extend(copies.iter().map(|copy| copy.user_id.to_value()));
    let places: Vec<String> = (0..copies.len()).map(|n| format!("(${})", n + 2)).collect();
    let text = format!(
        "WITH recipients (user_id) AS (VALUES {places}) \
         SELECT r.user_id, q.utc_offset_minutes, q.start_minute, q.end_minute FROM recipients r \
         LEFT JOIN quiet_hours q ON q.user_id = r.user_id WHERE {wanted}",
        places = places.join(", "),
        wanted = wanted(Channel::Webhook),
    );
    let rows: Vec<Willing> = tx.query_as(&text, parameters).await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.user_id.clone(), row.quiet()))
        .collect())
}

fn payload(message: &Message, copy: &Copy, at: i64) -> String {
    let data = json!({
        "id": copy.id, "userId": copy.user_id, "actorId": message.actor_id, "postId": message.post_id,
        "title": message.title, "body": message.body, "data": message.data,
    });
    webhook::payload(message.kind.as_str(), at, data)
}
