//! What runs on this platform, for the services that show or manage it.

use crate::bindings::exprsn::platform as host;
use crate::problem::Problem;

pub use host::control::{Canary, Change, Changed, Deployment, Outcome};
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

/// Gives a service the admitted version with this digest; starts a service that does not run yet.
pub async fn swap(service: &str, digest: &str, change: Change) -> Result<Changed, Error> {
    host::control::swap(service.to_owned(), digest.to_owned(), change).await
}

/// Returns to the version that was live before the current one.
pub async fn rollback(service: &str, change: Change) -> Result<Changed, Error> {
    host::control::rollback(service.to_owned(), change).await
}

/// Gives a canary everything.
pub async fn promote(service: &str, change: Change) -> Result<Changed, Error> {
    host::control::promote(service.to_owned(), change).await
}

/// Ends a canary's trial.
pub async fn abort(service: &str, change: Change) -> Result<Changed, Error> {
    host::control::abort(service.to_owned(), change).await
}

/// Takes an installed service off for good.
pub async fn remove(service: &str, change: Change) -> Result<Changed, Error> {
    host::control::remove(service.to_owned(), change).await
}

/// What a service has run as, newest first.
pub async fn history(service: &str) -> Result<Vec<Deployment>, Error> {
    host::control::history(service.to_owned()).await
}

/// The canary on trial.
pub async fn trial(service: &str) -> Result<Option<Canary>, Error> {
    host::control::trial(service.to_owned()).await
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
            Error::Refused(why) => Problem::new(http::StatusCode::UNPROCESSABLE_ENTITY).detail(why),
            Error::Conflict(why) => Problem::conflict(why),
        }
    }
}
