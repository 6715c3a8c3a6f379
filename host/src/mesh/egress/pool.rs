//! HTTP connections of one service that wait for their next request.
//!
//! **Invariant:** a connection is used again only by the service that made it, for the same destination and with the same
//! reach: what one grant let through serves no other.

use super::{address::Reach, destination::Destination};
use hyper::client::conn::{http1, http2};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};
use tokio::time::Instant;
use wasmtime_wasi_http::WasiBody;

/// How long an unused connection is kept, in milliseconds.
const IDLE_MS_MAX: u64 = 30_000;
/// How often kept connections are looked through, in milliseconds.
const TIDY_MS: u64 = 5_000;

/// What a connection may be used for again.
pub type Key = (Destination, Reach);

/// The end of a connection at which requests go in.
pub enum Sender {
    Http1(http1::SendRequest<WasiBody>),
    /// Takes many requests at once, and stays in the pool meanwhile.
    Http2(http2::SendRequest<WasiBody>),
}

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

/// The connections, the one unused for longest first.
#[derive(Default)]
pub struct Pool(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    connections: VecDeque<Idle>,
    /// A task looks through them now and then.
    tidied: bool,
}

struct Idle {
    key: Key,
    sender: Sender,
    since: Instant,
}

impl Idle {
    fn is_spent(&self) -> bool {
        self.sender.is_closed() || self.since.elapsed() >= Duration::from_millis(IDLE_MS_MAX)
    }
}

impl Pool {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// A connection for `key`, the one used last.
    pub fn take(&self, key: &Key) -> Option<Sender> {
        let mut kept = self.kept();
        kept.connections.retain(|idle| !idle.is_spent());
        let index = kept.connections.iter().rposition(|idle| idle.key == *key)?;
        let mut idle = kept.connections.remove(index)?;
        let Sender::Http2(sender) = &idle.sender else {
            return Some(idle.sender);
        };
        let shared = Sender::Http2(sender.clone());
        idle.since = Instant::now();
        kept.connections.push_back(idle);
        Some(shared)
    }

    /// Keeps a connection for its next request.
    pub fn keep(self: &Arc<Self>, key: Key, sender: Sender) {
        let mut kept = self.kept();
        kept.connections.push_back(Idle {
            key,
            sender,
            since: Instant::now(),
        });
        if !kept.tidied {
            kept.tidied = true;
            tokio::spawn(tidy(Arc::downgrade(self)));
        }
    }

    /// Lets go of the connection unused for longest; false when there is none.
    pub fn let_go(&self) -> bool {
        self.kept().connections.pop_front().is_some()
    }
}

/// Closes connections that nobody has used for too long, until none is kept.
async fn tidy(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(Duration::from_millis(TIDY_MS)).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut kept = pool.kept();
        kept.connections.retain(|idle| !idle.is_spent());
        if kept.connections.is_empty() {
            kept.tidied = false;
            return;
        }
    }
}
