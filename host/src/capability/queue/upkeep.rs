//! What the broker does by the clock: returns stalled jobs, and removes what is kept too long.

use super::{backend::Error, broker::Broker};
use crate::{clock::now_ms, sqlite, telemetry::chain};
use std::{
    sync::Weak,
    time::{Duration, Instant},
};

/// Looks after the broker until it has gone.
pub(super) async fn run(broker: Weak<Broker>) {
    let mut tidied = Instant::now();
    let mut away = false;
    loop {
        let Some(check_ms) = broker
            .upgrade()
            .map(|broker| broker.config.stalled_check_ms)
        else {
            return;
        };
        let before = now_ms();
        tokio::time::sleep(Duration::from_millis(check_ms.max(1))).await;
        let Some(broker) = broker.upgrade() else {
            return;
        };
        if was_stopped(before, now_ms(), check_ms) {
            tracing::warn!("this process was stopped for a while; leases get one more round");
        } else if away {
            // Leases have ended while nobody could renew them; their workers come first.
            away = !broker.ping().await;
        } else {
            match rescue(&broker).await {
                Rescue::Done => {}
                Rescue::Away => away = true,
                Rescue::Closed => return,
            }
        }
        if tidied.elapsed() >= Duration::from_millis(broker.config.tidy_ms) {
            tidied = Instant::now();
            tidy(&broker).await;
        }
    }
}

/// Whether the process slept with its workers: they renew their leases now, and would lose them if they were not let.
fn was_stopped(before_ms: i64, now_ms: i64, check_ms: u64) -> bool {
    now_ms.saturating_sub(before_ms) > i64::try_from(check_ms.saturating_mul(2)).unwrap_or(i64::MAX)
}

/// How a look for stalled jobs ended.
enum Rescue {
    Done,
    /// The backend cannot be reached.
    Away,
    Closed,
}

async fn rescue(broker: &Broker) -> Rescue {
    let rescued = broker
        .backend
        .rescue(broker.config.stalled_max, now_ms())
        .await;
    match rescued {
        Ok(queues) => queues.iter().for_each(|queue| {
            tracing::warn!(%queue, "leases expired; their jobs wait again");
            broker.signal(queue);
        }),
        Err(Error::Database(sqlite::Error::Closed)) => return Rescue::Closed,
        Err(error) => {
            let away = matches!(error, Error::Unavailable(_));
            tracing::error!(error = chain(&error.into()), "cannot look for stalled jobs");
            if away {
                return Rescue::Away;
            }
        }
    }
    Rescue::Done
}

async fn tidy(broker: &Broker) {
    loop {
        match broker.backend.tidy(now_ms()).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                return tracing::error!(error = chain(&error.into()), "cannot remove old events");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sleep_is_told_from_a_late_one() {
        assert!(!was_stopped(0, 9_999, 5_000));
        assert!(was_stopped(0, 30_000, 5_000));
        assert!(!was_stopped(30_000, 0, 5_000));
    }
}
