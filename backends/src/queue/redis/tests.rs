//! The production backend's own: servers that die, hosts that share one, and what others write to its streams.

use super::*;
use crate::{
    queue::{
        conformance::{Bed, Engine, T0, done, event, ids, new, retry, service},
        schedule::next_due,
    },
    testing::RedisServer,
};
use std::time::{Duration, Instant};
use tokio::time::timeout;

fn host(server: &RedisServer) -> RedisBackend {
    RedisBackend::new(
        Arc::new(Redis::new(server.url()).unwrap()),
        &Config::default(),
    )
}

async fn take(backend: &RedisBackend, count: usize) -> Vec<Job> {
    let take = Take {
        count,
        lease: rand::random(),
        lease_ms: 30_000,
    };
    let taken = backend.settle("q", Arc::default(), Some(take), T0);
    taken.await.unwrap().jobs
}

#[tokio::test]
async fn a_killed_server_loses_nothing_that_was_acknowledged() {
    let mut server = RedisServer::start();
    let backend = host(&server);
    let wanted = Subscription {
        service: service("exprsn-pulse"),
        topic: "*".to_owned(),
        attempts: 3,
    };
    backend
        .subscribe(&wanted.service.clone(), vec![wanted])
        .await
        .unwrap();
    let mut added = Vec::new();
    for round in 0..3 {
        for number in 0..50 {
            let id = format!("{round}-{number}");
            backend
                .add_many("q", vec![new(&id)], 1_000, T0)
                .await
                .unwrap();
            added.push(id);
        }
        let published = vec![Message::Event(event(&round.to_string(), "a"))];
        backend.deliver(published, 1_000, T0).await.unwrap();
        server.kill();
        let begun = Instant::now();
        let refused = backend.add_many("q", vec![new("away")], 1_000, T0).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "the answer comes at once"
        );
        server.restart();
    }
    assert_eq!(ids(&take(&backend, 1_000).await), added);
    assert_eq!(
        backend.counts("events:exprsn-pulse").await.unwrap().waiting,
        3
    );
}

#[tokio::test]
async fn hosts_compete_for_jobs_and_add_an_occurrence_once() {
    let server = RedisServer::start();
    let hosts = [host(&server), host(&server), host(&server)];
    let jobs = (0..300).map(|id| new(&id.to_string())).collect();
    hosts[0].add_many("q", jobs, 1_000, T0).await.unwrap();
    let took = hosts.iter().map(|host| async {
        let mut took = Vec::new();
        loop {
            let jobs = take(host, 7).await;
            if jobs.is_empty() {
                return took;
            }
            took.extend(ids(&jobs));
        }
    });
    let mut all: Vec<String> = futures::future::join_all(took).await.concat();
    all.sort_by_key(|id| id.parse::<u32>().unwrap());
    assert!(
        all.iter()
            .map(String::as_str)
            .eq((0..300).map(|id| id.to_string()).collect::<Vec<_>>())
    );

    let every = Recurrence {
        queue: "r".to_owned(),
        name: "tick".to_owned(),
        cron: "* * * * *".to_owned(),
        data: "1".to_owned(),
    };
    for host in &hosts {
        host.schedule(vec!["r".to_owned()], vec![every.clone()], next_due, T0)
            .await
            .unwrap();
    }
    let recurred = hosts
        .iter()
        .map(|host| host.recur(vec!["r".to_owned()], next_due, T0 + 60_000));
    futures::future::join_all(recurred).await;
    assert_eq!(hosts[0].counts("r").await.unwrap().waiting, 1);
}

#[tokio::test]
async fn a_host_hears_what_another_adds_also_after_the_server_was_away() {
    let mut server = RedisServer::start();
    let (here, there) = (host(&server), host(&server));
    let queues = || vec!["q".to_owned(), "idle".to_owned()];
    assert_eq!(here.wake(queues()).await.unwrap(), queues());
    let wait = || {
        let here = here.clone();
        tokio::spawn(async move { here.wake(queues()).await })
    };
    for id in ["1", "2"] {
        let waiting = wait();
        there.add_many("q", vec![new(id)], 9, T0).await.unwrap();
        let woken = timeout(Duration::from_secs(3), waiting)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(woken.unwrap(), ["q"]);
    }
    // Broken off in the middle, it goes on where it was.
    assert!(
        timeout(Duration::from_millis(50), here.wake(queues()))
            .await
            .is_err()
    );
    there.pause("q", true).await.unwrap();
    there.pause("q", false).await.unwrap();
    assert_eq!(here.wake(queues()).await.unwrap(), ["q"]);
    let waiting = wait();
    server.kill();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Unavailable(_))));
    server.restart();
    assert_eq!(
        here.wake(queues()).await.unwrap(),
        queues(),
        "anything may have been missed"
    );
}

