//! Issuing tokens, and the list of those issued.

use crate::{audit, narrowing, resolver::Resolver, store};
use exprsn_sdk::{ca::authority, prelude::*};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Longest lifetime, in seconds: the host signs nothing longer.
const LIFETIME_S_MAX: i64 = 366 * 86_400;
/// Lifetime when none is asked for, in seconds.
const LIFETIME_S: i64 = 3_600;

/// One text or several.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Permissions as `{"write": true}` or `["write"]`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PermissionNames {
    Flags(BTreeMap<String, bool>),
    Names(Vec<String>),
    One(String),
}

impl PermissionNames {
    /// The set, or the name that is no permission.
    pub fn into_set(self) -> Result<Permissions, String> {
        let names = match self {
            Self::Flags(flags) => flags
                .into_iter()
                .filter(|(_, set)| *set)
                .map(|(name, _)| name)
                .collect(),
            Self::Names(names) => names,
            Self::One(name) => vec![name],
        };
        names
            .into_iter()
            .map(|name| Permissions::named(&name).ok_or(name))
            .collect()
    }
}

/// The token that is wanted.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewToken {
    /// `user:<id>`, `service:<name>`, `client:<id>` or `operator:<name>`; the caller's own when absent.
    #[garde(length(bytes, min = 3, max = 256))]
    subject: Option<String>,
    /// What it is for: `http://localhost:3014/api/notifications/*`, `exprsn-herald/api/*`, or `*`.
    #[serde(alias = "resources")]
    #[garde(skip)]
    resource: OneOrMany,
    #[garde(skip)]
    permissions: PermissionNames,
    /// Lifetime in seconds.
    #[serde(default = "hour")]
    #[garde(range(min = 1, max = LIFETIME_S_MAX))]
    expires_in: i64,
    /// How many times it may be used; any number when absent.
    #[garde(range(min = 1))]
    max_uses: Option<u32>,
    /// Services that may accept it; any when absent.
    #[garde(skip)]
    audience: Option<OneOrMany>,
    /// Further claims; an administrator's to set.
    #[garde(skip)]
    extra: Option<Map<String, Value>>,
}

fn hour() -> i64 {
    LIFETIME_S
}

/// A token and what it says.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Issued {
    /// Shown this once.
    token: String,
    token_type: &'static str,
    expires_in: i64,
    #[serde(flatten)]
    record: TokenRecord,
}

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenRecord {
    pub id: String,
    pub subject: String,
    pub audience: Vec<String>,
    pub resource: Vec<String>,
    pub permissions: Vec<String>,
    /// Seconds since the Unix epoch.
    pub issued_at: i64,
    pub expires_at: i64,
    pub max_uses: Option<i64>,
    /// The token it was narrowed from, with which it is revoked.
    pub parent: Option<String>,
    pub issued_by: String,
    pub revoked_at: Option<i64>,
    pub revoked_by: Option<String>,
}

impl NewToken {
    /// The claims that are asked for.
    fn claims(self, id: String, own_subject: &str, now_s: i64) -> Result<Claims> {
        let subject = self.subject.unwrap_or_else(|| own_subject.to_owned());
        let mut claims = Claims::new(subject, now_s, self.expires_in);
        claims.id = id;
        claims.resources = self.resource.into_vec();
        claims.permissions = self.permissions.into_set().map_err(|name| {
            Problem::unprocessable("/permissions", format!("`{name}` is no permission"))
        })?;
        claims.audience = self.audience.map(OneOrMany::into_vec).unwrap_or_default();
        claims.uses_max = self.max_uses;
        claims.extra = Value::Object(self.extra.unwrap_or_default()).to_string();
        if claims.permissions.is_empty() {
            return Err(Problem::unprocessable(
                "/permissions",
                "must name at least one permission",
            ));
        }
        for resource in &claims.resources {
            crate::pattern::ResourcePattern::parse(resource).map_err(|fault| {
                Problem::unprocessable("/resource", format!("`{resource}`: {fault}"))
            })?;
        }
        Ok(claims)
    }
}

