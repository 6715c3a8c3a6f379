//! `GET /health`, with the specification's fields and true readings.

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bindings::exprsn::telemetry::service;
use crate::openapi::Operation;
use crate::response::{IntoResponse, Response};

/// How a service is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// The sum of the readings.
    pub status: Status,
    /// The service's full name.
    pub service: String,
    /// Its version.
    pub version: String,
    /// Seconds since this version went live, as Node's `process.uptime()`.
    pub uptime: f64,
    /// Whether the database answered just now; null where the service has none.
    pub database: Option<bool>,
    /// Whether Redis, or what is embedded in its place, answered just now; null where the service needs none.
    pub redis: Option<bool>,
}

/// Healthy; able to read but not to tell others; unable to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All that the service needs answers.
    Healthy,
    /// Its database answers, its broker does not.
    Degraded,
    /// Its database does not answer.
    Unhealthy,
}

impl Status {
    fn of(database: Option<bool>, broker: Option<bool>) -> Self {
        match (database, broker) {
            (Some(false), _) => Self::Unhealthy,
            (_, Some(false)) => Self::Degraded,
            _ => Self::Healthy,
        }
    }
}

impl IntoResponse for Health {
    fn into_response(self) -> Response {
        let status = if self.status == Status::Healthy {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        Response::new(status)
            .header("cache-control", "no-store")
            .json(&self)
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.json_response::<Self>(StatusCode::OK);
        operation.json_response::<Self>(StatusCode::SERVICE_UNAVAILABLE);
    }
}

/// Asks the host how this service is.
pub async fn health() -> Health {
    let reading = service::status().await;
    #[allow(
        clippy::cast_precision_loss,
        reason = "2^53 milliseconds are 285,000 years"
    )]
    let uptime = reading.uptime_ms as f64 / 1000.0;
    Health {
        status: Status::of(reading.database, reading.broker),
        service: reading.name,
        version: reading.version,
        uptime,
        database: reading.database,
        redis: reading.broker,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_as_well_as_what_it_needs() {
        assert_eq!(Status::of(None, None), Status::Healthy);
        assert_eq!(Status::of(Some(true), Some(false)), Status::Degraded);
        assert_eq!(Status::of(Some(false), Some(true)), Status::Unhealthy);
    }
}
