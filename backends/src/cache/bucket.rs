//! Token buckets: how many requests may pass, computed from the time alone.

/// What is remembered of a bucket between requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// Tokens in it, with the fraction of the next, at `at_ms`.
    tokens: f64,
    at_ms: u64,
}

/// A bucket's size and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub capacity: u64,
    pub refill_per_second: f64,
}

/// A bucket after a request for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub allowed: bool,
    /// Whole tokens left.
    pub remaining: u64,
    /// Milliseconds until the tokens asked for will be there: 0 when allowed, `u64::MAX` when never.
    pub retry_after_ms: u64,
    /// Milliseconds until the bucket is full, `u64::MAX` when never.
    pub reset_ms: u64,
}

/// Takes `tokens` where they are there; takes none otherwise. A bucket that is not remembered is full.
///
/// A clock that goes back adds nothing. A capacity that has shrunk spills what no longer fits.
pub fn take(state: Option<State>, rate: Rate, tokens: u64, now_ms: u64) -> (State, Answer) {
    let capacity = rate.capacity as f64;
    let filled = state.map_or(capacity, |state| {
        let elapsed_ms = now_ms.saturating_sub(state.at_ms) as f64;
        (state.tokens + elapsed_ms * rate.refill_per_second / 1_000.0).min(capacity)
    });
    let wanted = tokens as f64;
    let allowed = wanted <= filled;
    let left = if allowed { filled - wanted } else { filled };
    let at_ms = state.map_or(now_ms, |state| state.at_ms.max(now_ms));
    (
        State {
            tokens: left,
            at_ms,
        },
        answer(allowed, left, rate, tokens),
    )
}

/// What is answered when `left` tokens are in the bucket after a request for `tokens`.
pub(super) fn answer(allowed: bool, left: f64, rate: Rate, tokens: u64) -> Answer {
    Answer {
        allowed,
        remaining: left as u64,
        retry_after_ms: if allowed {
            0
        } else {
            wait_ms(tokens as f64, left, rate)
        },
        reset_ms: wait_ms(rate.capacity as f64, left, rate),
    }
}

/// Milliseconds until a bucket that holds `held` will hold `wanted`.
fn wait_ms(wanted: f64, held: f64, rate: Rate) -> u64 {
    if wanted <= held {
        0
    } else if wanted > rate.capacity as f64 || rate.refill_per_second <= 0.0 {
        u64::MAX
    } else {
        ((wanted - held) * 1_000.0 / rate.refill_per_second).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        capacity: 10,
        refill_per_second: 2.0,
    };

    /// Runs requests of (tokens, at) and answers who was allowed.
    fn allowed(requests: &[(u64, u64)]) -> Vec<bool> {
        let mut state = None;
        requests
            .iter()
            .map(|(tokens, at_ms)| {
                let (next, answer) = take(state, RATE, *tokens, *at_ms);
                state = Some(next);
                answer.allowed
            })
            .collect()
    }

    #[test]
    fn a_full_bucket_gives_its_capacity_then_its_refill() {
        assert_eq!(
            allowed(&[(10, 0), (1, 0), (1, 499), (1, 500), (1, 501)]),
            [true, false, false, true, false]
        );
        assert_eq!(
            allowed(&[(10, 0), (10, 4_999), (10, 5_000)]),
            [true, false, true]
        );
    }

    #[test]
    fn answers_say_when() {
        let (state, answer) = take(None, RATE, 7, 1_000);
        assert_eq!(
            answer,
            Answer {
                allowed: true,
                remaining: 3,
                retry_after_ms: 0,
                reset_ms: 3_500
            }
        );
        let (state, answer) = take(Some(state), RATE, 5, 1_000);
        assert_eq!(
            answer,
            Answer {
                allowed: false,
                remaining: 3,
                retry_after_ms: 1_000,
                reset_ms: 3_500
            }
        );
        let (_, answer) = take(Some(state), RATE, 5, 2_000);
        assert_eq!(
            answer,
            Answer {
                allowed: true,
                remaining: 0,
                retry_after_ms: 0,
                reset_ms: 5_000
            }
        );
    }

    #[test]
    fn refused_requests_cost_nothing_and_fractions_count() {
        let mut state = take(None, RATE, 10, 0).0;
        for at_ms in (1..=499).step_by(7) {
            let (next, answer) = take(Some(state), RATE, 1, at_ms);
            assert!(!answer.allowed, "{at_ms}");
            state = next;
        }
        assert!(take(Some(state), RATE, 1, 501).1.allowed);
    }

    #[test]
    fn what_never_fits_is_never_there() {
        assert_eq!(take(None, RATE, 11, 0).1.retry_after_ms, u64::MAX);
        let still = Rate {
            capacity: 1,
            refill_per_second: 0.0,
        };
        let (state, first) = take(None, still, 1, 0);
        assert!(first.allowed && first.reset_ms == u64::MAX);
        assert_eq!(
            take(Some(state), still, 1, 1 << 40).1.retry_after_ms,
            u64::MAX
        );
    }

    #[test]
    fn clocks_that_go_back_add_nothing() {
        let (state, _) = take(None, RATE, 10, 5_000);
        let (state, answer) = take(Some(state), RATE, 1, 1_000);
        assert!(!answer.allowed);
        assert!(!take(Some(state), RATE, 1, 5_400).1.allowed);
    }
}
