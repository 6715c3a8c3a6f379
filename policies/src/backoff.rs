//! How long to wait before an attempt is repeated: exponentially longer, with full jitter, up to a cap.

use std::time::Duration;

/// Waits that double from `base` up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The most that the first repetition waits.
    pub base: Duration,
    /// The most that any waits.
    pub max: Duration,
}

impl Backoff {
    /// The wait before repetition `number`, counted from 0. `jitter` draws from zero to its argument: all of the wait is
    /// chance, so that callers that failed together do not come again together.
    pub fn wait(&self, number: u32, jitter: impl FnOnce(Duration) -> Duration) -> Duration {
        let ceiling = self.ceiling(number);
        jitter(ceiling).min(ceiling)
    }

    /// The most that repetition `number` waits.
    fn ceiling(&self, number: u32) -> Duration {
        let factor = 1_u32.checked_shl(number).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        base: Duration::from_millis(25),
        max: Duration::from_millis(250),
    };

    #[test]
    fn the_most_doubles_up_to_the_cap() {
        let most = [0, 1, 2, 3, 4, 31, 32, u32::MAX]
            .map(|number| BACKOFF.wait(number, |most| most).as_millis());
        assert_eq!(most, [25, 50, 100, 200, 250, 250, 250, 250]);
    }

    #[test]
    fn jitter_is_full() {
        assert_eq!(BACKOFF.wait(3, |_| Duration::ZERO), Duration::ZERO);
        assert_eq!(BACKOFF.wait(3, |most| most / 2).as_millis(), 100);
    }

    #[test]
    fn chance_draws_no_more_than_the_most() {
        assert_eq!(BACKOFF.wait(0, |most| most * 9).as_millis(), 25);
    }
}
