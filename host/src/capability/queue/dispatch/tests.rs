//! The dispatcher at work on a real broker: concurrency, retries, drains, what wakes it, limits.

use super::*;
use crate::capability::{
    events::Event,
    queue::{
        backend::{Backend as _, Error},
        job::{Backoff, Counts, NewJob},
        limits::Config,
        sqlite::SqliteBackend,
    },
};
use std::{
    future::pending,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tempfile::TempDir;
use tokio::{runtime::Handle, sync::mpsc, time::timeout};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A handler made of a closure.
struct Handler<F>(F);

impl<F> JobHandler for Handler<F>
where
    F: Fn(Job) -> BoxFuture<'static, Result<Option<String>, Failure>> + Send + Sync + 'static,
{
    fn handle(
        &self,
        _service: &ServiceName,
        job: Job,
    ) -> BoxFuture<'static, Result<Option<String>, Failure>> {
        (self.0)(job)
    }
}

fn handler<F, R>(f: F) -> Arc<dyn JobHandler>
where
    F: Fn(Job) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Option<String>, Failure>> + Send + 'static,
{
    Arc::new(Handler(move |job| {
        Box::pin(f(job)) as BoxFuture<'static, _>
    }))
}

struct Bed {
    _folder: TempDir,
    backend: SqliteBackend,
    broker: Arc<Broker>,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let backend = SqliteBackend::open(
            &folder.path().join("broker.db"),
            &Config::default(),
            now_ms(),
        )
        .unwrap();
        let broker = Broker::new(
            Arc::new(backend.clone()),
            &Handle::current(),
            &Config::default(),
        );
        Self {
            _folder: folder,
            backend,
            broker,
        }
    }

    async fn consume(
        &self,
        change: impl FnOnce(&mut QueueSpec),
        handler: Arc<dyn JobHandler>,
    ) -> Consumer {
        let mut spec = spec();
        change(&mut spec);
        self.broker
            .consume(&service(), vec![spec], handler)
            .await
            .unwrap()
    }

    async fn add(&self, ids: impl IntoIterator<Item = String>) {
        let jobs = ids
            .into_iter()
            .map(|id| NewJob::new(id, "work", "{}"))
            .collect();
        self.broker.add_many("q", jobs).await.unwrap();
    }

    async fn counts(&self) -> Counts {
        self.broker.counts("q").await.unwrap()
    }

    /// Looks whenever the queue's state has changed, until it is as wanted.
    async fn until(&self, wanted: impl Fn(&Counts) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counts = self.counts().await;
            if wanted(&counts) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{counts:?} has not become what was wanted"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn spec() -> QueueSpec {
    QueueSpec {
        name: "q".to_owned(),
        concurrency: 4,
        lease_ms: 30_000,
        settings: Settings {
            backoff: Backoff::Fixed { delay_ms: 1 },
            ..Settings::default()
        },
        recurrences: Vec::new(),
    }
}

fn service() -> ServiceName {
    ServiceName::parse("exprsn-a").unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it happens in time")
}

