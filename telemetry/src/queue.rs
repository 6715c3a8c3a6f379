//! Records on their way to the exporter. Full means dropped and counted: nobody waits.

use crossbeam_queue::ArrayQueue;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::Notify;

/// A bounded queue with one reader, who comes by time or when a batch is there.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: ArrayQueue<T>,
    batch_max: usize,
    full_batch: Notify,
    dropped: AtomicU64,
}

impl<T> Queue<T> {
    pub fn new(max: usize, batch_max: usize) -> Self {
        Self {
            waiting: ArrayQueue::new(max.max(1)),
            batch_max: batch_max.max(1),
            full_batch: Notify::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Adds a record, or drops it where there is no room.
    pub fn offer(&self, record: T) {
        if self.waiting.push(record).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
        if self.waiting.len() >= self.batch_max {
            self.full_batch.notify_one();
        }
    }

    /// Resolves when a whole batch waits.
    pub async fn batch(&self) {
        self.full_batch.notified().await;
    }

    /// Takes a batch, or what there is of one.
    pub fn take(&self) -> Vec<T> {
        let mut batch = Vec::with_capacity(self.batch_max.min(self.waiting.len()));
        while batch.len() < self.batch_max
            && let Some(record) = self.waiting.pop()
        {
            batch.push(record);
        }
        batch
    }

    /// Whether a whole batch waits.
    pub fn has_batch(&self) -> bool {
        self.waiting.len() >= self.batch_max
    }

    /// Records for which there was no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}
