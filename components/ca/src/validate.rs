//! Saying whether a token is good: for anybody, for resource servers, and by publishing the keys.

use crate::{
    issue::PermissionNames,
    lenient::Lenient,
    narrowing::{Resolve, covered},
    pattern::ResourcePattern,
    resolver::Resolver,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use exprsn_sdk::{
    ca::{Rejection, authority},
    prelude::*,
};
use serde_json::{Map, Value};

/// A token, and optionally what it should be good for.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    token: String,
    /// What it is to be used on: `http://localhost:3014/api/notifications/send`.
    resource: Option<String>,
    /// What it is to be used for: `write`.
    #[serde(alias = "permissions")]
    permission: Option<PermissionNames>,
}

/// Whether a token is good.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    valid: bool,
    /// Why not: `malformed`, `bad-signature`, `expired`, `not-yet-valid`, `revoked`, `exhausted`, `wrong-issuer`,
    /// `resource` or `permission`; null when valid.
    reason: Option<&'static str>,
    /// The reason as a sentence.
    message: Option<String>,
    /// What the token says, whenever its signature is good.
    claims: Option<Map<String, Value>>,
}

/// `POST /api/tokens/validate`
pub async fn validate(Lenient(question): Lenient<Question>) -> Result<Json<Validation>> {
    let verdict = ca::verify(&question.token).await?;
    let Some(claims) = verdict.claims else {
        return Ok(Json(refused(
            verdict.rejection.unwrap_or(Rejection::Malformed),
            None,
        )));
    };
    let said = Some(to_json(&claims));
    if let Some(rejection) = verdict.rejection {
        return Ok(Json(refused(rejection, said)));
    }
    let resolver = Resolver::present().await;
    let outcome = decide(
        &claims,
        question.resource.as_deref(),
        question.permission,
        &|authority| resolver.resolve(authority),
    );
    Ok(Json(match outcome {
        Ok(()) => Validation {
            valid: true,
            reason: None,
            message: None,
            claims: said,
        },
        Err((reason, message)) => Validation {
            valid: false,
            reason: Some(reason),
            message: Some(message),
            claims: said,
        },
    }))
}

fn refused(rejection: Rejection, claims: Option<Map<String, Value>>) -> Validation {
    let (reason, message) = match rejection {
        Rejection::Malformed => ("malformed", "the token is malformed"),
        Rejection::BadSignature => ("bad-signature", "the token is not signed by this authority"),
        Rejection::Expired => ("expired", "the token has expired"),
        Rejection::NotYetValid => ("not-yet-valid", "the token is not valid yet"),
        Rejection::Revoked => ("revoked", "the token is revoked"),
        Rejection::Exhausted => ("exhausted", "the token has been used as often as it may"),
        Rejection::WrongIssuer => ("wrong-issuer", "the token was issued by another authority"),
    };
    Validation {
        valid: false,
        reason: Some(reason),
        message: Some(message.to_owned()),
        claims,
    }
}

/// Whether a good token is good for a resource and permissions.
fn decide(
    claims: &Claims,
    resource: Option<&str>,
    permission: Option<PermissionNames>,
    resolve: Resolve<'_>,
) -> Result<(), (&'static str, String)> {
    if let Some(wanted) = permission {
        let wanted = wanted
            .into_set()
            .map_err(|name| ("permission", format!("`{name}` is no permission")))?;
        if let Some(name) = (wanted & !claims.permissions).names().first() {
            return Err((
                "permission",
                format!("the token lacks the permission `{name}`"),
            ));
        }
    }
    let Some(resource) = resource else {
        return Ok(());
    };
    ResourcePattern::parse(resource).map_err(|fault| ("resource", fault.to_string()))?;
    if !claims.audience.is_empty() && !in_audience(claims, resource, resolve) {
        return Err((
            "resource",
            format!("the token's audience does not include the service of `{resource}`"),
        ));
    }
    if covered(&claims.resources, resource, resolve) {
        Ok(())
    } else {
        Err(("resource", format!("the token does not cover `{resource}`")))
    }
}

/// Whether the audience names the service that a resource is of.
fn in_audience(claims: &Claims, resource: &str, resolve: Resolve<'_>) -> bool {
    let service = |text: &str| match text.split_once("://") {
        Some((_, rest)) => resolve(rest.split('/').next().unwrap_or_default()),
        None => text.split('/').next().map(str::to_owned),
    };
    let wanted = service(resource);
    wanted.is_some() && claims.audience.iter().any(|name| service(name) == wanted)
}

