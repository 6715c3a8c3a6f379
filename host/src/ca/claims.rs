//! What a token says: RFC 7519 claims with resource patterns and permissions.

use super::pattern::ResourcePattern;
use crate::invocation::{Permission, Permissions, Principal, PrincipalKind};
use serde_json::{Map, Value, json};
use std::{fmt, sync::Arc};

/// Longest subject, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 256;
/// Longest token id, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// Most resource patterns of one token.
pub const RESOURCES_MAX: usize = 64;
/// Most audiences of one token.
pub const AUDIENCES_MAX: usize = 32;
/// Size of the further claims, in bytes of JSON.
pub const EXTRA_BYTES_MAX: usize = 4_096;

/// Names that further claims cannot take.
const RESERVED: [&str; 10] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "resource",
    "permissions",
    "uses",
];

/// Whom a token is about: `user:<id>`, `service:<name>`, `client:<id>` or `operator:<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub kind: PrincipalKind,
    pub name: String,
}

impl Subject {
    /// Parses the claim `sub`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        let kinds = [
            PrincipalKind::User,
            PrincipalKind::Service,
            PrincipalKind::Client,
            PrincipalKind::Operator,
        ];
        let kind = kinds.into_iter().find(|known| known.as_str() == kind)?;
        let plain = !name.is_empty()
            && text.len() <= SUBJECT_BYTES_MAX
            && !name.chars().any(char::is_control);
        plain.then(|| Self {
            kind,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.as_str(), self.name)
    }
}

/// The claims of a token. Instants are seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    /// `jti`.
    pub id: String,
    pub subject: Subject,
    /// Services that may accept the token; empty is any.
    pub audience: Vec<String>,
    pub resources: Vec<String>,
    pub permissions: Permissions,
    pub issued_at: i64,
    pub not_before: i64,
    pub expires_at: i64,
    /// How many times it may be used; none is any number.
    pub uses_max: Option<u32>,
    pub extra: Map<String, Value>,
}

