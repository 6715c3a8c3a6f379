//! The health of all services, from what each says of itself at its health path.

use crate::view::{ServiceView, Source, Status};
use exprsn_sdk::prelude::*;
use serde_json::Value;

/// How well something is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Healthy,
    /// It works, but something that it can do without for a while does not.
    Degraded,
    Unhealthy,
}

/// The answer of `GET /api/health`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    /// `unhealthy` where a service of the platform is, `degraded` where anything is not `healthy`.
    pub status: Health,
    /// Milliseconds since the Unix epoch.
    pub checked_at: i64,
    pub services: Vec<ServiceHealth>,
}

/// The health of one service, in the specification's words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceHealth {
    pub service: String,
    pub status: Health,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Seconds since it went live; null where it does not say.
    pub uptime: Option<f64>,
    /// Whether its database answers; null without one.
    pub database: Option<bool>,
    /// Whether what backs its queue, events and cache answers; null without one.
    pub redis: Option<bool>,
    /// How long it took to answer; null where it was not asked.
    pub latency_ms: Option<u64>,
    /// Why it is not healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether this platform runs it.
    pub platform: bool,
}

/// What came of asking a service.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// It answered with a status and perhaps a JSON body.
    Answered {
        status: u16,
        body: Option<Value>,
        latency_ms: u64,
    },
    /// It could not be reached.
    Failed(String),
    /// It lies outside the networks that this service may call: only its lease tells of it.
    NotAsked,
}

impl ServiceHealth {
    /// The health of an entry of the registry after it was asked.
    pub fn of(view: &ServiceView, probe: Probe) -> Self {
        let mut health = Self {
            service: view.name.clone(),
            status: Health::Healthy,
            version: Some(view.version.clone()),
            uptime: None,
            database: None,
            redis: None,
            latency_ms: None,
            reason: None,
            platform: view.source == Source::Platform,
        };
        match probe {
            Probe::Answered {
                status,
                body,
                latency_ms,
            } => {
                health.latency_ms = Some(latency_ms);
                health.take(status, body.as_ref());
            }
            Probe::Failed(reason) => health.lower(Health::Unhealthy, reason),
            Probe::NotAsked => {}
        }
        if view.status != Status::Healthy {
            let state = serde_json::to_value(view.status).unwrap_or_default();
            let reason = view.reason.clone();
            let reason =
                reason.unwrap_or_else(|| format!("it is {}", state.as_str().unwrap_or("not live")));
            health.lower(Health::Unhealthy, reason);
        }
        health
    }

    /// Takes over what the service says of itself; any 2xx without a status of its own counts as healthy.
    fn take(&mut self, status: u16, body: Option<&Value>) {
        let field = |name: &str| body.and_then(|body| body.get(name));
        self.uptime = field("uptime").and_then(Value::as_f64);
        self.database = field("database").and_then(Value::as_bool);
        self.redis = field("redis").and_then(Value::as_bool);
        let said = field("status")
            .cloned()
            .and_then(|said| serde_json::from_value::<Health>(said).ok());
        let good = (200..300).contains(&status);
        match said {
            Some(said) if said != Health::Healthy => self.lower(said, self.complaint(status)),
            _ if !good => self.lower(Health::Unhealthy, self.complaint(status)),
            _ => {}
        }
    }

    fn complaint(&self, status: u16) -> String {
        match (self.database, self.redis) {
            (Some(false), _) => "its database does not answer".to_owned(),
            (_, Some(false)) => "what backs its queue, events and cache does not answer".to_owned(),
            _ => format!("it answered {status}"),
        }
    }

    /// Makes it no better than `status`; the first reason stays.
    fn lower(&mut self, status: Health, reason: String) {
        self.status = self.status.max(status);
        self.reason.get_or_insert(reason);
    }
}

/// The health of all in one word.
pub fn overall(services: &[ServiceHealth]) -> Health {
    let weight = |service: &ServiceHealth| match service.platform {
        true => service.status,
        // Somebody else's service does not make this platform unhealthy.
        false => service.status.min(Health::Degraded),
    };
    services.iter().map(weight).max().unwrap_or(Health::Healthy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{registered, running};
    use serde_json::json;

    fn answered(status: u16, body: Value) -> Probe {
        Probe::Answered {
            status,
            body: Some(body),
            latency_ms: 3,
        }
    }

    #[test]
    fn takes_over_what_a_service_says() {
        let view = running("a", Status::Healthy).view(None);
        let said = json!({ "status": "healthy", "uptime": 1.5, "database": true, "redis": null });
        let health = ServiceHealth::of(&view, answered(200, said));
        assert_eq!(
            (health.status, health.uptime, health.database, health.redis),
            (Health::Healthy, Some(1.5), Some(true), None)
        );
        let said = json!({ "status": "degraded", "redis": false });
        let health = ServiceHealth::of(&view, answered(200, said));
        assert_eq!(health.status, Health::Degraded);
        assert!(health.reason.unwrap().contains("queue"));
        assert_eq!(
            ServiceHealth::of(&view, answered(503, json!("?")))
                .reason
                .unwrap(),
            "it answered 503"
        );
        assert_eq!(
            ServiceHealth::of(&view, Probe::Failed("refused".into())).status,
            Health::Unhealthy
        );
    }

    #[test]
    fn the_platforms_state_goes_before_a_good_answer() {
        let mut service = running("a", Status::Draining);
        let health = ServiceHealth::of(
            &service.view(None),
            answered(200, json!({ "status": "healthy" })),
        );
        assert_eq!(
            (health.status, health.reason.as_deref()),
            (Health::Unhealthy, Some("it is draining"))
        );
        service.reason = Some("its component is corrupt".into());
        let health = ServiceHealth::of(&service.view(None), Probe::NotAsked);
        assert_eq!(health.reason.as_deref(), Some("its component is corrupt"));
    }

    #[test]
    fn a_strangers_service_only_degrades_the_whole() {
        let good = ServiceHealth::of(&running("a", Status::Healthy).view(None), Probe::NotAsked);
        let stale = ServiceHealth::of(&registered("b", 0).view(5), Probe::NotAsked);
        assert_eq!(overall(&[good.clone(), stale]), Health::Degraded);
        assert_eq!(overall(std::slice::from_ref(&good)), Health::Healthy);
        let failed = ServiceHealth::of(&running("c", Status::Failed).view(None), Probe::NotAsked);
        assert_eq!(overall(&[good, failed]), Health::Unhealthy);
    }
}
