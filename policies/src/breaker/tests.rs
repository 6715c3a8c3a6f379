use super::*;
use std::sync::Arc;

const SETTINGS: BreakerSettings = BreakerSettings {
    error_percent: 50,
    volume_min: 10,
    window: Duration::from_secs(10),
    open: Duration::from_secs(30),
    trials: 2,
};

/// A breaker, its beginning, and what it told.
struct Bundle {
    breaker: Breaker,
    begun: Instant,
    told: Arc<Mutex<Vec<(State, State)>>>,
}

impl Bundle {
    fn new() -> Self {
        let (begun, told) = (Instant::now(), Arc::<Mutex<Vec<_>>>::default());
        let heard = told.clone();
        let listener =
            move |change: Transition| heard.lock().unwrap().push((change.from, change.to));
        Self {
            breaker: Breaker::new(SETTINGS, begun, listener),
            begun,
            told,
        }
    }

    fn at(&self, ms: u64) -> Instant {
        self.begun + Duration::from_millis(ms)
    }

    /// Makes a call; false where it was refused.
    fn call(&self, ms: u64, verdict: Verdict) -> bool {
        let pass = self.breaker.admit(self.at(ms));
        pass.map(|pass| pass.end(verdict, self.at(ms))).is_ok()
    }

    fn calls(&self, ms: u64, count: usize, verdict: Verdict) {
        (0..count).for_each(|_| {
            self.call(ms, verdict);
        });
    }

    fn state(&self, ms: u64) -> State {
        self.breaker.view(self.at(ms)).state
    }

    /// One that opened at `ms`.
    fn opened(ms: u64) -> Self {
        let bundle = Self::new();
        bundle.calls(ms, 10, Verdict::Failure);
        assert_eq!(bundle.state(ms), State::Open);
        bundle
    }
}

#[test]
fn it_opens_at_half_of_enough_calls() {
    let bundle = Bundle::new();
    bundle.calls(0, 5, Verdict::Success);
    bundle.calls(0, 4, Verdict::Failure);
    assert_eq!(bundle.state(0), State::Closed, "nine are too few");
    bundle.call(0, Verdict::Failure);
    assert_eq!(bundle.state(0), State::Open);
    assert_eq!(*bundle.told.lock().unwrap(), [(State::Closed, State::Open)]);
}

#[test]
fn less_than_half_does_not_open_it() {
    let bundle = Bundle::new();
    for _ in 0..200 {
        bundle.calls(0, 6, Verdict::Success);
        bundle.calls(0, 5, Verdict::Failure);
    }
    assert_eq!(bundle.state(0), State::Closed);
    let view = bundle.breaker.view(bundle.at(0));
    assert_eq!((view.calls, view.failures), (2_200, 1_000));
}

#[test]
fn what_is_long_past_does_not_count() {
    let bundle = Bundle::new();
    bundle.calls(0, 9, Verdict::Failure);
    bundle.calls(10_000, 9, Verdict::Failure);
    assert_eq!(bundle.state(10_000), State::Closed);
    bundle.call(19_999, Verdict::Failure);
    assert_eq!(
        bundle.state(19_999),
        State::Open,
        "the ten in the window count"
    );
}

#[test]
fn the_window_rolls_part_by_part() {
    let bundle = Bundle::new();
    (0..10).for_each(|second| bundle.calls(second * 1_000, 1, Verdict::Success));
    let calls = |ms| bundle.breaker.view(bundle.at(ms)).calls;
    assert_eq!(
        [9_000, 10_000, 14_500, 18_999, 19_000].map(calls),
        [10, 9, 5, 1, 0]
    );
}

#[test]
fn what_says_nothing_is_not_counted() {
    let bundle = Bundle::new();
    bundle.calls(0, 100, Verdict::Neither);
    drop(bundle.breaker.admit(bundle.at(0)));
    assert_eq!(bundle.breaker.view(bundle.at(0)).calls, 0);
}