#[tokio::test]
async fn what_others_write_to_the_stream_or_leave_there_is_taken_in() {
    let bed = Bed::new(Engine::Redis);
    bed.subscribe("exprsn-pulse", &[("post.*", 3)]).await;
    let redis = bed.redis();
    let entry = |id: &str| {
        let mut command = redis::cmd("XADD");
        command.arg("exprsn:events").arg("*");
        for (name, value) in [
            ("source", "exprsn-node"),
            ("id", id),
            ("topic", "post.created"),
        ] {
            command.arg(name).arg(value);
        }
        command.arg("time").arg(T0).arg("data").arg("{}");
        command
    };
    for id in ["1", "2"] {
        let _: String = redis.query(&entry(id)).await.unwrap();
    }
    // Somebody reads the first in the service's group, and dies.
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP")
        .arg("exprsn-pulse")
        .arg("dead")
        .arg("COUNT")
        .arg(1);
    read.arg("STREAMS").arg("exprsn:events").arg(">");
    let _: redis::Value = redis.query(&read).await.unwrap();
    assert_eq!(
        bed.backend.rescue(3, T0).await.unwrap(),
        ["events:exprsn-pulse"]
    );
    assert_eq!(
        ids(&bed.deliveries("exprsn-pulse").await),
        ["exprsn-node/2"]
    );
    let mut idle = redis::cmd("XCLAIM");
    idle.arg("exprsn:events")
        .arg("exprsn-pulse")
        .arg("dead")
        .arg(0);
    let pending: Vec<(String, String, u64, u64)> = {
        let mut command = redis::cmd("XPENDING");
        command
            .arg("exprsn:events")
            .arg("exprsn-pulse")
            .arg("-")
            .arg("+")
            .arg(9);
        redis.query(&command).await.unwrap()
    };
    idle.arg(&pending[0].0).arg("IDLE").arg(61_000);
    let _: redis::Value = redis.query(&idle).await.unwrap();
    bed.backend.rescue(3, T0).await.unwrap();
    let both = bed.deliveries("exprsn-pulse").await;
    assert_eq!(ids(&both), ["exprsn-node/1", "exprsn-node/2"]);
    assert_eq!(
        Event::from_delivery(&both[0]).unwrap().topic,
        "post.created"
    );
}

