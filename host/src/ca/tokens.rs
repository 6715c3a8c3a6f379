//! Tokens: minted, verified, revoked, counted.
//!
//! **Invariant:** what is cached is only what never changes: that a text is signed by this authority, and what it says.
//! Time, revocation and uses are looked at on every verification.

use super::{
    authorise::effective_resources,
    claims::{Claims, Subject},
    json, jws,
    ledger::{self, Ledger, Remembered},
    ring::KeyRing,
    standing::{Standing, Standings},
};
use crate::{
    invocation::{Permissions, Principal, PrincipalKind},
    name::ServiceName,
    sqlite,
};
use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use moka::sync::Cache;
use std::{fmt, sync::Arc};
use wasmtime::{Result, bail, format_err};

/// Longest lifetime of a token, in seconds.
pub const LIFETIME_S_MAX: i64 = 366 * 86_400;
/// Lifetime of the tokens that the host mints for services, in seconds.
pub const SERVICE_TOKEN_S: i64 = 300;
/// A service's token is minted anew when less than this is left of it, in seconds.
const SERVICE_TOKEN_RENEW_S: i64 = 60;
/// Tokens of services kept for reuse.
const SERVICE_TOKENS_MAX: u64 = 10_000;
/// How far another host's clock may be ahead, in seconds.
const CLOCK_SKEW_S: i64 = 5;

/// Why a token is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    Malformed(&'static str),
    BadSignature,
    Expired,
    NotYetValid,
    Revoked,
    Exhausted,
    WrongIssuer,
}

impl Rejection {
    /// The name in answers, logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::BadSignature => "bad-signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not-yet-valid",
            Self::Revoked => "revoked",
            Self::Exhausted => "exhausted",
            Self::WrongIssuer => "wrong-issuer",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the token is malformed: {why}"),
            Self::BadSignature => {
                f.write_str("the token is not signed by this platform's authority")
            }
            Self::Expired => f.write_str("the token has expired"),
            Self::NotYetValid => f.write_str("the token is not valid yet"),
            Self::Revoked => f.write_str("the token is revoked"),
            Self::Exhausted => f.write_str("the token has been used as often as it may"),
            Self::WrongIssuer => f.write_str("the token was issued by another authority"),
        }
    }
}

impl std::error::Error for Rejection {}

/// A token whose signature is good.
#[derive(Debug)]
pub struct VerifiedToken {
    /// Whom it identifies; `resources` are those of the token within its audience.
    pub principal: Arc<Principal>,
    pub claims: Claims,
    /// False where its `iss` is not this authority's.
    ours: bool,
}

/// What a token's examination found. The token is there whenever its signature is good.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub rejection: Option<Rejection>,
    pub token: Option<Arc<VerifiedToken>>,
}

/// Why a presented token does not identify anybody.
#[derive(Debug)]
pub enum Refusal {
    Rejected(Rejection),
    /// The token may be used a number of times, and this host cannot count now; nothing was counted.
    Uncounted(ledger::Error),
}

impl Refusal {
    /// The name in answers, logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Rejected(rejection) => rejection.kind(),
            Self::Uncounted(_) => "uncounted",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Uncounted(_) => f.write_str("the token's use could not be counted; try again"),
        }
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rejected(_) => None,
            Self::Uncounted(source) => Some(source),
        }
    }
}

/// Names the service behind a URL's authority: `localhost:3014`.
pub type Resolver = Arc<dyn Fn(&str) -> Option<ServiceName> + Send + Sync>;

/// The host's tokens.
pub struct Tokens {
    issuer: String,
    ring: ArcSwap<KeyRing>,
    verified: Cache<[u8; 32], Arc<VerifiedToken>>,
    standings: Standings,
    ledger: Ledger,
    of_services: Cache<(ServiceName, ServiceName, Permissions), (Arc<str>, i64)>,
    resolver: ArcSwap<Resolver>,
}