#[test]
fn open_it_refuses_and_says_for_how_long() {
    let bundle = Bundle::opened(0);
    let refused = bundle.breaker.admit(bundle.at(10_000)).err();
    let retry_after = Duration::from_secs(20);
    assert_eq!(refused, Some(Refused { retry_after }));
    let view = bundle.breaker.view(bundle.at(10_000));
    assert_eq!(view.open_for, Some(retry_after));
}

#[test]
fn half_open_it_lets_so_many_through_and_closes_when_they_succeed() {
    let bundle = Bundle::opened(0);
    let now = bundle.at(30_000);
    let (first, second) = (
        bundle.breaker.admit(now).unwrap(),
        bundle.breaker.admit(now).unwrap(),
    );
    assert!(bundle.breaker.admit(now).is_err(), "two are on trial");
    first.end(Verdict::Success, now);
    assert!(
        bundle.breaker.admit(now).is_err(),
        "one has succeeded, one is on trial"
    );
    second.end(Verdict::Success, now);
    assert_eq!(bundle.state(30_000), State::Closed);
    let view = bundle.breaker.view(now);
    assert_eq!((view.calls, view.failures), (0, 0), "it begins anew");
    let told = bundle.told.lock().unwrap().clone();
    use State::*;
    assert_eq!(told, [(Closed, Open), (Open, HalfOpen), (HalfOpen, Closed)]);
}

#[test]
fn half_open_the_first_failure_opens_it_for_as_long_again() {
    let bundle = Bundle::opened(0);
    let now = bundle.at(30_000);
    let (first, second) = (
        bundle.breaker.admit(now).unwrap(),
        bundle.breaker.admit(now).unwrap(),
    );
    first.end(Verdict::Failure, now);
    assert_eq!(bundle.state(59_999), State::Open);
    second.end(Verdict::Success, now);
    assert_eq!(
        bundle.state(59_999),
        State::Open,
        "what ends late changes nothing"
    );
    assert_eq!(bundle.state(60_000), State::HalfOpen);
}

#[test]
fn a_trial_that_its_caller_gave_up_makes_room_for_another() {
    let bundle = Bundle::opened(0);
    let now = bundle.at(30_000);
    for _ in 0..10 {
        drop(bundle.breaker.admit(now).unwrap());
    }
    bundle.calls(30_000, 2, Verdict::Success);
    assert_eq!(bundle.state(30_000), State::Closed);
}

#[test]
fn calls_from_before_it_opened_say_nothing_afterwards() {
    let bundle = Bundle::new();
    let late: Vec<_> = (0..30)
        .map(|_| bundle.breaker.admit(bundle.at(0)).unwrap())
        .collect();
    bundle.calls(0, 10, Verdict::Failure);
    bundle.calls(30_000, 2, Verdict::Success);
    assert_eq!(bundle.state(30_000), State::Closed);
    late.into_iter()
        .for_each(|pass| pass.end(Verdict::Failure, bundle.at(30_000)));
    assert_eq!(bundle.state(30_000), State::Closed);
    assert_eq!(bundle.breaker.view(bundle.at(30_000)).calls, 0);
}

#[test]
fn many_at_once_open_it_once() {
    let bundle = Bundle::new();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| bundle.calls(0, 1_000, Verdict::Failure));
        }
    });
    assert_eq!(bundle.told.lock().unwrap().len(), 1);
}

#[test]
fn a_part_counts_no_further_than_it_can() {
    let bundle = Bundle::new();
    bundle.calls(0, 70_000, Verdict::Success);
    bundle.calls(0, 1_000, Verdict::Failure);
    let view = bundle.breaker.view(bundle.at(0));
    assert_eq!(
        (view.calls, view.failures, view.state),
        (65_535, 0, State::Closed)
    );
    bundle.calls(1_000, 70_000, Verdict::Failure);
    assert_eq!(
        bundle.state(1_000),
        State::Open,
        "the next part counts again"
    );
}