/// The claims as in the token (RFC 7519).
fn to_json(claims: &Claims) -> Map<String, Value> {
    let mut map = claims.extra();
    let mut set = |name: &str, value: Value| map.insert(name.to_owned(), value);
    set("jti", json!(claims.id));
    set("sub", json!(claims.subject));
    set("resource", json!(claims.resources));
    set("permissions", json!(claims.permissions.names()));
    set("iat", json!(claims.issued_at));
    set("nbf", json!(claims.not_before));
    set("exp", json!(claims.expires_at));
    if !claims.audience.is_empty() {
        set("aud", json!(claims.audience));
    }
    if let Some(uses) = claims.uses_max {
        set("uses", json!(uses));
    }
    map
}

/// What introspection asks (RFC 7662 §2.1).
#[derive(Deserialize, JsonSchema)]
pub struct Introspection {
    token: String,
    #[allow(dead_code, reason = "accepted, since clients send it")]
    token_type_hint: Option<String>,
}

/// `POST /api/tokens/introspect`
pub async fn introspect(
    Lenient(question): Lenient<Introspection>,
) -> Result<exprsn_sdk::extract::AnyJson> {
    let verdict = ca::verify(&question.token).await?;
    let (None, Some(claims)) = (verdict.rejection, verdict.claims) else {
        // RFC 7662 §2.2: of a token that is not active nothing else is said.
        return Ok(exprsn_sdk::extract::AnyJson(json!({ "active": false })));
    };
    let mut answer = to_json(&claims);
    answer.insert("active".into(), json!(true));
    answer.insert("token_type".into(), json!("Bearer"));
    if let Some(issuer) = issuer(&question.token) {
        answer.insert("iss".into(), issuer);
    }
    answer
        .entry("scope")
        .or_insert_with(|| json!(claims.permissions.names().join(" ")));
    Ok(exprsn_sdk::extract::AnyJson(Value::Object(answer)))
}

/// The issuer of a token that was verified.
fn issuer(token: &str) -> Option<Value> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Map<String, Value>>(&payload)
        .ok()?
        .remove("iss")
}

/// `GET /.well-known/jwks.json`
pub async fn jwks() -> Result<exprsn_sdk::extract::AnyJson> {
    Ok(exprsn_sdk::extract::AnyJson(authority::jwks().await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(authority: &str) -> Option<String> {
        match authority {
            "localhost:3014" => Some("exprsn-herald".into()),
            "localhost:3004" => Some("exprsn-timeline".into()),
            _ => None,
        }
    }

    fn claims() -> Claims {
        let mut claims = Claims::new("user:42", 1_000, 60);
        claims.resources = vec!["http://localhost:3014/api/notifications/*".into()];
        claims.permissions = Permissions::WRITE;
        claims
    }

    fn reason(
        claims: &Claims,
        resource: Option<&str>,
        permission: Option<&str>,
    ) -> Option<&'static str> {
        let permission = permission.map(|name| PermissionNames::One(name.to_owned()));
        decide(claims, resource, permission, &resolve)
            .err()
            .map(|(reason, _)| reason)
    }

    #[test]
    fn resource_and_permission_are_decided_on() {
        let claims = claims();
        assert_eq!(reason(&claims, None, None), None);
        for good in [
            "http://localhost:3014/api/notifications/send",
            "exprsn-herald/api/notifications/send",
        ] {
            assert_eq!(reason(&claims, Some(good), Some("write")), None, "{good}");
        }
        for bad in [
            "http://localhost:3014/api/admin",
            "http://localhost:3004/api/notifications/send",
            "http://localhost:9/api/notifications/send",
            "http://localhost:3014/api/notifications/../admin",
            "nonsense with blanks",
            "*",
        ] {
            assert_eq!(reason(&claims, Some(bad), None), Some("resource"), "{bad}");
        }
        assert_eq!(reason(&claims, None, Some("delete")), Some("permission"));
        assert_eq!(
            reason(&claims, None, Some("everything")),
            Some("permission")
        );
    }

    #[test]
    fn the_audience_counts_too() {
        let mut claims = claims();
        claims.resources = vec!["*".into()];
        claims.audience = vec!["exprsn-herald".into()];
        assert_eq!(reason(&claims, Some("http://localhost:3014/x"), None), None);
        assert_eq!(
            reason(&claims, Some("exprsn-timeline/x"), None),
            Some("resource")
        );
        assert_eq!(
            reason(&claims, Some("http://unknown:1/x"), None),
            Some("resource")
        );
        claims.audience = vec!["http://localhost:3004".into()];
        assert_eq!(reason(&claims, Some("exprsn-timeline/x"), None), None);
    }

    #[test]
    fn the_issuer_is_read_from_the_payload() {
        let token = format!(
            "h.{}.s",
            URL_SAFE_NO_PAD.encode(r#"{"iss":"https://ca.test"}"#)
        );
        assert_eq!(issuer(&token), Some(json!("https://ca.test")));
        assert_eq!(issuer("nonsense"), None);
    }
}
