//! The registry as clients see it: what the platform runs and what has registered, in one list.
//!
//! **Invariant:** of a service that the platform runs, the platform's word counts: its state, version, digest and port
//! cannot be changed by registering.

use crate::graph::Graph;
use exprsn_sdk::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;

/// What the platform says of a service that it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub name: String,
    pub version: String,
    pub description: String,
    pub status: Status,
    /// Why it is not live.
    pub reason: Option<String>,
    pub digest: String,
    pub host: String,
    pub port: u16,
    pub depends_on: Vec<String>,
    /// Names of the capabilities granted.
    pub grants: Vec<String>,
    pub started_at_ms: i64,
    pub instances: u32,
    pub invocations: u64,
    pub failures: u64,
}

/// A stored registration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    pub name: String,
    pub version: String,
    pub host: String,
    pub port: u16,
    pub health_check_path: String,
    /// A JSON array of names.
    pub dependencies: String,
    /// A JSON object.
    pub metadata: String,
    /// Who registered it: `service:exprsn-x`, `user:<id>`.
    pub owner: String,
    pub lease_seconds: u32,
    pub registered_at: i64,
    pub renewed_at: i64,
    pub expires_at: i64,
}

/// Where a service stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Healthy,
    Starting,
    /// Not answering as it should; of a registered service: its lease has run out.
    Unhealthy,
    Draining,
    Failed,
    Stopped,
}

/// An entry of the registry.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    pub name: String,
    pub version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    pub status: Status,
    /// Why it is not healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub host: String,
    pub port: u16,
    pub health_check_path: String,
    pub dependencies: Vec<String>,
    pub source: Source,
    /// The end of the lease, in milliseconds since the Unix epoch; null where the platform itself vouches for the service.
    pub lease_expires_at: Option<i64>,
    /// There where the service has registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseView>,
    /// SHA-256 of the component; null where the service is no component of this platform.
    pub digest: Option<String>,
    /// Capabilities granted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
    /// Milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
}

/// Who vouches for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// This platform runs it.
    Platform,
    /// It registered itself and keeps its lease.
    Registered,
}

/// A registration's lease; instants in milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseView {
    pub seconds: u32,
    pub registered_at: i64,
    pub renewed_at: i64,
    pub expires_at: i64,
}

/// How much a service of the platform does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Load {
    /// Instances alive now.
    pub instances: u32,
    /// Invocations since it went live, and how many of them failed.
    pub invocations: u64,
    pub failures: u64,
}

impl Registration {
    /// The names that it depends on.
    pub fn dependencies(&self) -> Vec<String> {
        serde_json::from_str(&self.dependencies).unwrap_or_default()
    }

    fn lease(&self) -> LeaseView {
        LeaseView {
            seconds: self.lease_seconds,
            registered_at: self.registered_at,
            renewed_at: self.renewed_at,
            expires_at: self.expires_at,
        }
    }

    /// The entry of a service that only registered.
    pub fn view(&self, now_ms: i64) -> ServiceView {
        let valid = now_ms < self.expires_at;
        let reason = || "its lease has run out: it sends no heartbeats".to_owned();
        ServiceView {
            name: self.name.clone(),
            version: self.version.clone(),
            description: String::new(),
            status: if valid {
                Status::Healthy
            } else {
                Status::Unhealthy
            },
            reason: (!valid).then(reason),
            host: self.host.clone(),
            port: self.port,
            health_check_path: self.health_check_path.clone(),
            dependencies: self.dependencies(),
            source: Source::Registered,
            lease_expires_at: Some(self.expires_at),
            lease: Some(self.lease()),
            digest: None,
            grants: Vec::new(),
            started_at: None,
            load: None,
            metadata: serde_json::from_str(&self.metadata).unwrap_or_default(),
        }
    }
}

