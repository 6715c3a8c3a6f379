//! `exprsn:sockets/tcp` as guests call it. Every wait is a host task of its own: sibling tasks of the guest go on.

use super::{
    connection::{OpenSocket, Socket, scheme},
    tcp::{Host, HostConnection, HostConnectionWithStore},
    types::{self, Address, Error, TlsMode},
};
use crate::{
    mesh::{Destination, Permitted},
    store::{ServiceContext, StoreState},
};
use std::{net::SocketAddr, sync::Arc};
use tokio::time::Instant;
use wasmtime::{
    Result,
    component::{Accessor, HasSelf, Resource},
};

type Own = HasSelf<StoreState>;
pub(super) type Answer<T> = Result<Result<T, Error>>;

/// The service that calls, and when its invocation must have ended.
pub(super) struct Caller {
    context: Arc<ServiceContext>,
    deadline: Instant,
}

impl Caller {
    pub(super) fn in_store(state: &StoreState) -> Self {
        Self {
            context: state.service.clone(),
            deadline: state.invocation.deadline.into(),
        }
    }

    /// Connects where the grant allows it, now.
    pub(super) async fn connect(
        &self,
        host: &str,
        port: u16,
        tls: TlsMode,
        timeout_ms: Option<u64>,
    ) -> Result<OpenSocket, Error> {
        let destination = Destination::new(scheme(tls), host, port).map_err(Error::Invalid)?;
        let lent = self.context.lent.sockets.as_ref();
        let patterns = lent.map_or(&[][..], |lent| &lent.connect);
        let permitted = Permitted::ask(&self.context, patterns, destination)?;
        let lent = lent.expect("a grant in force is lent");
        let left = self.deadline.saturating_duration_since(Instant::now());
        let permitted = permitted.within(lent.config.patience(timeout_ms).min(left));
        OpenSocket::connect(lent.config, lent.outside.clone(), &permitted).await
    }
}

/// A connection and its caller. Its functions are the interface's and its twin's.
pub(super) struct Open {
    socket: Socket,
    caller: Caller,
}

impl Open {
    fn of<U: 'static>(accessor: &Accessor<U, Own>, this: &Resource<Socket>) -> Result<Self> {
        accessor.with(|mut store| Self::in_store(store.get(), this))
    }

    pub(super) fn in_store(state: &StoreState, this: &Resource<Socket>) -> Result<Self> {
        Ok(Self {
            socket: state.table.get(this)?.clone(),
            caller: Caller::in_store(state),
        })
    }

    /// The connection, while its grant is in force.
    fn socket(&self) -> Result<&Socket, Error> {
        let checked = self.caller.context.check("egress", &self.socket.scope);
        checked.map_err(Error::AccessDenied)?;
        Ok(&self.socket)
    }

    pub(super) async fn receive(&self, bytes_max: u32) -> Result<Option<Vec<u8>>, Error> {
        let socket = self.socket()?;
        socket.receive(bytes_max, self.caller.deadline).await
    }

    pub(super) async fn send(&self, bytes: Vec<u8>) -> Result<(), Error> {
        self.socket()?.send(&bytes, self.caller.deadline).await
    }

    pub(super) async fn start_tls(&self) -> Result<(), Error> {
        self.socket()?.start_tls(self.caller.deadline).await
    }

    pub(super) async fn shutdown(&self) -> Result<(), Error> {
        self.socket()?.shutdown(self.caller.deadline).await
    }

    /// Allowed also when the grant has been revoked: it only gives back.
    pub(super) async fn close(&self) {
        self.socket.close(self.caller.deadline).await;
    }
}

impl types::Host for StoreState {}
impl Host for StoreState {}

impl HostConnection for StoreState {
    fn set_timeout(&mut self, this: Resource<Socket>, timeout_ms: Option<u64>) -> Result<()> {
        self.table.get(&this)?.set_timeout(timeout_ms);
        Ok(())
    }

    fn local_address(&mut self, this: Resource<Socket>) -> Result<Address> {
        Ok(address(self.table.get(&this)?.local))
    }

    fn peer_address(&mut self, this: Resource<Socket>) -> Result<Address> {
        Ok(address(self.table.get(&this)?.peer))
    }

    fn is_secure(&mut self, this: Resource<Socket>) -> Result<bool> {
        Ok(self.table.get(&this)?.is_secure())
    }

    /// Closes the connection, once calls under way have ended.
    fn drop(&mut self, this: Resource<Socket>) -> Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

fn address(address: SocketAddr) -> Address {
    Address {
        ip: address.ip().to_string(),
        port: address.port(),
    }
}

impl<U: Send + 'static> HostConnectionWithStore<U> for Own {
    async fn connect(
        accessor: &Accessor<U, Self>,
        host: String,
        port: u16,
        tls: TlsMode,
        timeout_ms: Option<u64>,
    ) -> Answer<Resource<Socket>> {
        let caller = accessor.with(|mut store| Caller::in_store(store.get()));
        match caller.connect(&host, port, tls, timeout_ms).await {
            Ok(socket) => {
                accessor.with(|mut store| Ok(Ok(store.get().table.push(Arc::new(socket))?)))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    async fn receive(
        accessor: &Accessor<U, Self>,
        this: Resource<Socket>,
        bytes_max: u32,
    ) -> Answer<Option<Vec<u8>>> {
        Ok(Open::of(accessor, &this)?.receive(bytes_max).await)
    }

    async fn send(
        accessor: &Accessor<U, Self>,
        this: Resource<Socket>,
        bytes: Vec<u8>,
    ) -> Answer<()> {
        Ok(Open::of(accessor, &this)?.send(bytes).await)
    }

    async fn start_tls(accessor: &Accessor<U, Self>, this: Resource<Socket>) -> Answer<()> {
        Ok(Open::of(accessor, &this)?.start_tls().await)
    }

    async fn shutdown(accessor: &Accessor<U, Self>, this: Resource<Socket>) -> Answer<()> {
        Ok(Open::of(accessor, &this)?.shutdown().await)
    }

    async fn close(accessor: &Accessor<U, Self>, this: Resource<Socket>) -> Result<()> {
        Open::of(accessor, &this)?.close().await;
        Ok(())
    }
}
