//! The broker alone: jobs and events a second on the embedded backend, every acknowledgement durable.

use exprsn::{
    capability::{
        events::Event,
        queue::{Broker, Config, Failure, Job, JobHandler, NewJob, QueueSpec, Settings},
    },
    manifest::Subscription,
    name::ServiceName,
};
use futures::future::{BoxFuture, join_all};
use std::{
    future::ready,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::Notify};

/// Producers at once.
const PRODUCERS: usize = 64;
/// Jobs of one call, where producers add many.
const BATCH: usize = 100;
/// Jobs under way at once.
const CONCURRENCY: u32 = 256;

/// What was measured, in what unit.
pub struct Figure {
    pub work: &'static str,
    pub unit: &'static str,
    pub value: f64,
}

/// Does nothing, and tells when all is done.
struct Nothing {
    left: AtomicU64,
    done: Notify,
}

impl JobHandler for Nothing {
    fn handle(
        &self,
        _service: &ServiceName,
        _job: Job,
    ) -> BoxFuture<'static, Result<Option<String>, Failure>> {
        if self.left.fetch_sub(1, Relaxed) == 1 {
            self.done.notify_one();
        }
        Box::pin(ready(Ok(None)))
    }
}

/// Measures with about `jobs` jobs for each figure.
pub fn measure(jobs: u64) -> Vec<Figure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let rate = |work, value: f64| Figure {
        work,
        unit: "per second",
        value,
    };
    vec![
        rate(
            "jobs added one by one, 64 producers",
            adding(&runtime, folder.path(), "one", jobs / 4, 1),
        ),
        rate(
            "jobs added 100 at a time, 64 producers",
            adding(&runtime, folder.path(), "many", jobs, BATCH),
        ),
        rate(
            "jobs processed from a full queue",
            processing(&runtime, folder.path(), jobs),
        ),
        rate(
            "jobs added 100 at a time and processed, together",
            together(&runtime, folder.path(), jobs),
        ),
        rate(
            "events published one by one to 3 subscribers",
            publishing(&runtime, folder.path(), jobs / 8),
        ),
        Figure {
            work: "counts of a queue of 1,000,000 jobs",
            unit: "µs",
            value: counting(&runtime, folder.path()),
        },
    ]
}

fn open(runtime: &Runtime, folder: &Path, name: &str) -> Arc<Broker> {
    let config = Config {
        pending_max: 2_000_000,
        ..Config::default()
    };
    Broker::open(&folder.join(name), runtime.handle(), &config).expect("a broker")
}

async fn produce(broker: &Broker, jobs: u64, batch: usize) {
    let calls = jobs / (PRODUCERS * batch) as u64;
    let producers = (0..PRODUCERS).map(|_| async {
        for _ in 0..calls {
            let id = || uuid::Uuid::now_v7().to_string();
            let jobs = (0..batch)
                .map(|_| NewJob::new(id(), "work", r#"{"userId":"0190","postId":"0191"}"#))
                .collect();
            broker.add_many("bench", jobs).await.expect("room");
        }
    });
    join_all(producers).await;
}

/// Rounded down to what the producers share evenly.
fn even(jobs: u64, batch: usize) -> u64 {
    jobs / (PRODUCERS * batch) as u64 * (PRODUCERS * batch) as u64
}

fn adding(runtime: &Runtime, folder: &Path, name: &str, jobs: u64, batch: usize) -> f64 {
    let broker = open(runtime, folder, name);
    let begun = Instant::now();
    runtime.block_on(produce(&broker, jobs, batch));
    even(jobs, batch) as f64 / begun.elapsed().as_secs_f64()
}

/// Works until `jobs` jobs are done and recorded as such.
async fn work(broker: &Arc<Broker>, jobs: u64) {
    let handler = Arc::new(Nothing {
        left: AtomicU64::new(jobs),
        done: Notify::new(),
    });
    let service = ServiceName::parse("exprsn-bench").expect("a name");
    let spec = QueueSpec {
        name: "bench".to_owned(),
        concurrency: CONCURRENCY,
        lease_ms: 30_000,
        settings: Settings::default(),
        recurrences: Vec::new(),
    };
    let consumer = broker
        .consume(&service, vec![spec], handler.clone())
        .await
        .expect("a consumer");
    handler.done.notified().await;
    consumer
        .drain(Instant::now() + Duration::from_secs(30))
        .await;
}

fn processing(runtime: &Runtime, folder: &Path, jobs: u64) -> f64 {
    let broker = open(runtime, folder, "full");
    runtime.block_on(produce(&broker, jobs, BATCH));
    let begun = Instant::now();
    runtime.block_on(work(&broker, even(jobs, BATCH)));
    even(jobs, BATCH) as f64 / begun.elapsed().as_secs_f64()
}

fn together(runtime: &Runtime, folder: &Path, jobs: u64) -> f64 {
    let broker = open(runtime, folder, "together");
    let begun = Instant::now();
    runtime.block_on(async {
        tokio::join!(
            produce(&broker, jobs, BATCH),
            work(&broker, even(jobs, BATCH))
        );
    });
    even(jobs, BATCH) as f64 / begun.elapsed().as_secs_f64()
}

fn publishing(runtime: &Runtime, folder: &Path, events: u64) -> f64 {
    let broker = open(runtime, folder, "events");
    let service = |name: &str| ServiceName::parse(name).expect("a name");
    let begun = runtime.block_on(async {
        for name in ["exprsn-a", "exprsn-b", "exprsn-c"] {
            let all = Subscription {
                topic: "*".to_owned(),
                attempts: 3,
                concurrency: 4,
            };
            broker
                .subscribe(&service(name), &[all])
                .await
                .expect("a subscription");
        }
        let begun = Instant::now();
        let publishers = (0..PRODUCERS).map(|_| async {
            for _ in 0..events / PRODUCERS as u64 {
                let event = Event {
                    id: uuid::Uuid::now_v7().to_string(),
                    source: service("exprsn-bench"),
                    topic: "post.created".to_owned(),
                    subject: None,
                    time: 1,
                    data: r#"{"userId":"0190","postId":"0191"}"#.to_owned(),
                    trace: None,
                };
                broker.publish(event).await.expect("room");
            }
        });
        join_all(publishers).await;
        begun
    });
    even(events, 1) as f64 / begun.elapsed().as_secs_f64()
}

fn counting(runtime: &Runtime, folder: &Path) -> f64 {
    let broker = open(runtime, folder, "million");
    runtime.block_on(async {
        for _ in 0..1_000 {
            let id = || uuid::Uuid::now_v7().to_string();
            let jobs = (0..1_000)
                .map(|_| NewJob::new(id(), "work", "{}"))
                .collect();
            broker.add_many("bench", jobs).await.expect("room");
        }
        let begun = Instant::now();
        for _ in 0..100 {
            broker.counts("bench").await.expect("counts");
        }
        begun.elapsed().as_secs_f64() * 1e6 / 100.0
    })
}
