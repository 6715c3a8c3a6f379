//! What every backend of jobs and events must do: one suite over the trait, run on each.

use super::{
    backend::{Backend, Error, Message, Recurrence, Subscription, Take, Taken},
    job::{Backoff, Counts, Failure, Job, NewJob, Outcome, Settings, State},
    limits::Config,
    redis::RedisBackend,
    schedule::next_due,
    sqlite::SqliteBackend,
};
use crate::{
    events::{Event, delivery_queue},
    name::ServiceName,
    redis::Redis,
    testing::RedisServer,
};
use std::sync::Arc;
use tempfile::TempDir;

pub(super) const T0: i64 = 1_800_000_000_000;
pub(super) const LEASE_MS: u64 = 30_000;
pub(super) const STALLED_MAX: u32 = 3;

/// Makes a test on each engine of every assertion.
macro_rules! on_each_engine {
    ($($name:ident,)*) => {$(
        mod $name {
            use super::Engine;

            #[tokio::test]
            async fn sqlite() {
                super::$name(Engine::Sqlite).await;
            }

            #[tokio::test]
            async fn redis() {
                super::$name(Engine::Redis).await;
            }
        }
    )*};
}

on_each_engine! {
    a_job_goes_from_waiting_through_active_to_completed,
    an_id_that_the_queue_holds_is_not_added_again,
    a_relayed_id_is_remembered_when_its_job_has_gone,
    failed_attempts_wait_as_in_bullmq_and_end_as_dead_letters,
    a_failure_without_retry_or_without_wait,
    queue_defaults_hold_where_a_job_says_nothing,
    ids_may_be_any_text,
    the_line_is_by_priority_then_first_in_first_out,
    delayed_jobs_join_the_end_of_the_line_when_due,
    stalled_jobs_return_to_the_front_and_fail_when_it_happens_too_often,
    renewed_leases_last_and_void_ones_are_told,
    a_lease_that_has_ended_counts_until_somebody_looks,
    released_jobs_keep_their_place_and_count_nothing,
    a_paused_queue_hands_out_nothing,
    finished_jobs_are_kept_up_to_their_limits,
    dead_letters_are_listed_and_replayed,
    a_full_queue_refuses_all_of_a_batch,
    listings_are_newest_first_and_paged,
    recurrences_add_each_occurrence_once,
    an_event_reaches_each_subscriber_once,
    subscriptions_last_until_the_manifest_drops_them,
    a_full_subscriber_misses_events_and_harms_neither_publisher_nor_others,
    age_alone_also_ends_events,
    counts_survive_any_order_of_operations,
    old_events_go_and_their_ids_are_remembered,
}

/// What stands behind the trait.
#[derive(Clone, Copy)]
pub(super) enum Engine {
    Sqlite,
    Redis,
}

/// Where the jobs are while a test runs.
enum Place {
    Folder(TempDir, SqliteBackend),
    Server(Arc<RedisServer>, Arc<Redis>),
}

/// A backend with nothing in it.
pub(super) struct Bed {
    place: Place,
    pub backend: Arc<dyn Backend>,
}

impl Bed {
    pub fn new(engine: Engine) -> Self {
        Self::with(engine, Config::default())
    }

    pub fn with(engine: Engine, config: Config) -> Self {
        match engine {
            Engine::Sqlite => Self::in_folder(tempfile::tempdir().unwrap(), &config),
            Engine::Redis => Self::on_server(Arc::new(RedisServer::start()), &config),
        }
    }

    fn in_folder(folder: TempDir, config: &Config) -> Self {
        let backend = SqliteBackend::open(&folder.path().join("broker.db"), config, T0).unwrap();
        Self {
            place: Place::Folder(folder, backend.clone()),
            backend: Arc::new(backend),
        }
    }

    fn on_server(server: Arc<RedisServer>, config: &Config) -> Self {
        let redis = Arc::new(Redis::new(server.url()).unwrap());
        Self {
            place: Place::Server(server, redis.clone()),
            backend: Arc::new(RedisBackend::new(redis, config)),
        }
    }

    /// What a host finds that starts after this one was killed now: the data as it is, nothing closed.
    pub fn killed(&self) -> Self {
        match &self.place {
            Place::Folder(from, _) => Self::in_folder(copied(from), &Config::default()),
            Place::Server(server, _) => Self::on_server(server.clone(), &Config::default()),
        }
    }

    /// The file's backend as what it is.
    pub fn file(&self) -> &SqliteBackend {
        match &self.place {
            Place::Folder(_, backend) => backend,
            Place::Server(..) => panic!("only the embedded backend has a file"),
        }
    }