impl Claims {
    /// Checks what the authority signs. The error says which claim is wrong and how.
    pub fn check(&self) -> Result<(), String> {
        if self.id.is_empty()
            || self.id.len() > ID_BYTES_MAX
            || !self.id.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(format!(
                "`id` must be 1 to {ID_BYTES_MAX} printable ASCII characters"
            ));
        }
        if self.audience.len() > AUDIENCES_MAX
            || self
                .audience
                .iter()
                .any(|name| name.is_empty() || name.len() > SUBJECT_BYTES_MAX)
        {
            return Err(format!(
                "`audience` must be at most {AUDIENCES_MAX} names of 1 to {SUBJECT_BYTES_MAX} bytes"
            ));
        }
        if self.resources.is_empty() || self.resources.len() > RESOURCES_MAX {
            return Err(format!(
                "`resources` must be 1 to {RESOURCES_MAX} patterns; `*` is everything"
            ));
        }
        for resource in &self.resources {
            ResourcePattern::parse(resource)
                .map_err(|fault| format!("`resources`: `{resource}`: {fault}"))?;
        }
        if self.expires_at <= self.not_before
            || self.expires_at <= self.issued_at
            || self.issued_at < 0
            || self.not_before < 0
        {
            return Err("`expires-at` must come after `not-before` and `issued-at`".to_owned());
        }
        if self.uses_max == Some(0) {
            return Err("`uses-max` must be at least 1".to_owned());
        }
        self.check_extra()
    }

    fn check_extra(&self) -> Result<(), String> {
        if let Some(name) = self
            .extra
            .keys()
            .find(|name| RESERVED.contains(&name.as_str()))
        {
            return Err(format!(
                "`extra` cannot hold `{name}`, which has a field of its own"
            ));
        }
        match serde_json::to_vec(&self.extra).map(|text| text.len()) {
            Ok(length) if length <= EXTRA_BYTES_MAX => Ok(()),
            _ => Err(format!(
                "`extra` is larger than {EXTRA_BYTES_MAX} bytes of JSON"
            )),
        }
    }

    /// The token's payload.
    pub fn to_payload(&self, issuer: &str) -> Vec<u8> {
        let mut payload = self.extra.clone();
        let mut set = |name: &str, value: Value| payload.insert(name.to_owned(), value);
        set("iss", issuer.into());
        set("sub", self.subject.to_string().into());
        set("exp", self.expires_at.into());
        set("nbf", self.not_before.into());
        set("iat", self.issued_at.into());
        set("jti", self.id.as_str().into());
        set("resource", json!(self.resources));
        set("permissions", json!(self.permissions));
        if !self.audience.is_empty() {
            set("aud", json!(self.audience));
        }
        if let Some(uses) = self.uses_max {
            set("uses", uses.into());
        }
        Value::Object(payload).to_string().into_bytes()
    }

    /// Reads a payload into its issuer and claims. The error names the claim that is wrong.
    pub fn from_payload(mut payload: Map<String, Value>) -> Result<(String, Self), &'static str> {
        let issuer = text(payload.remove("iss")).ok_or("the claim `iss` is missing or no text")?;
        let subject = text(payload.remove("sub"))
            .and_then(|sub| Subject::parse(&sub))
            .ok_or("the claim `sub` is no subject")?;
        let claims = Self {
            id: text(payload.remove("jti")).ok_or("the claim `jti` is missing or no text")?,
            subject,
            audience: audience(payload.remove("aud"))
                .ok_or("the claim `aud` is neither text nor texts")?,
            resources: texts(payload.remove("resource"))
                .ok_or("the claim `resource` is not a list of texts")?,
            permissions: permissions(payload.remove("permissions"))
                .ok_or("the claim `permissions` is not a list of permissions")?,
            issued_at: instant(payload.remove("iat"))
                .ok_or("the claim `iat` is missing or no whole number")?,
            not_before: instant(payload.remove("nbf"))
                .ok_or("the claim `nbf` is missing or no whole number")?,
            expires_at: instant(payload.remove("exp"))
                .ok_or("the claim `exp` is missing or no whole number")?,
            uses_max: match payload.remove("uses") {
                None => None,
                Some(uses) => Some(
                    uses.as_u64()
                        .and_then(|uses| u32::try_from(uses).ok())
                        .ok_or("the claim `uses` is no count")?,
                ),
            },
            extra: payload,
        };
        claims.check().map_err(|_| "a claim is out of its bounds")?;
        Ok((issuer, claims))
    }

    /// What it takes in memory, roughly, in bytes.
    pub fn weight(&self) -> u32 {
        let texts: usize = self
            .resources
            .iter()
            .chain(&self.audience)
            .map(|text| text.len() + 32)
            .sum();
        let extra = serde_json::to_vec(&self.extra).map_or(0, |text| 4 * text.len());
        u32::try_from(512 + 2 * (self.id.len() + self.subject.name.len() + texts) + extra)
            .unwrap_or(u32::MAX)
    }

    /// The identity that the claims give.
    pub fn principal(&self) -> Principal {
        Principal {
            kind: self.subject.kind,
            subject: self.subject.name.as_str().into(),
            permissions: self.permissions,
            resources: self.resources.clone().into(),
            token_id: Some(self.id.as_str().into()),
            expires_at: Some(self.expires_at),
            extra: Arc::from(self.principal_extra()),
        }
    }

    /// The further claims; with `uses` where uses are counted, so that no service makes an uncounted token of a counted one.
    fn principal_extra(&self) -> String {
        let mut extra = self.extra.clone();
        if let Some(uses) = self.uses_max {
            extra.insert("uses".to_owned(), uses.into());
        }
        Value::Object(extra).to_string()
    }
}

