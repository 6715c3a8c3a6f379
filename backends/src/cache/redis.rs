//! The production backend: values and buckets in Redis, shared by all hosts.
//!
//! Each key has an end, so that a server which also keeps queues can be told to make room by forgetting values and buckets
//! only: `maxmemory` with `maxmemory-policy volatile-lru`.

use super::{
    backend::{Backend, Error, Result, TTL_MS_MAX},
    bucket::{self, Answer, Rate},
};
use crate::{name::ServiceName, redis::Redis};
use futures::future::{BoxFuture, FutureExt as _};
use redis::{RedisError, Script};
use std::sync::{Arc, LazyLock};

static INCREMENT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("redis/increment.lua")));
static TAKE_TOKENS: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("redis/take_tokens.lua")));

/// The values of one service.
#[derive(Clone, Debug)]
pub struct RedisCache {
    redis: Arc<Redis>,
    service: ServiceName,
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

impl RedisCache {
    /// The values of `service` on `redis`. Asks nothing of it yet.
    pub fn new(redis: Arc<Redis>, service: ServiceName) -> Self {
        Self { redis, service }
    }

    fn value(&self, key: &str) -> String {
        format!("exprsn:cache:{}:value:{key}", self.service)
    }

    fn bucket(&self, key: &str) -> String {
        format!("exprsn:cache:{}:bucket:{key}", self.service)
    }
}

fn ttl(ttl_ms: Option<u64>) -> u64 {
    ttl_ms.unwrap_or(TTL_MS_MAX).clamp(1, TTL_MS_MAX)
}

impl Backend for RedisCache {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>>> {
        async move {
            let command = redis::cmd("GET").arg(self.value(key)).clone();
            Ok(self.redis.query(&command).await?)
        }
        .boxed()
    }

    fn set<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> BoxFuture<'a, Result<()>> {
        async move {
            let mut command = redis::cmd("SET");
            command.arg(self.value(key)).arg(value);
            command.arg("PX").arg(ttl(ttl_ms));
            Ok(self.redis.query(&command).await?)
        }
        .boxed()
    }

    fn set_if_absent<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> BoxFuture<'a, Result<bool>> {
        async move {
            let mut command = redis::cmd("SET");
            command.arg(self.value(key)).arg(value);
            command.arg("NX").arg("PX").arg(ttl(ttl_ms));
            let set: Option<String> = self.redis.command(&command).await?;
            Ok(set.is_some())
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool>> {
        async move {
            let command = redis::cmd("DEL").arg(self.value(key)).clone();
            Ok(self.redis.command::<u64>(&command).await? == 1)
        }
        .boxed()
    }

    fn increment<'a>(
        &'a self,
        key: &'a str,
        by: i64,
        ttl_ms: Option<u64>,
    ) -> BoxFuture<'a, Result<i64>> {
        async move {
            let mut call = INCREMENT.key(self.value(key));
            call.arg(by).arg(ttl(ttl_ms));
            let (what, number): (String, String) = self.redis.invoke_once(&call).await?;
            match what.as_str() {
                "ok" => number.parse().map_err(|_| Error::not_a_number()),
                "overflow" => Err(Error::too_great(number, by)),
                _ => Err(Error::not_a_number()),
            }
        }
        .boxed()
    }

    fn take_tokens<'a>(
        &'a self,
        key: &'a str,
        rate: Rate,
        tokens: u64,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Answer>> {
        async move {
            let mut call = TAKE_TOKENS.key(self.bucket(key));
            call.arg(now_ms).arg(rate.capacity);
            call.arg(rate.refill_per_second).arg(tokens);
            let (taken, left): (u8, f64) = self.redis.invoke_once(&call).await?;
            Ok(bucket::answer(taken == 1, left, rate, tokens))
        }
        .boxed()
    }
}
