//! `[grants.ca]`: what a service may do with tokens and keys.

use crate::{
    ca::{Claims, pattern::ResourcePattern},
    invocation::Permissions,
    name::matches,
};
use serde::{Deserialize, Serialize};

/// `[grants.ca]`. The interface `caller` needs nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grant {
    /// May verify tokens.
    #[serde(skip_serializing_if = "is_false")]
    pub verify: bool,
    /// May mint tokens, within bounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mint: Option<MintGrant>,
    /// May revoke tokens by their id.
    #[serde(skip_serializing_if = "is_false")]
    pub revoke: bool,
    /// Names of the keys it may sign with; a `*` may end a name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sign: Vec<String>,
    /// May use the authority's own keys: exprsn-ca alone.
    #[serde(skip_serializing_if = "is_false")]
    pub authority: bool,
}

/// Bounds of the tokens that a service may mint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MintGrant {
    /// Subjects, or prefixes that end in `*`: `user:*`.
    pub subjects: Vec<String>,
    pub permissions: Permissions,
    /// Resource patterns, each of which covers what is minted under it.
    pub resources: Vec<String>,
    /// Longest lifetime, in seconds.
    pub lifetime_s_max: u32,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Grant {
    /// Whether it has a use for `tokens`.
    pub(super) fn links_tokens(&self) -> bool {
        self.verify || self.revoke || self.mint.is_some()
    }

    /// Whether it has a use for `signer`.
    pub(super) fn links_signer(&self) -> bool {
        !self.sign.is_empty()
    }

    pub(super) fn allow_verify(&self) -> Result<(), String> {
        allow(
            self.verify,
            "verifying tokens is not granted: add `verify = true`",
        )
    }

    pub(super) fn allow_revoke(&self) -> Result<(), String> {
        allow(
            self.revoke,
            "revoking tokens is not granted: add `revoke = true`",
        )
    }

    pub(super) fn allow_authority(&self) -> Result<(), String> {
        allow(
            self.authority,
            "the authority's keys are not granted: add `authority = true`",
        )
    }

    pub(super) fn allow_sign(&self, key: &str) -> Result<(), String> {
        let named = self.sign.iter().any(|pattern| matches(pattern, key));
        allow(
            named,
            &format!("the key `{key}` is not granted: add \"{key}\" to `sign`"),
        )
    }

    /// Whether a token of these claims may be minted; `covers` says whether one resource pattern covers another.
    pub(super) fn allow_mint(
        &self,
        claims: &Claims,
        now_s: i64,
        covers: impl Fn(&ResourcePattern<'_>, &ResourcePattern<'_>) -> bool,
    ) -> Result<(), String> {
        let Some(bounds) = &self.mint else {
            return allow(false, "minting tokens is not granted: add `mint = { … }`");
        };
        let subject = claims.subject.to_string();
        let known = bounds
            .subjects
            .iter()
            .any(|pattern| matches(pattern, &subject));
        allow(
            known,
            &format!("minting for `{subject}` is not granted: add it to `mint.subjects`"),
        )?;
        for permission in claims.permissions.iter() {
            let name = permission.as_str();
            let granted = bounds.permissions.contains(permission);
            allow(
                granted,
                &format!(
                    "minting the permission `{name}` is not granted: add \"{name}\" to `mint.permissions`"
                ),
            )?;
        }
        for resource in &claims.resources {
            let granted = ResourcePattern::parse(resource).is_ok_and(|narrow| {
                bounds.resources.iter().any(|wide| {
                    ResourcePattern::parse(wide).is_ok_and(|wide| covers(&wide, &narrow))
                })
            });
            allow(
                granted,
                &format!(
                    "minting for the resource `{resource}` is not granted: add it to `mint.resources`"
                ),
            )?;
        }
        let (lifetime_s, max) = (
            claims.expires_at.saturating_sub(now_s),
            bounds.lifetime_s_max,
        );
        allow(
            lifetime_s <= i64::from(max),
            &format!(
                "a lifetime of {lifetime_s} s is not granted: `mint.lifetime_s_max` is {max}; raise it"
            ),
        )
    }
}