fn text(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn texts(value: Option<Value>) -> Option<Vec<String>> {
    match value {
        Some(Value::Array(items)) => items.into_iter().map(|item| text(Some(item))).collect(),
        _ => None,
    }
}

fn audience(value: Option<Value>) -> Option<Vec<String>> {
    match value {
        None => Some(Vec::new()),
        Some(Value::String(one)) => Some(vec![one]),
        many => texts(many),
    }
}

fn permissions(value: Option<Value>) -> Option<Permissions> {
    texts(value)?
        .iter()
        .map(|name| Permission::parse(name))
        .collect()
}

fn instant(value: Option<Value>) -> Option<i64> {
    value.and_then(|value| value.as_i64())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Claims that are good from second 1,000 to second 2,000.
    pub(crate) fn claims() -> Claims {
        Claims {
            id: "token-1".into(),
            subject: Subject::parse("user:42").expect("a subject"),
            audience: Vec::new(),
            resources: vec!["exprsn-herald/api/*".into()],
            permissions: [Permission::Read, Permission::Write].into_iter().collect(),
            issued_at: 1_000,
            not_before: 1_000,
            expires_at: 2_000,
            uses_max: None,
            extra: Map::new(),
        }
    }

    #[test]
    fn payloads_round_trip() {
        let mut given = claims();
        given.audience = vec!["exprsn-herald".into()];
        given.uses_max = Some(3);
        given.extra.insert("scope".into(), "openid".into());
        let payload =
            super::super::json::object(&given.to_payload("https://ca.test")).expect("an object");
        assert_eq!(
            Claims::from_payload(payload).expect("claims"),
            ("https://ca.test".to_owned(), given)
        );
    }

    #[test]
    fn a_principal_shows_that_its_uses_are_counted() {
        assert_eq!(&*claims().principal().extra, "{}");
        assert_eq!(
            &*Claims {
                uses_max: Some(3),
                ..claims()
            }
            .principal()
            .extra,
            r#"{"uses":3}"#
        );
    }

    #[test]
    fn out_of_bounds_claims_are_named() {
        let check = |change: fn(&mut Claims), expected: &str| {
            let mut changed = claims();
            change(&mut changed);
            let error = changed.check().expect_err(expected);
            assert!(error.contains(expected), "{error}");
        };
        assert_eq!(claims().check(), Ok(()));
        check(|c| c.id.clear(), "`id`");
        check(|c| c.id = "a b".into(), "`id`");
        check(|c| c.resources.clear(), "`resources`");
        check(
            |c| c.resources = vec!["*".into(); RESOURCES_MAX + 1],
            "`resources`",
        );
        check(|c| c.resources.push("../x".into()), "`../x`");
        check(
            |c| c.audience = vec!["a".into(); AUDIENCES_MAX + 1],
            "`audience`",
        );
        check(|c| c.expires_at = c.not_before, "`expires-at`");
        check(|c| c.uses_max = Some(0), "`uses-max`");
        check(
            |c| drop(c.extra.insert("sub".into(), "user:1".into())),
            "`sub`",
        );
        check(
            |c| {
                drop(
                    c.extra
                        .insert("x".into(), "y".repeat(EXTRA_BYTES_MAX).into()),
                )
            },
            "`extra`",
        );
    }

    #[test]
    fn wrong_types_are_malformed() {
        let check = |name: &str, value: Value| {
            let mut payload =
                super::super::json::object(&claims().to_payload("i")).expect("an object");
            payload.insert(name.into(), value);
            let error = Claims::from_payload(payload).expect_err(name);
            assert!(error.contains(name), "{error}");
        };
        check("exp", json!("2000"));
        check("exp", json!(2000.5));
        check("sub", json!("42"));
        check("sub", json!("root:42"));
        check("sub", json!("user:"));
        check("aud", json!([1]));
        check("resource", json!("*"));
        check("permissions", json!(["everything"]));
        check("uses", json!(-1));
        check("jti", json!(null));
    }
}
