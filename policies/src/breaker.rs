//! A circuit breaker: a target that fails is left alone for a while, then tried with a few calls.
//!
//! Closed: calls pass and their ends are counted in a rolling window. Open: calls are refused at once, until its time is
//! over. Half-open: a bounded number of trial calls pass; if all of them succeed it closes, and the first failure opens it
//! again. A call that was let through in one state says nothing to the next: what ends late changes nothing.

use serde::Serialize;
use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::*},
    },
    time::{Duration, Instant},
};

/// Parts of the rolling window; it moves on by one part at a time.
const BUCKETS: usize = 10;
/// Most calls counted in one part; further ones change no share worth speaking of.
const COUNT_MAX: u64 = u16::MAX as u64;

/// When a breaker opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// The share of failures that opens it.
    pub error_percent: u32,
    /// Calls in the window before any share opens it.
    pub volume_min: u32,
    /// How far back calls count.
    pub window: Duration,
    /// How long it stays open.
    pub open: Duration,
    /// Calls that are let through half-open, all of which have to succeed.
    pub trials: u32,
}

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// They pass.
    Closed,
    /// A few pass, to see.
    HalfOpen,
    /// They are refused.
    Open,
}

impl State {
    /// The name in events, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The target did its work.
    Success,
    /// It did not.
    Failure,
    /// The end says nothing about the target.
    Neither,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
    /// Calls in the window when it happened.
    pub calls: u32,
    /// How many of them failed.
    pub failures: u32,
}

/// A breaker for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// What it does with the next call.
    pub state: State,
    /// Calls in the window.
    pub calls: u32,
    /// How many of them failed.
    pub failures: u32,
    /// How long it stays open; none where it is not.
    pub open_for: Option<Duration>,
}

/// The call must not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When it may be worth coming again.
    pub retry_after: Duration,
}

/// A call's right to be made. Dropped without [`Pass::end`], it ended by its caller's doing.
#[derive(Debug)]
#[must_use]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    generation: u64,
    trial: bool,
}

/// The breaker of one target.
pub struct Breaker {
    settings: BreakerSettings,
    begun: Instant,
    /// Length of one part of the window.
    part_ns: u64,
    /// Part of time (32 bits), calls (16), failures (16).
    buckets: [AtomicU64; BUCKETS],
    /// The present generation while closed, else 0: all that a call reads while all is well.
    closed: AtomicU64,
    phase: Mutex<Phase>,
    listener: Box<dyn Fn(Transition) + Send + Sync>,
}

/// What is looked at only when the breaker is not closed.
struct Phase {
    /// Counts states, from 1: a call belongs to that in which it began.
    generation: u64,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Closed,
    Open { until: Instant },
    HalfOpen { under_way: u32, succeeded: u32 },
}

impl Kind {
    fn state(self) -> State {
        match self {
            Self::Closed => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen { .. } => State::HalfOpen,
        }
    }
}

impl Breaker {
    /// A closed one. Each change of state is told to `listener`, in order, which must be quick and must not call back.
    pub fn new(
        settings: BreakerSettings,
        now: Instant,
        listener: impl Fn(Transition) + Send + Sync + 'static,
    ) -> Self {
        Self {
            settings,
            begun: now,
            part_ns: nanoseconds(settings.window / BUCKETS as u32).max(1),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            closed: AtomicU64::new(1),
            phase: Mutex::new(Phase {
                generation: 1,
                kind: Kind::Closed,
            }),
            listener: Box::new(listener),
        }
    }

