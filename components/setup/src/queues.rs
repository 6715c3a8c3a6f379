//! `GET /api/queues`: what the platform's queues hold.

use exprsn_sdk::prelude::*;

/// A queue's counts.
#[derive(Serialize, JsonSchema)]
pub struct Queue {
    name: String,
    /// The service whose worker handles it; empty when none runs here.
    service: String,
    waiting: u64,
    delayed: u64,
    prioritized: u64,
    active: u64,
    completed: u64,
    failed: u64,
    paused: bool,
}

/// Every queue with jobs or a worker, the deliveries of events (`events:<service>`) among them.
pub async fn list() -> Result<Json<Vec<Queue>>> {
    let queues = platform::queues().await?;
    Ok(Json(queues.into_iter().map(Queue::from).collect()))
}

impl From<platform::Queue> for Queue {
    fn from(queue: platform::Queue) -> Self {
        Self {
            name: queue.name,
            service: queue.service,
            waiting: queue.waiting,
            delayed: queue.delayed,
            prioritized: queue.prioritized,
            active: queue.active,
            completed: queue.completed,
            failed: queue.failed,
            paused: queue.paused,
        }
    }
}
