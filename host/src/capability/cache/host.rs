//! What guests see of the cache: `exprsn:cache/store`.

use crate::{
    capability::{Boot, Borrower, Capability},
    clock::now_ms,
    name::ServiceName,
    store::{ServiceContext, StoreState},
    telemetry::chain,
};
use exprsn_backends::{
    cache::{
        backend::{self, Backend},
        bucket::Rate,
        memory::Memory,
        redis::RedisCache,
    },
    redis::Redis,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use wasmtime::{
    Result,
    component::{Accessor, HasSelf, Linker},
};

wasmtime::component::bindgen!({
    path: "../wit",
    world: "exprsn:cache/imports",
    imports: { default: trappable },
});

use exprsn::cache::{store, types};

/// `[capability.cache]`: limits. Each field's name carries its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub backend: Kind,
    /// Keys and values of one service in memory; what was not used for longest is evicted beyond it. Redis has a limit of its
    /// own, `maxmemory`.
    pub bytes_max: u64,
    /// One value.
    pub value_bytes_max: usize,
    /// One key.
    pub key_bytes_max: usize,
}

/// What keeps the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// This host's memory.
    Memory,
    /// The server of `[backends.redis]`, for all hosts together.
    Redis,
}

impl Config {
    /// Whether several hosts can use the same values.
    pub fn is_shared(&self) -> bool {
        self.backend == Kind::Redis
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Kind::Memory,
            bytes_max: 64 << 20,
            value_bytes_max: 1 << 20,
            key_bytes_max: 512,
        }
    }
}

/// `[grants.cache]`: no scope, a service has its own values only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {}

/// The `cache` capability.
#[derive(Debug)]
pub struct Cache {
    config: Config,
    /// The server, where the values are kept on one.
    redis: Option<Arc<Redis>>,
    /// Versions of a service share its values.
    services: Mutex<HashMap<ServiceName, Arc<dyn Backend>>>,
}

/// What one service version holds.
#[derive(Clone, Debug)]
pub struct Lent {
    config: Config,
    values: Arc<dyn Backend>,
}

impl Capability for Cache {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(boot: &Boot, config: Config) -> Result<Self> {
        let redis = match config.backend {
            Kind::Memory => None,
            Kind::Redis => Some(Arc::new(boot.backends.redis.open("capability.cache")?)),
        };
        Ok(Self {
            config,
            redis,
            services: Mutex::default(),
        })
    }

    fn link(linker: &mut Linker<StoreState>, _grant: &Grant) -> Result<()> {
        types::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        store::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        super::twin::link(linker)
    }

    async fn lend(&self, borrower: &Borrower<'_>, _grant: &Grant) -> Result<Lent> {
        let mut services = self.services.lock().expect("no holder of this lock panics");
        let values = services
            .entry(borrower.name.clone())
            .or_insert_with(|| self.values_of(borrower.name));
        Ok(Lent {
            config: self.config,
            values: values.clone(),
        })
    }
}

impl Cache {
    fn values_of(&self, service: &ServiceName) -> Arc<dyn Backend> {
        match &self.redis {
            Some(redis) => Arc::new(RedisCache::new(redis.clone(), service.clone())),
            None => Arc::new(Memory::new(self.config.bytes_max)),
        }
    }
}

impl Lent {
    fn check_key(&self, key: &str) -> Result<(), store::Error> {
        let max = self.config.key_bytes_max;
        match key.len() {
            0 => Err(store::Error::Invalid(
                "a key has at least 1 byte".to_owned(),
            )),
            bytes if bytes > max => Err(store::Error::LimitExceeded(format!(
                "the key has {bytes} bytes, and key_bytes_max is {max}"
            ))),
            _ => Ok(()),
        }
    }

    fn check(&self, key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<(), store::Error> {
        self.check_key(key)?;
        check_ttl(ttl_ms)?;
        let (bytes, max) = (value.len(), self.config.value_bytes_max);
        if bytes > max {
            return Err(store::Error::LimitExceeded(format!(
                "the value has {bytes} bytes, and value_bytes_max is {max}"
            )));
        }
        Ok(())
    }
}

fn check_ttl(ttl_ms: Option<u64>) -> Result<(), store::Error> {
    if ttl_ms == Some(0) {
        return Err(store::Error::Invalid("ttl_ms must be 1 or more".to_owned()));
    }
    Ok(())
}

fn check_rate(capacity: u64, refill_per_second: f64, tokens: u64) -> Result<Rate, store::Error> {
    if capacity == 0 || tokens > capacity {
        return Err(store::Error::Invalid(format!(
            "a bucket of capacity {capacity} never holds {tokens} tokens"
        )));
    }
    if !refill_per_second.is_finite() || refill_per_second < 0.0 {
        return Err(store::Error::Invalid(format!(
            "refill_per_second {refill_per_second} is not a rate"
        )));
    }
    Ok(Rate {
        capacity,
        refill_per_second,
    })
}

/// The service whose store calls. Its functions are the interface's and its twin's.
pub(super) struct Caller(Arc<ServiceContext>);

impl Caller {
    fn of<T: 'static>(accessor: &Accessor<T, HasSelf<StoreState>>) -> Self {
        accessor.with(|mut access| Self::in_store(access.get()))
    }

    pub(super) fn in_store(state: &StoreState) -> Self {
        Self(state.service.clone())
    }

