//! The memory backend: a bounded map for each service, which forgets what was not used for longest.

use super::{
    backend::{self, Backend, Error, TTL_MS_MAX},
    bucket::{self, Answer, Rate},
};
use futures::future::{BoxFuture, FutureExt as _, ready};
use moka::{Expiry, ops::compute::Op, policy::EvictionPolicy, sync::Cache};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// What an entry costs beside its key and value, in bytes.
const ENTRY_BYTES: usize = 128;
/// The short-lived values of one service. Clones share them.
#[derive(Clone)]
pub struct Memory {
    entries: Cache<Key, Entry>,
}

/// Values and buckets have names of their own.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Value(Box<str>),
    Bucket(Box<str>),
}

#[derive(Clone)]
struct Entry {
    content: Content,
    expires: Option<Instant>,
}

#[derive(Clone)]
enum Content {
    Value(Arc<[u8]>),
    Bucket(bucket::State),
}

struct AtItsTime;

impl Expiry<Key, Entry> for AtItsTime {
    fn expire_after_create(&self, _key: &Key, entry: &Entry, created: Instant) -> Option<Duration> {
        entry
            .expires
            .map(|expires| expires.saturating_duration_since(created))
    }

    fn expire_after_update(
        &self,
        _key: &Key,
        entry: &Entry,
        updated: Instant,
        _remaining: Option<Duration>,
    ) -> Option<Duration> {
        entry
            .expires
            .map(|expires| expires.saturating_duration_since(updated))
    }
}

fn weigh(key: &Key, entry: &Entry) -> u32 {
    let (Key::Value(name) | Key::Bucket(name)) = key;
    let value = match &entry.content {
        Content::Value(value) => value.len(),
        Content::Bucket(_) => 0,
    };
    u32::try_from(name.len() + value + ENTRY_BYTES).unwrap_or(u32::MAX)
}

fn expiry(ttl_ms: Option<u64>) -> Option<Instant> {
    ttl_ms.map(|ttl_ms| Instant::now() + Duration::from_millis(ttl_ms.min(TTL_MS_MAX)))
}

impl Memory {
    /// An empty map that holds `bytes_max` bytes of keys and values.
    pub fn new(bytes_max: u64) -> Self {
        let entries = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(AtItsTime)
            .build();
        Self { entries }
    }

    pub fn get(&self, key: &str) -> Option<Arc<[u8]>> {
        match self.entries.get(&Key::Value(key.into()))?.content {
            Content::Value(value) => Some(value),
            Content::Bucket(_) => None,
        }
    }

    /// Without `ttl_ms` the value stays until it is evicted.
    pub fn set(&self, key: &str, value: Vec<u8>, ttl_ms: Option<u64>) {
        self.entries.insert(
            Key::Value(key.into()),
            Entry {
                content: Content::Value(value.into()),
                expires: expiry(ttl_ms),
            },
        );
    }

    /// Sets only where there is no value; answers whether it did.
    pub fn set_if_absent(&self, key: &str, value: Vec<u8>, ttl_ms: Option<u64>) -> bool {
        let entry = || Entry {
            content: Content::Value(value.into()),
            expires: expiry(ttl_ms),
        };
        self.entries
            .entry(Key::Value(key.into()))
            .or_insert_with(entry)
            .is_fresh()
    }

    /// Answers whether there was a value.
    pub fn delete(&self, key: &str) -> bool {
        self.entries.remove(&Key::Value(key.into())).is_some()
    }

    /// Adds to a number kept as decimal text. `ttl_ms` counts from the first increment.
    pub fn increment(&self, key: &str, by: i64, ttl_ms: Option<u64>) -> Result<i64, Error> {
        let mut sum = 0;
        self.entries
            .entry(Key::Value(key.into()))
            .and_try_compute_with(|held| {
                let (number, expires) = match held.map(|held| held.into_value()) {
                    Some(Entry {
                        content: Content::Value(text),
                        expires,
                    }) => (number(&text)?, expires),
                    _ => (0, expiry(ttl_ms)),
                };
                sum = number
                    .checked_add(by)
                    .ok_or_else(|| Error::too_great(number, by))?;
                Ok::<_, Error>(Op::Put(Entry {
                    content: Content::Value(sum.to_string().into_bytes().into()),
                    expires,
                }))
            })?;
        Ok(sum)
    }

