//! Turns: on one core, the instances of one service that compute long stand in line for one place among all others.
//!
//! A guest gives way at every tick of the epoch, but a core that goes round a hundred looping instances of one service,
//! a tick each, leaves the others waiting for a second. So while one instance has used more of its core than
//! [`LONG`] at once, its service's other instances on this core are not run before everybody else has had a turn.
//! Instances that compute little never wait.

use std::{
    cell::Cell,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// What an instance may compute at once without making others of its service wait.
const LONG: Duration = Duration::from_millis(1);

thread_local! {
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// How long the instance that runs on this thread now has been running at once.
pub fn running_for() -> Option<Duration> {
    BEGUN.get().map(|begun| begun.elapsed())
}

/// The turns of one service version on one core.
#[derive(Debug, Default)]
pub struct Turns {
    /// One has computed long, and the others of the core have not had their turn yet.
    taken: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Turns {
    /// Runs `future`, which drives an instance, in turns. Call on the core that the turns are for.
    pub async fn run<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| self.poll(future.as_mut(), context)).await
    }

    fn poll<F: Future>(
        self: &Arc<Self>,
        future: Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> Poll<F::Output> {
        if self.taken.load(Relaxed) {
            self.waiting().push(context.waker().clone());
            return Poll::Pending;
        }
        let begun = Instant::now();
        // Instances do not run within each other: a call of another service runs in that one's own turn.
        BEGUN.set(Some(begun));
        let polled = future.poll(context);
        BEGUN.set(None);
        if begun.elapsed() > LONG && !self.taken.swap(true, Relaxed) {
            let turns = self.clone();
            // Comes to run behind all that wait for the core now, what the network has for it included.
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                turns.pass_on();
            });
        }
        polled
    }

    fn pass_on(&self) {
        self.taken.store(false, Relaxed);
        let waiting = std::mem::take(&mut *self.waiting());
        waiting.into_iter().for_each(Waker::wake);
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computes for some milliseconds between yields, as a looping guest does, until told to stop.
    async fn heavy(stop: Arc<AtomicBool>) {
        while !stop.load(Relaxed) {
            let begun = Instant::now();
            while begun.elapsed() < 5 * LONG {
                std::hint::spin_loop();
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn many_heavy_instances_of_a_service_take_one_place() {
        let (turns, stop) = (Arc::new(Turns::default()), Arc::new(AtomicBool::new(false)));
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let (turns, stop) = (turns.clone(), stop.clone());
                tokio::spawn(async move { turns.run(heavy(stop)).await })
            })
            .collect();
        // Once they are all under way, going round the core takes as long as one of them, not as long as all: 500 ms.
        tokio::task::yield_now().await;
        let begun = Instant::now();
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        let round = begun.elapsed() / 5;
        stop.store(true, Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
        assert!(round < 20 * LONG, "a round takes {round:?}");
    }
}