impl Tokens {
    /// Takes over what `remembered` says of tokens. `cache_bytes_max` bounds the memory of verified ones.
    pub fn new(
        issuer: String,
        ring: KeyRing,
        ledger: Ledger,
        remembered: &Remembered,
        cache_bytes_max: u64,
        now_s: i64,
    ) -> Result<Self> {
        let standings = Standings::new();
        for (id, standing, expires_at) in &remembered.standings {
            if !standings.set(id, *standing, *expires_at, now_s) {
                bail!("host.db holds more revoked tokens than the host can remember");
            }
        }
        let weigh = |_: &[u8; 32], token: &Arc<VerifiedToken>| token.claims.weight();
        Ok(Self {
            issuer,
            ring: ArcSwap::from_pointee(ring),
            verified: Cache::builder()
                .max_capacity(cache_bytes_max)
                .weigher(weigh)
                .build(),
            standings,
            ledger,
            of_services: Cache::new(SERVICE_TOKENS_MAX),
            resolver: ArcSwap::from_pointee(Arc::new(|_: &str| None) as Resolver),
        })
    }

    /// The claim `iss` of all tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Says which service a URL in a token's resources means. What was verified before is forgotten.
    pub fn resolve_with(&self, resolver: Resolver) {
        self.resolver.store(Arc::new(resolver));
        self.verified.invalidate_all();
    }

    /// The service behind a URL's authority.
    pub fn resolve(&self, authority: &str) -> Option<ServiceName> {
        (self.resolver.load())(authority)
    }

    /// Signs with another ring from now on; tokens of keys that it lacks are good no longer.
    pub fn replace_ring(&self, ring: KeyRing) {
        self.ring.store(Arc::new(ring));
        self.verified.invalidate_all();
        self.of_services.invalidate_all();
    }

    /// The verification keys as a JSON Web Key Set.
    pub fn jwks(&self) -> serde_json::Value {
        self.ring.load().jwks()
    }

    /// Examines a token, without counting a use. Memory only: no lock, no disk.
    pub fn examine(&self, token: &str, now_s: i64) -> Verdict {
        match self.signed(token) {
            Err(rejection) => Verdict {
                rejection: Some(rejection),
                token: None,
            },
            Ok(token) => Verdict {
                rejection: self.objection(&token, now_s),
                token: Some(token),
            },
        }
    }

    fn signed(&self, token: &str) -> Result<Arc<VerifiedToken>, Rejection> {
        if token.len() > jws::TOKEN_BYTES_MAX {
            return Err(Rejection::Malformed("it is longer than 8 KiB"));
        }
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(known) = self.verified.get(&key) {
            return Ok(known);
        }
        // A forged token is never remembered, so that none can push a good one out.
        let fresh = Arc::new(self.verify_signature(token)?);
        self.verified.insert(key, fresh.clone());
        Ok(fresh)
    }

    fn verify_signature(&self, token: &str) -> Result<VerifiedToken, Rejection> {
        let parts = jws::parse(token).map_err(Rejection::Malformed)?;
        let ring = self.ring.load();
        let verifier = ring.verifier(&parts.kid).ok_or(Rejection::BadSignature)?;
        verifier
            .verify_sig(parts.signed, &parts.signature)
            .map_err(|_| Rejection::BadSignature)?;
        let payload = json::object(&parts.payload).ok_or(Rejection::Malformed(
            "its payload is not a JSON object with each name once",
        ))?;
        let (issuer, claims) = Claims::from_payload(payload).map_err(Rejection::Malformed)?;
        let resources = effective_resources(&claims, |authority| self.resolve(authority));
        let principal = Arc::new(Principal {
            resources: resources.into(),
            ..claims.principal()
        });
        Ok(VerifiedToken {
            principal,
            claims,
            ours: issuer == self.issuer,
        })
    }

    fn objection(&self, token: &VerifiedToken, now_s: i64) -> Option<Rejection> {
        let claims = &token.claims;
        match self.standings.get(&claims.id) {
            _ if !token.ours => Some(Rejection::WrongIssuer),
            Some(Standing::Revoked) => Some(Rejection::Revoked),
            _ if now_s >= claims.expires_at => Some(Rejection::Expired),
            Some(Standing::Exhausted) => Some(Rejection::Exhausted),
            None if now_s + CLOCK_SKEW_S < claims.not_before => Some(Rejection::NotYetValid),
            None => None,
        }
    }

