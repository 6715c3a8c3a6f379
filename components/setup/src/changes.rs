//! Changes of the registry: what is told to those who listen, and how the platform's changes are noticed.

use crate::view::{Running, ServiceView, Status};
use exprsn_sdk::prelude::*;
use std::collections::BTreeMap;

/// The live channel on which changes are told.
pub const CHANNEL: &str = "registry";
/// Changes kept for listeners who come back with `Last-Event-ID`.
pub const KEPT_MAX: u32 = 1_000;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Registered,
    Renewed,
    Expired,
    Removed,
    /// A service of the platform is in another state, or another version of it is live.
    State,
}

impl Kind {
    /// The name of the Server-Sent Event.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Renewed => "renewed",
            Self::Expired => "expired",
            Self::Removed => "removed",
            Self::State => "state",
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Ids of later changes are greater.
    pub id: String,
    pub kind: Kind,
    pub name: String,
    /// Milliseconds since the Unix epoch.
    pub at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_expires_at: Option<i64>,
}

impl Change {
    /// What happened to an entry of the registry.
    pub fn of(kind: Kind, view: &ServiceView, id: String, at: i64) -> Self {
        Self {
            id,
            kind,
            name: view.name.clone(),
            at,
            version: Some(view.version.clone()),
            status: Some(view.status),
            reason: view.reason.clone(),
            lease_expires_at: view.lease_expires_at,
        }
    }
}

/// What was last noticed of a service of the platform.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    pub name: String,
    pub status: String,
    pub digest: String,
}

/// What differs between what runs and what was last noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference<'a> {
    /// Another state or version.
    Changed(&'a Running),
    /// Not configured any more.
    Gone(&'a str),
}

/// All differences, sorted by name.
pub fn differences<'a>(running: &'a [Running], observed: &'a [Observed]) -> Vec<Difference<'a>> {
    let mut known: BTreeMap<&str, &Observed> = observed
        .iter()
        .map(|last| (last.name.as_str(), last))
        .collect();
    let mut found = BTreeMap::new();
    for service in running {
        let same = known.remove(service.name.as_str()).is_some_and(|last| {
            last.status == status_name(service.status) && last.digest == service.digest
        });
        if !same {
            found.insert(service.name.as_str(), Difference::Changed(service));
        }
    }
    found.extend(known.into_keys().map(|name| (name, Difference::Gone(name))));
    found.into_values().collect()
}

/// The status as it is stored and sent.
pub fn status_name(status: Status) -> &'static str {
    match status {
        Status::Healthy => "healthy",
        Status::Starting => "starting",
        Status::Unhealthy => "unhealthy",
        Status::Draining => "draining",
        Status::Failed => "failed",
        Status::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::running;

    fn observed(name: &str, status: &str) -> Observed {
        Observed {
            name: name.to_owned(),
            status: status.to_owned(),
            digest: "ab".to_owned(),
        }
    }

    #[test]
    fn notices_new_changed_and_gone_services() {
        let now = [
            running("a", Status::Healthy),
            running("b", Status::Failed),
            running("c", Status::Healthy),
        ];
        let last = [
            observed("a", "healthy"),
            observed("b", "healthy"),
            observed("z", "healthy"),
        ];
        let expected = [
            Difference::Changed(&now[1]),
            Difference::Changed(&now[2]),
            Difference::Gone("z"),
        ];
        assert_eq!(differences(&now, &last), expected);
        assert_eq!(differences(&now[..1], &last[..1]), []);
    }

    #[test]
    fn another_version_is_a_change() {
        let now = [running("a", Status::Healthy)];
        let last = [Observed {
            digest: "cd".to_owned(),
            ..observed("a", "healthy")
        }];
        assert_eq!(differences(&now, &last).len(), 1);
    }

    #[test]
    fn names_agree_with_json() {
        for status in [
            Status::Healthy,
            Status::Starting,
            Status::Draining,
            Status::Failed,
        ] {
            assert_eq!(serde_json::to_value(status).unwrap(), status_name(status));
        }
        for kind in [
            Kind::Registered,
            Kind::Renewed,
            Kind::Expired,
            Kind::Removed,
            Kind::State,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
