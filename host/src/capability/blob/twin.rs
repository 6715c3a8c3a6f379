//! `exprsn:blob/containers-sync` and `objects-sync`, the synchronous twins of `containers` and `objects`.

use super::{
    asked::Asked,
    types::{ByteRange, Error, ObjectInfo, ObjectPage, WriteOptions},
};
use crate::{capability::twin, store::StoreState};
use wasmtime::component::{HasSelf, Linker};

wasmtime::component::bindgen!({
    path: "../wit/deps/exprsn-blob",
    world: "exprsn:blob/imports-sync",
    imports: { default: async | trappable },
    with: { "exprsn:blob/types": super::exprsn::blob::types },
});

use exprsn::blob::{containers_sync, objects_sync};

/// Adds the twins to the linker, beside `types` and the interfaces.
pub fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    containers_sync::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
    objects_sync::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)
}

twin! {
    containers_sync::Host: |store| Asked::in_store(store).containers() => {
        fn create(name: String) -> Result<(), Error>;
        fn delete(name: String) -> Result<(), Error>;
        fn exists(name: String) -> Result<bool, Error>;
        fn list() -> Result<Vec<String>, Error>;
    }
}

twin! {
    objects_sync::Host: |store| Asked::in_store(store).objects() => {
        fn info(container: String, name: String) -> Result<ObjectInfo, Error>;
        fn get(container: String, name: String, range: Option<ByteRange>) -> Result<(ObjectInfo, Vec<u8>), Error>;
        fn put(container: String, name: String, options: WriteOptions, content: Vec<u8>) -> Result<ObjectInfo, Error>;
        fn list(container: String, prefix: String, cursor: Option<String>, limit: Option<u32>) -> Result<ObjectPage, Error>;
        fn delete(container: String, name: String) -> Result<(), Error>;
        fn copy(from_container: String, from_name: String, to_container: String, to_name: String) -> Result<ObjectInfo, Error>;
    }
}
