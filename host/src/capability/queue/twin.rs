//! `exprsn:queue/client-sync`, the synchronous twin of `client`.

use super::host::{
    Call,
    exprsn::queue::types::{Error, Job, JobCounts, NewJob, Options, State},
};
use crate::{capability::twin, store::StoreState};
use wasmtime::component::{HasSelf, Linker};

wasmtime::component::bindgen!({
    path: "../wit/deps/exprsn-queue",
    world: "exprsn:queue/imports-sync",
    imports: { default: async | trappable },
    with: { "exprsn:queue/types": super::host::exprsn::queue::types },
});

use exprsn::queue::client_sync;

/// Adds the twin to the linker, beside `types` and the interface.
pub fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    client_sync::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)
}

twin! {
    client_sync::Host: |store| Call::in_store(store) => {
        fn add(queue: String, name: String, data: String, options: Options) -> Result<String, Error>;
        fn add_many(queue: String, jobs: Vec<NewJob>) -> Result<Vec<String>, Error>;
        fn get(queue: String, id: String) -> Result<Job, Error>;
        fn list(queue: String, state: State, offset: u32, limit: u32) -> Result<Vec<Job>, Error>;
        fn counts(queue: String) -> Result<JobCounts, Error>;
        fn remove(queue: String, id: String) -> Result<(), Error>;
        fn retry(queue: String, id: String) -> Result<(), Error>;
        fn pause(queue: String, paused: bool) -> Result<(), Error>;
    }
}