    /// Takes `tokens` from a bucket, atomically. A bucket that is full again is forgotten.
    pub fn take_tokens(&self, key: &str, rate: Rate, tokens: u64, now_ms: u64) -> Answer {
        let mut answer = None;
        self.entries
            .entry(Key::Bucket(key.into()))
            .and_compute_with(|held| {
                let state = match held.map(|held| held.into_value().content) {
                    Some(Content::Bucket(state)) => Some(state),
                    _ => None,
                };
                let (state, given) = bucket::take(state, rate, tokens, now_ms);
                answer = Some(given);
                // One millisecond more than until it is full: never forgotten while it is not.
                Op::Put(Entry {
                    content: Content::Bucket(state),
                    expires: expiry(Some(given.reset_ms.saturating_add(1))),
                })
            });
        answer.expect("the closure runs exactly once")
    }

    /// Bytes held, after what is pending has been done.
    pub fn bytes(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.weighted_size()
    }
}

fn number(text: &[u8]) -> Result<i64, Error> {
    let text = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    text.ok_or_else(Error::not_a_number)
}

impl Backend for Memory {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, backend::Result<Option<Vec<u8>>>> {
        let value = Memory::get(self, key).map(|value| value.to_vec());
        ready(Ok(value)).boxed()
    }

    fn set<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> BoxFuture<'a, backend::Result<()>> {
        Memory::set(self, key, value, ttl_ms);
        ready(Ok(())).boxed()
    }

    fn set_if_absent<'a>(
        &'a self,
        key: &'a str,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> BoxFuture<'a, backend::Result<bool>> {
        ready(Ok(Memory::set_if_absent(self, key, value, ttl_ms))).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, backend::Result<bool>> {
        ready(Ok(Memory::delete(self, key))).boxed()
    }

    fn increment<'a>(
        &'a self,
        key: &'a str,
        by: i64,
        ttl_ms: Option<u64>,
    ) -> BoxFuture<'a, backend::Result<i64>> {
        ready(Memory::increment(self, key, by, ttl_ms)).boxed()
    }

    fn take_tokens<'a>(
        &'a self,
        key: &'a str,
        rate: Rate,
        tokens: u64,
        now_ms: i64,
    ) -> BoxFuture<'a, backend::Result<Answer>> {
        let now_ms = u64::try_from(now_ms).unwrap_or_default();
        ready(Ok(Memory::take_tokens(self, key, rate, tokens, now_ms))).boxed()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("entries", &self.entries.entry_count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn text(memory: &Memory, key: &str) -> Option<String> {
        memory
            .get(key)
            .map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn increments_are_atomic_and_checked() {
        let memory = Memory::new(1 << 20);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| drop(memory.increment("n", 2, None))));
            }
        });
        assert_eq!(text(&memory, "n").as_deref(), Some("4000"));
        memory.set("t", b"x1".to_vec(), None);
        assert!(
            matches!(memory.increment("t", 1, None), Err(Error::Invalid(text)) if text.contains("not a whole number"))
        );
        assert!(
            matches!(memory.increment("n", i64::MAX, None), Err(Error::Invalid(text)) if text.contains("64 bits"))
        );
        assert_eq!(text(&memory, "n").as_deref(), Some("4000"));
    }

    #[test]
    fn buckets_are_atomic_and_apart_from_values() {
        let memory = Memory::new(1 << 20);
        memory.set("k", b"v".to_vec(), None);
        let rate = Rate {
            capacity: 100,
            refill_per_second: 0.0,
        };
        let allowed: usize = thread::scope(|scope| {
            let taker = || {
                (0..50)
                    .filter(|_| memory.take_tokens("k", rate, 1, 0).allowed)
                    .count()
            };
            let takers: Vec<_> = (0..4).map(|_| scope.spawn(taker)).collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        assert_eq!((allowed, text(&memory, "k").as_deref()), (100, Some("v")));
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let memory = Memory::new(10_000);
        for n in 0..100 {
            memory.set(&format!("{n}"), vec![0; 1_000], None);
            assert!(memory.get("0").is_some() || n > 0);
            assert!(memory.bytes() <= 10_000);
        }
        assert!(memory.get("99").is_some());
        assert_eq!(memory.get("50"), None);
    }
}
