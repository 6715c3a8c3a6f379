//! What a call costs that all policies let pass: `cargo bench -p exprsn-policies`.

use exprsn_policies::{Breaker, BreakerSettings, Budget, Priority, Shedder, Verdict};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const CALLS: u32 = 5_000_000;

fn measured(what: &str, mut call: impl FnMut(Instant)) {
    let begun = Instant::now();
    (0..CALLS).for_each(|_| call(begun));
    let ns = begun.elapsed().as_nanos() as f64 / f64::from(CALLS);
    println!("{what}: {ns:.1} ns");
}

fn main() {
    let settings = BreakerSettings {
        error_percent: 50,
        volume_min: 20,
        window: Duration::from_secs(10),
        open: Duration::from_secs(30),
        trials: 3,
    };
    let breaker = Breaker::new(settings, Instant::now(), |_| ());
    let (budget, shedder) = (Budget::new(20, 10), Shedder::new(1_024, 50, 80));
    let pass = |now: Instant| {
        if let Ok(pass) = black_box(&breaker).admit(now) {
            pass.end(Verdict::Success, now);
        }
    };
    measured("a closed breaker", pass);
    measured("a closed breaker, looking at the clock", |_| {
        pass(Instant::now())
    });
    measured("breaker, budget and shedder", |now| {
        let _place = black_box(&shedder).admit(Priority::Normal);
        budget.deposit();
        pass(now);
    });
}
