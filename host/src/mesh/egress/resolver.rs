//! From a host to the addresses that may be connected to.

use super::{Refusal, address::Reach, destination::Host};
use futures::future::BoxFuture;
use std::{io, net::IpAddr, sync::Arc};

/// Looks a name up.
type Lookup = dyn Fn(Arc<str>) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync;

/// Resolves names and leaves out addresses that the grant does not let them lead to.
///
/// **Invariant:** what it answers is connected to as it is: a name is never looked up again between check and connection.
pub struct Resolver(Box<Lookup>);

impl Resolver {
    /// The machine's own resolver.
    pub fn system() -> Self {
        Self::new(|name| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((&*name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        })
    }

    /// Names are looked up by `lookup`.
    pub fn new(
        lookup: impl Fn(Arc<str>) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self(Box::new(lookup))
    }

    /// The addresses of `host` that a connection with this reach may lead to; at least one. An address in the place of a
    /// name was spelled out by the grant that covers it.
    pub async fn resolve(&self, host: &Host, reach: Reach) -> Result<Vec<IpAddr>, Refusal> {
        let name = match host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name,
        };
        let found = (self.0)(name.clone()).await.map_err(|error| {
            tracing::debug!(%name, %error, "a name could not be resolved");
            Refusal::Unknown
        })?;
        if found.is_empty() {
            return Err(Refusal::Unknown);
        }
        let allowed: Vec<_> = found
            .into_iter()
            .map(|address| address.to_canonical())
            .filter(|address| reach.allows(*address))
            .collect();
        if allowed.is_empty() {
            return Err(Refusal::Inside);
        }
        Ok(allowed)
    }
}
