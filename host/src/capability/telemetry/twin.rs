//! `exprsn:telemetry/service-sync`, the synchronous twin of `service`.

use super::exprsn::telemetry::types::Health;
use crate::{capability::twin, store::StoreState};
use wasmtime::component::{HasSelf, Linker};

wasmtime::component::bindgen!({
    path: "../wit/deps/exprsn-telemetry",
    world: "exprsn:telemetry/imports-sync",
    imports: { default: async | trappable },
    with: {
        "exprsn:telemetry/logging": super::exprsn::telemetry::logging,
        "exprsn:telemetry/metrics": super::exprsn::telemetry::metrics,
        "exprsn:telemetry/types": super::exprsn::telemetry::types,
    },
});

use exprsn::telemetry::service_sync;

/// Adds the twin to the linker, beside `types` and the interface.
pub fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    service_sync::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)
}

twin! {
    service_sync::Host: |store| store.service.clone() => {
        fn status() -> Health;
    }
}
