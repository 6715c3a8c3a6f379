//! The real npm package `bullmq` and bull-board on our queues, and we on theirs.
//!
//! `bullmq/driver.mjs` does what is asked of BullMQ; its packages are pinned by the lock file beside it.

use exprsn_backends::{
    clock::now_ms,
    queue::{
        Backoff, Job, NewJob,
        backend::{Backend, Recurrence, Take, Taken},
        job::{Failure, Outcome, Settings, State},
        limits::Config,
        redis::RedisBackend,
        schedule::next_due,
    },
    redis::Redis,
    testing::{RedisServer, node_packages},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio::time::timeout;

const QUEUE: &str = "timeline-fanout";
/// Longest wait for what the other side does.
const WAIT: Duration = Duration::from_secs(30);

/// The folder with the driver and its packages, installed once.
fn packages() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bullmq");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bullmq");
        node_packages(&from, &folder, &["driver.mjs"]);
        folder
    })
}

/// A Node process with BullMQ. Killed when dropped.
struct Node {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Node {
    fn ask(&mut self, op: &str, mut request: Value) -> Value {
        request["op"] = json!(op);
        writeln!(self.asks, "{request}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).expect("a line of JSON");
        assert_eq!(answer["error"], Value::Null, "{op} {request}");
        answer["ok"].clone()
    }

    fn add(&mut self, job: &str, data: Value, opts: Value) -> String {
        let request = json!({ "name": QUEUE, "job": job, "data": data, "opts": opts });
        self.ask("add", request).as_str().unwrap().to_owned()
    }

    fn job(&mut self, id: &str) -> Value {
        self.ask("job", json!({ "name": QUEUE, "id": id }))
    }

    fn counts(&mut self) -> Value {
        self.ask("counts", json!({ "name": QUEUE }))
    }

    fn work(&mut self, opts: Value) {
        self.ask("work", json!({ "name": QUEUE, "opts": opts }));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Bed {
    server: RedisServer,
    backend: RedisBackend,
}

impl Bed {
    fn new() -> Self {
        let server = RedisServer::start();
        let redis = Arc::new(Redis::new(server.url()).unwrap());
        let backend = RedisBackend::new(redis, &Config::default());
        Self { server, backend }
    }

    fn node(&self) -> Node {
        let mut child = Command::new("node")
            .arg("driver.mjs")
            .current_dir(packages())
            .env("REDIS_PORT", self.server.port().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node can be started: install Node.js 20 or later");
        Node {
            asks: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    async fn add(&self, jobs: Vec<NewJob>) {
        self.backend
            .add_many(QUEUE, jobs, 1_000, now_ms())
            .await
            .unwrap();
    }

    async fn take_for(&self, count: usize, lease_ms: u64) -> Taken {
        let take = Take {
            count,
            lease: rand::random(),
            lease_ms,
        };
        let taken = self
            .backend
            .settle(QUEUE, Arc::default(), Some(take), now_ms());
        taken.await.unwrap()
    }

    async fn take(&self, count: usize) -> Vec<Job> {
        self.take_for(count, 30_000).await.jobs
    }

    async fn settle(&self, job: &Job, outcome: Outcome) {
        let outcomes = Arc::new(vec![(job.claim.clone(), outcome)]);
        let settled = self.backend.settle(QUEUE, outcomes, None, now_ms());
        settled.await.unwrap();
    }

    async fn get(&self, id: &str) -> Job {
        let found = self.backend.get(QUEUE, id).await;
        found.unwrap_or_else(|error| panic!("{id}: {error}"))
    }

    /// Waits for the other side to bring a job into `state`.
    async fn reaches(&self, id: &str, state: State) -> Job {
        let deadline = Instant::now() + WAIT;
        loop {
            let job = self.get(id).await;
            if job.state == state {
                return job;
            }
            assert!(
                Instant::now() < deadline,
                "{id} is {:?}, not {state:?}",
                job.state
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn llen(&self, key: &str) -> u64 {
        let redis = Redis::new(self.server.url()).unwrap();
        redis.query(redis::cmd("LLEN").arg(key)).await.unwrap()
    }
}

fn names(jobs: &[Job]) -> Vec<&str> {
    jobs.iter().map(|job| job.id.as_str()).collect()
}

fn new(id: &str, kind: &str) -> NewJob {
    NewJob::new(id, kind, format!("{{\"id\":\"{id}\"}}"))
}

fn value(text: &str) -> Outcome {
    Outcome::Completed(Some(text.to_owned()))
}

#[tokio::test]
async fn nodes_jobs_are_done_here() {
    let bed = Bed::new();
    let mut node = bed.node();
    let first = node.add("greet", json!({ "n": 1 }), json!({}));
    node.add("greet", json!(2), json!({ "jobId": "custom" }));
    node.add("greet", json!(3), json!({ "jobId": "low", "priority": 9 }));
    node.add("greet", json!(4), json!({ "jobId": "high", "priority": 1 }));
    node.add(
        "greet",
        json!(5),
        json!({ "jobId": "later", "delay": 3_600_000 }),
    );
    node.add("greet", json!(6), json!({ "jobId": "custom" }));
    assert_eq!(bed.llen("bull:timeline-fanout:wait").await, 2);
    let taken = bed.take(9).await;
    assert_eq!(names(&taken), [&first, "custom", "high", "low"]);
    assert_eq!(
        (taken[0].name.as_str(), taken[0].data.as_str()),
        ("greet", "{\"n\":1}")
    );
    assert_eq!((taken[0].attempt, taken[0].attempts), (1, 1));
    let counts = node.counts();
    assert_eq!(
        (&counts["active"], &counts["delayed"]),
        (&json!(4), &json!(1))
    );
    bed.settle(&taken[0], value("{\"a\":[1]}")).await;
    bed.settle(&taken[1], Outcome::Failed(Failure::retry("no luck")))
        .await;
    bed.settle(&taken[2], Outcome::Released).await;
    let done = node.job(&first);
    assert_eq!(
        (&done["state"], &done["returnvalue"]),
        (&json!("completed"), &json!({ "a": [1] }))
    );
    assert_eq!(
        (&done["attemptsMade"], &done["attemptsStarted"]),
        (&json!(1), &json!(1))
    );
    let failed = node.job("custom");
    assert_eq!(
        (&failed["state"], &failed["failedReason"]),
        (&json!("failed"), &json!("no luck"))
    );
    assert_eq!(node.job("high")["state"], json!("prioritized"));
    node.ask("retry", json!({ "name": QUEUE, "id": "custom" }));
    assert_eq!(names(&bed.take(9).await), ["custom", "high"]);
}

#[tokio::test]
async fn numbers_that_are_ids_here_are_not_given_to_nodes_jobs() {
    let bed = Bed::new();
    let mut node = bed.node();
    bed.add(vec![new("1", "echo"), new("7", "echo"), new("3", "echo")])
        .await;
    let id = node.add("echo", json!({}), json!({}));
    assert!(id.parse::<u32>().unwrap() > 7, "{id}");
    assert_eq!(names(&bed.take(9).await), ["1", "7", "3", &id]);
}

#[tokio::test]
async fn nodes_attempts_and_backoff_are_kept_here() {
    let bed = Bed::new();
    let mut node = bed.node();
    let backoff = json!({ "type": "exponential", "delay": 40 });
    node.add(
        "work",
        json!({}),
        json!({ "jobId": "one", "attempts": 3, "backoff": backoff }),
    );
    for made in 1..=2 {
        let taken = bed.take_for(1, 30_000).await;
        assert_eq!((taken.jobs[0].attempt, taken.jobs[0].attempts), (made, 3));
        let before = now_ms();
        bed.settle(&taken.jobs[0], Outcome::Failed(Failure::retry("again")))
            .await;
        let due = bed.take_for(0, 1).await.next_due_ms.unwrap();
        let wait = 40 << (made - 1);
        assert!(
            (before + wait..before + wait + 500).contains(&due),
            "attempt {made}"
        );
        assert_eq!(node.job("one")["state"], json!("delayed"));
        tokio::time::sleep(Duration::from_millis(wait as u64 + 20)).await;
    }
    let last = bed.take(1).await;
    bed.settle(&last[0], Outcome::Failed(Failure::retry("for good")))
        .await;
    let failed = node.job("one");
    assert_eq!(
        (&failed["state"], &failed["attemptsMade"]),
        (&json!("failed"), &json!(3))
    );
    node.add(
        "work",
        json!({}),
        json!({ "jobId": "two", "removeOnComplete": true }),
    );
    let taken = bed.take(1).await;
    bed.settle(&taken[0], value("1")).await;
    assert_eq!(node.job("two"), Value::Null, "the job asked to be removed");
}

#[tokio::test]
async fn our_jobs_are_done_by_node() {
    let bed = Bed::new();
    let settings = Settings {
        attempts: 3,
        backoff: Backoff::Fixed { delay_ms: 30 },
        keep_completed: 2,
        ..Settings::default()
    };
    bed.backend.declare(QUEUE, settings).await.unwrap();
    let urgent = |id: &str, priority| NewJob {
        priority,
        ..new(id, "echo")
    };
    let line = ["fifo-1", "fifo-2"].map(|id| new(id, "echo"));
    bed.add(vec![urgent("p5", 5), urgent("p1", 1)]).await;
    bed.add(line.to_vec()).await;
    let mut node = bed.node();
    node.work(json!({}));
    bed.reaches("p5", State::Completed).await;
    let late = NewJob {
        delay_ms: 150,
        ..new("late", "echo")
    };
    bed.add(vec![late]).await;
    let late = bed.reaches("late", State::Completed).await;
    assert_eq!(
        late.return_value.as_deref(),
        Some("{\"echo\":{\"id\":\"late\"}}")
    );
    assert_eq!(late.attempt, 1);
    let order = node.ask("order", json!({}));
    assert_eq!(order, json!(["fifo-1", "fifo-2", "p1", "p5", "late"]));
    assert_eq!(
        node.counts()["completed"],
        json!(2),
        "keep_completed holds for Node's workers"
    );
    bed.add(vec![new("flaky", "flaky"), new("hopeless", "hopeless")])
        .await;
    let flaky = bed.reaches("flaky", State::Completed).await;
    assert_eq!(
        (flaky.attempt, flaky.return_value.as_deref()),
        (3, Some("\"at last\""))
    );
    let hopeless = bed.reaches("hopeless", State::Failed).await;
    assert_eq!(
        (hopeless.attempt, hopeless.failed_reason.as_deref()),
        (3, Some("never"))
    );
    bed.backend.retry(QUEUE, "hopeless").await.unwrap();
    bed.reaches("hopeless", State::Failed).await;
}

#[tokio::test]
async fn each_side_wakes_the_other_at_once() {
    let bed = Bed::new();
    let mut node = bed.node();
    let queues = || vec![QUEUE.to_owned(), "other".to_owned()];
    assert_eq!(
        bed.backend.wake(queues()).await.unwrap(),
        queues(),
        "the first look is news"
    );
    let waiting = {
        let backend = bed.backend.clone();
        tokio::spawn(async move { backend.wake(queues()).await.unwrap() })
    };
    node.add("echo", json!(1), json!({ "jobId": "one" }));
    let woken = timeout(Duration::from_secs(3), waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(woken, [QUEUE]);
    assert_eq!(names(&bed.take(9).await), ["one"]);
    // A worker that waits for the marker, for longer than this test may last.
    node.work(json!({ "drainDelay": 600, "stalledInterval": 600_000 }));
    tokio::time::sleep(Duration::from_millis(300)).await;
    bed.add(vec![new("2", "echo")]).await;
    let begun = Instant::now();
    bed.reaches("2", State::Completed).await;
    bed.add(vec![NewJob {
        delay_ms: 200,
        ..new("three", "echo")
    }])
    .await;
    bed.reaches("three", State::Completed).await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn each_side_rescues_what_the_other_left() {
    let bed = Bed::new();
    bed.add(vec![new("theirs", "hang")]).await;
    let mut node = bed.node();
    node.work(json!({ "lockDuration": 500, "stalledInterval": 300 }));
    bed.reaches("theirs", State::Active).await;
    assert!(
        bed.backend.rescue(3, now_ms()).await.unwrap().is_empty(),
        "Node renews its lock"
    );
    drop(node);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(bed.backend.rescue(3, now_ms()).await.unwrap(), [QUEUE]);
    let taken = bed.take(1).await;
    assert_eq!((names(&taken), taken[0].attempt), (vec!["theirs"], 1));
    bed.settle(&taken[0], value("1")).await;

    bed.add(vec![new("ours", "echo")]).await;
    let taken = bed.take_for(1, 300).await.jobs;
    let mut node = bed.node();
    node.work(json!({ "stalledInterval": 200, "maxStalledCount": 5 }));
    bed.reaches("ours", State::Completed).await;
    bed.settle(&taken[0], Outcome::Failed(Failure::fatal("too late")))
        .await;
    assert_eq!(
        bed.get("ours").await.state,
        State::Completed,
        "the claim is void"
    );
}

#[tokio::test]
async fn a_pause_holds_on_both_sides() {
    let bed = Bed::new();
    let mut node = bed.node();
    bed.add(vec![new("1", "echo")]).await;
    node.ask("pause", json!({ "name": QUEUE }));
    bed.add(vec![new("2", "echo")]).await;
    assert!(bed.take(9).await.is_empty());
    assert!(bed.backend.counts(QUEUE).await.unwrap().paused);
    assert_eq!(node.counts()["paused"], json!(2));
    node.work(json!({}));
    bed.backend.pause(QUEUE, false).await.unwrap();
    bed.reaches("2", State::Completed).await;
    bed.backend.pause(QUEUE, true).await.unwrap();
    node.add("echo", json!(3), json!({ "jobId": "three" }));
    assert_eq!(bed.get("three").await.state, State::Paused);
    node.ask("resume", json!({ "name": QUEUE }));
    bed.reaches("three", State::Completed).await;
}

#[tokio::test]
async fn schedulers_go_on_on_both_sides() {
    let bed = Bed::new();
    let mut node = bed.node();
    let template = json!({ "name": "tick", "data": { "a": 1 }, "opts": { "attempts": 2 } });
    let every =
        json!({ "name": QUEUE, "id": "s", "repeat": { "every": 60_000 }, "template": template });
    let first = node.ask("upsert", every);
    let taken = bed.take(9).await;
    assert_eq!(
        (names(&taken)[0], taken[0].data.as_str()),
        (first.as_str().unwrap(), "{\"a\":1}")
    );
    let next = &bed.backend.list(QUEUE, State::Delayed, 0, 9).await.unwrap()[0];
    assert_eq!(
        (next.name.as_str(), next.data.as_str(), next.attempts),
        ("tick", "{\"a\":1}", 2)
    );
    let listed = node.ask("schedulers", json!({ "name": QUEUE }));
    assert_eq!(
        (&listed[0]["key"], &listed[0]["iterationCount"]),
        (&json!("s"), &json!(2))
    );
    assert_eq!(next.id, format!("repeat:s:{}", listed[0]["next"]));

    let ours = Recurrence {
        queue: QUEUE.to_owned(),
        name: "sweep".to_owned(),
        cron: "* * * * *".to_owned(),
        data: "{\"b\":2}".to_owned(),
    };
    let (queues, now) = (vec![QUEUE.to_owned()], now_ms());
    bed.backend
        .schedule(queues.clone(), vec![ours], next_due, now)
        .await
        .unwrap();
    let listed = node.ask("schedulers", json!({ "name": QUEUE }));
    let sweep = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|listed| listed["name"] == "sweep")
        .unwrap();
    assert_eq!(
        (&sweep["pattern"], &sweep["tz"]),
        (&json!("* * * * *"), &json!("UTC"))
    );
    assert_eq!(sweep["next"].as_i64(), next_due("* * * * *", now));
    bed.backend
        .recur(queues.clone(), next_due, now + 60_000)
        .await
        .unwrap();
    assert_eq!(
        names(&bed.take(9).await),
        [format!("repeat:{QUEUE}:sweep:{}", sweep["next"])]
    );
    // Ours go when they are no longer wanted; Node's are not ours.
    bed.backend
        .schedule(queues, vec![], next_due, now)
        .await
        .unwrap();
    let listed = node.ask("schedulers", json!({ "name": QUEUE }));
    assert_eq!(listed.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn counts_and_bull_board_show_our_queues() {
    let bed = Bed::new();
    let delayed = NewJob {
        delay_ms: 3_600_000,
        ..new("late", "echo")
    };
    bed.add(vec![
        new("1", "echo"),
        new("2", "echo"),
        new("3", "echo"),
        new("4", "echo"),
        delayed,
    ])
    .await;
    let taken = bed.take(3).await;
    bed.settle(&taken[0], value("{\"b\":2}")).await;
    bed.settle(&taken[1], Outcome::Failed(Failure::fatal("never")))
        .await;
    let mut node = bed.node();
    let counts = node.counts();
    for (state, count) in [
        ("waiting", 1),
        ("active", 1),
        ("completed", 1),
        ("failed", 1),
        ("delayed", 1),
    ] {
        assert_eq!(counts[state], json!(count), "{state}: {counts}");
    }
    let query = json!({ "activeQueue": QUEUE, "status": "failed", "page": "1" });
    let board = node.ask(
        "board",
        json!({ "names": [QUEUE, "events@exprsn-pulse"], "query": query }),
    );
    let shown = &board["queues"][0];
    assert_eq!(
        (&shown["name"], &shown["counts"]["failed"]),
        (&json!(QUEUE), &json!(1))
    );
    assert_eq!(shown["jobs"][0]["id"], json!("2"));
    assert_eq!(shown["jobs"][0]["failedReason"], json!("never"));
    assert_eq!(board["queues"].as_array().unwrap().len(), 2);
    assert!(
        node.ask("version", json!({ "name": QUEUE }))
            .as_str()
            .unwrap()
            .starts_with("bullmq:5.")
    );
}

#[tokio::test]
async fn a_node_producer_gets_the_result_of_what_is_done_here() {
    let bed = Bed::new();
    let mut node = bed.node();
    node.add("work", json!({}), json!({ "jobId": "good" }));
    node.add("work", json!({}), json!({ "jobId": "bad" }));
    let taken = bed.take(2).await;
    let waiting = tokio::task::spawn_blocking(move || {
        let good = node.ask("result", json!({ "name": QUEUE, "id": "good" }));
        (
            good,
            node.ask("result", json!({ "name": QUEUE, "id": "bad" })),
            node,
        )
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    bed.settle(&taken[0], value("[1,2]")).await;
    bed.settle(&taken[1], Outcome::Failed(Failure::fatal("broken")))
        .await;
    let (good, bad, mut node) = waiting.await.unwrap();
    assert_eq!(
        (good, bad),
        (json!({ "value": [1, 2] }), json!({ "error": "broken" }))
    );
    // The id by which BullMQ tells duplicates is free again when its job has ended.
    let once = json!({ "jobId": "first", "deduplication": { "id": "d" } });
    let again = |id: &str| json!({ "jobId": id, "deduplication": { "id": "d" } });
    assert_eq!(node.add("work", json!({}), once), "first");
    assert_eq!(node.add("work", json!({}), again("second")), "first");
    let taken = bed.take(1).await;
    bed.settle(&taken[0], value("1")).await;
    assert_eq!(node.add("work", json!({}), again("third")), "third");
}

#[tokio::test]
async fn parents_of_nodes_flows_wait_for_children_done_here() {
    let bed = Bed::new();
    let mut node = bed.node();
    let child = |id: &str, opts: Value| {
        let mut opts = opts;
        opts["jobId"] = json!(id);
        json!({ "name": "child", "queueName": QUEUE, "data": {}, "opts": opts })
    };
    let flow = |id: &str, children: Vec<Value>| json!({ "flow": { "name": "parent", "queueName": QUEUE, "opts": { "jobId": id }, "children": children } });
    node.ask(
        "flow",
        flow("p", vec![child("a", json!({})), child("b", json!({}))]),
    );
    let children = bed.take(9).await;
    assert_eq!(children.len(), 2, "the parent waits");
    bed.settle(&children[0], value("1")).await;
    assert!(bed.take(9).await.is_empty());
    bed.settle(&children[1], value("2")).await;
    let parent = bed.take(9).await;
    assert_eq!(names(&parent), ["p"]);
    bed.settle(&parent[0], value("3")).await;
    assert_eq!(node.job("p")["state"], json!("completed"));

    let failing = json!({ "failParentOnFailure": true });
    node.ask(
        "flow",
        flow("f", vec![child("c", failing), child("d", json!({}))]),
    );
    let children = bed.take(9).await;
    let failed = children.iter().find(|job| job.id == "c").unwrap();
    bed.settle(failed, Outcome::Failed(Failure::fatal("no")))
        .await;
    assert!(
        bed.take(9).await.is_empty(),
        "the parent fails when it would begin"
    );
    let parent = node.job("f");
    assert_eq!(
        (&parent["state"], &parent["failedReason"]),
        (
            &json!("failed"),
            &json!("child bull:timeline-fanout:c failed")
        )
    );

    let ignoring = json!({ "ignoreDependencyOnFailure": true });
    node.ask("flow", flow("g", vec![child("e", ignoring)]));
    let children = bed.take(9).await;
    bed.settle(&children[0], Outcome::Failed(Failure::fatal("no")))
        .await;
    assert_eq!(names(&bed.take(9).await), ["g"]);
}

#[tokio::test]
async fn limits_of_the_whole_queue_hold_here() {
    let bed = Bed::new();
    let mut node = bed.node();
    bed.add((0..6).map(|id| new(&id.to_string(), "echo")).collect())
        .await;
    node.ask("concurrency", json!({ "name": QUEUE, "max": 2 }));
    let taken = bed.take_for(9, 30_000).await;
    assert_eq!((names(&taken.jobs), taken.more), (vec!["0", "1"], false));
    bed.settle(&taken.jobs[0], value("1")).await;
    assert_eq!(names(&bed.take(9).await), ["2"]);
    node.ask("concurrency", json!({ "name": QUEUE, "max": 100 }));
    node.ask("limit", json!({ "name": QUEUE, "max": 2, "duration": 400 }));
    let taken = bed.take_for(9, 30_000).await;
    assert_eq!((names(&taken.jobs), taken.more), (vec!["3", "4"], false));
    let wait = taken.next_due_ms.unwrap() - now_ms();
    assert!((1..=400).contains(&wait), "{wait}");
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(names(&bed.take(9).await), ["5"]);
}