    /// The server's connection.
    pub fn redis(&self) -> &Redis {
        match &self.place {
            Place::Server(_, redis) => redis,
            Place::Folder(..) => panic!("the embedded backend has no server"),
        }
    }

    /// Ends all leases where it is not the given time that does.
    async fn lapse(&self) {
        let Place::Server(_, redis) = &self.place else {
            return;
        };
        let locks: Vec<String> = redis
            .query(redis::cmd("KEYS").arg("bull:*:lock"))
            .await
            .unwrap();
        for lock in locks {
            let _: u64 = redis.query(redis::cmd("DEL").arg(lock)).await.unwrap();
        }
    }

    pub async fn declare(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::default();
        change(&mut settings);
        self.backend.declare("q", settings).await.unwrap();
    }

    pub async fn add(&self, jobs: &[NewJob]) {
        self.backend
            .add_many("q", jobs.to_vec(), 1_000_000, T0)
            .await
            .unwrap();
    }

    pub async fn add_ids(&self, ids: &[&str]) {
        let jobs: Vec<_> = ids.iter().map(|id| new(id)).collect();
        self.add(&jobs).await;
    }

    pub async fn relay(&self, ids: &[&str]) {
        let batch = ids
            .iter()
            .map(|id| Message::Job {
                queue: "q".to_owned(),
                job: new(id),
            })
            .collect();
        self.backend.deliver(batch, 1_000, T0).await.unwrap();
    }

    pub async fn take_at(&self, count: usize, now_ms: i64) -> Taken {
        let take = Take {
            count,
            lease: rand::random(),
            lease_ms: LEASE_MS,
        };
        self.backend
            .settle("q", Arc::default(), Some(take), now_ms)
            .await
            .unwrap()
    }

    pub async fn take(&self, count: usize) -> Vec<Job> {
        self.take_at(count, T0).await.jobs
    }

    pub async fn settle_at(&self, jobs: &[Job], outcome: Outcome, now_ms: i64) {
        let outcomes = jobs
            .iter()
            .map(|job| (job.claim.clone(), outcome.clone()))
            .collect();
        self.backend
            .settle("q", Arc::new(outcomes), None, now_ms)
            .await
            .unwrap();
    }

    pub async fn settle(&self, jobs: &[Job], outcome: Outcome) {
        self.settle_at(jobs, outcome, T0).await;
    }

    pub async fn get(&self, id: &str) -> Job {
        self.backend.get("q", id).await.unwrap()
    }

    pub async fn list(&self, state: State) -> Vec<String> {
        ids(&self.backend.list("q", state, 0, 100).await.unwrap())
    }

    pub async fn counts(&self) -> Counts {
        self.audit().await;
        self.backend.counts("q").await.unwrap()
    }

    /// Whatever happened, each job is in one state, and the counts are those of the jobs.
    pub async fn audit(&self) {
        match &self.place {
            Place::Folder(_, backend) => backend.audit().await,
            Place::Server(_, redis) => audit_redis(redis).await,
        }
    }
}

/// A copy of a database's files as a killed process leaves them.
fn copied(from: &TempDir) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from.path()).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    folder
}

