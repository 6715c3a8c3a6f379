//! The watch window after a swap, and the whole of a canary's trial: a version that does worse goes by itself.

use super::Platform;
use crate::{
    service::{Policy, Sample, Service, Version, verdict},
    telemetry::chain,
};
use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

/// How often a version on watch is compared.
const TICK: Duration = Duration::from_millis(200);
/// How often its health is asked for, in ticks.
const HEALTH_TICKS: u32 = 5;

/// A new version beside the one that it replaces or may replace.
pub(super) struct Watch {
    service: Arc<Service>,
    new: Arc<Version>,
    old: Arc<Version>,
    /// What the old version has done: all of it before a swap; since its beginning for a canary.
    baseline: Baseline,
}

enum Baseline {
    Until(Sample),
    Since(Sample),
}

impl Watch {
    /// The window after everything was given to `new`.
    pub fn after_swap(service: &Arc<Service>, new: Arc<Version>, old: Arc<Version>) -> Self {
        Self {
            service: service.clone(),
            baseline: Baseline::Until(old.record.sample()),
            new,
            old,
        }
    }

    /// The trial of `new`, which has a share.
    pub fn of_canary(service: &Arc<Service>, new: Arc<Version>, old: Arc<Version>) -> Self {
        Self {
            service: service.clone(),
            baseline: Baseline::Since(old.record.sample()),
            new,
            old,
        }
    }

    /// Watches in the background until the window ends, the versions change again, or the new one goes.
    pub fn start(self, platform: &Arc<Platform>) {
        let platform = Arc::downgrade(platform);
        tokio::spawn(self.run(platform));
    }

    async fn run(self, platform: Weak<Platform>) {
        let Some((window, policy, failures_max)) = platform.upgrade().map(|it| settings(&it))
        else {
            return;
        };
        let until = Instant::now() + window;
        let mut gate = self.service.gate();
        let mut tick = tokio::time::interval(TICK);
        let (mut ticks, mut unhealthy) = (0u32, 0u32);
        loop {
            tokio::select! {
                _ = tick.tick() => ticks = ticks.wrapping_add(1),
                _ = gate.changed() => {}
            }
            let Some(platform) = platform.upgrade().filter(|_| self.is_on(until)) else {
                return;
            };
            if ticks.is_multiple_of(HEALTH_TICKS) {
                unhealthy = match platform.check_health(&self.new).await {
                    Ok(()) => 0,
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "a version on watch is not healthy");
                        unhealthy + 1
                    }
                };
            }
            let reason = if unhealthy >= failures_max.max(1) {
                Some(format!("it was not healthy {unhealthy} times in a row"))
            } else {
                verdict(&self.sample_of_old(), &self.new.record.sample(), &policy)
            };
            if let Some(reason) = reason {
                let pair = (&self.new, &self.old);
                return platform
                    .roll_back_by_itself(&self.service, pair, &reason)
                    .await;
            }
        }
    }

    /// Whether the new version is still the one in question.
    fn is_on(&self, until: Instant) -> bool {
        match &self.baseline {
            Baseline::Until(_) => {
                let live = self.service.live();
                Instant::now() < until && live.is_some_and(|live| Arc::ptr_eq(&live, &self.new))
            }
            Baseline::Since(_) => {
                let canary = self.service.canary();
                canary.is_some_and(|(canary, _)| Arc::ptr_eq(&canary, &self.new))
            }
        }
    }

    fn sample_of_old(&self) -> Sample {
        match &self.baseline {
            Baseline::Until(sample) => sample.clone(),
            Baseline::Since(earlier) => self.old.record.sample().since(earlier),
        }
    }
}

fn settings(platform: &Platform) -> (Duration, Policy, u32) {
    let config = &platform.config.platform;
    let policy = Policy {
        invocations_min: config.swap_invocations_min,
        error_factor: config.swap_error_factor,
        error_floor: config.swap_error_floor,
        p95_factor: config.swap_p95_factor,
        p95_floor: Duration::from_millis(config.swap_p95_floor_ms),
    };
    let window = Duration::from_millis(config.swap_watch_ms);
    (window, policy, config.swap_unhealthy_max)
}
