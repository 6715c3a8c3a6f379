//! Whether a principal may do something: pure, decided on the normal form of a path.

use super::{
    claims::Claims,
    pattern::{NormalPath, PathFault, ResourcePattern},
};
use crate::{
    invocation::{Permission, Principal},
    name::ServiceName,
};
use std::fmt;

/// Why a principal may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Nobody is identified: a token is needed.
    Anonymous,
    /// The path cannot be decided on.
    Path(PathFault),
    /// The permission is not among the principal's.
    Permission(Permission),
    /// No resource of the principal covers the path.
    Resource { service: String, path: String },
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => {
                f.write_str("this needs a token: send `Authorization: Bearer <token>`")
            }
            Self::Path(fault) => write!(f, "the request is refused: {fault}"),
            Self::Permission(permission) => {
                write!(
                    f,
                    "the token lacks the permission `{}`, which this needs",
                    permission.as_str()
                )
            }
            Self::Resource { service, path } => {
                write!(
                    f,
                    "the token is for other resources: none of them covers `{service}{path}`"
                )
            }
        }
    }
}

impl std::error::Error for Denial {}

/// Whether `principal` has `permission` on `path` of `service`; `resolve` names the service behind a URL's authority.
pub fn authorise(
    principal: &Principal,
    service: &ServiceName,
    path: &str,
    permission: Permission,
    resolve: impl Fn(&str) -> Option<ServiceName>,
) -> Result<(), Denial> {
    let path = NormalPath::parse(path).map_err(Denial::Path)?;
    if principal.is_anonymous() {
        return Err(Denial::Anonymous);
    }
    if !principal.permissions.contains(permission) {
        return Err(Denial::Permission(permission));
    }
    let covers = |resource: &String| {
        ResourcePattern::parse(resource)
            .is_ok_and(|pattern| pattern.matches(service.as_str(), &path, |a| resolve(a).map(Name)))
    };
    if principal.resources.iter().any(covers) {
        Ok(())
    } else {
        Err(Denial::Resource {
            service: service.to_string(),
            path: path.as_str().to_owned(),
        })
    }
}

/// A service's name as plain text.
struct Name(ServiceName);

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.0.as_str()
    }
}

/// The resources of a token within its audience (RFC 7519 §4.1.3): a service that the audience does not name is not
/// among them, so whoever decides by the resources has decided on the audience too.
pub fn effective_resources(
    claims: &Claims,
    resolve: impl Fn(&str) -> Option<ServiceName>,
) -> Vec<String> {
    if claims.audience.is_empty() {
        return claims.resources.clone();
    }
    let authority = |url: &str| {
        url.split_once("://")
            .and_then(|(_, rest)| rest.split('/').next())
            .map(str::to_owned)
    };
    let named = |text: &str| match authority(text) {
        Some(authority) => resolve(&authority).map(|name| name.to_string()),
        None => ServiceName::parse(text).ok().map(|name| name.to_string()),
    };
    let audience: Vec<String> = claims
        .audience
        .iter()
        .filter_map(|name| named(name))
        .collect();
    let mut resources = Vec::new();
    for resource in &claims.resources {
        if resource == "*" {
            resources.extend(audience.iter().map(|name| format!("{name}/*")));
        } else if named(if resource.contains("://") {
            resource
        } else {
            resource.split('/').next().unwrap_or_default()
        })
        .is_some_and(|name| audience.contains(&name))
        {
            resources.push(resource.clone());
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::super::claims::tests::claims;
    use super::*;
    use crate::invocation::Permissions;

    fn name(text: &str) -> ServiceName {
        ServiceName::parse(text).expect("a name")
    }

    fn resolve(authority: &str) -> Option<ServiceName> {
        (authority == "localhost:3014").then(|| name("exprsn-herald"))
    }

    fn decide(
        resources: &[&str],
        service: &str,
        path: &str,
        permission: Permission,
    ) -> Result<(), Denial> {
        let mut claims = claims();
        claims.resources = resources.iter().map(|text| (*text).to_owned()).collect();
        authorise(
            &claims.principal(),
            &name(service),
            path,
            permission,
            resolve,
        )
    }

    #[test]
    fn each_denial_has_its_own_reason() {
        let herald = ["http://localhost:3014/api/notifications/*"];
        assert_eq!(
            decide(
                &herald,
                "exprsn-herald",
                "/api/notifications/send",
                Permission::Write
            ),
            Ok(())
        );
        assert_eq!(
            decide(
                &herald,
                "exprsn-herald",
                "/api/notifications/send",
                Permission::Delete
            ),
            Err(Denial::Permission(Permission::Delete))
        );
        for (service, path) in [
            ("exprsn-herald", "/api/admin"),
            ("exprsn-timeline", "/api/notifications/send"),
        ] {
            let denial =
                decide(&herald, service, path, Permission::Write).expect_err("another resource");
            assert!(matches!(denial, Denial::Resource { .. }), "{denial}");
            assert!(
                denial.to_string().contains(&format!("{service}{path}")),
                "{denial}"
            );
        }
        for path in [
            "/api/notifications/../admin",
            "/api/notifications/%2e%2e/admin",
            "/api/notifications/..%2fadmin",
        ] {
            assert!(
                matches!(
                    decide(&["*"], "exprsn-herald", path, Permission::Write),
                    Err(Denial::Path(_))
                ),
                "{path}"
            );
        }
        let anonymous = authorise(
            &Principal::anonymous(),
            &name("exprsn-herald"),
            "/",
            Permission::Read,
            resolve,
        );
        assert_eq!(anonymous, Err(Denial::Anonymous));
    }

    #[test]
    fn admin_is_a_permission_like_any_other() {
        let mut operator = claims();
        operator.permissions = Permissions::NONE.with(Permission::Admin);
        operator.resources = vec!["*".into()];
        let may = |permission| {
            authorise(
                &operator.principal(),
                &name("exprsn-ca"),
                "/api/tokens",
                permission,
                resolve,
            )
        };
        assert_eq!(may(Permission::Admin), Ok(()));
        assert_eq!(
            may(Permission::Read),
            Err(Denial::Permission(Permission::Read))
        );
    }

    #[test]
    fn the_audience_bounds_the_resources() {
        let effective = |audience: &[&str], resources: &[&str]| {
            let mut claims = claims();
            claims.audience = audience.iter().map(|text| (*text).to_owned()).collect();
            claims.resources = resources.iter().map(|text| (*text).to_owned()).collect();
            effective_resources(&claims, resolve)
        };
        assert_eq!(effective(&[], &["*"]), ["*"]);
        assert_eq!(effective(&["exprsn-herald"], &["*"]), ["exprsn-herald/*"]);
        assert_eq!(
            effective(&["http://localhost:3014"], &["*"]),
            ["exprsn-herald/*"]
        );
        let both = [
            "exprsn-herald/a/*",
            "exprsn-timeline/*",
            "http://localhost:3014/b",
            "http://other:1/c",
        ];
        assert_eq!(
            effective(&["exprsn-herald"], &both),
            ["exprsn-herald/a/*", "http://localhost:3014/b"]
        );
        assert_eq!(
            effective(
                &["somebody-elses-client"],
                &["exprsn-herald/*", "http://other:1/"]
            ),
            [""; 0]
        );
        // A client's id that happens to look like a name stands for nothing that runs.
        assert_eq!(effective(&["my-app"], &["*"]), ["my-app/*"]);
    }
}
