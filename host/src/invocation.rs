//! An invocation: one call of a service, whatever triggered it, with who asks and how long it may take.

use crate::name::ServiceName;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, sync::Arc, time::Instant};

pub use exprsn_backends::trace::TraceContext;

/// What caused an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Http,
    Job,
    Event,
}

impl Trigger {
    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Job => "job",
            Self::Event => "event",
        }
    }
}

/// What a principal may do on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    Read,
    Write,
    Append,
    Update,
    Delete,
    Admin,
}

impl Permission {
    /// All of them, in the order of their bits.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Write,
        Self::Append,
        Self::Update,
        Self::Delete,
        Self::Admin,
    ];

    /// The name in tokens and manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Append => "append",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Admin => "admin",
        }
    }

    /// The permission called `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|permission| permission.as_str() == name)
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Permissions(u8);

impl Permissions {
    pub const NONE: Self = Self(0);

    /// Whether `permission` is in the set.
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u8) != 0
    }

    /// Whether all of `other` is in the set.
    pub fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set with `permission` added.
    pub fn with(self, permission: Permission) -> Self {
        Self(self.0 | 1 << permission as u8)
    }

    /// The members, in the order of [`Permission::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .into_iter()
            .filter(move |permission| self.contains(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(iter: I) -> Self {
        iter.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(Permission::as_str))
            .finish()
    }
}

impl Serialize for Permissions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Permission>::deserialize(deserializer)?
            .into_iter()
            .collect())
    }
}

/// What a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    Anonymous,
    User,
    Service,
    Client,
    Operator,
}

impl PrincipalKind {
    /// The prefix of a token's subject: `user:<id>`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User => "user",
            Self::Service => "service",
            Self::Client => "client",
            Self::Operator => "operator",
        }
    }
}

/// A verified identity and what it may do.
#[derive(Clone, Debug)]
pub struct Principal {
    pub kind: PrincipalKind,
    /// The subject without its kind; empty when anonymous.
    pub subject: Arc<str>,
    pub permissions: Permissions,
    /// Patterns of what the permissions are good for: `exprsn-herald/api/*`, `http://localhost:3014/api/*`, `*`.
    pub resources: Arc<[String]>,
    /// The token's `jti`, where a token was presented.
    pub token_id: Option<Arc<str>>,
    /// Seconds since the Unix epoch.
    pub expires_at: Option<i64>,
    /// A JSON object: the token's further claims.
    pub extra: Arc<str>,
}

impl Principal {
    /// A client that presented nothing.
    pub fn anonymous() -> Arc<Self> {
        static ANONYMOUS: std::sync::OnceLock<Arc<Principal>> = std::sync::OnceLock::new();
        ANONYMOUS
            .get_or_init(|| Arc::new(Self::bare(PrincipalKind::Anonymous, "")))
            .clone()
    }

    /// The service `name` itself, which has what its grants give it and no token.
    pub fn service(name: &ServiceName) -> Arc<Self> {
        Arc::new(Self::bare(PrincipalKind::Service, name.as_str()))
    }

    fn bare(kind: PrincipalKind, subject: &str) -> Self {
        Self {
            kind,
            subject: subject.into(),
            permissions: Permissions::NONE,
            resources: Arc::new([]),
            token_id: None,
            expires_at: None,
            extra: "{}".into(),
        }
    }

    pub fn is_anonymous(&self) -> bool {
        self.kind == PrincipalKind::Anonymous
    }
}

/// One call of a service.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub trigger: Trigger,
    /// The immediate caller: the client, or the calling service.
    pub caller: Arc<Principal>,
    /// On whose behalf; none where a service acts for itself.
    pub user: Option<Arc<Principal>>,
    /// The client's address; none for jobs and events.
    pub address: Option<IpAddr>,
    pub trace: TraceContext,
    /// Services passed, the first entered first, the present one last.
    pub path: Arc<[ServiceName]>,
    /// When its time is over.
    pub deadline: Instant,
}

impl Invocation {
    /// The same with nobody as its caller, nor anybody behind it.
    pub fn anonymous(&self) -> Self {
        Self {
            caller: Principal::anonymous(),
            user: None,
            address: None,
            ..self.clone()
        }
    }

    /// The one whose rights count: the user where there is one, else the caller.
    pub fn principal(&self) -> &Arc<Principal> {
        self.user.as_ref().unwrap_or(&self.caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_a_set() {
        let set: Permissions = [Permission::Write, Permission::Read].into_iter().collect();
        assert!(set.contains(Permission::Read) && !set.contains(Permission::Admin));
        assert!(set.covers(Permissions::NONE.with(Permission::Write)));
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["read","write"]"#);
    }
}