impl Running {
    /// The entry of a service that the platform runs, with what its own registration adds.
    pub fn view(&self, own: Option<&Registration>) -> ServiceView {
        let mut dependencies = self.depends_on.clone();
        let more = own.map(Registration::dependencies).unwrap_or_default();
        dependencies.extend(
            more.into_iter()
                .filter(|name| !self.depends_on.contains(name)),
        );
        ServiceView {
            name: self.name.clone(),
            version: self.version.clone(),
            description: self.description.clone(),
            status: self.status,
            reason: self.reason.clone(),
            host: self.host.clone(),
            port: self.port,
            health_check_path: own
                .map_or_else(|| "/health".to_owned(), |own| own.health_check_path.clone()),
            dependencies,
            source: Source::Platform,
            lease_expires_at: own.map(|own| own.expires_at),
            lease: own.map(Registration::lease),
            digest: Some(self.digest.clone()),
            grants: self.grants.clone(),
            started_at: Some(self.started_at_ms),
            load: Some(Load {
                instances: self.instances,
                invocations: self.invocations,
                failures: self.failures,
            }),
            metadata: own
                .and_then(|own| serde_json::from_str(&own.metadata).ok())
                .unwrap_or_default(),
        }
    }
}

/// All entries, sorted by name.
pub fn merge(running: &[Running], registered: &[Registration], now_ms: i64) -> Vec<ServiceView> {
    let own: BTreeMap<&str, &Registration> = registered
        .iter()
        .map(|own| (own.name.as_str(), own))
        .collect();
    let mut views: BTreeMap<&str, ServiceView> = own
        .iter()
        .map(|(name, registration)| (*name, registration.view(now_ms)))
        .collect();
    for service in running {
        views.insert(
            &service.name,
            service.view(own.get(service.name.as_str()).copied()),
        );
    }
    views.into_values().collect()
}

/// The dependencies of all entries.
pub fn graph(views: &[ServiceView]) -> Graph {
    let mut graph = Graph::default();
    for view in views {
        graph.add(&view.name, view.dependencies.iter().cloned());
    }
    graph
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn running(name: &str, status: Status) -> Running {
        Running {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            description: "A service".to_owned(),
            status,
            reason: None,
            digest: "ab".to_owned(),
            host: "localhost".to_owned(),
            port: 3004,
            depends_on: vec!["exprsn-ca".to_owned()],
            grants: vec!["sql".to_owned()],
            started_at_ms: 1,
            instances: 1,
            invocations: 2,
            failures: 0,
        }
    }

    pub(crate) fn registered(name: &str, expires_at: i64) -> Registration {
        Registration {
            name: name.to_owned(),
            version: "9.9.9".to_owned(),
            host: "evil.example".to_owned(),
            port: 666,
            health_check_path: "/healthz".to_owned(),
            dependencies: r#"["exprsn-ca","exprsn-herald"]"#.to_owned(),
            metadata: r#"{"region":"eu"}"#.to_owned(),
            owner: "user:1".to_owned(),
            lease_seconds: 30,
            registered_at: 1,
            renewed_at: 2,
            expires_at,
        }
    }

    #[test]
    fn the_platforms_word_counts_for_what_it_runs() {
        let views = merge(
            &[running("b", Status::Healthy)],
            &[registered("b", 0), registered("a", 50)],
            10,
        );
        assert_eq!(
            views
                .iter()
                .map(|view| view.name.as_str())
                .collect::<Vec<_>>(),
            ["a", "b"]
        );
        let b = &views[1];
        assert_eq!(
            (b.version.as_str(), b.port, b.status, b.source),
            ("1.0.0", 3004, Status::Healthy, Source::Platform)
        );
        assert_eq!(b.dependencies, ["exprsn-ca", "exprsn-herald"]);
        assert_eq!(
            (b.health_check_path.as_str(), b.lease_expires_at),
            ("/healthz", Some(0))
        );
        assert_eq!(b.metadata["region"], "eu");
    }

    #[test]
    fn a_lease_that_ran_out_is_unhealthy() {
        assert_eq!(registered("a", 10).view(9).status, Status::Healthy);
        let view = registered("a", 10).view(10);
        assert!(view.status == Status::Unhealthy && view.reason.is_some());
    }

    #[test]
    fn the_wire_format_is_camel_case() {
        let json = serde_json::to_value(registered("a", 10).view(1)).unwrap();
        assert_eq!(json["leaseExpiresAt"], 10);
        assert_eq!(json["healthCheckPath"], "/healthz");
        assert_eq!(
            (&json["status"], &json["source"]),
            (&"healthy".into(), &"registered".into())
        );
        assert_eq!(json["digest"], Value::Null);
    }
}
