//! Retries as a share of calls: a failure of many is not answered by many times as many calls.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What one retry costs.
const RETRY: u64 = 100;

/// A bucket of tokens that calls fill and retries empty.
#[derive(Debug)]
pub struct Budget {
    /// Hundredths of a retry.
    tokens: AtomicU64,
    percent: u64,
    most: u64,
}

impl Budget {
    /// Each hundred calls allow `percent` retries, of which `burst` may be saved up, and are there at the start.
    pub fn new(percent: u32, burst: u32) -> Self {
        let most = u64::from(burst) * RETRY;
        Self {
            tokens: AtomicU64::new(most),
            percent: u64::from(percent),
            most,
        }
    }

    /// Counts a call, whose retries are not counted again.
    pub fn deposit(&self) {
        // What is full is left alone: calls of a healthy target write nothing here.
        if self.tokens.load(Relaxed) < self.most {
            let more = |tokens: u64| Some((tokens + self.percent).min(self.most));
            let _ = self.tokens.fetch_update(Relaxed, Relaxed, more);
        }
    }

    /// Takes a retry from the budget; false where it is used up.
    pub fn withdraw(&self) -> bool {
        let less = |tokens: u64| tokens.checked_sub(RETRY);
        self.tokens.fetch_update(Relaxed, Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn withdrawn(budget: &Budget) -> usize {
        (0..1_000).take_while(|_| budget.withdraw()).count()
    }

    #[test]
    fn the_burst_is_there_at_the_start_and_no_more_is_saved_up() {
        let budget = Budget::new(20, 10);
        (0..1_000).for_each(|_| budget.deposit());
        assert_eq!((withdrawn(&budget), withdrawn(&budget)), (10, 0));
    }

    #[test]
    fn retries_are_a_share_of_calls() {
        let budget = Budget::new(20, 10);
        withdrawn(&budget);
        let calls = |count| {
            (0..count)
                .map(|_| {
                    budget.deposit();
                    usize::from(budget.withdraw())
                })
                .sum::<usize>()
        };
        assert_eq!((calls(4), calls(1), calls(100)), (0, 1, 20));
    }

    #[test]
    fn nothing_is_nothing() {
        let budget = Budget::new(0, 0);
        budget.deposit();
        assert!(!budget.withdraw());
    }

    #[test]
    fn many_at_once_get_no_more_than_there_is() {
        let budget = Budget::new(0, 100);
        let taken: usize = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4).map(|_| scope.spawn(|| withdrawn(&budget))).collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        assert_eq!(taken, 100);
    }
}
