//! The `sockets` capability: connections by TCP, with or without TLS, to hosts outside that the grant names.
//!
//! **Invariant:** every connection comes from [`crate::mesh::ServiceEgress`], which checks where it leads; every call on one
//! asks first whether the grant is still in force.

mod connection;
mod host;
mod twin;

use super::{Boot, Borrower, Capability};
use crate::{
    mesh::{self, Egress, EgressPattern, ServiceEgress},
    store::StoreState,
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use wasmtime::{
    Result,
    component::{HasSelf, Linker},
    ensure, format_err,
};

wasmtime::component::bindgen!({
    path: "../wit/deps/exprsn-sockets",
    world: "exprsn:sockets/imports",
    imports: { default: trappable },
    with: { "exprsn:sockets/tcp.connection": connection::Socket },
    require_store_data_send: true,
});

use exprsn::sockets::{tcp, types};

/// `[capability.sockets]`: limits of one call. Each field's name carries its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Bytes that one call receives.
    pub receive_bytes_max: usize,
    /// Bytes that one call sends.
    pub send_bytes_max: usize,
    /// How long one call may wait for the peer.
    pub call_ms_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            receive_bytes_max: 64 << 10,
            send_bytes_max: 1 << 20,
            call_ms_max: 30_000,
        }
    }
}

impl Config {
    /// Names the first limit that would let nothing through.
    fn check(&self) -> Result<()> {
        let limits = [
            ("receive_bytes_max", self.receive_bytes_max as u64),
            ("send_bytes_max", self.send_bytes_max as u64),
            ("call_ms_max", self.call_ms_max),
        ];
        for (name, value) in limits {
            ensure!(
                value > 0,
                "[capability.sockets] {name} is 0; it must be at least 1"
            );
        }
        Ok(())
    }

    /// How long a call may wait that asks for `timeout_ms`.
    fn patience(&self, timeout_ms: Option<u64>) -> Duration {
        Duration::from_millis(timeout_ms.unwrap_or(u64::MAX).min(self.call_ms_max))
    }
}

/// `[grants.sockets]` of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grant {
    /// `tcp://host:port` and `tls://host:port` patterns; a connection that begins TLS later is `tcp`.
    pub connect: Vec<String>,
}

/// The capability.
pub struct Sockets {
    config: Config,
    egress: Arc<Egress>,
}

/// What one service version holds.
#[derive(Debug)]
pub struct Lent {
    config: Config,
    connect: Vec<EgressPattern>,
    outside: Arc<ServiceEgress>,
}

impl Capability for Sockets {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(boot: &Boot, config: Config) -> Result<Self> {
        config.check()?;
        Ok(Self {
            config,
            egress: boot.egress.clone(),
        })
    }

    fn link(linker: &mut Linker<StoreState>, _grant: &Grant) -> Result<()> {
        types::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        tcp::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        twin::link(linker)
    }

    async fn lend(&self, borrower: &Borrower<'_>, grant: &Grant) -> Result<Lent> {
        let connect = mesh::parse_all(&grant.connect, false);
        Ok(Lent {
            config: self.config,
            connect: connect
                .map_err(|error| format_err!("[grants.sockets] of {}: {error}", borrower.name))?,
            outside: self.egress.of(borrower.name),
        })
    }
}
