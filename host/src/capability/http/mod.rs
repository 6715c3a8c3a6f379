//! The `http` capability: calls to other services and to the world outside, each to what the grant names.
//!
//! `wasi:http/client` and `wasi:http/outgoing-handler` end in [`crate::mesh::Hooks`], which asks here.

use super::{Boot, Borrower, Capability};
use crate::{
    invocation::{Permission, Permissions},
    mesh::{self, ActAs, Egress, EgressPattern, ServiceEgress, permission_of_method},
    name::{self, ServiceName},
    store::StoreState,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use wasmtime::{Result, component::Linker, format_err};
use wasmtime_wasi_http::{WasiHttp, WasiHttpView};

/// Nothing to configure: limits are those of the service.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// `[grants.http]` of a component.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grant {
    /// Services that it may call.
    pub call: Vec<CallGrant>,
    /// `scheme://host:port` patterns outside the platform.
    pub egress: Vec<String>,
}

/// A right to call services.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallGrant {
    /// A full name, or `*` for any.
    pub service: String,
    /// `["*"]` is any method.
    #[serde(default = "any")]
    pub methods: Vec<String>,
    /// Paths, or prefixes that end in `*`.
    #[serde(default = "any")]
    pub paths: Vec<String>,
    /// What the callee lets it do; by default what the method stands for.
    pub permissions: Option<Permissions>,
    #[serde(default = "as_service")]
    pub act_as: ActAs,
}

fn any() -> Vec<String> {
    vec!["*".to_owned()]
}

fn as_service() -> ActAs {
    ActAs::Service
}

/// What a call grant gives for one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    pub act_as: ActAs,
    pub permissions: Permissions,
}

/// The capability.
pub struct Http {
    egress: Arc<Egress>,
}

/// The scopes of one service.
#[derive(Debug)]
pub struct Lent {
    calls: Vec<CallGrant>,
    egress: Vec<EgressPattern>,
    outside: Arc<ServiceEgress>,
}

impl Lent {
    /// What the grants give for a call, if they cover it.
    pub fn call_grant(&self, to: &ServiceName, method: &str, path: &str) -> Option<Allowed> {
        let covers = |call: &&CallGrant| {
            name::matches(&call.service, to.as_str())
                && call.methods.iter().any(|allowed| allowed == "*" || allowed == method)
                && call.paths.iter().any(|allowed| name::matches(allowed, path))
        };
        let call = self.calls.iter().find(covers)?;
        let default: Permission = permission_of_method(method);
        Some(Allowed { act_as: call.act_as, permissions: call.permissions.unwrap_or(Permissions::NONE.with(default)) })
    }

    /// What it may reach outside.
    pub fn egress(&self) -> &[EgressPattern] {
        &self.egress
    }

    /// The service's connections outside.
    pub fn outside(&self) -> &Arc<ServiceEgress> {
        &self.outside
    }
}

impl Capability for Http {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(boot: &Boot, _config: Config) -> Result<Self> {
        Ok(Self {
            egress: boot.egress.clone(),
        })
    }

    fn link(linker: &mut Linker<StoreState>, _grant: &Grant) -> Result<()> {
        wasmtime_wasi_http::p3::bindings::http::client::add_to_linker::<_, WasiHttp>(linker, StoreState::http)?;
        wasmtime_wasi_http::p2::bindings::http::outgoing_handler::add_to_linker::<_, WasiHttp>(linker, StoreState::http)
    }

    async fn lend(&self, borrower: &Borrower<'_>, grant: &Grant) -> Result<Lent> {
        let egress = mesh::parse_all(&grant.egress, true);
        Ok(Lent {
            calls: grant.call.clone(),
            egress: egress
                .map_err(|error| format_err!("[grants.http] of {}: {error}", borrower.name))?,
            outside: self.egress.of(borrower.name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_grants_cover_service_method_and_path() {
        let grant: Grant = toml::from_str(
            r#"call = [{ service = "exprsn-herald", methods = ["POST"], paths = ["/api/notifications/*"] }]"#,
        )
        .unwrap();
        let egress = Egress::new(mesh::Resolver::system(), "").unwrap();
        let lent = Lent {
            calls: grant.call,
            egress: Vec::new(),
            outside: egress.of(&ServiceName::parse("exprsn-timeline").unwrap()),
        };
        let herald = ServiceName::parse("exprsn-herald").unwrap();
        let allowed = lent.call_grant(&herald, "POST", "/api/notifications/bulk").unwrap();
        assert!(allowed.permissions.contains(Permission::Write) && !allowed.permissions.contains(Permission::Read));
        assert_eq!(lent.call_grant(&herald, "GET", "/api/notifications/bulk"), None);
        assert_eq!(lent.call_grant(&herald, "POST", "/api/preferences"), None);
        assert_eq!(lent.call_grant(&ServiceName::parse("exprsn-ca").unwrap(), "POST", "/api/notifications/bulk"), None);
    }
}