#[tokio::test]
async fn a_queues_and_its_jobs_keys_are_bullmqs() {
    let bed = Bed::new(Engine::Redis);
    bed.add_ids(&["1", "2"]).await;
    bed.settle(&bed.take(1).await, done()).await;
    let mut keys: Vec<String> = bed
        .redis()
        .query(redis::cmd("KEYS").arg("*"))
        .await
        .unwrap();
    keys.sort();
    let expected = [
        "bull:q:1",
        "bull:q:2",
        "bull:q:completed",
        "bull:q:events",
        "bull:q:id",
        "bull:q:marker",
        "bull:q:meta",
        "bull:q:wait",
        "exprsn:queues",
    ];
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn what_is_no_event_or_no_json_stops_nothing() {
    let bed = Bed::new(Engine::Redis);
    bed.subscribe("exprsn-pulse", &[("*", 3)]).await;
    let redis = bed.redis();
    let mut stranger = redis::cmd("XADD");
    stranger
        .arg("exprsn:events")
        .arg("*")
        .arg("hello")
        .arg("world");
    let _: String = redis.query(&stranger).await.unwrap();
    bed.publish(event("1", "a")).await;
    assert_eq!(
        ids(&bed.deliveries("exprsn-pulse").await),
        ["exprsn-timeline/1"]
    );
    assert_eq!(bed.backend.events("*", 9).await.unwrap().len(), 1);
    let _: u64 = redis
        .query(redis::cmd("DEL").arg("exprsn:events"))
        .await
        .unwrap();
    bed.publish(event("2", "a")).await;
    assert_eq!(
        bed.deliveries("exprsn-pulse").await.len(),
        2,
        "the stream was removed"
    );
    assert!(!bed.backend.tidy(T0).await.unwrap());

    bed.add_ids(&["1", "2"]).await;
    for (job, opts) in [("bull:q:1", "{{{"), ("bull:q:2", "7")] {
        let mut spoil = redis::cmd("HSET");
        spoil.arg(job).arg("opts").arg(opts);
        let _: u64 = redis.query(&spoil).await.unwrap();
    }
    let mut theirs = redis::cmd("HDEL");
    theirs.arg("bull:q:2").arg("x-ours");
    let _: u64 = redis.query(&theirs).await.unwrap();
    let taken = bed.take(2).await;
    bed.settle(&taken, retry()).await;
    assert_eq!(
        bed.list(State::Failed).await,
        ["2"],
        "BullMQ's jobs have one attempt"
    );
    assert_eq!(bed.list(State::Delayed).await, ["1"]);
}

#[tokio::test]
async fn remembered_ids_are_bounded_by_number_and_age() {
    let config = Config {
        seen_max: 10,
        seen_ms_min: 1_000,
        ..Config::default()
    };
    let bed = Bed::with(Engine::Redis, config);
    bed.subscribe("exprsn-pulse", &[("*", 3)]).await;
    let publish = async |id: &str, now_ms: i64| {
        let batch = vec![Message::Event(event(id, "a"))];
        let delivered = bed.backend.deliver(batch, 1_000, now_ms).await.unwrap();
        !delivered.queues.is_empty()
    };
    assert!(publish("1", T0).await);
    assert!(!publish("1", T0 + 1_000).await, "now among the former");
    // The delivery is still held, so that it would not be added twice even when its id is forgotten.
    for number in 2..200 {
        assert!(publish(&number.to_string(), T0 + 1_000).await);
    }
    let held: u64 = bed
        .redis()
        .query(redis::cmd("SCARD").arg("exprsn:seen"))
        .await
        .unwrap();
    let before: u64 = bed
        .redis()
        .query(redis::cmd("SCARD").arg("exprsn:seen:before"))
        .await
        .unwrap();
    assert!(held + before <= 10, "{held} + {before}");
    assert!(!publish("199", T0 + 1_999).await);
    assert_eq!(
        bed.deliveries("exprsn-pulse").await.len(),
        100,
        "a page of 199"
    );
}

/// Does jobs as a host does, through every failure, until told to stop; answers how many outcomes it reported.
async fn work(backend: RedisBackend, stop: tokio::sync::watch::Receiver<bool>) -> usize {
    let (mut outcomes, mut reported) = (Arc::default(), 0);
    while !*stop.borrow() {
        let take = Take {
            count: 5,
            lease: rand::random(),
            lease_ms: 400,
        };
        let settled = backend.settle(
            "q",
            Arc::clone(&outcomes),
            Some(take),
            crate::clock::now_ms(),
        );
        let Ok(taken) = settled.await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        reported += outcomes.len();
        let done = taken.jobs.iter().map(|job| (job.claim.clone(), done()));
        outcomes = Arc::new(done.collect());
        tokio::time::sleep(Duration::from_millis(5)).await;
        // Nobody's fault is worse than the server's: a failure here is tried again with the next round.
        let _ = backend.rescue(100, crate::clock::now_ms()).await;
    }
    reported
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_job_is_done_although_the_server_is_killed_again_and_again() {
    const JOBS: usize = 300;
    let mut server = RedisServer::start();
    let (told, stop) = tokio::sync::watch::channel(false);
    let producer = host(&server);
    let mut settings = Settings {
        keep_completed: 10_000,
        ..Settings::default()
    };
    settings.attempts = 1;
    producer.declare("q", settings).await.unwrap();
    let workers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(work(host(&server), stop.clone())))
        .collect();
    let adding = tokio::spawn({
        let producer = producer.clone();
        async move {
            for number in 0..JOBS {
                let job = vec![new(&number.to_string())];
                while producer
                    .add_many("q", job.clone(), 1_000, crate::clock::now_ms())
                    .await
                    .is_err()
                {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    });
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        server = tokio::task::spawn_blocking(move || {
            server.kill();
            std::thread::sleep(Duration::from_millis(600));
            server.restart();
            server
        })
        .await
        .unwrap();
    }
    adding.await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let counts = producer.counts("q").await.unwrap();
        assert_eq!(counts.failed, 0);
        if counts.completed == JOBS as u64 && counts.active == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{counts:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    told.send(true).unwrap();
    let mut reported = 0;
    for worker in workers {
        reported += worker.await.unwrap();
    }
    assert!(reported >= JOBS);
}
