//! Which tokens are good no longer: revoked or used up. Read by every verification, without a lock.

use arc_swap::ArcSwap;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Shards: one change copies one of them.
const SHARDS: usize = 256;
/// Most tokens remembered at once; they leave when they expire.
pub const STANDINGS_MAX: usize = 1_000_000;

/// Why a token that has not expired is good no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Revoked,
    Exhausted,
}

type Shard = HashMap<Arc<str>, (Standing, i64)>;

/// Tokens that are good no longer, by id, each until it expires.
pub struct Standings {
    shards: Vec<ArcSwap<Shard>>,
    hasher: RandomState,
    count: AtomicUsize,
}

impl Standings {
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
        }
    }

    /// The standing of a token; none where there is nothing against it.
    pub fn get(&self, id: &str) -> Option<Standing> {
        self.shard(id).load().get(id).map(|(standing, _)| *standing)
    }

    /// Notes that a token is good no longer. `Revoked` is not taken back by `Exhausted`.
    ///
    /// False if as many tokens are remembered as may: the caller must not claim that it is done.
    #[must_use]
    pub fn set(&self, id: &str, standing: Standing, expires_at: i64, now_s: i64) -> bool {
        if self.count.load(Ordering::Relaxed) >= STANDINGS_MAX {
            return false;
        }
        let id: Arc<str> = id.into();
        let before = self.shard(&id).rcu(|shard| {
            let mut next: Shard = shard
                .iter()
                .filter(|(_, (_, until))| *until > now_s)
                .map(|(id, kept)| (id.clone(), *kept))
                .collect();
            let kept = next.entry(id.clone()).or_insert((standing, expires_at));
            if standing == Standing::Revoked {
                *kept = (standing, expires_at.max(kept.1));
            }
            next
        });
        let after = self.shard(&id).load().len();
        // Approximate under concurrent writers of one shard, which the writer thread of host.db rules out.
        if after >= before.len() {
            self.count
                .fetch_add(after - before.len(), Ordering::Relaxed);
        } else {
            self.count
                .fetch_sub(before.len() - after, Ordering::Relaxed);
        }
        true
    }

    fn shard(&self, id: &str) -> &ArcSwap<Shard> {
        &self.shards[self.hasher.hash_one(id) as usize % SHARDS]
    }
}

impl Default for Standings {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standings_last_until_the_token_expires() {
        let standings = Standings::new();
        assert_eq!(standings.get("a"), None);
        assert!(standings.set("a", Standing::Exhausted, 100, 0));
        assert_eq!(standings.get("a"), Some(Standing::Exhausted));
        assert!(standings.set("a", Standing::Revoked, 100, 0));
        assert!(standings.set("a", Standing::Exhausted, 100, 0));
        assert_eq!(standings.get("a"), Some(Standing::Revoked));
        // What has expired leaves with the next change of its shard.
        for n in 0..20 * SHARDS {
            assert!(standings.set(&format!("b{n}"), Standing::Revoked, 300, 200));
        }
        assert_eq!(standings.get("a"), None);
        assert_eq!(standings.count.load(Ordering::Relaxed), 20 * SHARDS);
    }
}
