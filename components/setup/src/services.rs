//! `/api/services/{name}/…`: which version of a service runs. The host does it; here it is asked for.

use crate::audit;
use exprsn_sdk::prelude::*;

/// What is swapped in, and how.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Swap {
    /// SHA-256 of an admitted component, lower-case hex.
    #[garde(length(bytes, min = 64, max = 64))]
    digest: String,
    /// Makes it a canary with this share of the invocations, in percent.
    #[serde(default)]
    #[garde(range(min = 1, max = 99))]
    percent: Option<u8>,
    /// Takes the old version off before the new one is loaded: for migrations that it cannot bear.
    #[serde(default)]
    #[garde(skip)]
    restart: bool,
}

/// What came of a change.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    service: String,
    /// `start`, `swap`, `canary`, `promote`, `abort`, `rollback` or `remove`.
    action: String,
    /// `live`, `trial` or `removed`.
    outcome: &'static str,
    version: String,
    digest: String,
    /// The digest that ran before.
    former: Option<String>,
    /// Whether compiled code was in the cache.
    cached: bool,
    /// Milliseconds from asking to being live.
    took_ms: u64,
}

/// A service's history, newest first, and its canary.
#[derive(Serialize, JsonSchema)]
pub struct History {
    items: Vec<Deployment>,
    canary: Option<Canary>,
}

/// What a service ran as.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    action: String,
    /// `live`, `trial`, `failed` or `removed`.
    outcome: String,
    version: String,
    digest: String,
    former: Option<String>,
    /// Why it failed or was rolled back.
    reason: Option<String>,
    by: String,
    /// Milliseconds since the Unix epoch.
    at: i64,
    took_ms: i64,
}

/// A version on trial.
#[derive(Serialize, JsonSchema)]
pub struct Canary {
    version: String,
    digest: String,
    percent: u8,
}

/// `POST /api/services/{name}/swap`
pub async fn swap(
    caller: Caller,
    Path(name): Path<String>,
    Json(swap): Json<Swap>,
) -> Result<Json<Changed>> {
    let change = platform::Change {
        percent: swap.percent,
        restart: swap.restart,
        ..asked_by(&caller)
    };
    let details =
        json!({ "digest": swap.digest, "percent": swap.percent, "restart": swap.restart });
    audit::try_note("service.swap", &name, details).await;
    told(&name, platform::swap(&name, &swap.digest, change).await)
}

/// `POST /api/services/{name}/rollback`
pub async fn rollback(caller: Caller, Path(name): Path<String>) -> Result<Json<Changed>> {
    audit::try_note("service.rollback", &name, json!({})).await;
    told(&name, platform::rollback(&name, asked_by(&caller)).await)
}

/// `POST /api/services/{name}/canary/promote`
pub async fn promote(caller: Caller, Path(name): Path<String>) -> Result<Json<Changed>> {
    audit::try_note("service.canary-promote", &name, json!({})).await;
    told(&name, platform::promote(&name, asked_by(&caller)).await)
}

/// `POST /api/services/{name}/canary/abort`
pub async fn abort(caller: Caller, Path(name): Path<String>) -> Result<Json<Changed>> {
    audit::try_note("service.canary-abort", &name, json!({})).await;
    told(&name, platform::abort(&name, asked_by(&caller)).await)
}

/// `DELETE /api/services/{name}`
pub async fn remove(caller: Caller, Path(name): Path<String>) -> Result<Json<Changed>> {
    audit::try_note("service.remove", &name, json!({})).await;
    told(&name, platform::remove(&name, asked_by(&caller)).await)
}

/// `GET /api/services/{name}/history`
pub async fn history(Path(name): Path<String>) -> Result<Json<History>> {
    let entries = platform::history(&name).await?;
    let canary = match platform::trial(&name).await {
        Ok(trial) => trial,
        Err(platform::Error::NotFound) if entries.is_empty() => {
            return Err(Problem::not_found("service", &name));
        }
        Err(platform::Error::NotFound) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Json(History {
        items: entries.into_iter().map(Deployment::from).collect(),
        canary: canary.map(|trial| Canary {
            version: trial.version,
            digest: trial.digest,
            percent: trial.percent,
        }),
    }))
}

/// A change in the name of who asks for it.
fn asked_by(caller: &Caller) -> platform::Change {
    platform::Change {
        by: caller.caller.full_subject(),
        percent: None,
        restart: false,
    }
}

fn told(name: &str, outcome: Result<platform::Changed, platform::Error>) -> Result<Json<Changed>> {
    match outcome {
        Ok(changed) => Ok(Json(Changed::from(changed))),
        Err(platform::Error::NotFound) => Err(Problem::not_found("service or version", name)),
        Err(error) => Err(error.into()),
    }
}

impl From<platform::Changed> for Changed {
    fn from(changed: platform::Changed) -> Self {
        Self {
            service: changed.service,
            action: changed.action,
            outcome: match changed.outcome {
                platform::Outcome::Live => "live",
                platform::Outcome::Trial => "trial",
                platform::Outcome::Removed => "removed",
            },
            version: changed.version,
            digest: changed.digest,
            former: changed.former,
            cached: changed.cached,
            took_ms: changed.took_ms,
        }
    }
}

impl From<platform::Deployment> for Deployment {
    fn from(entry: platform::Deployment) -> Self {
        Self {
            action: entry.action,
            outcome: entry.outcome,
            version: entry.version,
            digest: entry.digest,
            former: entry.former,
            reason: entry.reason,
            by: entry.by,
            at: entry.at,
            took_ms: entry.took_ms,
        }
    }
}
