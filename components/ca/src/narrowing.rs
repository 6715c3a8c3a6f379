//! Whether a token is no more than another: pure.

use crate::pattern::ResourcePattern;
use exprsn_sdk::prelude::{Claims, Principal};
use serde_json::Value;

/// Names the service behind a URL's authority.
pub type Resolve<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Whether whoever holds a token of `own` may have one of `wanted`: same subject, nothing that `own` lacks, no longer
/// life. The error says what goes beyond.
pub fn check(
    own: &Principal,
    own_subject: &str,
    wanted: &Claims,
    resolve: Resolve<'_>,
) -> Result<(), String> {
    if own.token_id.is_none() {
        return Err("only the holder of a token can narrow it".to_owned());
    }
    if own.extra().contains_key("uses") {
        return Err("a token whose uses are counted cannot be narrowed".to_owned());
    }
    if wanted.subject != own_subject {
        return Err(format!(
            "the subject must be `{own_subject}`, as in your token"
        ));
    }
    if let Some(name) = (wanted.permissions & !own.permissions).names().first() {
        return Err(format!("your token lacks the permission `{name}`"));
    }
    if let Some(beyond) = wanted
        .resources
        .iter()
        .find(|resource| !covered(&own.resources, resource, resolve))
    {
        return Err(format!("your token does not cover the resource `{beyond}`"));
    }
    match own.expires_at {
        Some(expires_at) if wanted.expires_at > expires_at => Err(format!(
            "your token expires at {expires_at}, and the narrower one must not outlive it"
        )),
        _ => Ok(()),
    }
}

/// Whether one of the patterns covers `resource`, itself a pattern.
pub fn covered(patterns: &[String], resource: &str, resolve: Resolve<'_>) -> bool {
    let Ok(resource) = ResourcePattern::parse(resource) else {
        return false;
    };
    patterns.iter().any(|pattern| {
        ResourcePattern::parse(pattern).is_ok_and(|pattern| pattern.covers(&resource, resolve))
    })
}

/// The further claims of a narrower token: those of the token it comes from, so that none is shed.
pub fn inherited(own: &Principal) -> String {
    Value::Object(own.extra()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use exprsn_sdk::prelude::{Kind, Permissions};

    fn own() -> Principal {
        Principal {
            kind: Kind::User,
            subject: "42".into(),
            permissions: Permissions::READ | Permissions::WRITE,
            resources: vec!["exprsn-herald/api/*".into()],
            token_id: Some("parent".into()),
            expires_at: Some(2_000),
            extra: r#"{"sid":"s1"}"#.into(),
        }
    }

    fn wanted() -> Claims {
        let mut claims = Claims::new("user:42", 1_000, 500);
        claims.permissions = Permissions::WRITE;
        claims.resources = vec!["exprsn-herald/api/notifications/*".into()];
        claims
    }

    fn resolve(authority: &str) -> Option<String> {
        (authority == "localhost:3014").then(|| "exprsn-herald".to_owned())
    }

    #[test]
    fn less_is_allowed() {
        assert_eq!(check(&own(), "user:42", &wanted(), &resolve), Ok(()));
        let mut by_url = wanted();
        by_url.resources = vec!["http://localhost:3014/api/x".into()];
        assert_eq!(check(&own(), "user:42", &by_url, &resolve), Ok(()));
        let mut counted = wanted();
        counted.uses_max = Some(1);
        assert_eq!(check(&own(), "user:42", &counted, &resolve), Ok(()));
    }

    #[test]
    fn more_is_refused() {
        let check = |change: fn(&mut Principal, &mut Claims), expected: &str| {
            let (mut own, mut wanted) = (own(), wanted());
            change(&mut own, &mut wanted);
            let error = check(&own, "user:42", &wanted, &resolve).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        };
        check(|_, wanted| wanted.subject = "user:1".into(), "subject");
        check(
            |_, wanted| wanted.permissions |= Permissions::ADMIN,
            "`admin`",
        );
        check(|_, wanted| wanted.resources = vec!["*".into()], "`*`");
        check(
            |_, wanted| wanted.resources.push("exprsn-herald/*".into()),
            "exprsn-herald/*",
        );
        check(
            |_, wanted| wanted.resources.push("exprsn-timeline/api/x".into()),
            "exprsn-timeline",
        );
        check(
            |_, wanted| wanted.resources.push("http://localhost:3004/api/x".into()),
            "3004",
        );
        check(
            |_, wanted| wanted.resources.push("exprsn-herald/api/../x".into()),
            "..",
        );
        check(|_, wanted| wanted.expires_at = 2_001, "outlive");
        check(|own, _| own.token_id = None, "holder");
        check(|own, _| own.extra = r#"{"uses":1}"#.into(), "counted");
    }
}