    /// What the grant lends, while it is in force.
    fn lent(&self) -> Result<&Lent, store::Error> {
        self.0
            .check("cache", "")
            .map_err(store::Error::AccessDenied)?;
        Ok(self.0.lent.cache.as_ref().expect("a grant in force is lent"))
    }

    pub(super) async fn get(&self, key: String) -> Result<Option<Vec<u8>>, store::Error> {
        let lent = self.lent()?;
        lent.check_key(&key)?;
        lent.values.get(&key).await.map_err(told)
    }

    pub(super) async fn set(
        &self,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Result<(), store::Error> {
        let lent = self.lent()?;
        lent.check(&key, &value, ttl_ms)?;
        lent.values.set(&key, value, ttl_ms).await.map_err(told)
    }

    pub(super) async fn set_if_absent(
        &self,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Result<bool, store::Error> {
        let lent = self.lent()?;
        lent.check(&key, &value, ttl_ms)?;
        let set = lent.values.set_if_absent(&key, value, ttl_ms).await;
        set.map_err(told)
    }

    pub(super) async fn delete(&self, key: String) -> Result<bool, store::Error> {
        let lent = self.lent()?;
        lent.check_key(&key)?;
        lent.values.delete(&key).await.map_err(told)
    }

    pub(super) async fn increment(
        &self,
        key: String,
        by: i64,
        ttl_ms: Option<u64>,
    ) -> Result<i64, store::Error> {
        let lent = self.lent()?;
        lent.check(&key, &[], ttl_ms)?;
        let sum = lent.values.increment(&key, by, ttl_ms).await;
        sum.map_err(told)
    }

    pub(super) async fn take_tokens(
        &self,
        key: String,
        capacity: u64,
        refill_per_second: f64,
        tokens: u64,
    ) -> Result<store::Bucket, store::Error> {
        let lent = self.lent()?;
        lent.check_key(&key)?;
        let rate = check_rate(capacity, refill_per_second, tokens)?;
        let taking = lent.values.take_tokens(&key, rate, tokens, now_ms());
        let answer = taking.await.map_err(told)?;
        Ok(store::Bucket {
            allowed: answer.allowed,
            remaining: answer.remaining,
            retry_after_ms: answer.retry_after_ms,
            reset_ms: answer.reset_ms,
        })
    }
}

/// What a guest is told: its own faults with their text, the host's without.
fn told(error: backend::Error) -> store::Error {
    match error {
        backend::Error::Invalid(text) => store::Error::Invalid(text),
        error @ backend::Error::Unavailable(_) => {
            tracing::error!(error = chain(&error.into()), "the cache failed");
            store::Error::Unavailable("the cache cannot be reached now".to_owned())
        }
    }
}

impl types::Host for StoreState {}
impl store::Host for StoreState {}

type Answer<T> = Result<Result<T, store::Error>>;

impl<T: Send + 'static> store::HostWithStore<T> for HasSelf<StoreState> {
    async fn get(accessor: &Accessor<T, Self>, key: String) -> Answer<Option<Vec<u8>>> {
        Ok(Caller::of(accessor).get(key).await)
    }

    async fn set(
        accessor: &Accessor<T, Self>,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Answer<()> {
        Ok(Caller::of(accessor).set(key, value, ttl_ms).await)
    }

    async fn set_if_absent(
        accessor: &Accessor<T, Self>,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> Answer<bool> {
        Ok(Caller::of(accessor).set_if_absent(key, value, ttl_ms).await)
    }

    async fn delete(accessor: &Accessor<T, Self>, key: String) -> Answer<bool> {
        Ok(Caller::of(accessor).delete(key).await)
    }

    async fn increment(
        accessor: &Accessor<T, Self>,
        key: String,
        by: i64,
        ttl_ms: Option<u64>,
    ) -> Answer<i64> {
        Ok(Caller::of(accessor).increment(key, by, ttl_ms).await)
    }

    async fn take_tokens(
        accessor: &Accessor<T, Self>,
        key: String,
        capacity: u64,
        refill_per_second: f64,
        tokens: u64,
    ) -> Answer<store::Bucket> {
        let caller = Caller::of(accessor);
        Ok(caller
            .take_tokens(key, capacity, refill_per_second, tokens)
            .await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: Result<(), store::Error>, expected: &str) {
        let error = format!("{:?}", outcome.unwrap_err());
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn limits_and_nonsense_are_refused_by_name() {
        let lent = Lent {
            config: Config::default(),
            values: Arc::new(Memory::new(1)),
        };
        assert!(lent.check("k", &[0; 1 << 20], Some(1)).is_ok());
        check(lent.check("", &[], None), "Invalid");
        check(
            lent.check(&"k".repeat(513), &[], None),
            "key_bytes_max is 512",
        );
        check(
            lent.check("k", &[0; (1 << 20) + 1], None),
            "value_bytes_max is 1048576",
        );
        check(lent.check("k", &[], Some(0)), "ttl_ms must be 1 or more");
        check(check_rate(0, 1.0, 0).map(drop), "capacity 0");
        check(check_rate(1, 1.0, 2).map(drop), "never holds 2");
        check(check_rate(1, f64::NAN, 1).map(drop), "not a rate");
        check(check_rate(1, -1.0, 1).map(drop), "not a rate");
    }
}
