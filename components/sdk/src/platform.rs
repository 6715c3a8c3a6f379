//! What runs on this platform, for the services that show or manage it.

use crate::bindings::exprsn::platform as host;
use crate::problem::Problem;

pub use host::queues::Queue;
pub use host::registry::{Service, ServiceState};
pub use host::types::Error;

/// Every service configured to run, sorted by name.
pub async fn services() -> Result<Vec<Service>, Error> {
    host::registry::services().await
}

/// Names in the order in which they start; services of one group start together.
pub async fn start_order() -> Result<Vec<Vec<String>>, Error> {
    host::registry::start_order().await
}

/// Metrics of the whole host in the OpenMetrics text format 1.0.0.
pub async fn metrics() -> Result<String, Error> {
    host::metrics::exposition().await
}

/// Every queue with jobs or a worker.
pub async fn queues() -> Result<Vec<Queue>, Error> {
    host::queues::queues().await
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::AccessDenied(what) => Problem::fault("the platform refused access", what),
            Error::Unavailable(_) => Problem::unavailable(1),
            Error::NotFound => Problem::new(http::StatusCode::NOT_FOUND),
        }
    }
}
