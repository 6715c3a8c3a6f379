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
        "exprsn:sql/database-sync.transaction": OpenTransaction,
    },
    require_store_data_send: true,
});

use exprsn::sql::database_sync;

/// Adds the twin to the linker, beside `types` and the interface.
pub fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    database_sync::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)
}

twin! {
    impl database_sync::Host for StoreState by |state| Caller::in_store(state) => {
        fn query(text: String, parameters: Vec<Value>) -> Result<RowSet, Error>;
        fn execute(text: String, parameters: Vec<Value>) -> Result<u64, Error>;
        fn batch(statements: Vec<Statement>) -> Result<Vec<RowSet>, Error>;
    }
}

type This = Resource<OpenTransaction>;

twin! {
    impl database_sync::HostTransaction for StoreState by |state, this: This| Within::in_store(state, &this)? => {
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