    /// Counts a use of a token that may be used a number of times only; does nothing for any other. Durable when it returns.
    pub async fn count_use(&self, token: &VerifiedToken, now_s: i64) -> Result<(), Refusal> {
        let claims = &token.claims;
        let Some(uses_max) = claims.uses_max else {
            return Ok(());
        };
        let left = self
            .ledger
            .count_use(&claims.id, uses_max, claims.expires_at)
            .await
            .map_err(Refusal::Uncounted)?;
        if matches!(left, None | Some(0)) {
            // Where it is not remembered, host.db still knows: the next use is refused there.
            let _ = self
                .standings
                .set(&claims.id, Standing::Exhausted, claims.expires_at, now_s);
        }
        left.map(drop)
            .ok_or(Refusal::Rejected(Rejection::Exhausted))
    }

    /// Signs a token. An empty id is made, and instants of 0 are now. The error says which claim is wrong.
    pub fn mint(&self, mut claims: Claims, now_s: i64) -> Result<(String, Claims), String> {
        if claims.id.is_empty() {
            claims.id = uuid::Uuid::now_v7().to_string();
        }
        for instant in [&mut claims.issued_at, &mut claims.not_before] {
            *instant = if *instant == 0 { now_s } else { *instant };
        }
        claims.check()?;
        if claims.expires_at <= now_s {
            return Err("`expires-at` is past".to_owned());
        }
        if claims.expires_at - now_s > LIFETIME_S_MAX {
            return Err(format!(
                "`expires-at` is more than {LIFETIME_S_MAX} s ahead"
            ));
        }
        let token = jws::sign(
            self.ring.load().signing(),
            jws::TOKEN_TYPE,
            &claims.to_payload(&self.issuer),
        )
        .map_err(|error| error.to_string())?;
        if token.len() > jws::TOKEN_BYTES_MAX {
            return Err(format!(
                "the token would be longer than {} bytes",
                jws::TOKEN_BYTES_MAX
            ));
        }
        Ok((token, claims))
    }

    /// Revokes a token by its id until `expires_at`. Durable when it returns, and in force at once.
    pub async fn revoke(&self, id: &str, expires_at: i64, now_s: i64) -> Result<(), ledger::Error> {
        if expires_at <= now_s {
            return Ok(());
        }
        self.ledger.revoke_token(id, expires_at).await?;
        if self.standings.set(id, Standing::Revoked, expires_at, now_s) {
            Ok(())
        } else {
            Err(sqlite::Error::Overloaded.into())
        }
    }

    /// Puts in force that another host has revoked a token.
    pub(super) fn hear_revoked(&self, id: &str, expires_at: i64, now_s: i64) {
        if expires_at > now_s && !self.standings.set(id, Standing::Revoked, expires_at, now_s) {
            tracing::error!(id, "more tokens are revoked than this host can remember");
        }
    }

    /// A short-lived token of a service for another one, minted now or shortly before.
    pub fn service_token(
        &self,
        caller: &ServiceName,
        target: &ServiceName,
        permissions: Permissions,
        now_s: i64,
    ) -> Result<Arc<str>> {
        let key = (caller.clone(), target.clone(), permissions);
        if let Some((token, until)) = self.of_services.get(&key)
            && until - now_s > SERVICE_TOKEN_RENEW_S
        {
            return Ok(token);
        }
        let claims = Claims {
            id: String::new(),
            subject: Subject {
                kind: PrincipalKind::Service,
                name: caller.as_str().to_owned(),
            },
            audience: vec![target.as_str().to_owned()],
            resources: vec![format!("{target}/*")],
            permissions,
            issued_at: now_s,
            not_before: now_s,
            expires_at: now_s + SERVICE_TOKEN_S,
            uses_max: None,
            extra: serde_json::Map::new(),
        };
        let (token, claims) = self
            .mint(claims, now_s)
            .map_err(|error| format_err!("cannot mint a token for `{caller}`: {error}"))?;
        let token: Arc<str> = token.into();
        self.of_services
            .insert(key, (token.clone(), claims.expires_at));
        Ok(token)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