/// `POST /api/tokens`
///
/// The immediate caller's rights count, not those of a user on whose behalf a service may call: a service must not be
/// talked into using a right that is its user's.
pub async fn issue(caller: Caller, Json(new): Json<NewToken>) -> Result<Created<Issued>> {
    let (own, now) = (&caller.caller, now_s());
    let own_subject = own.full_subject();
    let (expires_in, shed) = (new.expires_in, new.extra.is_some());
    let mut claims = new.claims(uuid_v7(), &own_subject, now)?;
    let narrowed = !caller.has(Permission::Admin);
    if narrowed {
        if shed {
            return Err(Problem::forbidden(
                "only an administrator sets `extra`; yours are inherited",
            ));
        }
        let resolver = Resolver::present().await;
        narrowing::check(own, &own_subject, &claims, &|authority| {
            resolver.resolve(authority)
        })
        .map_err(Problem::forbidden)?;
        claims.extra = narrowing::inherited(own);
    }
    let record = TokenRecord {
        id: claims.id.clone(),
        subject: claims.subject.clone(),
        audience: claims.audience.clone(),
        resource: claims.resources.clone(),
        permissions: claims
            .permissions
            .names()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        issued_at: now,
        expires_at: claims.expires_at,
        max_uses: claims.uses_max.map(i64::from),
        parent: own.token_id.clone().filter(|_| narrowed),
        issued_by: own_subject,
        revoked_at: None,
        revoked_by: None,
    };
    let token = authority::sign_token(claims).await?;
    let tx = sql::begin().await?;
    store::insert_token(&tx, &record).await?;
    audit::append(
        &tx,
        &record.issued_by,
        "token.issued",
        &record.id,
        &details(&record),
    )
    .await?;
    tx.commit().await?;
    let location = format!("/api/tokens/{}", record.id);
    Ok(Created::at(
        location,
        Issued {
            token,
            token_type: "Bearer",
            expires_in,
            record,
        },
    ))
}

fn details(record: &TokenRecord) -> Value {
    json!({
        "subject": record.subject,
        "audience": record.audience,
        "resource": record.resource,
        "permissions": record.permissions,
        "expiresAt": record.expires_at,
        "maxUses": record.max_uses,
        "parent": record.parent,
    })
}

/// `GET /api/tokens`
pub async fn list(page: Query<PageQuery>) -> Result<Json<Page<TokenRecord>>> {
    let before = page.cursor::<String>()?;
    let records = store::tokens(before.as_deref(), page.limit_plus_one()).await?;
    Ok(Json(page.page(records, |record| record.id.clone())))
}

/// `GET /api/tokens/{id}`
pub async fn show(Path(id): Path<String>) -> Result<Json<TokenRecord>> {
    store::token(&id)
        .await?
        .map(Json)
        .ok_or_else(|| Problem::not_found("token", &id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(body: Value) -> Result<Claims> {
        serde_json::from_value::<NewToken>(body)
            .expect("well formed")
            .claims("id-1".into(), "user:7", 1_000)
    }

    #[test]
    fn both_spellings_of_permissions_are_read() {
        let write = Permissions::WRITE;
        for spelling in [
            json!({ "write": true }),
            json!({ "write": true, "read": false }),
            json!(["write"]),
            json!("write"),
        ] {
            let claims =
                claims(json!({ "subject": "user:1", "resource": "*", "permissions": spelling }))
                    .expect("claims");
            assert_eq!(claims.permissions, write);
        }
    }

    #[test]
    fn what_is_absent_has_defaults() {
        let claims =
            claims(json!({ "resource": ["exprsn-a/*", "exprsn-b/*"], "permissions": ["read"] }))
                .expect("claims");
        assert_eq!(
            (claims.subject.as_str(), claims.expires_at, claims.uses_max),
            ("user:7", 1_000 + LIFETIME_S, None)
        );
        assert_eq!(claims.resources.len(), 2);
        let body = json!({ "resources": "*", "permissions": ["read"], "audience": "exprsn-a", "maxUses": 2, "expiresIn": 5 });
        let given = self::claims(body).expect("claims");
        assert_eq!(
            (given.audience, given.uses_max, given.expires_at),
            (vec!["exprsn-a".to_owned()], Some(2), 1_005)
        );
    }

    #[test]
    fn problems_name_the_field() {
        let check = |body: Value, field: &str| {
            let problem = claims(body).expect_err(field);
            assert_eq!(
                (problem.status().as_u16(), problem.errors[0].field.as_str()),
                (422, field)
            );
        };
        check(
            json!({ "resource": "*", "permissions": ["everything"] }),
            "/permissions",
        );
        check(
            json!({ "resource": "*", "permissions": { "write": false } }),
            "/permissions",
        );
        check(
            json!({ "resource": "exprsn-a/../b", "permissions": ["read"] }),
            "/resource",
        );
    }
}
