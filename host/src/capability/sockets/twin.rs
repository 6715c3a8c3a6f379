//! `exprsn:sockets/tcp-sync`, the synchronous twin of `tcp`.

use super::{
    connection::Socket,
    host::{Answer, Caller, Open},
    exprsn::sockets::types::{Address, Error, TlsMode},
};
use crate::{capability::twin, store::StoreState};
use std::sync::Arc;
use wasmtime::component::{HasSelf, Linker, Resource};

wasmtime::component::bindgen!({
    path: "../wit/deps/exprsn-sockets",
    world: "exprsn:sockets/imports-sync",
    imports: { default: async | trappable },
    with: {
        "exprsn:sockets/types": super::exprsn::sockets::types,
        "exprsn:sockets/tcp-sync.connection": super::connection::Socket,
    },
    require_store_data_send: true,
});

use exprsn::sockets::tcp_sync;

/// Adds the twin to the linker, beside `types` and the interface.
pub fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    tcp_sync::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)
}

impl tcp_sync::Host for StoreState {}

type This = Resource<Socket>;

twin! {
    tcp_sync::HostConnection: |store, this: This| Open::in_store(store, &this)? => {
        fn receive(bytes_max: u32) -> Result<Option<Vec<u8>>, Error>;
        fn send(bytes: Vec<u8>) -> Result<(), Error>;
        fn start_tls() -> Result<(), Error>;
        fn shutdown() -> Result<(), Error>;
    }
    async fn connect(
        &mut self,
        host: String,
        port: u16,
        tls: TlsMode,
        timeout_ms: Option<u64>,
    ) -> Answer<This> {
        let caller = Caller::in_store(self);
        match caller.connect(&host, port, tls, timeout_ms).await {
            Ok(socket) => Ok(Ok(self.table.push(Arc::new(socket))?)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn close(&mut self, this: This) -> wasmtime::Result<()> {
        Open::in_store(self, &this)?.close().await;
        Ok(())
    }

    async fn set_timeout(&mut self, this: This, timeout_ms: Option<u64>) -> wasmtime::Result<()> {
        super::tcp::HostConnection::set_timeout(self, this, timeout_ms)
    }

    async fn local_address(&mut self, this: This) -> wasmtime::Result<Address> {
        super::tcp::HostConnection::local_address(self, this)
    }

    async fn peer_address(&mut self, this: This) -> wasmtime::Result<Address> {
        super::tcp::HostConnection::peer_address(self, this)
    }

    async fn is_secure(&mut self, this: This) -> wasmtime::Result<bool> {
        super::tcp::HostConnection::is_secure(self, this)
    }

    async fn drop(&mut self, this: This) -> wasmtime::Result<()> {
        super::tcp::HostConnection::drop(self, this)
    }
}
