//! How one version does, and whether a new one does worse than the old.

use crate::{invocation::Trigger, telemetry::Outcome};
use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Buckets of latencies: four for each doubling of a microsecond.
const BUCKETS: usize = 128;

/// Counts of one version. Every invocation adds to three of them and waits for nothing.
pub struct Record {
    invocations: AtomicU64,
    failures: AtomicU64,
    /// HTTP requests by latency; a job's time says little of a version.
    latencies: [AtomicU64; BUCKETS],
}

impl Record {
    pub fn new() -> Self {
        Self {
            invocations: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            latencies: array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Counts the end of an invocation.
    pub fn count(&self, trigger: Trigger, outcome: Outcome, took: Duration) {
        self.invocations.fetch_add(1, Relaxed);
        if outcome == Outcome::Failure {
            self.failures.fetch_add(1, Relaxed);
        }
        if trigger == Trigger::Http {
            self.latencies[bucket(took)].fetch_add(1, Relaxed);
        }
    }

    /// What has been counted so far.
    pub fn sample(&self) -> Sample {
        Sample {
            invocations: self.invocations.load(Relaxed),
            failures: self.failures.load(Relaxed),
            latencies: self
                .latencies
                .iter()
                .map(|count| count.load(Relaxed))
                .collect(),
        }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(4);
    let exponent = us.ilog2();
    let quarter = (us >> (exponent - 2)) & 3;
    (((exponent - 2) * 4) as usize + quarter as usize).min(BUCKETS - 1)
}

/// The upper end of a bucket.
fn upper(bucket: usize) -> Duration {
    let (exponent, quarter) = (bucket / 4 + 2, bucket % 4);
    Duration::from_micros((quarter as u64 + 5) << (exponent - 2))
}

/// Counts at one moment, or between two.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub invocations: u64,
    pub failures: u64,
    latencies: Vec<u64>,
}

impl Sample {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |(now, before): (&u64, &u64)| now.saturating_sub(*before);
        Self {
            invocations: self.invocations.saturating_sub(earlier.invocations),
            failures: self.failures.saturating_sub(earlier.failures),
            latencies: self
                .latencies
                .iter()
                .zip(&earlier.latencies)
                .map(less)
                .collect(),
        }
    }

    /// Failed invocations as a share of all.
    pub fn error_rate(&self) -> f64 {
        self.failures as f64 / self.invocations.max(1) as f64
    }

    /// The latency that 95 of 100 requests kept, exact to a quarter; none without requests.
    pub fn p95(&self) -> Option<Duration> {
        let total: u64 = self.latencies.iter().sum();
        let rank = (total * 95).div_ceil(100);
        let mut seen = 0;
        let reached = self.latencies.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        reached.filter(|_| total > 0).map(upper)
    }
}

/// When a new version counts as worse than the old one: `swap_…` in platform.toml.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Invocations of the new version before anything is said of it.
    pub invocations_min: u64,
    /// How many times the old one's share of failures is too much …
    pub error_factor: f64,
    /// … and the share that is never too much.
    pub error_floor: f64,
    /// How many times the old one's 95th percentile is too slow …
    pub p95_factor: f64,
    /// … and the latency that is never too slow.
    pub p95_floor: Duration,
}

/// Why the new version is worse than the old one; none if it is not, or nothing can be said yet.
pub fn verdict(old: &Sample, new: &Sample, policy: &Policy) -> Option<String> {
    if new.invocations < policy.invocations_min {
        return None;
    }
    let (before, now) = (old.error_rate(), new.error_rate());
    if now > (before * policy.error_factor).max(policy.error_floor) {
        return Some(format!(
            "{:.1} % of its {} invocations failed, and {:.1} % of the old version's {}",
            now * 100.0,
            new.invocations,
            before * 100.0,
            old.invocations
        ));
    }
    let (Some(before), Some(now)) = (old.p95(), new.p95()) else {
        return None;
    };
    (now > before.mul_f64(policy.p95_factor).max(policy.p95_floor))
        .then(|| format!("its 95th percentile is {now:.1?}, and the old version's is {before:.1?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        invocations_min: 20,
        error_factor: 2.0,
        error_floor: 0.01,
        p95_factor: 2.0,
        p95_floor: Duration::from_millis(20),
    };

    fn sample(good: u32, bad: u32, ms: u64) -> Sample {
        let record = Record::new();
        for _ in 0..good {
            record.count(Trigger::Http, Outcome::Success, Duration::from_millis(ms));
        }
        for _ in 0..bad {
            record.count(Trigger::Job, Outcome::Failure, Duration::from_secs(9));
        }
        record.sample()
    }

    #[test]
    fn latencies_are_exact_to_a_quarter() {
        for us in [1, 4, 7, 100, 1_000, 12_345, 3_000_000] {
            let took = Duration::from_micros(us);
            let (low, high) = (took, took.max(Duration::from_micros(4)).mul_f64(1.25));
            let upper = upper(bucket(took));
            assert!(
                low < upper && upper <= high + Duration::from_micros(1),
                "{us}: {upper:?}"
            );
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        assert_eq!(Sample::default().p95(), None);
    }

    #[test]
    fn a_version_is_worse_by_errors_or_by_latency_and_only_with_enough_to_go_by() {
        let check = |old: &Sample, new: &Sample| verdict(old, new, &POLICY);
        let old = sample(1_000, 1, 10);
        assert_eq!(check(&old, &sample(100, 0, 10)), None);
        assert_eq!(check(&old, &sample(0, 19, 10)), None, "too few");
        assert_eq!(check(&old, &sample(200, 2, 10)), None, "below the floor");
        let errors = check(&old, &sample(90, 10, 10)).unwrap();
        assert!(errors.contains("10.0 % of its 100"), "{errors}");
        let slow = check(&old, &sample(100, 0, 40)).unwrap();
        assert!(slow.contains("95th percentile"), "{slow}");
        assert_eq!(
            check(&sample(100, 0, 1), &sample(100, 0, 15)),
            None,
            "fast enough"
        );
    }

    #[test]
    fn a_window_is_the_difference_of_two_samples() {
        let record = Record::new();
        record.count(Trigger::Http, Outcome::Failure, Duration::from_secs(2));
        let earlier = record.sample();
        record.count(Trigger::Http, Outcome::Success, Duration::from_millis(1));
        let window = record.sample().since(&earlier);
        assert_eq!((window.invocations, window.failures), (1, 0));
        assert!(window.p95().unwrap() < Duration::from_millis(2));
    }
}
