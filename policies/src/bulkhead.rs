//! A bulkhead: one slow target takes so many of a caller's calls and no more, and the rest wait shortly or go away.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Calls of one caller to one target.
#[derive(Debug)]
pub struct Bulkhead {
    permits: Semaphore,
    waiting: AtomicUsize,
    waiting_max: usize,
    wait_max: Duration,
}

/// A call's right to be under way, until dropped.
pub type Permit<'a> = SemaphorePermit<'a>;

/// As many calls are under way as may, and none ended in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One that waits, until dropped: also when its caller gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Bulkhead {
    /// `calls_max` calls at once; as many again may wait, each for `wait_max`.
    pub fn new(calls_max: usize, wait_max: Duration) -> Self {
        let calls_max = calls_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            permits: Semaphore::new(calls_max),
            waiting: AtomicUsize::new(0),
            waiting_max: calls_max,
            wait_max,
        }
    }

    /// A permit, at once or after waiting, until `until` at the latest.
    pub async fn enter(&self, until: Instant, now: Instant) -> Result<Permit<'_>, Full> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(permit);
        }
        let before = self.waiting.fetch_add(1, Relaxed);
        let _waiting = Waiting(&self.waiting);
        let patience = self.wait_max.min(until.saturating_duration_since(now));
        if before >= self.waiting_max || patience.is_zero() {
            return Err(Full);
        }
        match tokio::time::timeout(patience, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Full),
        }
    }

    /// Calls that may begin at once.
    pub fn free(&self) -> usize {
        self.permits.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

    const WAIT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(3_600);

    async fn enter(bulkhead: &Bulkhead) -> Result<Permit<'_>, Full> {
        let now = Instant::now();
        bulkhead.enter(now + LONG, now).await
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_waits_and_then_goes_away() {
        let bulkhead = Bulkhead::new(2, WAIT);
        let _held = (
            enter(&bulkhead).await.unwrap(),
            enter(&bulkhead).await.unwrap(),
        );
        let began = tokio::time::Instant::now();
        assert_eq!(enter(&bulkhead).await.err(), Some(Full));
        assert_eq!(began.elapsed(), WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_gets_what_becomes_free() {
        let bulkhead = Bulkhead::new(1, WAIT);
        let held = enter(&bulkhead).await.unwrap();
        let free = async {
            tokio::time::sleep(WAIT / 2).await;
            drop(held);
        };
        let (entered, ()) = tokio::join!(enter(&bulkhead), free);
        assert!(entered.is_ok() && bulkhead.free() == 0);
        drop(entered);
        assert_eq!(bulkhead.free(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_may_be_under_way() {
        let bulkhead = std::sync::Arc::new(Bulkhead::new(1, WAIT));
        let _held = enter(&bulkhead).await.unwrap();
        let mut waiting = JoinSet::new();
        let entered = bulkhead.clone();
        waiting.spawn(async move { enter(&entered).await.is_ok() });
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        assert_eq!(enter(&bulkhead).await.err(), Some(Full));
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(waiting.join_all().await, [false]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_past_the_deadline() {
        let bulkhead = Bulkhead::new(1, WAIT);
        let _held = enter(&bulkhead).await.unwrap();
        let (now, began) = (Instant::now(), tokio::time::Instant::now());
        let soon = Duration::from_millis(10);
        assert_eq!(bulkhead.enter(now + soon, now).await.err(), Some(Full));
        assert_eq!(began.elapsed(), soon);
        assert_eq!(bulkhead.enter(now, now).await.err(), Some(Full));
        assert_eq!(began.elapsed(), soon);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_gives_up_waits_no_longer() {
        let bulkhead = Bulkhead::new(1, WAIT);
        let held = enter(&bulkhead).await.unwrap();
        let given_up = tokio::time::timeout(WAIT / 2, enter(&bulkhead)).await;
        assert!(given_up.is_err());
        assert_eq!(bulkhead.waiting.load(Relaxed), 0);
        drop(held);
        assert_eq!(bulkhead.free(), 1);
    }
}
