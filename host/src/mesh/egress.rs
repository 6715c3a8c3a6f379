//! The way out of the platform, for HTTP and for bytes: granted by pattern, and never to an address inside unless the
//! grant names it.
//!
//! **Invariant:** a connection is made only with a [`Permitted`], and only to an address that was checked with it.

mod address;
mod connection;
mod destination;
mod pattern;
mod pool;
mod request;
mod resolver;
mod tls;

#[cfg(test)]
mod tests;

use crate::{name::ServiceName, store::ServiceContext};
use std::{
    collections::HashMap,
    fmt, io,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use tokio::time::Instant;
use wasmtime::Result;

use connection::{Count, Permit};
use pool::{Key, Pool};
use tls::Tls;

pub use address::Reach;
pub use connection::Connection;
pub use destination::{Destination, Host, Scheme};
pub use pattern::{EgressPattern, parse_all};
pub use resolver::Resolver;

/// How long a connection may take to come about, resolving and TLS included, in milliseconds.
const CONNECT_MS_MAX: u64 = 10_000;
/// How long a new connection waits for one that was let go for it to close, in milliseconds.
const RELEASE_MS_MAX: u64 = 500;

/// What all services' ways out have in common.
pub struct Egress {
    resolver: Resolver,
    tls: Tls,
    /// By name, so that versions of a service share their connections and the count of them.
    services: Mutex<HashMap<ServiceName, Weak<ServiceEgress>>>,
}

impl Egress {
    /// With no connection yet. Trusts the public roots and those in `ca_file`, unless that is empty.
    pub fn new(resolver: Resolver, ca_file: &str) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            resolver,
            tls: Tls::new(ca_file)?,
            services: Mutex::default(),
        }))
    }

    /// The way out of one service.
    pub fn of(self: &Arc<Self>, service: &ServiceName) -> Arc<ServiceEgress> {
        let mut services = self.services.lock().expect("no holder of this lock panics");
        if let Some(known) = services.get(service).and_then(Weak::upgrade) {
            return known;
        }
        let new = Arc::new(ServiceEgress {
            egress: self.clone(),
            count: Arc::default(),
            pool: Arc::default(),
        });
        services.insert(service.clone(), Arc::downgrade(&new));
        new
    }
}

/// The way out of one service: its connections, and how many there are.
pub struct ServiceEgress {
    egress: Arc<Egress>,
    count: Arc<Count>,
    pool: Arc<Pool>,
}

impl fmt::Debug for ServiceEgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceEgress")
            .field("open", &self.count.open())
            .finish_non_exhaustive()
    }
}

/// A destination that a grant in force covers.
#[derive(Clone, Debug)]
pub struct Permitted {
    destination: Destination,
    reach: Reach,
    connections_max: usize,
    connect_max: Duration,
}

impl Permitted {
    /// Asks whether a service may connect to `destination` by one of `patterns`, now.
    pub fn ask(
        service: &ServiceContext,
        patterns: &[EgressPattern],
        destination: Destination,
    ) -> Result<Self, Refusal> {
        let scope = || destination.to_string().into();
        service
            .in_force
            .check_lazily("egress", scope)
            .map_err(|reason| {
                tracing::warn!(service = %service.name, %destination, reason, "egress denied");
                Refusal::Denied(reason)
            })?;
        let reaches = patterns
            .iter()
            .filter_map(|pattern| pattern.reach(&destination));
        // One that spells the host out goes before one that only covers it.
        let reach = reaches.max_by_key(|reach| *reach == Reach::Named);
        let Some(reach) = reach else {
            let grant = match destination.scheme.is_http() {
                true => "[grants.http] egress",
                false => "[grants.sockets] connect",
            };
            let remedy = format!("write \"{destination}\" into {grant} of its component.toml");
            tracing::warn!(service = %service.name, %destination, "egress denied: {remedy}");
            return Err(Refusal::Denied(remedy));
        };
        Ok(Self {
            destination,
            reach,
            connections_max: service.limits.egress_connections_max,
            connect_max: Duration::from_millis(CONNECT_MS_MAX),
        })
    }

