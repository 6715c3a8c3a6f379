//! What all stores of one service version may use together, so that a flood of one service is no flood of the platform.

use crate::{config::Limits, name::ServiceName};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::sync::Semaphore;

/// Data of a message that counts as one more.
const MESSAGE_UNIT_BYTES: usize = 4 << 10;
/// Bytes of a log record that count as one more.
const LOG_UNIT_BYTES: usize = 1 << 10;

/// The bounds of one service version over all its instances.
#[derive(Debug)]
pub struct Allowance {
    /// Calls of other services under way.
    pub calls: Arc<Semaphore>,
    /// Jobs and deliveries of events under way.
    pub jobs: Arc<Semaphore>,
    messages: Bucket,
    messages_per_second_max: u32,
    log: LogRate,
    log_records_per_second_max: u32,
}

impl Allowance {
    /// The whole of it.
    pub fn new(limits: &Limits) -> Self {
        let permits =
            |count: usize| Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            calls: permits(limits.calls_max),
            jobs: permits(limits.jobs_max),
            messages: Bucket::new(limits.messages_per_second_max),
            messages_per_second_max: limits.messages_per_second_max,
            log: LogRate::default(),
            log_records_per_second_max: limits.log_records_per_second_max,
        }
    }

    /// Whether messages with as many bytes of data each may be added or published now; the error names the limit.
    pub fn admit_messages(&self, sizes: impl Iterator<Item = usize>) -> Result<(), String> {
        let units = sizes.fold(0, |sum: u64, bytes| {
            sum.saturating_add(1 + (bytes / MESSAGE_UNIT_BYTES) as u64)
        });
        if self.messages.take(units, Instant::now()) {
            return Ok(());
        }
        Err(format!(
            "the service adds and publishes more than messages_per_second_max allows: {} in one second, each 4 KiB of \
             data counting as one more; try again",
            self.messages_per_second_max
        ))
    }

    /// Whether a log record of as many bytes may be written now. Says once a second that records were dropped.
    pub fn admit_record(&self, service: &ServiceName, now_s: i64, bytes: usize) -> bool {
        let units = 1 + u32::try_from(bytes / LOG_UNIT_BYTES).unwrap_or(u32::MAX - 1);
        self.log
            .admit(service, now_s, units, self.log_records_per_second_max)
    }
}

/// So many units a second, a second's worth of them at once. More than that at once is taken when all is there.
#[derive(Debug)]
struct Bucket {
    ns_per_unit: u64,
    begun: Instant,
    /// When all will be there again, in nanoseconds since `begun`.
    full_at_ns: AtomicU64,
}

impl Bucket {
    const SECOND_NS: u64 = 1_000_000_000;

    fn new(per_second: u32) -> Self {
        Self {
            ns_per_unit: Self::SECOND_NS / u64::from(per_second.max(1)),
            begun: Instant::now(),
            full_at_ns: AtomicU64::new(0),
        }
    }

    fn take(&self, units: u64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.begun).as_nanos();
        let now_ns = u64::try_from(passed).unwrap_or(u64::MAX);
        let taken = |full_at_ns: u64| {
            let next = full_at_ns
                .max(now_ns)
                .saturating_add(units.saturating_mul(self.ns_per_unit));
            (full_at_ns <= now_ns || next - now_ns <= Self::SECOND_NS).then_some(next)
        };
        self.full_at_ns
            .fetch_update(Relaxed, Relaxed, taken)
            .is_ok()
    }
}

/// A count of log records in the present second.
#[derive(Debug, Default)]
struct LogRate {
    second: AtomicI64,
    count: AtomicU32,
    dropped: AtomicU32,
}

impl LogRate {
    fn admit(&self, service: &ServiceName, now_s: i64, units: u32, max: u32) -> bool {
        if self.second.swap(now_s, Relaxed) != now_s {
            self.count.store(0, Relaxed);
            let dropped = self.dropped.swap(0, Relaxed);
            if dropped > 0 {
                tracing::warn!(%service, dropped, "log records were dropped: over log_records_per_second_max");
            }
        }
        let more = |count: u32| (count < max).then(|| count.saturating_add(units));
        let within = self.count.fetch_update(Relaxed, Relaxed, more).is_ok();
        if !within {
            self.dropped.fetch_add(1, Relaxed);
        }
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn log_rate_starts_anew_each_second() {
        let (rate, service) = (LogRate::default(), ServiceName::parse("a").unwrap());
        let admitted = |second, units| {
            (0..5)
                .filter(|_| rate.admit(&service, second, units, 3))
                .count()
        };
        assert_eq!((admitted(1, 1), admitted(2, 1), admitted(3, 2)), (3, 3, 2));
    }

    #[test]
    fn a_bucket_gives_a_seconds_worth_at_once_and_fills_with_time() {
        let bucket = Bucket::new(10);
        let at = |ms| bucket.begun + Duration::from_millis(ms);
        let taken = |ms| (0..100).filter(|_| bucket.take(1, at(ms))).count();
        assert_eq!(
            (taken(0), taken(0), taken(500), taken(10_000)),
            (10, 0, 5, 10)
        );
    }

    #[test]
    fn what_is_larger_than_a_seconds_worth_waits_until_all_is_there() {
        let bucket = Bucket::new(10);
        let at = |ms| bucket.begun + Duration::from_millis(ms);
        assert!(bucket.take(25, at(0)));
        assert!(!bucket.take(1, at(1_400)));
        assert!(bucket.take(1, at(1_700)));
        assert!(!bucket.take(25, at(1_700)));
        assert!(bucket.take(25, at(2_700)));
    }
}
