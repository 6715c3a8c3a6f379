//! What every backend of short-lived values must do: one suite over the trait, run on each.

use super::{
    backend::{Backend, Error},
    bucket::Rate,
    memory::Memory,
    redis::RedisCache,
};
use crate::{name::ServiceName, redis::Redis, testing::RedisServer};
use futures::future::join_all;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const T0: i64 = 1_800_000_000_000;

/// Makes a test on each engine of every assertion.
macro_rules! on_each_engine {
    ($($name:ident,)*) => {$(
        mod $name {
            #[tokio::test]
            async fn memory() {
                super::$name(&super::Memory::new(1 << 20)).await;
            }

            #[tokio::test]
            async fn redis() {
                let server = super::RedisServer::start();
                super::$name(&super::on(&server, "exprsn-a")).await;
            }
        }
    )*};
}

on_each_engine! {
    values_come_and_go,
    values_expire,
    increments_keep_the_first_ttl,
    increments_are_atomic_and_checked,
    buckets_give_their_capacity_and_fill_with_time,
    buckets_are_atomic_and_apart_from_values,
}

fn on(server: &RedisServer, service: &str) -> RedisCache {
    let redis = Arc::new(Redis::new(server.url()).unwrap());
    RedisCache::new(redis, ServiceName::parse(service).unwrap())
}

