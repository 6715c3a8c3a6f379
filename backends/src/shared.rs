//! What the hosts of one platform share: facts, who of them is there, uses of tokens, component files and invitations, in
//! the database `exprsn_platform` of their PostgreSQL server.
//!
//! A fact has a kind, a key and a value, and with each change a revision greater than all before. A host reads all of them
//! as it starts, and hears with each heartbeat what has changed since.
//!
//! **Invariant:** revisions become visible in their order: who has heard up to one has missed none before it.
//! **Invariant:** nothing waits for a server that is away longer than [`Limits::call_max`].

mod components;
mod error;
mod facts;
mod invitations;
mod line;
mod statements;
mod tables;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use invitations::Invitation;

use crate::sql::{
    Failure,
    postgres::{Server, pool::Connector},
};
use line::Line;
use statements::Say;
use std::{fmt, sync::Arc, time::Duration};

/// Facts that one beat answers at most.
pub const FACTS_MAX: usize = 5_000;
/// Changes that one put takes at most.
pub const CHANGES_MAX: usize = 5_000;
/// Longest kind and key, in bytes.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Longest value of a fact, in bytes.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of values after which a beat answers no further fact.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Rows that one statement tidies away; there is more when as many were.
const TIDIED_MAX: usize = 5_000;
/// How long a fact that was removed stays known as such, in seconds: a host that was away for longer reads all anew.
const TOMBSTONE_S: i64 = 24 * 3_600;

/// What bounds the calls.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long any call may take, connecting included, but for those that carry a component.
    pub call_max: Duration,
    /// Largest component file, in bytes.
    pub component_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call_max: Duration::from_millis(800),
            component_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// What the hosts agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub kind: String,
    pub key: String,
    /// None: removed.
    pub value: Option<Vec<u8>>,
    pub revision: i64,
    /// Seconds since the epoch after which nobody needs it.
    pub expires_at: Option<i64>,
}

/// What a fact becomes.
#[derive(Clone, Debug)]
pub struct Change {
    pub kind: String,
    pub key: String,
    /// None removes it.
    pub value: Option<Vec<u8>>,
    pub expires_at: Option<i64>,
}

/// A host that is there, for as long as it renews this.
#[derive(Clone, Debug)]
pub struct Lease {
    pub host: String,
    /// `address:port` of its mesh listener.
    pub address: String,
    /// JSON that the host says of itself.
    pub state: String,
}

/// What a host hears with a heartbeat.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Changes after `since`, in order of revision, at most [`FACTS_MAX`]. Each fact once, as it is now.
    pub facts: Vec<Fact>,
    /// Whether more wait: ask again at once.
    pub more: bool,
    /// What to ask after next. Smaller than `since` only where the server was set back to a backup: then read all anew.
    pub revision: i64,
    /// Leases that have not expired, the own one included.
    pub hosts: Vec<Lease>,
}

/// The platform's database. Clones share its connections.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

struct Inner {
    limits: Limits,
    /// Heartbeats, which nothing else delays.
    beats: Line,
    /// Everything else.
    facts: Line,
    /// How connections for components are made.
    apart: Connector,
}

