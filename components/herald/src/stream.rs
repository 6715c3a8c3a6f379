//! The live stream: a user's notifications as Server-Sent Events, as they come.
//!
//! What is pushed is a hint; the database is the truth. At the start (`Last-Event-ID`) and every few seconds the stream looks there for
//! what it has not sent, so that nothing is lost to a message dropped between a commit and its broadcast. In quiet hours it sends
//! nothing and catches up when they end.

use std::collections::{HashSet, VecDeque};

use exprsn_sdk::ids::uuid_v7_at;
use exprsn_sdk::prelude::*;

use crate::inbox;
use crate::model::{Channel, Notification, Preferences};
use crate::notify::channel_of;
use crate::preferences::{settings, wants};
use crate::quiet::QuietHours;

/// Between two looks into the database, in milliseconds.
const LOOK_MS: u64 = 10_000;
/// How late a notification may be committed after its id was made, in milliseconds.
const LATE_MS_MAX: i64 = 60_000;
/// Notifications read in one look.
const LOOK_ROWS_MAX: i64 = 500;
/// How long a stream lives at most, in milliseconds; the client connects again.
const STREAM_MS_MAX: i64 = 60 * 60 * 1_000;
/// What the client is told to wait before it connects again, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// Where to go on, for clients that cannot set headers.
#[derive(Debug, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// The id of the last notification seen; the header `Last-Event-ID` goes before it.
    #[garde(skip)]
    pub last_event_id: Option<Id>,
}

/// Streams the caller's notifications from now on, or from after `Last-Event-ID`.
pub async fn stream(user: User, headers: Headers, resume: Query<Resume>) -> Result<Sse> {
    let from_header = headers
        .get("last-event-id")
        .filter(|value| !value.is_empty());
    let last = match from_header {
        Some(value) => Some(
            Id::try_from(value.to_owned())
                .map_err(|reason| Problem::bad_request("Last-Event-ID", reason))?,
        ),
        None => resume.0.last_event_id,
    };
    // Listening begins before the first look: what comes in between is seen twice and sent once.
    let hints = events::live::listen(&channel_of(&user.id)).await?;
    let now = now_ms();
    let expires = user
        .principal
        .expires_at
        .map_or(i64::MAX, |seconds| seconds.saturating_mul(1_000));
    let (preferences, quiet) = settings(&user.id).await?;
    let mut feed = Feed {
        hints: Box::pin(hints),
        waiting: VecDeque::new(),
        sent: Sent::after(last.map_or_else(|| uuid_v7_at(now), Id::into)),
        preferences,
        quiet,
        ends_at: expires.min(now + STREAM_MS_MAX),
        user_id: user.id,
    };
    feed.look().await?;
    Ok(Sse::new(exprsn_sdk::stream::unfold(feed, Feed::next)))
}

/// One client's stream.
struct Feed {
    user_id: String,
    hints: std::pin::Pin<Box<dyn Stream<Item = String>>>,
    waiting: VecDeque<Notification>,
    sent: Sent,
    preferences: Preferences,
    quiet: Option<QuietHours>,
    /// When the token expires or the stream has lived long enough.
    ends_at: i64,
}

impl Feed {
    async fn next(mut self) -> Option<(SseEvent, Self)> {
        loop {
            if let Some(notification) = self.waiting.pop_front() {
                let event = SseEvent::json(&notification)
                    .event("notification")
                    .id(notification.id)
                    .retry(RETRY_MS);
                return Some((event, self));
            }
            let left = self.ends_at - now_ms();
            let pause = u64::try_from(left).ok().filter(|ms| *ms > 0)?.min(LOOK_MS);
            match exprsn_sdk::select(self.hints.next(), Box::pin(sleep_ms(pause))).await {
                futures_util::future::Either::Left((hint, _)) => self.take(&hint?),
                futures_util::future::Either::Right(_) => {
                    if let Err(problem) = self.refresh().await {
                        // The client connects again and goes on after what it has.
                        log::warn!("a live stream ends", cause = problem);
                        return None;
                    }
                }
            }
        }
    }

    fn take(&mut self, hint: &str) {
        match serde_json::from_str(hint) {
            Ok(notification) if !self.is_quiet() => self.offer(notification),
            Ok(_) => {}
            Err(error) => log::error!("a live message is not a notification", cause = error),
        }
    }

    async fn refresh(&mut self) -> Result<()> {
        (self.preferences, self.quiet) = settings(&self.user_id).await?;
        self.look().await
    }

    /// Reads what the stream has not sent yet.
    async fn look(&mut self) -> Result<()> {
        if self.is_quiet() {
            return Ok(());
        }
        let now = now_ms();
        let text = format!(
            "SELECT {} FROM notifications WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT $3",
            inbox::COLUMNS
        );
        let rows: Vec<inbox::Row> =
            sql::query_as(&text, params![self.user_id, self.sent.floor, LOOK_ROWS_MAX]).await?;
        let full = rows.len() as i64 == LOOK_ROWS_MAX;
        let last = rows.last().map(|row| row.id.clone());
        for row in rows {
            self.offer(row.into());
        }
        // After a full look the next one goes on where this one ended.
        self.sent.raise(match last {
            Some(last) if full => last,
            _ => uuid_v7_at(now - LATE_MS_MAX),
        });
        Ok(())
    }

    fn offer(&mut self, notification: Notification) {
        if self.sent.is_new(&notification.id)
            && wants(&self.preferences, &notification.kind, Channel::Stream)
        {
            self.waiting.push_back(notification);
        }
    }

    fn is_quiet(&self) -> bool {
        self.quiet
            .is_some_and(|quiet| quiet.until(now_ms()).is_some())
    }
}

/// What a stream has sent: all up to `floor`, and these beyond.
struct Sent {
    floor: String,
    beyond: HashSet<String>,
}

impl Sent {
    fn after(floor: String) -> Self {
        Sent {
            floor,
            beyond: HashSet::new(),
        }
    }

    /// Whether this was not sent yet; it counts as sent from now on.
    fn is_new(&mut self, id: &str) -> bool {
        id > self.floor.as_str() && self.beyond.insert(id.to_owned())
    }

    /// Nothing up to here is looked for again.
    fn raise(&mut self, floor: String) {
        if floor > self.floor {
            self.beyond.retain(|id| *id > floor);
            self.floor = floor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_each_once_and_forgets_what_is_long_past() {
        let mut sent = Sent::after("b".to_owned());
        assert!(!sent.is_new("a"));
        assert!(sent.is_new("d"));
        assert!(sent.is_new("c"), "one that comes late is sent all the same");
        assert!(!sent.is_new("d"));
        sent.raise("c".to_owned());
        assert_eq!(sent.beyond.len(), 1);
        assert!(!sent.is_new("c"));
        sent.raise("a".to_owned());
        assert_eq!(sent.floor, "c", "the floor only rises");
    }
}
