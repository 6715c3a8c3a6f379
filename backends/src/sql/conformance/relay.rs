//! The relay: nothing announced that did not happen, nothing that happened unannounced.

use super::*;
use crate::{
    queue::Backoff,
    sql::{
        error::BoxError,
        outbox::{OutboxItem, Sink},
        relay::Relay,
    },
};
use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{runtime::Handle, sync::watch};

/// Takes every id once, as a broker does, after some failures.
pub struct Inbox {
    failures: AtomicUsize,
    /// Takes the batch and then fails: the answer of a broker that was lost on the way.
    answers_lost: AtomicUsize,
    taken: Mutex<Vec<OutboxItem>>,
    deliveries: AtomicUsize,
    changed: watch::Sender<usize>,
}

impl Inbox {
    fn new(failures: usize, answers_lost: usize) -> Arc<Self> {
        Arc::new(Self {
            failures: failures.into(),
            answers_lost: answers_lost.into(),
            taken: Mutex::default(),
            deliveries: AtomicUsize::new(0),
            changed: watch::Sender::new(0),
        })
    }

    fn ids(&self) -> Vec<String> {
        self.taken
            .lock()
            .unwrap()
            .iter()
            .map(|item| item.content.id().to_owned())
            .collect()
    }

    async fn holds(&self, count: usize) {
        let held = self
            .changed
            .subscribe()
            .wait_for(|held| *held == count)
            .await
            .map(|held| *held);
        assert_eq!(held.unwrap(), count);
    }
}

fn counted_down(counter: &AtomicUsize) -> bool {
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
            count.checked_sub(1)
        })
        .is_ok()
}

impl Sink for Inbox {
    async fn deliver(&self, batch: Vec<OutboxItem>) -> Result<(), BoxError> {
        self.deliveries.fetch_add(1, Ordering::SeqCst);
        if counted_down(&self.failures) {
            return Err("the broker is away".into());
        }
        let held = {
            let mut taken = self.taken.lock().unwrap();
            for item in batch {
                if !taken
                    .iter()
                    .any(|held| held.content.id() == item.content.id())
                {
                    taken.push(item);
                }
            }
            taken.len()
        };
        if counted_down(&self.answers_lost) {
            return Err("the answer was lost".into());
        }
        self.changed.send_replace(held);
        Ok(())
    }
}

fn job(id: &str) -> Content {
    Content::Job {
        queue: "notes-index".to_owned(),
        id: id.to_owned(),
        name: "index".to_owned(),
        data: r#"{"text":"\"quoted\""}"#.to_owned(),
        attempts: Some(3),
        backoff: Some(Backoff::Exponential { delay_ms: 100 }),
        delay_ms: 5,
        priority: 1,
    }
}

impl Bench {
    fn relay(&self, sink: &Arc<Inbox>) -> Relay {
        Relay::start(
            &Handle::current(),
            self.service.clone(),
            self.database.outbox(),
            sink.clone(),
        )
    }

    /// Waits until nothing is left to relay.
    async fn emptied(&self) {
        while self.waiting().await > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub async fn what_an_earlier_process_left_is_delivered_at_start_with_all_it_says(engine: Engine) {
    let bench = Bench::new(engine).await;
    let trace = TraceContext::new_root();
    bench.announce(vec![job("1")], trace).await;
    let inbox = Inbox::new(0, 0);
    let relay = bench.relay(&inbox);
    inbox.holds(1).await;
    bench.emptied().await;
    let expected = OutboxItem {
        service: bench.service.clone(),
        created_at: 77,
        trace: Some(trace),
        content: job("1"),
    };
    assert_eq!(*inbox.taken.lock().unwrap(), [expected]);
    drop(relay);
}

pub async fn many_are_delivered_in_order_through_failures_and_lost_answers(engine: Engine) {
    let bench = Bench::new(engine).await;
    let ids: Vec<String> = (0..300).map(|number| format!("{number:03}")).collect();
    bench
        .announce(
            ids.iter().map(|id| job(id)).collect(),
            TraceContext::new_root(),
        )
        .await;
    let inbox = Inbox::new(1, 1);
    let relay = bench.relay(&inbox);
    inbox.holds(300).await;
    bench.emptied().await;
    assert_eq!(inbox.ids(), ids);
    assert!(inbox.deliveries.load(Ordering::SeqCst) >= 5);
    drop(relay);
}

pub async fn a_relay_that_ends_anywhere_leaves_the_rest_to_the_next(engine: Engine) {
    let bench = Bench::new(engine).await;
    bench
        .announce(vec![job("1"), job("2")], TraceContext::new_root())
        .await;
    // Ends after the sink took the rows and before they are removed, as a killed process would.
    let inbox = Inbox::new(0, 1);
    let relay = bench.relay(&inbox);
    while inbox.ids().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(relay);
    let relay = bench.relay(&inbox);
    inbox.holds(2).await;
    bench.emptied().await;
    assert_eq!(inbox.ids(), ["1", "2"]);
    drop(relay);
}

pub async fn lag_tells_how_much_waits_and_how_long(engine: Engine) {
    let bench = Bench::new(engine).await;
    bench
        .announce(vec![job("1"), job("2")], TraceContext::new_root())
        .await;
    let inbox = Inbox::new(usize::MAX, 0);
    let relay = bench.relay(&inbox);
    while inbox.deliveries.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!((relay.lag().rows(), relay.lag().age_ms(100)), (2, 23));
}

pub async fn a_commit_wakes_the_relay(engine: Engine) {
    let bench = Bench::new(engine).await;
    let inbox = Inbox::new(0, 0);
    let relay = bench.relay(&inbox);
    for number in 1..=3 {
        bench
            .announce(vec![job(&number.to_string())], TraceContext::new_root())
            .await;
        inbox.holds(number).await;
    }
    drop(relay);
}
