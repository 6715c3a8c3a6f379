//! `GET /api/registry/events`, and the sweep that notices what nobody reports: states, leases that ran out.

use crate::{
    changes::{CHANNEL, Change, Difference, Kind, differences},
    registry, store,
    view::Running,
};
use exprsn_sdk::{Either, prelude::*, select, stream};
use std::{collections::VecDeque, pin::Pin};

/// The queue of this service's chores.
pub const QUEUE: &str = "setup-maintenance";
/// How often a listener has the platform looked at, in milliseconds.
const LOOK_MS: u64 = 1_000;

/// The data of a sweep's job: nothing.
#[derive(Deserialize)]
pub struct Sweep {}

/// The job that sweeps every minute, listeners or not.
pub async fn sweep_job(_job: Job<Sweep>) -> JobResult {
    sweep(now_ms()).await?;
    Ok(())
}

/// `GET /api/registry/events`
pub async fn events(headers: Headers) -> Result<Sse> {
    // Listening first, then looking back: nothing falls between.
    let live = events::live::listen(CHANNEL).await?;
    let missed = match headers.get("last-event-id") {
        Some(id) => store::changes_after(id).await?,
        None => Vec::new(),
    };
    let last = missed
        .last()
        .map(|change| change.id.clone())
        .unwrap_or_default();
    let listener = Listener {
        live: Box::pin(live),
        missed: missed.into(),
        last,
    };
    Ok(Sse::new(stream::unfold(listener, Listener::next)))
}

/// One who listens.
struct Listener {
    live: Pin<Box<dyn Stream<Item = String>>>,
    missed: VecDeque<Change>,
    /// The last change looked up, up to which live ones are known already.
    last: String,
}

impl Listener {
    async fn next(mut self) -> Option<(SseEvent, Self)> {
        if let Some(change) = self.missed.pop_front() {
            return Some((event(&change), self));
        }
        loop {
            let look = Box::pin(sleep_ms(LOOK_MS));
            match select(self.live.next(), look).await {
                // The stream of a listener who is too slow ends; the client comes back with `Last-Event-ID`.
                Either::Left((None, _)) => return None,
                Either::Left((Some(text), _)) => {
                    let Ok(change) = serde_json::from_str::<Change>(&text) else {
                        continue;
                    };
                    if change.id > self.last {
                        return Some((event(&change), self));
                    }
                }
                Either::Right(_) => look_around().await,
            }
        }
    }
}

fn event(change: &Change) -> SseEvent {
    SseEvent::json(change)
        .id(&change.id)
        .event(change.kind.as_str())
}

/// Sweeps, unless another listener has just done so.
async fn look_around() {
    let mine = cache::set_if_absent("sweep", "1", Some(LOOK_MS / 2))
        .await
        .unwrap_or(true);
    if mine && let Err(problem) = sweep(now_ms()).await {
        log::warn!("the registry could not be swept", error = problem);
    }
}

/// Notices changes of the platform's services and of leases; tells and keeps each once.
pub async fn sweep(now: i64) -> Result<()> {
    let running = registry::running().await?;
    let observed = store::observed().await?;
    let differences = differences(&running, &observed);
    if differences.is_empty() && !store::any_expired(now).await? {
        return Ok(());
    }
    let tx = sql::begin().await?;
    let mut changes = Vec::new();
    for difference in differences {
        changes.extend(note(&tx, difference, now).await?);
    }
    for registration in store::expired(&tx, now).await? {
        changes.push(store::change(Kind::Expired, &registration, now));
    }
    let remove_after_ms = config::parse("remove_after_s", 600_i64)
        .max(0)
        .saturating_mul(1_000);
    for registration in store::remove_expired(&tx, now.saturating_sub(remove_after_ms)).await? {
        changes.push(store::change(Kind::Removed, &registration, now));
    }
    for change in &changes {
        store::record(&tx, change).await?;
    }
    store::prune(&tx).await?;
    tx.commit().await?;
    registry::tell(&changes).await;
    Ok(())
}

/// Notes a difference; none where another sweep was faster.
async fn note(tx: &sql::Tx, difference: Difference<'_>, now: i64) -> Result<Option<Change>> {
    match difference {
        Difference::Changed(service) => {
            let changed = store::observe(tx, service, now).await?;
            Ok(changed
                .then(|| Change::of(Kind::State, &Running::view(service, None), uuid_v7(), now)))
        }
        Difference::Gone(name) => {
            let gone = store::unobserve(tx, name).await?;
            Ok(gone.then(|| Change {
                id: uuid_v7(),
                kind: Kind::Removed,
                name: name.to_owned(),
                at: now,
                version: None,
                status: None,
                reason: Some("it is not configured any more".to_owned()),
                lease_expires_at: None,
            }))
        }
    }
}