fn allow(granted: bool, otherwise: &str) -> Result<(), String> {
    if granted {
        Ok(())
    } else {
        Err(format!("{otherwise} under [grants.ca] in component.toml"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ca::Subject, invocation::Permission};

    const GRANT: &str = r#"
        verify = true
        mint = { subjects = ["user:*", "client:web"], permissions = ["read", "write"], resources = ["exprsn-herald/api/*"], lifetime_s_max = 3600 }
        sign = ["id-token", "web-*"]
    "#;

    fn claims() -> Claims {
        Claims {
            id: "1".into(),
            subject: Subject::parse("user:42").expect("a subject"),
            audience: Vec::new(),
            resources: vec!["exprsn-herald/api/notifications/*".into()],
            permissions: Permissions::NONE.with(Permission::Write),
            issued_at: 1_000,
            not_before: 1_000,
            expires_at: 2_000,
            uses_max: None,
            extra: serde_json::Map::new(),
        }
    }

    #[test]
    fn minting_stays_within_its_bounds() {
        let grant: Grant = toml::from_str(GRANT).expect("a grant");
        let mint = |claims: Claims| {
            grant.allow_mint(&claims, 1_000, |wide, narrow| {
                wide.covers(narrow, |_: &str| None::<String>)
            })
        };
        let denied = |claims: Claims, expected: &str| {
            let text = mint(claims).expect_err(expected);
            assert!(
                text.contains(expected) && text.contains("[grants.ca] in component.toml"),
                "{text}"
            );
        };
        assert_eq!(mint(claims()), Ok(()));
        assert_eq!(
            mint(Claims {
                subject: Subject::parse("client:web").expect("a subject"),
                ..claims()
            }),
            Ok(())
        );
        denied(
            Claims {
                subject: Subject::parse("operator:local").expect("a subject"),
                ..claims()
            },
            "`mint.subjects`",
        );
        denied(
            Claims {
                subject: Subject::parse("client:other").expect("a subject"),
                ..claims()
            },
            "client:other",
        );
        denied(
            Claims {
                permissions: claims().permissions.with(Permission::Admin),
                ..claims()
            },
            "\"admin\" to `mint.permissions`",
        );
        denied(
            Claims {
                resources: vec!["*".into()],
                ..claims()
            },
            "`*`",
        );
        denied(
            Claims {
                resources: vec!["exprsn-herald/*".into()],
                ..claims()
            },
            "`mint.resources`",
        );
        denied(
            Claims {
                expires_at: 4_601,
                ..claims()
            },
            "`mint.lifetime_s_max` is 3600",
        );
        let none = Grant::default()
            .allow_mint(&claims(), 1_000, |_, _| true)
            .expect_err("not granted");
        assert!(none.contains("`mint = { … }`"), "{none}");
    }

    #[test]
    fn the_other_scopes_name_what_is_missing() {
        let grant: Grant = toml::from_str(GRANT).expect("a grant");
        assert_eq!(
            (
                grant.allow_verify(),
                grant.allow_sign("id-token"),
                grant.allow_sign("web-push")
            ),
            (Ok(()), Ok(()), Ok(()))
        );
        for (outcome, expected) in [
            (grant.allow_sign("cookie"), "\"cookie\" to `sign`"),
            (grant.allow_revoke(), "`revoke = true`"),
            (grant.allow_authority(), "`authority = true`"),
            (Grant::default().allow_verify(), "`verify = true`"),
        ] {
            let text = outcome.expect_err(expected);
            assert!(
                text.contains(expected) && text.contains("[grants.ca]"),
                "{text}"
            );
        }
    }

    #[test]
    fn grants_are_written_down_as_they_are_read() {
        let grant: Grant = toml::from_str(GRANT).expect("a grant");
        let json = serde_json::to_string(&grant).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Grant>(&json).expect("a grant"),
            grant
        );
        assert_eq!(
            serde_json::to_string(&Grant::default()).expect("JSON"),
            "{}"
        );
        assert!(toml::from_str::<Grant>("sing = [\"x\"]").is_err());
    }
}