/// Every job's hash is named by exactly one list or set, and each of these names jobs that are there.
async fn audit_redis(redis: &Redis) {
    let script = redis::Script::new(
        "local wrong, held = {}, {}
         for _, name in ipairs(redis.call('SMEMBERS', 'exprsn:queues')) do
           local p = 'bull:' .. name .. ':'
           local function see(id)
             held[p .. id] = (held[p .. id] or 0) + 1
           end
           for _, list in ipairs({'wait', 'paused', 'active'}) do
             for _, id in ipairs(redis.call('LRANGE', p .. list, 0, -1)) do see(id) end
           end
           for _, set in ipairs({'delayed', 'prioritized', 'completed', 'failed'}) do
             for _, id in ipairs(redis.call('ZRANGE', p .. set, 0, -1)) do see(id) end
           end
         end
         for key, times in pairs(held) do
           if times ~= 1 or redis.call('HEXISTS', key, 'opts') == 0 then wrong[#wrong + 1] = key end
         end
         for _, key in ipairs(redis.call('KEYS', 'bull:*')) do
           if redis.call('TYPE', key).ok == 'hash' and redis.call('HEXISTS', key, 'opts') == 1 and not held[key] then
             wrong[#wrong + 1] = key
           end
         end
         return wrong",
    );
    let wrong: Vec<String> = redis.invoke(&script.prepare_invoke()).await.unwrap();
    assert_eq!(
        wrong,
        Vec::<String>::new(),
        "each job must be in exactly one state"
    );
}

pub(super) fn new(id: &str) -> NewJob {
    NewJob::new(id, "work", "{}")
}

pub(super) fn ids(jobs: &[Job]) -> Vec<String> {
    jobs.iter().map(|job| job.id.clone()).collect()
}

pub(super) fn retry() -> Outcome {
    Outcome::Failed(Failure::retry("no luck"))
}

pub(super) fn done() -> Outcome {
    Outcome::Completed(None)
}

pub(super) fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

async fn a_job_goes_from_waiting_through_active_to_completed(engine: Engine) {
    let bed = Bed::new(engine);
    let mut job = new("1");
    job.origin = Some(service("exprsn-a"));
    job.trace = crate::trace::TraceContext::parse(
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    bed.add(&[job.clone()]).await;
    let waiting = bed.get("1").await;
    assert_eq!(
        (
            waiting.state,
            waiting.attempt,
            waiting.attempts,
            waiting.created_at
        ),
        (State::Waiting, 0, 3, T0)
    );
    let active = bed.take_at(5, T0 + 7).await.jobs;
    assert_eq!(
        (active[0].state, active[0].attempt, active[0].processed_at),
        (State::Active, 1, Some(T0 + 7))
    );
    assert_eq!(
        (&active[0].origin, active[0].trace),
        (&job.origin, job.trace)
    );
    assert!(
        bed.take(5).await.is_empty(),
        "a leased job is handed out once"
    );
    bed.settle_at(&active, Outcome::Completed(Some("42".to_owned())), T0 + 9)
        .await;
    let completed = bed.get("1").await;
    assert_eq!(
        (completed.state, completed.attempt, completed.finished_at),
        (State::Completed, 1, Some(T0 + 9))
    );
    assert_eq!(
        (completed.return_value.as_deref(), completed.failed_reason),
        (Some("42"), None)
    );
    assert_eq!(
        bed.counts().await,
        Counts {
            completed: 1,
            ..Counts::default()
        }
    );
}

async fn an_id_that_the_queue_holds_is_not_added_again(engine: Engine) {
    let bed = Bed::new(engine);
    bed.add_ids(&["1", "1", "2"]).await;
    bed.add_ids(&["1"]).await;
    assert_eq!(bed.counts().await.waiting, 2);
    let taken = bed.take(9).await;
    bed.add_ids(&["1"]).await;
    bed.settle(&taken, done()).await;
    bed.add_ids(&["1"]).await;
    assert_eq!(
        bed.counts().await,
        Counts {
            completed: 2,
            ..Counts::default()
        }
    );
    bed.backend
        .add_many("other", vec![new("1")], 9, T0)
        .await
        .unwrap();
    assert_eq!(bed.backend.counts("other").await.unwrap().waiting, 1);
}

async fn a_relayed_id_is_remembered_when_its_job_has_gone(engine: Engine) {
    let bed = Bed::new(engine);
    bed.declare(|settings| settings.keep_completed = 0).await;
    bed.relay(&["1", "2"]).await;
    bed.settle(&bed.take(1).await, done()).await;
    bed.declare(|settings| settings.keep_completed = 1).await;
    bed.relay(&["3"]).await;
    bed.settle(&bed.take(2).await, done()).await;
    bed.relay(&["4"]).await;
    bed.backend.remove("q", "4").await.unwrap();
    assert_eq!(bed.list(State::Completed).await, ["3"]);
    bed.relay(&["1", "2", "3", "4", "5"]).await;
    assert_eq!(bed.list(State::Waiting).await, ["5"]);
    // A producer may use the id again, as in BullMQ.
    bed.add_ids(&["1"]).await;
    assert_eq!(
        bed.counts().await,
        Counts {
            waiting: 2,
            completed: 1,
            ..Counts::default()
        }
    );
}

async fn failed_attempts_wait_as_in_bullmq_and_end_as_dead_letters(engine: Engine) {
    let bed = Bed::new(engine);
    let mut job = new("1");
    (job.attempts, job.backoff) = (Some(4), Some(Backoff::Exponential { delay_ms: 1_000 }));
    bed.add(&[job]).await;
    let mut now = T0;
    for wait in [1_000, 2_000, 4_000] {
        let taken = bed.take_at(1, now).await;
        bed.settle_at(&taken.jobs, retry(), now).await;
        let delayed = bed.get("1").await;
        assert_eq!(
            (delayed.state, delayed.failed_reason.as_deref()),
            (State::Delayed, Some("no luck"))
        );
        let early = bed.take_at(1, now + wait - 1).await;
        assert_eq!((early.jobs.len(), early.next_due_ms), (0, Some(now + wait)));
        now += wait;
    }
    let last = bed.take_at(1, now).await.jobs;
    assert_eq!((last[0].attempt, last[0].attempts), (4, 4));
    bed.settle_at(&last, retry(), now).await;
    let failed = bed.get("1").await;
    assert_eq!(
        (failed.state, failed.attempt, failed.finished_at),
        (State::Failed, 4, Some(now))
    );
    assert_eq!(
        bed.counts().await,
        Counts {
            failed: 1,
            ..Counts::default()
        }
    );
}

async fn a_failure_without_retry_or_without_wait(engine: Engine) {
    let bed = Bed::new(engine);
    bed.declare(|settings| settings.backoff = Backoff::Fixed { delay_ms: 0 })
        .await;
    bed.add_ids(&["fatal", "again", "other"]).await;
    let taken = bed.take(2).await;
    bed.settle(&taken[..1], Outcome::Failed(Failure::fatal("never")))
        .await;
    bed.settle(&taken[1..], retry()).await;
    assert_eq!(bed.list(State::Failed).await, ["fatal"]);
    // It joins the end of the line.
    assert_eq!(ids(&bed.take(2).await), ["other", "again"]);
    bed.audit().await;
}

async fn queue_defaults_hold_where_a_job_says_nothing(engine: Engine) {
    let bed = Bed::new(engine);
    bed.add_ids(&["1"]).await;
    bed.declare(|settings| (settings.attempts, settings.timeout_ms) = (1, 77))
        .await;
    let taken = bed.take(1).await;
    assert_eq!((taken[0].attempts, taken[0].timeout_ms), (1, 77));
    bed.settle(&taken, retry()).await;
    assert_eq!(bed.get("1").await.state, State::Failed);
}

async fn ids_may_be_any_text(engine: Engine) {
    let bed = Bed::new(engine);
    let odd = [
        "wait", "active", "delayed", "paused", "meta", "events", "id", "1", "1:lock", "1:lock~",
        "~", "de:1", "a b", "é",
    ];
    bed.add_ids(&odd).await;
    bed.add_ids(&odd).await;
    assert_eq!(bed.counts().await.waiting, odd.len() as u64);
    let taken = bed.take(100).await;
    assert_eq!(ids(&taken), odd);
    for id in odd {
        assert_eq!(bed.get(id).await.id, id);
    }
    bed.settle(&taken, Outcome::Failed(Failure::fatal("x")))
        .await;
    for id in odd {
        bed.backend.retry("q", id).await.unwrap();
        bed.backend.remove("q", id).await.unwrap();
    }
    assert_eq!(bed.counts().await, Counts::default());
    bed.subscribe("exprsn-pulse", &[("*", 1)]).await;
    for id in ["x", "x:lock"] {
        bed.publish(event(id, "a")).await;
    }
    let deliveries = bed.deliveries("exprsn-pulse").await;
    assert_eq!(
        Event::from_delivery(&deliveries[0]),
        Some(event("x:lock", "a"))
    );
}

async fn the_line_is_by_priority_then_first_in_first_out(engine: Engine) {
    let bed = Bed::new(engine);
    let prioritized = |id: &str, priority: u32| NewJob {
        priority,
        ..new(id)
    };
    bed.add(&[
        prioritized("c", 5),
        prioritized("b", 1),
        new("a"),
        prioritized("d", 5),
        new("a2"),
    ])
    .await;
    let counts = bed.counts().await;
    assert_eq!((counts.waiting, counts.prioritized), (2, 3));
    assert_eq!(bed.get("c").await.state, State::Prioritized);
    assert_eq!(bed.list(State::Prioritized).await, ["d", "c", "b"]);
    assert_eq!(ids(&bed.take(3).await), ["a", "a2", "b"]);
    assert_eq!(ids(&bed.take(3).await), ["c", "d"]);
    bed.audit().await;
}

async fn delayed_jobs_join_the_end_of_the_line_when_due(engine: Engine) {
    let bed = Bed::new(engine);
    let delayed = |id: &str, delay_ms: u64| NewJob {
        delay_ms,
        ..new(id)
    };
    bed.add(&[
        delayed("late", 200),
        delayed("soon", 100),
        NewJob {
            priority: 1,
            ..delayed("urgent", 150)
        },
    ])
    .await;
    bed.add_ids(&["now"]).await;
    assert_eq!(bed.counts().await.delayed, 3);
    assert_eq!(bed.list(State::Delayed).await, ["late", "urgent", "soon"]);
    let taken = bed.take_at(0, T0 + 99).await;
    assert_eq!(taken.next_due_ms, Some(T0 + 100));
    let taken = bed.take_at(9, T0 + 150).await;
    assert_eq!(
        (ids(&taken.jobs), taken.next_due_ms),
        (
            vec!["now".into(), "soon".into(), "urgent".into()],
            Some(T0 + 200)
        )
    );
    assert_eq!(bed.take_at(9, T0 + 200).await.next_due_ms, None);
    bed.audit().await;
}

async fn stalled_jobs_return_to_the_front_and_fail_when_it_happens_too_often(engine: Engine) {
    let bed = Bed::new(engine);
    bed.add_ids(&["1", "2"]).await;
    let mut now = T0;
    for _ in 0..STALLED_MAX {
        let taken = bed.take_at(1, now).await.jobs;
        assert_eq!(
            (taken[0].id.as_str(), taken[0].attempt),
            ("1", 1),
            "a stall is no attempt"
        );
        now += LEASE_MS as i64;
        assert!(
            bed.backend
                .rescue(STALLED_MAX, now)
                .await
                .unwrap()
                .is_empty(),
            "the lease ends after this instant"
        );
        now += 1;
        bed.lapse().await;
        assert_eq!(bed.backend.rescue(STALLED_MAX, now).await.unwrap(), ["q"]);
        bed.settle_at(&taken, done(), now).await;
        assert_eq!(
            bed.get("1").await.state,
            State::Waiting,
            "the outcome of a void claim counts for nothing"
        );
    }
    bed.take_at(1, now).await;
    now += LEASE_MS as i64 + 1;
    bed.lapse().await;
    bed.backend.rescue(STALLED_MAX, now).await.unwrap();
    let failed = bed.get("1").await;
    assert_eq!(
        failed.failed_reason.as_deref(),
        Some("job stalled more than allowable limit")
    );
    assert_eq!(
        bed.counts().await,
        Counts {
            waiting: 1,
            failed: 1,
            ..Counts::default()
        }
    );
}

async fn renewed_leases_last_and_void_ones_are_told(engine: Engine) {
    let bed = Bed::new(engine);
    bed.add_ids(&["1", "2"]).await;
    let taken = bed.take(2).await;
    bed.settle(&taken[1..], Outcome::Released).await;
    let claims = taken.iter().map(|job| job.claim.clone()).collect();
    let until = T0 + 10 * LEASE_MS as i64;
    assert_eq!(
        bed.backend.extend(claims, 10 * LEASE_MS, T0).await.unwrap(),
        [taken[1].claim.clone()]
    );
    bed.backend.rescue(STALLED_MAX, until).await.unwrap();
    assert_eq!(bed.get("1").await.state, State::Active);
}

async fn a_lease_that_has_ended_counts_until_somebody_looks(engine: Engine) {
    let bed = Bed::new(engine);
    bed.add_ids(&["1", "2"]).await;
    let taken = bed.take(2).await;
    let late = T0 + 2 * LEASE_MS as i64;
    bed.lapse().await;
    bed.settle_at(&taken[..1], done(), late).await;
    assert_eq!(bed.get("1").await.state, State::Completed);
    let claim = vec![taken[1].claim.clone()];
    let void = bed.backend.extend(claim, LEASE_MS, late).await.unwrap();
    assert!(void.is_empty());
    assert!(
        bed.backend
            .rescue(STALLED_MAX, late)
            .await
            .unwrap()
            .is_empty()
    );
    bed.audit().await;
}

async fn released_jobs_keep_their_place_and_count_nothing(engine: Engine) {
    let bed = Bed::new(engine);
    bed.add_ids(&["1", "2", "3"]).await;
    let taken = bed.take(2).await;
    bed.settle(&taken, Outcome::Released).await;
    let again = bed.take(3).await;
    assert_eq!(
        (ids(&again), again[0].attempt),
        (vec!["1".into(), "2".into(), "3".into()], 1)
    );
    bed.audit().await;
}

async fn a_paused_queue_hands_out_nothing(engine: Engine) {
    let bed = Bed::new(engine);
    bed.add_ids(&["1", "2"]).await;
    let active = bed.take(1).await;
    bed.backend.pause("q", true).await.unwrap();
    assert!(bed.take(9).await.is_empty());
    bed.settle(&active, done()).await;
    assert_eq!(
        bed.counts().await,
        Counts {
            waiting: 1,
            completed: 1,
            paused: true,
            ..Counts::default()
        }
    );
    assert_eq!(bed.get("2").await.state, State::Paused);
    assert_eq!(
        (
            bed.list(State::Paused).await,
            bed.list(State::Waiting).await
        ),
        (vec!["2".into()], vec!["2".into()])
    );
    bed.backend.pause("q", false).await.unwrap();
    assert!(bed.list(State::Paused).await.is_empty());
    assert_eq!(ids(&bed.take(9).await), ["2"]);
}

async fn finished_jobs_are_kept_up_to_their_limits(engine: Engine) {
    let bed = Bed::new(engine);
    bed.declare(|settings| (settings.keep_completed, settings.keep_failed) = (2, 1))
        .await;
    bed.add_ids(&["1", "2", "3", "4", "5", "6"]).await;
    for (at, job) in bed.take(4).await.into_iter().enumerate() {
        bed.settle_at(&[job], done(), T0 + at as i64).await;
    }
    bed.settle(&bed.take(2).await, Outcome::Failed(Failure::fatal("x")))
        .await;
    assert_eq!(bed.list(State::Completed).await, ["4", "3"]);
    assert_eq!(bed.list(State::Failed).await, ["6"]);
    assert_eq!(
        bed.counts().await,
        Counts {
            completed: 2,
            failed: 1,
            ..Counts::default()
        }
    );
    assert!(matches!(
        bed.backend.get("q", "1").await,
        Err(Error::NotFound)
    ));
}

async fn dead_letters_are_listed_and_replayed(engine: Engine) {
    let bed = Bed::new(engine);
    bed.declare(|settings| {
        (settings.attempts, settings.backoff) = (2, Backoff::Fixed { delay_ms: 0 })
    })
    .await;
    bed.add_ids(&["1"]).await;
    for _ in 0..2 {
        bed.settle(&bed.take(1).await, retry()).await;
    }
    assert_eq!(bed.list(State::Failed).await, ["1"]);
    bed.backend.retry("q", "1").await.unwrap();
    let replayed = bed.get("1").await;
    assert_eq!(
        (replayed.state, replayed.attempt, replayed.failed_reason),
        (State::Waiting, 0, None)
    );
    assert!(
        matches!(bed.backend.retry("q", "1").await, Err(Error::Invalid(text)) if text.contains("has not failed"))
    );
    let taken = bed.take(1).await;
    assert_eq!(taken[0].attempt, 1);
    assert!(
        matches!(bed.backend.remove("q", "1").await, Err(Error::Invalid(text)) if text.contains("is active"))
    );
    bed.settle(&taken, done()).await;
    bed.backend.remove("q", "1").await.unwrap();
    assert!(matches!(
        bed.backend.remove("q", "1").await,
        Err(Error::NotFound)
    ));
    assert!(matches!(
        bed.backend.retry("nowhere", "1").await,
        Err(Error::NotFound)
    ));
    assert_eq!(bed.counts().await, Counts::default());
}

async fn a_full_queue_refuses_all_of_a_batch(engine: Engine) {
    let bed = Bed::new(engine);
    bed.add_ids(&["1", "2"]).await;
    let refused = bed
        .backend
        .add_many("q", vec![new("3"), new("4")], 3, T0)
        .await;
    assert!(
        matches!(refused, Err(Error::LimitExceeded(text)) if text.contains("holds 2") && text.contains("pending_max is 3"))
    );
    assert_eq!(bed.counts().await.waiting, 2);
    bed.backend
        .add_many("q", vec![new("3")], 3, T0)
        .await
        .unwrap();
    bed.relay(&["4"]).await;
    assert_eq!(
        bed.counts().await.waiting,
        4,
        "what a transaction promised is taken"
    );
}

async fn listings_are_newest_first_and_paged(engine: Engine) {
    let bed = Bed::new(engine);
    bed.add_ids(&["1", "2", "3", "4"]).await;
    let page = bed.backend.list("q", State::Waiting, 1, 2).await.unwrap();
    assert_eq!(ids(&page), ["3", "2"]);
    assert!(
        bed.backend
            .list("nowhere", State::Waiting, 0, 2)
            .await
            .unwrap()
            .is_empty()
    );
    let queues = bed.backend.overview().await.unwrap();
    assert_eq!(
        queues,
        [(
            "q".to_owned(),
            Counts {
                waiting: 4,
                ..Counts::default()
            }
        )]
    );
}

async fn recurrences_add_each_occurrence_once(engine: Engine) {
    const MINUTE: i64 = 60_000;
    let bed = Bed::new(engine);
    let every = |cron: &str| Recurrence {
        queue: "q".to_owned(),
        name: "tick".to_owned(),
        cron: cron.to_owned(),
        data: "1".to_owned(),
    };
    let queues = || vec!["q".to_owned()];
    let first = next_due("*/5 * * * *", T0).unwrap();
    bed.backend
        .schedule(queues(), vec![every("*/5 * * * *")], next_due, T0)
        .await
        .unwrap();
    assert_eq!(
        bed.backend.recur(queues(), next_due, T0).await.unwrap(),
        (vec![], Some(first))
    );
    for _ in 0..2 {
        let (touched, next) = bed.backend.recur(queues(), next_due, first).await.unwrap();
        assert!(touched.len() <= 1 && next == Some(first + 5 * MINUTE));
    }
    assert_eq!(
        bed.list(State::Waiting).await,
        [format!("repeat:q:tick:{first}")]
    );
    // Down for an hour: one job makes up for what was missed, and the schedule survives the restart.
    let next = bed.killed();
    next.backend
        .schedule(
            queues(),
            vec![every("*/5 * * * *")],
            next_due,
            first + 60 * MINUTE,
        )
        .await
        .unwrap();
    let (touched, due) = next
        .backend
        .recur(queues(), next_due, first + 60 * MINUTE)
        .await
        .unwrap();
    assert_eq!((touched, due), (queues(), Some(first + 65 * MINUTE)));
    assert_eq!(next.counts().await.waiting, 2);
    // Another host adds the same occurrence: the id is held.
    next.backend
        .schedule(queues(), vec![every("*/7 * * * *")], next_due, T0)
        .await
        .unwrap();
    assert_ne!(
        next.backend.recur(queues(), next_due, T0).await.unwrap().1,
        due
    );
    next.backend
        .schedule(queues(), vec![], next_due, T0)
        .await
        .unwrap();
    assert_eq!(
        next.backend
            .recur(queues(), next_due, i64::MAX)
            .await
            .unwrap(),
        (vec![], None)
    );
}

pub(super) fn event(id: &str, topic: &str) -> Event {
    Event {
        id: id.to_owned(),
        source: service("exprsn-timeline"),
        topic: topic.to_owned(),
        subject: Some("s".to_owned()),
        time: T0,
        data: "{\"a\":1}".to_owned(),
        trace: None,
    }
}

impl Bed {
    pub async fn publish(&self, event: Event) {
        self.backend
            .deliver(vec![Message::Event(event)], 1_000, T0)
            .await
            .unwrap();
    }

    pub async fn subscribe(&self, name: &str, topics: &[(&str, u32)]) {
        let wanted = topics
            .iter()
            .map(|(topic, attempts)| Subscription {
                service: service(name),
                topic: (*topic).to_owned(),
                attempts: *attempts,
            })
            .collect();
        self.backend
            .subscribe(&service(name), wanted)
            .await
            .unwrap();
    }

    pub async fn deliveries(&self, name: &str) -> Vec<Job> {
        self.audit().await;
        self.backend
            .list(&delivery_queue(&service(name)), State::Waiting, 0, 100)
            .await
            .unwrap()
    }
}

async fn an_event_reaches_each_subscriber_once(engine: Engine) {
    let bed = Bed::new(engine);
    bed.subscribe(
        "exprsn-pulse",
        &[("*", 2), ("post.*", 5), ("post.created", 7)],
    )
    .await;
    bed.subscribe("exprsn-herald", &[("user.*", 3)]).await;
    for _ in 0..3 {
        bed.publish(event("1", "post.created")).await;
    }
    let mut other = event("1", "post.created");
    other.source = service("exprsn-bridge");
    bed.publish(other.clone()).await;
    bed.publish(event("2", "user.created")).await;
    let pulse = bed.deliveries("exprsn-pulse").await;
    assert_eq!(
        ids(&pulse),
        ["exprsn-timeline/2", "exprsn-bridge/1", "exprsn-timeline/1"]
    );
    assert_eq!(
        (pulse[2].attempts, pulse[0].attempts),
        (7, 2),
        "the most specific subscription decides"
    );
    assert_eq!(Event::from_delivery(&pulse[1]), Some(other));
    assert_eq!(
        ids(&bed.deliveries("exprsn-herald").await),
        ["exprsn-timeline/2"]
    );
    assert_eq!(bed.backend.events("post.*", 10).await.unwrap().len(), 2);
    assert_eq!(
        bed.backend.events("*", 1).await.unwrap(),
        [event("2", "user.created")]
    );
}

async fn subscriptions_last_until_the_manifest_drops_them(engine: Engine) {
    let bed = Bed::new(engine);
    bed.subscribe("exprsn-pulse", &[("post.*", 3)]).await;
    let next = bed.killed();
    next.publish(event("1", "post.created")).await;
    assert_eq!(
        next.deliveries("exprsn-pulse").await.len(),
        1,
        "a stopped service gets its events later"
    );
    next.subscribe("exprsn-pulse", &[("user.*", 3)]).await;
    next.publish(event("2", "post.created")).await;
    assert_eq!(next.deliveries("exprsn-pulse").await.len(), 1);
    assert_eq!(next.backend.subscriptions().await.unwrap().len(), 1);
}

async fn a_full_subscriber_misses_events_and_harms_neither_publisher_nor_others(engine: Engine) {
    let bed = Bed::new(engine);
    bed.subscribe("exprsn-pulse", &[("*", 3)]).await;
    bed.publish(event("1", "a")).await;
    bed.subscribe("exprsn-herald", &[("*", 3)]).await;
    let delivered = bed
        .backend
        .deliver(vec![Message::Event(event("2", "a"))], 1, T0)
        .await
        .unwrap();
    assert_eq!(delivered.queues, ["events:exprsn-herald"]);
    assert_eq!(
        delivered.missed.into_iter().collect::<Vec<_>>(),
        [(service("exprsn-pulse"), 1)]
    );
    assert_eq!(bed.deliveries("exprsn-pulse").await.len(), 1);
    assert_eq!(bed.deliveries("exprsn-herald").await.len(), 1);
    // The event is known all the same: published again, it is delivered to nobody.
    bed.publish(event("2", "a")).await;
    assert_eq!(bed.deliveries("exprsn-herald").await.len(), 1);
}

async fn age_alone_also_ends_events(engine: Engine) {
    let bed = Bed::with(
        engine,
        Config {
            events_ms_max: 1_000,
            ..Config::default()
        },
    );
    bed.publish(event("1", "a")).await;
    bed.publish(Event {
        time: T0 + 500,
        ..event("2", "a")
    })
    .await;
    bed.backend.tidy(T0 + 1_001).await.unwrap();
    assert_eq!(bed.backend.events("*", 10).await.unwrap()[0].id, "2");
    assert_eq!(bed.backend.events("*", 10).await.unwrap().len(), 1);
}

/// Random operations on a few jobs: the counts stay those of the jobs, and no job is in two hands.
async fn counts_survive_any_order_of_operations(engine: Engine) {
    use rand::{Rng as _, SeedableRng as _};
    let bed = Bed::new(engine);
    bed.declare(|settings| (settings.keep_completed, settings.keep_failed) = (3, 3))
        .await;
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let (mut now, mut held) = (T0, Vec::<Job>::new());
    for step in 0..400 {
        now += random.random_range(0..2_000);
        let id = format!("{}", random.random_range(0..12));
        match random.random_range(0..9) {
            0 | 1 => {
                let mut job = new(&id);
                (job.priority, job.delay_ms) =
                    (random.random_range(0..3), random.random_range(0..2) * 1_500);
                bed.backend
                    .add_many("q", vec![job], 100, now)
                    .await
                    .unwrap();
            }
            2 | 3 => held.extend(bed.take_at(2, now).await.jobs),
            4 => bed.settle_at(&std::mem::take(&mut held), done(), now).await,
            5 => {
                bed.settle_at(&std::mem::take(&mut held), retry(), now)
                    .await
            }
            6 => {
                bed.lapse().await;
                drop(bed.backend.rescue(STALLED_MAX, now).await.unwrap());
            }
            7 => drop(bed.backend.remove("q", &id).await),
            _ => drop(bed.backend.retry("q", &id).await),
        }
        let counts = bed.counts().await;
        assert!(counts.completed <= 3, "step {step}: {counts:?}");
    }
}

async fn old_events_go_and_their_ids_are_remembered(engine: Engine) {
    let bed = Bed::with(
        engine,
        Config {
            events_max: 2,
            ..Config::default()
        },
    );
    bed.subscribe("exprsn-pulse", &[("*", 3)]).await;
    for id in ["1", "2", "3", "4"] {
        bed.publish(event(id, "a")).await;
    }
    assert!(!bed.backend.tidy(T0).await.unwrap());
    let kept = bed.backend.events("*", 10).await.unwrap();
    assert_eq!(kept, [event("4", "a"), event("3", "a")]);
    bed.publish(event("1", "a")).await;
    assert_eq!(bed.deliveries("exprsn-pulse").await.len(), 4);
}