impl Shared {
    /// Creates database and tables where absent (hosts may do so at once), and connects.
    pub async fn open(server: &Server, limits: Limits) -> Result<Self, Failure> {
        tables::create(server).await?;
        let line = |statements| {
            let connector = tables::connector(server, &limits, limits.call_max);
            Line::new(connector, statements, limits.call_max)
        };
        let inner = Inner {
            beats: line(statements::of_beats()),
            facts: line(statements::of_facts()),
            apart: tables::connector(server, &limits, components::COMPONENT_MAX),
            limits,
        };
        for line in [&inner.beats, &inner.facts] {
            let connected = line.open(line.deadline()).await;
            connected.map_err(Failure::doing("connecting to the database of the hosts"))?;
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Renews the own lease for `lease_ms` by the server's clock and hears what is new, in one round trip. `lease` None:
    /// only hears.
    ///
    /// Facts that have expired are heard until they are tidied away; facts that were removed, for a day.
    pub async fn beat(
        &self,
        lease: Option<&Lease>,
        lease_ms: u64,
        since: i64,
    ) -> Result<Heard, Error> {
        let deadline = self.0.beats.deadline();
        match self.beat_once(deadline, lease, lease_ms, since).await {
            // The connection may have been lost long before.
            Err(Error::Unavailable(_)) if tokio::time::Instant::now() < deadline => {
                self.beat_once(deadline, lease, lease_ms, since).await
            }
            heard => heard,
        }
    }

    /// Gives the own lease up.
    pub async fn leave(&self, host: &str) -> Result<(), Error> {
        let facts = &self.0.facts;
        facts
            .ask_again(facts.deadline(), Say::Leave, &[&host])
            .await
            .map(drop)
    }

    /// Counts a use of a token, atomically over hosts: how many are left after it; none if there was none left.
    ///
    /// `expires_at`, in seconds since the epoch, is when the token expires: the count is forgotten after it.
    pub async fn count_use(
        &self,
        id: &str,
        uses_max: u32,
        expires_at: i64,
    ) -> Result<Option<u32>, Error> {
        let (facts, uses_max) = (&self.0.facts, i64::from(uses_max));
        let parameters: line::Parameters = &[&id, &uses_max, &expires_at];
        let counted = facts
            .ask(facts.deadline(), Say::CountUse, parameters)
            .await?;
        let left = counted.first().map(|row| row.get::<_, i64>(0));
        Ok(left.and_then(|left| u32::try_from(left).ok()))
    }

    /// Removes facts that have expired, tombstones older than a day, expired token uses, invitations and leases.
    pub async fn tidy(&self, now_s: i64) -> Result<(), Error> {
        let facts = &self.0.facts;
        let forgotten = (now_s - TOMBSTONE_S) as f64;
        let full = |rows: Vec<_>| rows.len() == TIDIED_MAX;
        while full(
            facts
                .ask(facts.deadline(), Say::TidyFacts, &[&now_s, &forgotten])
                .await?,
        ) {}
        while full(
            facts
                .ask(facts.deadline(), Say::TidyUses, &[&now_s])
                .await?,
        ) {}
        facts
            .ask(facts.deadline(), Say::TidyOthers, &[&now_s])
            .await
            .map(drop)
    }

    /// Lets the connections go; whatever is asked afterwards is [`Error::Unavailable`].
    pub async fn close(&self) {
        self.0.beats.close();
        self.0.facts.close();
    }

    async fn beat_once(
        &self,
        deadline: tokio::time::Instant,
        lease: Option<&Lease>,
        lease_ms: u64,
        since: i64,
    ) -> Result<Heard, Error> {
        let beats = &self.0.beats;
        let open = beats.open(deadline).await?;
        let lease_ms = lease_ms as f64;
        let renew = async {
            let Some(Lease {
                host,
                address,
                state,
            }) = lease
            else {
                return Ok(Vec::new());
            };
            let parameters: line::Parameters = &[host, address, state, &lease_ms];
            open.ask(Say::Renew, parameters).await
        };
        // The three are sent in this order before any answer is waited for.
        let hear = async { open.ask(Say::Hear, &[&since]).await };
        let all = async { futures::try_join!(renew, hear, open.ask(Say::Hosts, &[])) };
        let (_, heard, hosts) = beats.within(deadline, &open, all).await?;
        let page = facts::Page::of(&heard);
        Ok(Heard {
            facts: page.facts,
            more: page.more,
            revision: page.revision,
            hosts: hosts.iter().map(lease_of).collect(),
        })
    }
}

fn lease_of(row: &tokio_postgres::Row) -> Lease {
    Lease {
        host: row.get(0),
        address: row.get(1),
        state: row.get(2),
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("limits", &self.0.limits)
            .finish_non_exhaustive()
    }
}
