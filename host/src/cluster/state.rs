//! What a host says of itself with each renewal of its lease.

use serde::{Deserialize, Serialize};

/// A host as others see it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostState {
    /// The last change of the shared memory that it has taken in.
    pub revision: i64,
    /// It takes nothing new.
    pub draining: bool,
    /// It holds the certificate authority's keys.
    pub seat: bool,
    /// Invocations under way.
    pub load: u32,
    /// Of the program.
    pub version: String,
    /// Milliseconds since the Unix epoch.
    pub started_at: i64,
    pub services: Vec<ServiceState>,
}

/// A service as its host sees it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceState {
    pub name: String,
    pub port: u16,
    pub version: String,
    pub description: String,
    pub digest: String,
    /// The digest of the file in the folder of components.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configured: Option<String>,
    /// The canary and its share, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<(String, u8)>,
    /// What it was to run as and could not, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// `live`, `draining`, …
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub depends_on: Vec<String>,
    pub grants: Vec<String>,
    pub started_at: i64,
    pub instances: u32,
    pub invocations: u64,
    pub failures: u64,
}

/// A version that a host was to run and could not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Refused {
    /// The deployment that asked for it.
    pub deployment: String,
    pub reason: String,
}

impl HostState {
    /// What a host said; nothing of what a later version may say is lost on those that know it.
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// The last change that a host has taken in.
    pub fn heard(text: &str) -> i64 {
        Self::parse(text).revision
    }
}