async fn text(cache: &dyn Backend, key: &str) -> Option<String> {
    let value = cache.get(key).await.unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

/// Waits for a value to go.
async fn goes(cache: &dyn Backend, key: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while cache.get(key).await.unwrap().is_some() {
        assert!(Instant::now() < deadline, "`{key}` does not expire");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn values_come_and_go(cache: &dyn Backend) {
    assert_eq!(text(cache, "a").await, None);
    cache.set("a", b"1".to_vec(), None).await.unwrap();
    assert!(!cache.set_if_absent("a", b"2".to_vec(), None).await.unwrap());
    assert_eq!(text(cache, "a").await.as_deref(), Some("1"));
    assert!(cache.delete("a").await.unwrap());
    assert!(!cache.delete("a").await.unwrap());
    assert!(cache.set_if_absent("a", b"2".to_vec(), None).await.unwrap());
    assert_eq!(text(cache, "a").await.as_deref(), Some("2"));
    let bytes: Vec<u8> = (0..=255).collect();
    cache.set("raw", bytes.clone(), None).await.unwrap();
    assert_eq!(cache.get("raw").await.unwrap(), Some(bytes));
}

async fn values_expire(cache: &dyn Backend) {
    cache.set("short", vec![1], Some(1)).await.unwrap();
    cache.set("long", vec![1], Some(u64::MAX)).await.unwrap();
    cache.increment("count", 1, Some(1)).await.unwrap();
    goes(cache, "short").await;
    goes(cache, "count").await;
    assert!(cache.get("long").await.unwrap().is_some());
    assert_eq!(cache.increment("count", 5, None).await.unwrap(), 5);
}

async fn increments_keep_the_first_ttl(cache: &dyn Backend) {
    cache.increment("n", 1, Some(80)).await.unwrap();
    cache.increment("n", 1, Some(3_600_000)).await.unwrap();
    goes(cache, "n").await;
}

async fn increments_are_atomic_and_checked(cache: &dyn Backend) {
    let sums = join_all((0..200).map(|_| cache.increment("n", 2, None))).await;
    assert_eq!(sums.into_iter().map(Result::unwrap).max(), Some(400));
    cache.set("t", b"x1".to_vec(), None).await.unwrap();
    let check = |outcome: Result<i64, Error>, said: &str| {
        assert!(
            matches!(outcome, Err(Error::Invalid(text)) if text.contains(said)),
            "{said}"
        );
    };
    check(cache.increment("t", 1, None).await, "not a whole number");
    check(
        cache.increment("n", i64::MAX, None).await,
        "400 + 9223372036854775807 does not fit into 64 bits",
    );
    assert_eq!(text(cache, "n").await.as_deref(), Some("400"));
    // Beyond what a double holds.
    let great = cache.increment("great", i64::MAX - 1, None).await.unwrap();
    assert_eq!(great, i64::MAX - 1);
    assert_eq!(cache.increment("great", 1, None).await.unwrap(), i64::MAX);
}

async fn buckets_give_their_capacity_and_fill_with_time(cache: &dyn Backend) {
    let rate = Rate {
        capacity: 10,
        refill_per_second: 2.0,
    };
    let requests = [
        (7, 0),
        (5, 0),
        (3, 0),
        (1, 499),
        (1, 500),
        (1, 501),
        (1, 100),
        (9, 4_999),
        (9, 5_000),
    ];
    let mut answers = Vec::new();
    for (tokens, after_ms) in requests {
        let answer = cache
            .take_tokens("b", rate, tokens, T0 + after_ms)
            .await
            .unwrap();
        answers.push((
            answer.allowed,
            answer.remaining,
            answer.retry_after_ms,
            answer.reset_ms,
        ));
    }
    assert_eq!(
        answers,
        [
            (true, 3, 0, 3_500),
            (false, 3, 1_000, 3_500),
            (true, 0, 0, 5_000),
            // Half a token is a rounding error more than there is.
            (false, 0, 2, 4_501),
            (true, 0, 0, 5_000),
            (false, 0, 499, 4_999),
            (false, 0, 499, 4_999),
            (false, 8, 1, 501),
            (true, 0, 0, 5_000),
        ]
    );
    let never = Rate {
        capacity: 1,
        refill_per_second: 0.0,
    };
    assert!(
        cache
            .take_tokens("never", never, 1, T0)
            .await
            .unwrap()
            .allowed
    );
    let answer = cache
        .take_tokens("never", never, 1, T0 + (1 << 40))
        .await
        .unwrap();
    assert_eq!((answer.allowed, answer.retry_after_ms), (false, u64::MAX));
}

async fn buckets_are_atomic_and_apart_from_values(cache: &dyn Backend) {
    cache.set("k", b"v".to_vec(), None).await.unwrap();
    let rate = Rate {
        capacity: 100,
        refill_per_second: 0.0,
    };
    let answers = join_all((0..200).map(|_| cache.take_tokens("k", rate, 1, T0))).await;
    let allowed = answers
        .into_iter()
        .filter(|answer| answer.as_ref().unwrap().allowed);
    assert_eq!(
        (allowed.count(), text(cache, "k").await.as_deref()),
        (100, Some("v"))
    );
}

/// What hosts share, and what services do not.
#[tokio::test]
async fn hosts_share_a_services_values_and_services_have_their_own() {
    let server = RedisServer::start();
    let (here, there) = (on(&server, "exprsn-a"), on(&server, "exprsn-a"));
    let other = on(&server, "exprsn-b");
    let rate = Rate {
        capacity: 5,
        refill_per_second: 0.0,
    };
    let mut allowed = 0;
    for _ in 0..5 {
        for host in [&here, &there] {
            allowed += u32::from(host.take_tokens("b", rate, 1, T0).await.unwrap().allowed);
        }
    }
    assert_eq!(allowed, 5, "one limit for all hosts");
    here.set("k", vec![1], None).await.unwrap();
    assert_eq!(there.get("k").await.unwrap(), Some(vec![1]));
    assert_eq!(other.get("k").await.unwrap(), None);
    assert!(other.take_tokens("b", rate, 5, T0).await.unwrap().allowed);
}

#[tokio::test]
async fn a_server_that_is_away_is_said_to_be_and_comes_back() {
    let mut server = RedisServer::start();
    let cache = on(&server, "exprsn-a");
    cache.set("k", vec![1], None).await.unwrap();
    server.kill();
    assert!(matches!(cache.get("k").await, Err(Error::Unavailable(_))));
    assert!(matches!(
        cache.increment("n", 1, None).await,
        Err(Error::Unavailable(_))
    ));
    server.restart();
    assert_eq!(cache.get("k").await.unwrap(), Some(vec![1]));
}
