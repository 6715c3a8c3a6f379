//! `exprsn:cache/store-sync`, the synchronous twin of `store`.

use super::host::{
    Caller,
    exprsn::cache::types::{Bucket, Error},
};
use crate::{capability::twin, store::StoreState};
use wasmtime::component::{HasSelf, Linker};

wasmtime::component::bindgen!({
    path: "../wit/deps/exprsn-cache",
    world: "exprsn:cache/imports-sync",
    imports: { default: async | trappable },
    with: { "exprsn:cache/types": super::host::exprsn::cache::types },
});

use exprsn::cache::store_sync;

/// Adds the twin to the linker, beside `types` and the interface.
pub fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    store_sync::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)
}

twin! {
    store_sync::Host: |store| Caller::in_store(store) => {
        fn get(key: String) -> Result<Option<Vec<u8>>, Error>;
        fn set(key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<(), Error>;
        fn set_if_absent(key: String, value: Vec<u8>, ttl_ms: Option<u64>) -> Result<bool, Error>;
        fn delete(key: String) -> Result<bool, Error>;
        fn increment(key: String, by: i64, ttl_ms: Option<u64>) -> Result<i64, Error>;
        fn take_tokens(key: String, capacity: u64, refill_per_second: f64, tokens: u64) -> Result<Bucket, Error>;
    }
}
