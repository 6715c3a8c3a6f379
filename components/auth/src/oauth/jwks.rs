//! The public keys: of ID tokens, and of the authority that signs access tokens.

use super::error::{OAuthResult, either};
use crate::domain::id_token::{self, Hint};
use crate::settings::settings;
use exprsn_sdk::ca::Algorithm;
use exprsn_sdk::prelude::*;

/// The name of the key that signs ID tokens.
pub const ID_TOKEN_KEY: &str = "id-token";
/// Where the authority publishes its keys.
const AUTHORITY_KEYS: &str = "http://exprsn-ca/.well-known/jwks.json";
/// How long the authority may take, in milliseconds: its keys are a courtesy, and nobody waits long for them.
const AUTHORITY_MS_MAX: u64 = 1_000;
const AUTHORITY_BYTES_MAX: usize = 65_536;
/// How long the authority's keys are kept, in milliseconds.
const AUTHORITY_KEPT_MS: u64 = 300_000;
/// Seconds that clients may keep the keys.
const MAX_AGE_S: u32 = 300;

/// The keys of ID tokens.
pub async fn own_keys() -> OAuthResult<serde_json::Value> {
    Ok(ca::public_keys(ID_TOKEN_KEY, Algorithm::Rs256).await?)
}

/// Reads an ID token of ours back.
pub async fn read_hint(token: Option<&str>) -> OAuthResult<Option<Hint>> {
    let Some(token) = token else { return Ok(None) };
    Ok(id_token::read_hint(
        token,
        &settings().issuer,
        &own_keys().await?,
    ))
}

/// `GET /oauth/jwks`
pub async fn keys() -> Response {
    either(all_keys().await)
}

async fn all_keys() -> OAuthResult {
    let mut keys = own_keys().await?;
    if let Some(list) = keys["keys"].as_array_mut() {
        list.extend(authority_keys().await);
    }
    Ok(Response::ok()
        .json(&keys)
        .header("content-type", "application/jwk-set+json")
        .header("cache-control", format!("public, max-age={MAX_AGE_S}"))
        .header("access-control-allow-origin", "*"))
}

/// The keys of the authority, or none when it does not answer.
async fn authority_keys() -> Vec<serde_json::Value> {
    const KEPT: &str = "authority-keys";
    if let Ok(Some(kept)) = cache::get_json::<Vec<serde_json::Value>>(KEPT).await {
        return kept;
    }
    match fetch_authority_keys().await {
        Ok(keys) => {
            if let Err(error) = cache::set_json(KEPT, &keys, Some(AUTHORITY_KEPT_MS)).await {
                log::debug!(
                    "the authority's keys are not kept",
                    error = format!("{error:?}")
                );
            }
            keys
        }
        Err(problem) => {
            log::warn!("the authority's keys cannot be had", error = problem);
            Vec::new()
        }
    }
}

async fn fetch_authority_keys() -> Result<Vec<serde_json::Value>> {
    #[derive(Deserialize)]
    struct KeySet {
        keys: Vec<serde_json::Value>,
    }
    let answer = http::get(AUTHORITY_KEYS)
        .timeout_ms(AUTHORITY_MS_MAX)
        .send()
        .await?;
    let bytes = answer
        .error_for_status()
        .await?
        .bytes(AUTHORITY_BYTES_MAX)
        .await?;
    let set: KeySet = serde_json::from_slice(&bytes)
        .map_err(|e| Problem::fault("the authority's keys are no key set", e))?;
    Ok(set.keys)
}
