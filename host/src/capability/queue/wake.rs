//! What other hosts and programs add: passed on to those here who wait for jobs.

use super::{
    backend::{Backend, Result},
    broker::Broker,
};
use crate::telemetry::chain;
use std::{
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::sync::watch;

/// The wait before the backend is asked again after it failed.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// Signals queues as the backend names them, until the broker has gone.
pub(super) async fn run(
    broker: Weak<Broker>,
    backend: Arc<dyn Backend>,
    mut watched: watch::Receiver<Vec<String>>,
) {
    loop {
        let queues = watched.borrow_and_update().clone();
        let woken = tokio::select! {
            woken = backend.wake(queues) => woken,
            changed = watched.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Some(broker) = broker.upgrade() else {
            return;
        };
        let failed = signal(&broker, woken);
        drop(broker);
        if failed {
            tokio::time::sleep(RETRY_WAIT).await;
        }
    }
}

/// Passes the news on; whether there was none to be had.
fn signal(broker: &Broker, woken: Result<Vec<String>>) -> bool {
    match woken {
        Ok(queues) => {
            queues.iter().for_each(|queue| broker.signal(queue));
            false
        }
        Err(error) => {
            tracing::warn!(
                error = chain(&error.into()),
                "cannot hear what other hosts add; trying again"
            );
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::capability::queue::{Broker, Config, NewJob, redis::RedisBackend};
    use exprsn_backends::{redis::Redis, testing::RedisServer};
    use std::{sync::Arc, time::Duration};
    use tokio::{runtime::Handle, time::timeout};

    #[tokio::test]
    async fn a_worker_hears_what_another_host_adds() {
        let server = RedisServer::start();
        let host = || {
            let (redis, config) = (Redis::new(server.url()).unwrap(), Config::default());
            let backend = RedisBackend::new(Arc::new(redis), &config);
            Broker::new(Arc::new(backend), &Handle::current(), &config)
        };
        let (here, there) = (host(), host());
        let mut signal = here.watch("q");
        let listening = timeout(Duration::from_secs(20), signal.changed());
        listening.await.expect("the first look is news").unwrap();
        there.add("q", NewJob::new("1", "work", "{}")).await.unwrap();
        let heard = timeout(Duration::from_secs(3), signal.changed());
        heard.await.expect("heard at once").unwrap();
    }
}
