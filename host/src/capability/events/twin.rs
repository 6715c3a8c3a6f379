//! `exprsn:events/publisher-sync` and `live-sync`, the synchronous twins of `publisher` and `live`.

use super::host::{
    Caller,
    exprsn::events::types::{Error, NewEvent},
};
use crate::{capability::twin, store::StoreState};
use wasmtime::component::{HasSelf, Linker};

wasmtime::component::bindgen!({
    path: "../wit/deps/exprsn-events",
    world: "exprsn:events/imports-sync",
    imports: { default: async | trappable },
    with: { "exprsn:events/types": super::host::exprsn::events::types },
});

use exprsn::events::{live_sync, publisher_sync};

/// Adds the twins to the linker, beside `types` and the interfaces.
pub fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    publisher_sync::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
    live_sync::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)
}

twin! {
    publisher_sync::Host: |store| Caller::in_store(store) => {
        fn publish(event: NewEvent) -> Result<String, Error>;
    }
}

twin! {
    live_sync::Host: |store| Caller::in_store(store) => {
        fn broadcast(channel: String, data: String) -> Result<(), Error>;
    }
}