fn later(ms: u64) -> std::time::Instant {
    std::time::Instant::now() + Duration::from_millis(ms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_done_once_within_the_concurrency() {
    let bed = Bed::new();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (running, peak, names) = (now.clone(), most.clone(), seen.clone());
    bed.add((0..50).map(|n| n.to_string())).await;
    let work = handler(move |job| {
        let (running, peak, names) = (running.clone(), peak.clone(), names.clone());
        async move {
            peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            running.fetch_sub(1, Ordering::SeqCst);
            names.lock().unwrap().push(job.id.clone());
            Ok(Some(format!("\"{}\"", job.id)))
        }
    });
    let consumer = bed.consume(|_| (), work).await;
    bed.until(|counts| counts.completed == 50).await;
    bed.add((50..100).map(|n| n.to_string())).await;
    bed.until(|counts| counts.completed == 100).await;
    let mut names = seen.lock().unwrap().clone();
    names.sort_by_key(|name| name.parse::<u32>().unwrap());
    assert_eq!(names, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!((1..=4).contains(&most.load(Ordering::SeqCst)));
    assert_eq!(
        bed.broker
            .get("q", "7")
            .await
            .unwrap()
            .return_value
            .as_deref(),
        Some("\"7\"")
    );
    soon(consumer.drain(later(1_000))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_tried_again_then_kept() {
    let bed = Bed::new();
    let consumer = bed
        .consume(
            |_| (),
            handler(|job| async move { Err(Failure::retry(format!("attempt {}", job.attempt))) }),
        )
        .await;
    bed.add(["1".to_owned()]).await;
    bed.until(|counts| counts.failed == 1).await;
    let failed = bed.broker.get("q", "1").await.unwrap();
    assert_eq!(
        (failed.attempt, failed.failed_reason.as_deref()),
        (3, Some("attempt 3"))
    );
    bed.broker.retry("q", "1").await.unwrap();
    bed.until(|counts| counts.failed == 1 && counts.pending() + counts.active == 0)
        .await;
    soon(consumer.drain(later(1_000))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_and_panics_fail_the_attempt_with_their_reason() {
    let bed = Bed::new();
    let work = handler(|job| async move {
        match job.id.as_str() {
            "panic" => panic!("as the test wants"),
            "long" => Ok(Some(format!("\"{}\"", "x".repeat(1 << 20)))),
            _ => pending().await,
        }
    });
    let consumer = bed.consume(|spec| spec.settings.attempts = 1, work).await;
    let mut slow = NewJob::new("slow", "work", "{}");
    slow.timeout_ms = Some(5);
    bed.broker.add("q", slow).await.unwrap();
    bed.add(["panic".to_owned(), "long".to_owned()]).await;
    bed.until(|counts| counts.failed == 3).await;
    for (id, reason) in [
        ("slow", "took longer than 5 ms"),
        ("panic", "handler panicked"),
        ("long", "data_bytes_max"),
    ] {
        let text = bed
            .broker
            .get("q", id)
            .await
            .unwrap()
            .failed_reason
            .unwrap();
        assert!(text.contains(reason), "{text}");
    }
    soon(consumer.drain(later(1_000))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_what_is_under_way_and_takes_no_more() {
    let bed = Bed::new();
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (release, released) = watch::channel(false);
    let work = handler(move |job| {
        let (begun, mut released) = (begun.clone(), released.clone());
        async move {
            begun.send(job.id).unwrap();
            released.wait_for(|yes| *yes).await.unwrap();
            Ok(None)
        }
    });
    let consumer = bed.consume(|spec| spec.concurrency = 1, work).await;
    bed.add(["1".to_owned(), "2".to_owned()]).await;
    assert_eq!(soon(begins.recv()).await.as_deref(), Some("1"));
    let draining = tokio::spawn(async move { consumer.drain(later(20_000)).await });
    tokio::task::yield_now().await;
    release.send_replace(true);
    soon(draining).await.unwrap();
    let counts = bed.counts().await;
    assert_eq!(counts.completed + counts.waiting, 2);
    assert_eq!(counts.active, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_outlasts_a_drain_is_broken_off_and_waits_again() {
    let bed = Bed::new();
    let (begun, mut begins) = mpsc::unbounded_channel();
    let work = handler(move |job| {
        begun.send(job.id).unwrap();
        pending()
    });
    let consumer = bed.consume(|_| (), work.clone()).await;
    bed.add(["1".to_owned()]).await;
    soon(begins.recv()).await.unwrap();
    soon(consumer.drain(later(1))).await;
    assert_eq!(
        bed.counts().await,
        Counts {
            waiting: 1,
            ..Counts::default()
        }
    );
    // Dropped without a drain it does the same.
    let consumer = bed.consume(|_| (), work).await;
    soon(begins.recv()).await.unwrap();
    drop(consumer);
    bed.until(|counts| counts.waiting == 1 && counts.active == 0)
        .await;
    assert_eq!(bed.broker.get("q", "1").await.unwrap().attempt, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_jobs_pauses_and_schedules_wake_it() {
    let bed = Bed::new();
    let (begun, mut begins) = mpsc::unbounded_channel();
    let work = handler(move |job| {
        begun.send(job.id).unwrap();
        async { Ok(None) }
    });
    let recurrence = Recurrence {
        queue: "q".to_owned(),
        name: "tick".to_owned(),
        cron: "* * * * * *".to_owned(),
        data: "{}".to_owned(),
    };
    let consumer = bed
        .consume(|spec| spec.recurrences.push(recurrence), work)
        .await;
    let mut delayed = NewJob::new("delayed", "work", "{}");
    delayed.delay_ms = 30;
    bed.broker.add("q", delayed).await.unwrap();
    let mut seen = [
        soon(begins.recv()).await.unwrap(),
        soon(begins.recv()).await.unwrap(),
    ];
    seen.sort();
    assert!(
        seen[0] == "delayed" && seen[1].starts_with("repeat:q:tick:"),
        "{seen:?}"
    );
    bed.broker.pause("q", true).await.unwrap();
    bed.add(["held".to_owned()]).await;
    assert!(bed.counts().await.pending() >= 1);
    bed.broker.pause("q", false).await.unwrap();
    while soon(begins.recv()).await.as_deref() != Some("held") {}
    soon(consumer.drain(later(1_000))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_whose_lease_is_lost_is_broken_off() {
    let bed = Bed::new();
    let (begun, mut begins) = mpsc::unbounded_channel();
    struct Gone(mpsc::UnboundedSender<String>);
    impl Drop for Gone {
        fn drop(&mut self) {
            let _ = self.0.send("gone".to_owned());
        }
    }
    let work = handler(move |job| {
        let guard = Gone(begun.clone());
        begun.send(job.id).unwrap();
        async move {
            let _guard = guard;
            pending().await
        }
    });
    let consumer = bed
        .consume(
            |spec| (spec.concurrency, spec.lease_ms) = (1, LEASE_MS_MIN),
            work,
        )
        .await;
    bed.add(["1".to_owned()]).await;
    assert_eq!(soon(begins.recv()).await.as_deref(), Some("1"));
    bed.backend.rescue(3, i64::MAX).await.unwrap();
    assert_eq!(soon(begins.recv()).await.as_deref(), Some("gone"));
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_reach_a_subscriber_that_was_not_there() {
    let bed = Bed::new();
    let wanted = crate::manifest::Subscription {
        topic: "post.*".to_owned(),
        attempts: 2,
        concurrency: 3,
    };
    bed.broker.subscribe(&service(), &[wanted]).await.unwrap();
    let event = Event {
        id: "1".to_owned(),
        source: ServiceName::parse("exprsn-timeline").unwrap(),
        topic: "post.created".to_owned(),
        subject: None,
        time: 5,
        data: "[]".to_owned(),
        trace: None,
    };
    for _ in 0..2 {
        bed.broker.publish(event.clone()).await.unwrap();
    }
    let (got, mut events) = mpsc::unbounded_channel();
    let work = handler(move |job| {
        let sent = got.send((job.attempt, Event::from_delivery(&job)));
        async move {
            if sent.is_ok() && job.attempt == 1 {
                Err(Failure::retry("once more"))
            } else {
                Ok(None)
            }
        }
    });
    let queue = delivery_queue(&service());
    let spec = QueueSpec {
        name: queue.clone(),
        ..spec()
    };
    let consumer = bed
        .broker
        .consume(&service(), vec![spec], work)
        .await
        .unwrap();
    assert_eq!(soon(events.recv()).await, Some((1, Some(event.clone()))));
    assert_eq!(soon(events.recv()).await, Some((2, Some(event))));
    let shown = async || {
        let queues = bed.broker.queues().await.unwrap();
        (queues[0].name.clone(), queues[0].service.clone())
    };
    assert_eq!(shown().await, (queue.clone(), "exprsn-a".to_owned()));
    soon(consumer.drain(later(5_000))).await;
    assert_eq!(shown().await, (queue, String::new()));
    assert!(events.try_recv().is_err(), "an id is delivered once");
}

#[tokio::test]
async fn what_a_manifest_has_wrong_is_told() {
    let bed = Bed::new();
    let check = async |change: fn(&mut QueueSpec), expected: &str| {
        let mut spec = spec();
        change(&mut spec);
        let work = handler(|_| async { Ok(None) });
        match bed.broker.consume(&service(), vec![spec], work).await {
            Err(Error::Invalid(text)) => assert!(text.contains(expected), "{text}"),
            other => panic!("{expected}: {other:?}"),
        }
    };
    fn every(cron: &str, data: &str) -> Recurrence {
        Recurrence {
            queue: "q".to_owned(),
            name: "tick".to_owned(),
            cron: cron.to_owned(),
            data: data.to_owned(),
        }
    }
    check(|spec| spec.name = "a b".to_owned(), "queue name `a b`").await;
    check(
        |spec| spec.recurrences.push(every("61 * * * *", "{}")),
        "`61 * * * *`",
    )
    .await;
    check(
        |spec| spec.recurrences.push(every("@daily", "{")),
        "not JSON",
    )
    .await;
}

#[tokio::test]
async fn limits_are_refused_by_name() {
    let bed = Bed::new();
    let check = async |change: fn(&mut NewJob), expected: &str| {
        let mut job = NewJob::new("1", "work", "{}");
        change(&mut job);
        match bed.broker.add("q", job).await {
            Err(Error::Invalid(text) | Error::LimitExceeded(text)) => {
                assert!(text.contains(expected), "{text}")
            }
            other => panic!("{expected}: {other:?}"),
        }
    };
    check(|job| job.data = "{".to_owned(), "not JSON").await;
    check(
        |job| job.data = format!("\"{}\"", "x".repeat(1 << 20)),
        "data_bytes_max is 1048576",
    )
    .await;
    check(|job| job.id = String::new(), "job id").await;
    check(|job| job.name = "x".repeat(200), "job name").await;
    check(|job| job.attempts = Some(0), "attempts").await;
    check(|job| job.priority = u32::MAX, "priority").await;
    check(|job| job.delay_ms = u64::MAX, "delay").await;
    check(
        |job| job.backoff = Some(Backoff::Exponential { delay_ms: u64::MAX }),
        "delay",
    )
    .await;
    check(|job| job.timeout_ms = Some(0), "timeout_ms").await;
    for name in ["", "a b", "events:exprsn-a", &"q".repeat(200)] {
        assert!(
            matches!(
                bed.broker.add(name, NewJob::new("1", "n", "1")).await,
                Err(Error::Invalid(_))
            ),
            "{name}"
        );
    }
    let many = (0..1_001)
        .map(|n| NewJob::new(n.to_string(), "n", "1"))
        .collect();
    assert!(matches!(
        bed.broker.add_many("q", many).await,
        Err(Error::LimitExceeded(_))
    ));
    for (id, topic, subject, data, expected) in [
        ("1", "", None, "{}", "topic"),
        ("1", "a.*", None, "{}", "no `*`"),
        ("", "a", None, "{}", "event id"),
        ("1", "a", Some("x".repeat(2_000)), "{}", "subject"),
        ("1", "a", None, "{", "not JSON"),
    ] {
        let text = bed
            .broker
            .check_event(id, topic, subject.as_deref(), data)
            .unwrap_err()
            .to_string();
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(bed.counts().await, Counts::default());
}

#[test]
fn specs_come_from_the_manifest() {
    let manifest = Manifest::parse(
        r#"
        name = "exprsn-a"
        version = "1.0.0"
        port = 3000
        [grants.queue]
        consume = ["a-*"]
        [grants.events]
        subscribe = ["*"]
        [[queue]]
        name = "a-work"
        concurrency = 9
        attempts = 5
        backoff = { type = "fixed", delay_ms = 7 }
        [[schedule]]
        cron = "0 * * * *"
        queue = "a-work"
        name = "hourly"
        [[subscription]]
        topic = "post.*"
        concurrency = 2
        [[subscription]]
        topic = "user.*"
        concurrency = 6
        "#,
    )
    .unwrap();
    let specs = QueueSpec::of(&manifest);
    assert_eq!(
        (
            specs[0].name.as_str(),
            specs[0].concurrency,
            specs[0].settings.attempts
        ),
        ("a-work", 9, 5)
    );
    assert_eq!(specs[0].settings.backoff, Backoff::Fixed { delay_ms: 7 });
    assert_eq!(
        (
            specs[0].recurrences[0].name.as_str(),
            specs[0].recurrences[0].data.as_str()
        ),
        ("hourly", "{}")
    );
    assert_eq!(
        (specs[1].name.as_str(), specs[1].concurrency),
        ("events:exprsn-a", 6)
    );
    assert_eq!(specs.len(), 2);
}
