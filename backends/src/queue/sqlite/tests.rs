//! The embedded backend's own: kills, and what is remembered by its generations.

use super::*;
use crate::queue::conformance::{Bed, Engine, STALLED_MAX, T0, done, event, ids, retry};
use crate::queue::job::Backoff;

impl SqliteBackend {
    /// The counts kept beside the jobs must be those of the jobs.
    pub(in crate::queue) async fn audit(&self) {
        let wrong: Vec<String> = self
            .read(|connection| {
                let mut statement = connection.prepare(
                    "SELECT name FROM queues WHERE (waiting, delayed, prioritized, active, completed, failed) IS NOT (
                       SELECT count(*) FILTER (WHERE state = 0 AND priority = 0), count(*) FILTER (WHERE state = 1),
                         count(*) FILTER (WHERE state = 0 AND priority > 0), count(*) FILTER (WHERE state = 2),
                         count(*) FILTER (WHERE state = 3), count(*) FILTER (WHERE state = 4)
                       FROM jobs WHERE jobs.queue = queues.id)",
                )?;
                Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
            })
            .await
            .unwrap();
        assert_eq!(
            wrong,
            Vec::<String>::new(),
            "counts differ from the jobs: every change must go through Delta"
        );
    }

    async fn scan_seen(&self) -> i64 {
        self.read(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM seen", [], |row| row.get(0))?)
        })
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn a_killed_host_loses_nothing_and_its_leases_return_at_once() {
    let bed = Bed::new(Engine::Sqlite);
    bed.add_ids(&["1", "2", "3", "4"]).await;
    let taken = bed.take(3).await;
    bed.settle(&taken[..1], done()).await;
    let mut next = bed.killed();
    assert_eq!(
        next.counts().await,
        Counts {
            waiting: 3,
            completed: 1,
            ..Counts::default()
        }
    );
    assert_eq!(ids(&next.take(9).await), ["2", "3", "4"]);
    // A job that kills its host every time is stopped.
    for _ in 0..STALLED_MAX {
        next = next.killed();
        next.take(9).await;
    }
    assert_eq!(next.list(State::Failed).await, ["3", "2"]);
    assert_eq!(next.list(State::Active).await, ["4"]);
    next.audit().await;
}

#[tokio::test]
async fn rows_get_higher_numbers_in_every_run() {
    let bed = Bed::new(Engine::Sqlite);
    bed.declare(|settings| settings.backoff = Backoff::Fixed { delay_ms: 0 })
        .await;
    bed.add_ids(&["1", "2"]).await;
    bed.settle(&bed.take(1).await, retry()).await;
    let next = bed.killed();
    next.add_ids(&["3"]).await;
    assert_eq!(ids(&next.take(9).await), ["2", "1", "3"]);
}

#[tokio::test]
async fn old_events_go_and_their_ids_are_remembered_for_a_while() {
    let bed = Bed::with(
        Engine::Sqlite,
        Config {
            events_max: 2,
            seen_max: 10,
            seen_ms_min: 1_000,
            ..Config::default()
        },
    );
    bed.subscribe("exprsn-pulse", &[("*", 3)]).await;
    for id in ["1", "2", "3", "4"] {
        bed.publish(event(id, "a")).await;
    }
    assert!(!bed.backend.tidy(T0).await.unwrap());
    assert_eq!(bed.backend.events("*", 10).await.unwrap().len(), 2);
    bed.publish(event("1", "a")).await;
    assert_eq!(bed.deliveries("exprsn-pulse").await.len(), 4);
    // Two generations later it is forgotten.
    for at in [T0 + 999, T0 + 1_000, T0 + 1_500] {
        bed.backend.tidy(at).await.unwrap();
        bed.publish(event("1", "a")).await;
        assert_eq!(bed.deliveries("exprsn-pulse").await.len(), 4, "at {at}");
    }
    bed.backend.tidy(T0 + 2_000).await.unwrap();
    assert_eq!(bed.file().scan_seen().await, 0);
    assert!(bed.backend.events("*", 10).await.unwrap().len() == 2);
}