    /// The same with less time for the connection.
    pub fn within(self, connect_max: Duration) -> Self {
        Self {
            connect_max: self.connect_max.min(connect_max),
            ..self
        }
    }

    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    fn key(&self) -> Key {
        (self.destination.clone(), self.reach)
    }
}

impl ServiceEgress {
    /// Connects, with TLS where the scheme says so.
    pub async fn connect(&self, permitted: &Permitted) -> Result<Connection, Refusal> {
        let until = Instant::now() + permitted.connect_max;
        let connected = tokio::time::timeout_at(until, self.connect_until(permitted, until)).await;
        connected.unwrap_or(Err(Refusal::TimedOut))
    }

    async fn connect_until(
        &self,
        permitted: &Permitted,
        until: Instant,
    ) -> Result<Connection, Refusal> {
        let Destination { scheme, host, port } = &permitted.destination;
        // Counted before its name is resolved, so that slow names are bounded too.
        let permit = self.permit(permitted.connections_max).await?;
        let addresses = self.egress.resolver.resolve(host, permitted.reach).await?;
        let connection = Connection::open(&addresses, *port, permit, until).await?;
        match scheme {
            Scheme::Http | Scheme::Tcp => Ok(connection),
            Scheme::Https => connection.secure(&self.egress.tls.http, host).await,
            Scheme::Tls => connection.secure(&self.egress.tls.stream, host).await,
        }
    }

    /// Begins TLS on a connection that was made without, within `max`.
    pub async fn secure(
        &self,
        connection: Connection,
        host: &Host,
        max: Duration,
    ) -> Result<Connection, Refusal> {
        let secured = connection.secure(&self.egress.tls.stream, host);
        let secured = tokio::time::timeout(max, secured).await;
        secured.unwrap_or(Err(Refusal::TimedOut))
    }

    /// The right to one more connection; unused ones make room for it.
    async fn permit(&self, max: usize) -> Result<Permit, Refusal> {
        loop {
            let mut released = std::pin::pin!(self.count.released());
            released.as_mut().enable();
            if let Some(permit) = self.count.take(max) {
                return Ok(permit);
            }
            if !self.pool.let_go() {
                return Err(Refusal::Limit(max));
            }
            let _ = tokio::time::timeout(Duration::from_millis(RELEASE_MS_MAX), released).await;
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No grant covers it, or the grant was revoked.
    Denied(String),
    /// The name leads to addresses that its grant does not let it lead to.
    Inside,
    /// The service has this many connections already.
    Limit(usize),
    /// The name is not known.
    Unknown,
    /// Nobody listens there.
    Refused,
    TimedOut,
    Unreachable,
    /// It ended before it was of use.
    Broken,
    /// The peer's certificate does not prove who it is.
    Certificate(String),
    Tls(String),
}

impl Refusal {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Self::Broken,
            _ => {
                tracing::debug!(%error, "a connection did not come about");
                Self::Unreachable
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(why) => f.write_str(why),
            Self::Inside => {
                f.write_str("the name leads to addresses that its grant does not cover")
            }
            Self::Limit(max) => write!(
                f,
                "the service has as many connections as egress_connections_max allows, {max}"
            ),
            Self::Unknown => f.write_str("the name is not known"),
            Self::Refused => f.write_str("the connection was refused"),
            Self::TimedOut => f.write_str("the connection did not come about in time"),
            Self::Unreachable => f.write_str("the host cannot be reached"),
            Self::Broken => f.write_str("the connection broke"),
            Self::Certificate(why) => write!(f, "the peer's certificate was refused: {why}"),
            Self::Tls(why) => write!(f, "TLS failed: {why}"),
        }
    }
}

impl std::error::Error for Refusal {}