    /// Asks for a call. While closed: one load.
    #[inline]
    pub fn admit(&self, now: Instant) -> Result<Pass<'_>, Refused> {
        match self.closed.load(Acquire) {
            0 => self.admit_to_trial(now),
            generation => Ok(Pass {
                breaker: self,
                generation,
                trial: false,
            }),
        }
    }

    #[cold]
    fn admit_to_trial(&self, now: Instant) -> Result<Pass<'_>, Refused> {
        let mut phase = self.phase();
        if let Kind::Open { until } = phase.kind {
            if now < until {
                let retry_after = until - now;
                return Err(Refused { retry_after });
            }
            let kind = Kind::HalfOpen {
                under_way: 0,
                succeeded: 0,
            };
            self.change(&mut phase, kind, self.counted(now));
        }
        let generation = phase.generation;
        let trial = match &mut phase.kind {
            Kind::HalfOpen {
                under_way,
                succeeded,
            } => {
                if *under_way + *succeeded >= self.settings.trials.max(1) {
                    // Whoever is on trial decides soon.
                    let retry_after = Duration::ZERO;
                    return Err(Refused { retry_after });
                }
                *under_way += 1;
                true
            }
            // It has closed since the load.
            Kind::Closed | Kind::Open { .. } => false,
        };
        Ok(Pass {
            breaker: self,
            generation,
            trial,
        })
    }

    fn end(&self, pass: &Pass<'_>, verdict: Verdict, now: Instant) {
        match (pass.trial, verdict) {
            (false, Verdict::Neither) => {}
            (false, _) if self.closed.load(Acquire) != pass.generation => {}
            (false, Verdict::Success) => self.count(false, now),
            (false, Verdict::Failure) => {
                self.count(true, now);
                self.judge(pass.generation, now);
            }
            (true, verdict) => self.end_trial(pass.generation, verdict, now),
        }
    }

    /// Opens where the failures in the window are too many.
    #[cold]
    fn judge(&self, generation: u64, now: Instant) {
        let counted = self.counted(now);
        if !self.is_too_much(counted) {
            return;
        }
        let mut phase = self.phase();
        if phase.generation == generation {
            self.open(&mut phase, counted, now);
        }
    }

    fn is_too_much(&self, (calls, failures): (u32, u32)) -> bool {
        calls >= self.settings.volume_min.max(1)
            && u64::from(failures) * 100
                >= u64::from(calls) * u64::from(self.settings.error_percent)
    }

    fn end_trial(&self, generation: u64, verdict: Verdict, now: Instant) {
        let mut phase = self.phase();
        if phase.generation != generation {
            return;
        }
        let Kind::HalfOpen {
            under_way,
            succeeded,
        } = &mut phase.kind
        else {
            return;
        };
        *under_way = under_way.saturating_sub(1);
        match verdict {
            Verdict::Neither => {}
            Verdict::Failure => self.open(&mut phase, self.counted(now), now),
            Verdict::Success => {
                *succeeded += 1;
                if *succeeded >= self.settings.trials.max(1) {
                    // What opened it is past.
                    self.buckets
                        .iter()
                        .for_each(|bucket| bucket.store(0, Relaxed));
                    self.change(&mut phase, Kind::Closed, (0, 0));
                }
            }
        }
    }

    fn open(&self, phase: &mut Phase, counted: (u32, u32), now: Instant) {
        let until = now + self.settings.open;
        self.change(phase, Kind::Open { until }, counted);
    }

    fn change(&self, phase: &mut Phase, kind: Kind, (calls, failures): (u32, u32)) {
        let from = phase.kind.state();
        phase.generation += 1;
        phase.kind = kind;
        let closed = match kind {
            Kind::Closed => phase.generation,
            _ => 0,
        };
        self.closed.store(closed, Release);
        (self.listener)(Transition {
            from,
            to: kind.state(),
            calls,
            failures,
        });
    }

    /// What it does now, and why.
    pub fn view(&self, now: Instant) -> View {
        let (calls, failures) = self.counted(now);
        let (state, open_for) = match self.phase().kind {
            Kind::Open { until } if now < until => (State::Open, Some(until - now)),
            // The next call is a trial, though nobody has made it yet.
            Kind::Open { .. } => (State::HalfOpen, None),
            kind => (kind.state(), None),
        };
        View {
            state,
            calls,
            failures,
            open_for,
        }
    }

    /// Counts an end in the present part of the window. One compare-and-swap.
    fn count(&self, failed: bool, now: Instant) {
        let part = self.part(now);
        let bucket = &self.buckets[part as usize % BUCKETS];
        let more = |word: u64| {
            let (before, calls, failures) = parts(word);
            let (calls, failures) = if before == part {
                (calls, failures)
            } else {
                (0, 0)
            };
            (calls < COUNT_MAX)
                .then(|| u64::from(part) << 32 | (calls + 1) << 16 | (failures + u64::from(failed)))
        };
        let _ = bucket.fetch_update(Relaxed, Relaxed, more);
    }

    /// Calls and failures in the window.
    fn counted(&self, now: Instant) -> (u32, u32) {
        let part = self.part(now);
        let recent = self
            .buckets
            .iter()
            .map(|bucket| parts(bucket.load(Relaxed)));
        recent
            .filter(|(of, ..)| (part.wrapping_sub(*of) as usize) < BUCKETS)
            .fold(
                (0, 0),
                |(calls, failures), (_, more_calls, more_failures)| {
                    // Sixteen bits each, ten times.
                    (calls + more_calls as u32, failures + more_failures as u32)
                },
            )
    }

    /// The part of time that `now` is in, counted from the breaker's beginning.
    fn part(&self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.begun);
        // It may wrap: only differences count.
        (nanoseconds(passed) / self.part_ns) as u32
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Part of time, calls and failures of a bucket.
fn parts(word: u64) -> (u32, u64, u64) {
    (
        (word >> 32) as u32,
        word >> 16 & COUNT_MAX,
        word & COUNT_MAX,
    )
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("state", &self.phase().kind.state())
            .finish_non_exhaustive()
    }
}

impl Pass<'_> {
    /// Says how the call ended.
    pub fn end(self, verdict: Verdict, now: Instant) {
        self.breaker.end(&self, verdict, now);
        // `drop` would give it back once more.
        std::mem::forget(self);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.trial {
            // The time is not asked for.
            self.breaker
                .end_trial(self.generation, Verdict::Neither, self.breaker.begun);
        }
    }
}

#[cfg(test)]
mod tests;
