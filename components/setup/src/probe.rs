//! `GET /api/health`: asks every service how it is, all at once.

use crate::{
    health::{Health, HealthReport, Probe, ServiceHealth, overall},
    registry,
    view::{ServiceView, Source},
};
use exprsn_sdk::{join_all, openapi::Operation, prelude::*, time::monotonic_ms};

/// Longest health answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The service that this code runs in, which cannot call itself.
const SELF: &str = "exprsn-setup";

/// `GET /api/health`
pub async fn health() -> Result<Report> {
    let reused_ms = config::parse("health_reused_ms", 1_000_u64);
    if let Some(report) = cache::get_json::<HealthReport>("health").await? {
        return Ok(Report(report));
    }
    let views = registry::views().await?;
    let services = join_all(views.iter().map(ask)).await;
    let report = HealthReport {
        status: overall(&services),
        checked_at: now_ms(),
        services,
    };
    if reused_ms > 0 {
        cache::set_json("health", &report, Some(reused_ms)).await?;
    }
    Ok(Report(report))
}

/// The report; 503 where the platform is unhealthy, so that a load balancer needs to read nothing.
pub struct Report(HealthReport);

impl IntoResponse for Report {
    fn into_response(self) -> Response {
        let status = match self.0.status {
            Health::Healthy | Health::Degraded => StatusCode::OK,
            Health::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
        };
        Response::new(status)
            .json(&self.0)
            .header("cache-control", "no-store")
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.json_response::<HealthReport>(StatusCode::OK);
        operation.json_response::<HealthReport>(StatusCode::SERVICE_UNAVAILABLE);
    }
}

async fn ask(view: &ServiceView) -> ServiceHealth {
    let probe = if view.name == SELF {
        own().await
    } else {
        call(view).await
    };
    ServiceHealth::of(view, probe)
}

/// This service's own health, read where it stands.
async fn own() -> Probe {
    let own = exprsn_sdk::health::health().await;
    let body = serde_json::to_value(&own).ok();
    Probe::Answered {
        status: own.into_response().status.as_u16(),
        body,
        latency_ms: 0,
    }
}

async fn call(view: &ServiceView) -> Probe {
    let url = match view.source {
        Source::Platform => format!("http://{}{}", view.name, view.health_check_path),
        Source::Registered => format!(
            "http://{}:{}{}",
            bracketed(&view.host),
            view.port,
            view.health_check_path
        ),
    };
    let started = monotonic_ms();
    let limit = config::parse("health_ms_max", 2_000_u64);
    match http::get(url)
        .header("accept", "application/json")
        .timeout_ms(limit)
        .send()
        .await
    {
        Ok(answer) => {
            let status = answer.status().as_u16();
            let body = answer.bytes(ANSWER_BYTES_MAX).await.ok();
            Probe::Answered {
                status,
                body: body.and_then(|body| serde_json::from_slice(&body).ok()),
                latency_ms: monotonic_ms().saturating_sub(started),
            }
        }
        Err(http::Error::Denied) => Probe::NotAsked,
        Err(http::Error::Timeout) => Probe::Failed(format!("it did not answer within {limit} ms")),
        Err(error) => {
            log::debug!(
                "a health check came to nobody",
                service = view.name,
                error = error
            );
            Probe::Failed("nobody answers at its address".to_owned())
        }
    }
}

/// An IPv6 address needs brackets in a URL.
fn bracketed(host: &str) -> String {
    let bare = host.contains(':') && !host.starts_with('[');
    if bare {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}
