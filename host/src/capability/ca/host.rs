//! What guests see of the authority: `exprsn:ca/caller`, `tokens`, `signer` and `authority`.

use super::{Config, Grant, convert};
use crate::{
    ca::{self, Authority},
    capability::{Boot, Borrower, Capability},
    clock,
    name::ServiceName,
    service::Registry,
    store::{ServiceContext, StoreState},
    telemetry::chain,
};
use std::{sync::Arc, time::Duration};
use wasmtime::{
    Result,
    component::{Accessor, HasSelf, Linker},
};

wasmtime::component::bindgen!({
    path: "../wit",
    world: "exprsn:ca/imports",
    imports: { default: trappable },
});

use exprsn::ca::{authority, caller, signer, tokens, types};

/// How often the operator's token is written anew.
const OPERATOR_TOKEN_INTERVAL: Duration = Duration::from_secs(6 * 3_600);

/// What a function answers: a trap, or a value or error of the interface.
pub(super) type Answer<T> = Result<Result<T, types::Error>>;

/// The `ca` capability.
pub struct Ca {
    authority: Arc<Authority>,
    registry: Arc<Registry>,
}

/// What one service version holds.
#[derive(Clone)]
pub struct Lent {
    pub(super) authority: Arc<Authority>,
    /// Says what runs.
    pub(super) registry: Arc<Registry>,
    pub(super) service: ServiceName,
    pub(super) grant: Grant,
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent")
            .field("service", &self.service)
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}

impl Capability for Ca {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(boot: &Boot, _config: Config) -> Result<Self> {
        let weak = Arc::downgrade(&boot.authority);
        boot.background.spawn(async move {
            let mut interval = tokio::time::interval(OPERATOR_TOKEN_INTERVAL);
            // The first tick is at once, and the authority has written the token when it was opened.
            interval.tick().await;
            loop {
                interval.tick().await;
                let Some(authority) = weak.upgrade() else {
                    return;
                };
                if let Err(error) = authority.write_operator_token(clock::now_s()) {
                    tracing::error!("the operator's token could not be renewed: {error:?}");
                }
            }
        });
        Ok(Self {
            authority: boot.authority.clone(),
            registry: boot.registry.clone(),
        })
    }

    fn link(linker: &mut Linker<StoreState>, grant: &Grant) -> Result<()> {
        caller::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        if grant.links_tokens() {
            tokens::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        }
        if grant.links_signer() {
            signer::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        }
        super::twin::link(linker, grant)?;
        if grant.authority {
            authority::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        }
        Ok(())
    }

    async fn lend(&self, borrower: &Borrower<'_>, grant: &Grant) -> Result<Lent> {
        Ok(Lent {
            authority: self.authority.clone(),
            registry: self.registry.clone(),
            service: borrower.name.clone(),
            grant: grant.clone(),
        })
    }
}

/// The service whose store calls. Its functions are those of the interfaces and their twins.
pub(super) struct Caller(Arc<ServiceContext>);

impl Caller {
    pub(super) fn of<T>(accessor: &Accessor<T, HasSelf<StoreState>>) -> Self {
        accessor.with(|mut access| Self::in_store(access.get()))
    }

    pub(super) fn in_store(state: &StoreState) -> Self {
        Self(state.service.clone())
    }

    /// What the grant lends, while it is in force.
    pub(super) fn lent(&self) -> Result<&Lent, types::Error> {
        self.0
            .check("ca", "")
            .map_err(types::Error::AccessDenied)?;
        Ok(self.0.lent.ca.as_ref().expect("a grant in force is lent"))
    }

    pub(super) async fn verify(&self, token: String) -> Result<types::Verdict, types::Error> {
        self.lent()?.verify(&token)
    }

    pub(super) async fn mint(&self, claims: types::Claims) -> Result<String, types::Error> {
        self.lent()?.mint(claims)
    }

    pub(super) async fn revoke(&self, id: String, expires_at: i64) -> Result<(), types::Error> {
        self.lent()?.revoke(&id, expires_at).await
    }
}

/// What the service of a store holds, while the grant is in force.
pub(super) fn lent<T>(accessor: &Accessor<T, HasSelf<StoreState>>) -> Result<Lent, types::Error> {
    Caller::of(accessor).lent().cloned()
}

// === caller ===

impl caller::Host for StoreState {
    fn current(&mut self) -> Result<caller::Invocation> {
        let now = std::time::Instant::now();
        // The interface knows no error: where the grant is withheld, nobody is told of.
        let told = match self.service.check("ca", "") {
            Ok(()) => convert::described(&self.invocation, now),
            Err(_) => convert::described(&self.invocation.anonymous(), now),
        };
        Ok(told)
    }
}

// === tokens ===

impl types::Host for StoreState {}
impl tokens::Host for StoreState {}

impl<T: Send + 'static> tokens::HostWithStore<T> for HasSelf<StoreState> {
    async fn verify(accessor: &Accessor<T, Self>, token: String) -> Answer<tokens::Verdict> {
        Ok(Caller::of(accessor).verify(token).await)
    }

    async fn mint(accessor: &Accessor<T, Self>, claims: types::Claims) -> Answer<String> {
        Ok(Caller::of(accessor).mint(claims).await)
    }

    async fn revoke(accessor: &Accessor<T, Self>, id: String, expires_at: i64) -> Answer<()> {
        Ok(Caller::of(accessor).revoke(id, expires_at).await)
    }
}

impl Lent {
    fn verify(&self, token: &str) -> Result<tokens::Verdict, types::Error> {
        self.grant
            .allow_verify()
            .map_err(types::Error::AccessDenied)?;
        let verdict = self.authority.tokens().examine(token, clock::now_s());
        Ok(tokens::Verdict {
            rejection: verdict.rejection.map(convert::rejection),
            claims: verdict
                .token
                .map(|token| convert::told_claims(&token.claims)),
        })
    }

    fn mint(&self, claims: types::Claims) -> Result<String, types::Error> {
        let (claims, now_s) = (convert::read_claims(claims)?, clock::now_s());
        let tokens = self.authority.tokens();
        let covers = |wide: &ca::pattern::ResourcePattern<'_>,
                      narrow: &ca::pattern::ResourcePattern<'_>| {
            wide.covers(narrow, |authority| {
                tokens.resolve(authority).map(|name| name.to_string())
            })
        };
        self.grant
            .allow_mint(&claims, now_s, covers)
            .map_err(types::Error::AccessDenied)?;
        tokens
            .mint(claims, now_s)
            .map(|(token, _)| token)
            .map_err(types::Error::Invalid)
    }

    async fn revoke(&self, id: &str, expires_at: i64) -> Result<(), types::Error> {
        self.grant
            .allow_revoke()
            .map_err(types::Error::AccessDenied)?;
        if id.is_empty() || id.len() > ca::claims::ID_BYTES_MAX {
            let text = format!("`id` must be 1 to {} bytes", ca::claims::ID_BYTES_MAX);
            return Err(types::Error::Invalid(text));
        }
        let now_s = clock::now_s();
        let until = expires_at.min(now_s.saturating_add(ca::tokens::LIFETIME_S_MAX));
        self.authority
            .tokens()
            .revoke(id, until, now_s)
            .await
            .map_err(|error| fault("revoking a token", &error.into()))
    }
}

/// The host's own fault: its log gets the chain, the guest the fact.
pub(super) fn fault(doing: &str, error: &wasmtime::Error) -> types::Error {
    tracing::error!("{doing}: {}", chain(error));
    types::Error::Unavailable(format!("{doing} failed on the host"))
}
