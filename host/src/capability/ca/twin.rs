//! `exprsn:ca/tokens-sync` and `signer-sync`, the synchronous twins of `tokens` and `signer`.

use super::{
    Grant,
    host::{
        Caller,
        exprsn::ca::types::{Algorithm, Claims, Error, Verdict},
    },
};
use crate::{capability::twin, store::StoreState};
use wasmtime::component::{HasSelf, Linker};

wasmtime::component::bindgen!({
    path: "../wit/deps/exprsn-ca",
    world: "exprsn:ca/imports-sync",
    imports: { default: async | trappable },
    with: {
        "exprsn:ca/caller": super::host::exprsn::ca::caller,
        "exprsn:ca/types": super::host::exprsn::ca::types,
    },
});

use exprsn::ca::{signer_sync, tokens_sync};

/// Adds the twins of the interfaces that the grant is for, beside them.
pub fn link(linker: &mut Linker<StoreState>, grant: &Grant) -> wasmtime::Result<()> {
    if grant.links_tokens() {
        tokens_sync::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
    }
    if grant.links_signer() {
        signer_sync::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
    }
    Ok(())
}

twin! {
    tokens_sync::Host: |store| Caller::in_store(store) => {
        fn verify(token: String) -> Result<Verdict, Error>;
        fn mint(claims: Claims) -> Result<String, Error>;
        fn revoke(id: String, expires_at: i64) -> Result<(), Error>;
    }
}

twin! {
    signer_sync::Host: |store| Caller::in_store(store) => {
        fn sign_jwt(key: String, algorithm: Algorithm, typ: String, claims: String) -> Result<String, Error>;
        fn public_keys(key: String, algorithm: Algorithm) -> Result<String, Error>;
        fn hmac(key: String, data: Vec<u8>) -> Result<Vec<u8>, Error>;
    }
}
