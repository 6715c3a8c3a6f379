//! The most recent records, in memory. Whoever writes waits for nobody: where all shards are being read, the record is dropped.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Shards that records are spread over, so that writers on several cores and a reader seldom meet.
const SHARDS: u64 = 16;

/// A record with its place in the order of all: later ones have greater numbers.
pub type Numbered<T> = (u64, Arc<T>);

/// A bounded memory of records; the oldest go first.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    shards: Vec<Mutex<VecDeque<Numbered<T>>>>,
    per_shard: usize,
    next: AtomicU64,
    dropped: AtomicU64,
}

impl<T> Ring<T> {
    /// For about `max` records, rounded up to a multiple of the shards; zero keeps none.
    pub fn new(max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            shards,
            per_shard: max.div_ceil(usize::try_from(SHARDS).expect("few shards")),
            next: AtomicU64::new(1),
            dropped: AtomicU64::new(0),
        }
    }

    /// Whether it keeps anything.
    pub fn keeps(&self) -> bool {
        self.per_shard > 0
    }

    /// Keeps a record. Answers its number.
    pub fn push(&self, record: Arc<T>) -> u64 {
        let number = self.next.fetch_add(1, Relaxed);
        if !self.keeps() {
            return number;
        }
        for probe in 0..SHARDS {
            let index = usize::try_from((number + probe) % SHARDS).expect("few shards");
            let mut shard = match self.shards[index].try_lock() {
                Ok(shard) => shard,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            let oldest = if shard.len() >= self.per_shard {
                shard.pop_front()
            } else {
                None
            };
            shard.push_back((number, record));
            drop(shard);
            // Freed after the lock: what an old record holds may take long to free.
            drop(oldest);
            return number;
        }
        self.dropped.fetch_add(1, Relaxed);
        number
    }

    /// The records after number `after` that `wanted` picks, the oldest first.
    pub fn select(&self, after: u64, wanted: impl Fn(&T) -> bool) -> Vec<Numbered<T>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = match shard.lock() {
                Ok(shard) => shard,
                Err(poisoned) => poisoned.into_inner(),
            };
            let picked = shard
                .iter()
                .filter(|(number, record)| *number > after && wanted(record));
            found.extend(picked.cloned());
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        found
    }

    /// Records that were not kept because all shards were in use.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_the_order_is_kept() {
        let ring = Ring::new(64);
        for index in 0..1_000 {
            ring.push(Arc::new(index));
        }
        let kept: Vec<i32> = ring
            .select(0, |_| true)
            .iter()
            .map(|(_, one)| **one)
            .collect();
        assert_eq!(kept, (936..1_000).collect::<Vec<_>>());
        let after = ring.select(998, |_| true);
        assert_eq!(
            after.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
            [999, 1_000]
        );
    }

    #[test]
    fn a_writer_does_not_wait_for_readers() {
        let ring = Ring::new(64);
        let held: Vec<_> = ring
            .shards
            .iter()
            .map(|shard| shard.lock().unwrap())
            .collect();
        ring.push(Arc::new(1));
        assert_eq!(ring.dropped(), 1);
        drop(held);
        // One shard in use is passed over.
        let held = ring.shards[3].lock().unwrap();
        for index in 0..16 {
            ring.push(Arc::new(index));
        }
        assert_eq!(ring.dropped(), 1);
        drop(held);
        assert_eq!(ring.select(0, |_| true).len(), 16);
    }

    #[test]
    fn a_ring_of_none_keeps_none() {
        let ring = Ring::new(0);
        assert_eq!(ring.push(Arc::new(1)), 1);
        assert!(ring.select(0, |_| true).is_empty());
    }
}
