//! `exprsn:sql/database-sync`, the synchronous twin of `database`.

use super::{
    exprsn::sql::types::{Error, OutboxEvent, OutboxJob, RowSet, Statement, Value},
    host::{Answer, Caller, OpenTransaction, Within, opened},
};
use crate::{capability::twin, store::StoreState};
use wasmtime::component::{HasSelf, Linker, Resource};

wasmtime::component::bindgen!({
    path: "../wit/deps/exprsn-sql",
    world: "exprsn:sql/imports-sync",
    imports: { default: async | trappable },
    with: {
        "exprsn:sql/types": super::exprsn::sql::types,
        "exprsn:sql/database-sync.transaction": super::host::OpenTransaction,
    },
    require_store_data_send: true,
});

use exprsn::sql::database_sync;

/// Adds the twin to the linker, beside `types` and the interface.
pub fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    database_sync::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)
}

twin! {
    database_sync::Host: |store| Caller::in_store(store) => {
        fn query(text: String, parameters: Vec<Value>) -> Result<RowSet, Error>;
        fn execute(text: String, parameters: Vec<Value>) -> Result<u64, Error>;
        fn batch(statements: Vec<Statement>) -> Result<Vec<RowSet>, Error>;
    }
}

type This = Resource<OpenTransaction>;

twin! {
    database_sync::HostTransaction: |store, this: This| Within::in_store(store, &this)? => {
        fn query(text: String, parameters: Vec<Value>) -> Result<RowSet, Error>;
        fn execute(text: String, parameters: Vec<Value>) -> Result<u64, Error>;
        fn add_job(job: OutboxJob) -> Result<String, Error>;
        fn publish(event: OutboxEvent) -> Result<String, Error>;
        fn commit() -> Result<(), Error>;
        fn rollback() -> Result<(), Error>;
    }
    async fn begin(&mut self) -> Answer<This> {
        match Caller::in_store(self).begin().await {
            Ok(transaction) => opened(self, transaction),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn drop(&mut self, this: This) -> wasmtime::Result<()> {
        super::database::HostTransaction::drop(self, this)
    }
}
