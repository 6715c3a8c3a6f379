//! Live channels: messages to whoever listens now, in this process, kept nowhere.

use crate::name::ServiceName;
use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// Parts of the map of channels, each with a lock of its own.
const SHARDS: usize = 64;

/// A channel belongs to a service.
type Key = (ServiceName, Box<str>);
type Channels = HashMap<Key, Vec<(u64, mpsc::Sender<Arc<str>>)>>;

/// All channels of this host. A channel is there while somebody listens.
pub struct Hub {
    shards: [Mutex<Channels>; SHARDS],
    hasher: RandomState,
    next_id: AtomicU64,
    listeners: AtomicUsize,
    listeners_max: usize,
    buffered_max: usize,
}

impl Hub {
    /// A hub for `listeners_max` listeners, each of which may be `buffered_max` messages behind.
    pub fn new(listeners_max: usize, buffered_max: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            next_id: AtomicU64::new(0),
            listeners: AtomicUsize::new(0),
            listeners_max,
            buffered_max: buffered_max.max(1),
        })
    }

    /// Listeners of all channels.
    pub fn listeners(&self) -> usize {
        self.listeners.load(Ordering::Relaxed)
    }

    /// Sends to the present listeners of a channel; answers how many got it. One that is too far behind is let go.
    pub fn broadcast(&self, service: &ServiceName, channel: &str, data: &str) -> usize {
        let key = (service.clone(), channel.into());
        let mut channels = self.shard(&key);
        let Some(listeners) = channels.get_mut(&key) else {
            return 0;
        };
        let data: Arc<str> = data.into();
        listeners.retain(|(_, listener)| listener.try_send(data.clone()).is_ok());
        let reached = listeners.len();
        if reached == 0 {
            channels.remove(&key);
        }
        reached
    }

    /// Messages of a channel from now on; none when there are as many listeners as may be.
    pub fn listen(self: &Arc<Self>, service: &ServiceName, channel: &str) -> Option<Listener> {
        let more = |count: usize| (count < self.listeners_max).then_some(count + 1);
        self.listeners
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        let (sender, receiver) = mpsc::channel(self.buffered_max);
        let (key, id) = (
            (service.clone(), channel.into()),
            self.next_id.fetch_add(1, Ordering::Relaxed),
        );
        self.shard(&key)
            .entry(key.clone())
            .or_default()
            .push((id, sender));
        Some(Listener {
            hub: self.clone(),
            key,
            id,
            receiver,
        })
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Channels> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[index]
            .lock()
            .expect("no holder of this lock panics")
    }

    fn leave(&self, key: &Key, id: u64) {
        self.listeners.fetch_sub(1, Ordering::Relaxed);
        let mut channels = self.shard(key);
        if let Some(listeners) = channels.get_mut(key) {
            listeners.retain(|(other, _)| *other != id);
            if listeners.is_empty() {
                channels.remove(key);
            }
        }
    }

    #[cfg(test)]
    fn channels(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap().len())
            .sum()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("listeners", &self.listeners())
            .finish_non_exhaustive()
    }
}

/// Someone who listens, until dropped.
#[derive(Debug)]
pub struct Listener {
    hub: Arc<Hub>,
    key: Key,
    id: u64,
    receiver: mpsc::Receiver<Arc<str>>,
}

impl Listener {
    /// The next message; none once the listener was let go for being too far behind.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Arc<str>>> {
        self.receiver.poll_recv(context)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.hub.leave(&self.key, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::poll_fn;

    fn service(name: &str) -> ServiceName {
        ServiceName::parse(name).unwrap()
    }

    async fn next(listener: &mut Listener) -> Option<Arc<str>> {
        poll_fn(|context| listener.poll_next(context)).await
    }

    #[tokio::test]
    async fn listeners_get_what_follows_on_their_channel_only() {
        let hub = Hub::new(10, 10);
        let (a, b) = (service("a"), service("b"));
        assert_eq!(hub.broadcast(&a, "x", "early"), 0);
        let mut first = hub.listen(&a, "x").unwrap();
        let mut second = hub.listen(&a, "x").unwrap();
        let _others = [hub.listen(&a, "y").unwrap(), hub.listen(&b, "x").unwrap()];
        assert_eq!(hub.broadcast(&a, "x", "1"), 2);
        assert_eq!(
            (
                next(&mut first).await.as_deref(),
                next(&mut second).await.as_deref()
            ),
            (Some("1"), Some("1"))
        );
    }

    #[tokio::test]
    async fn who_lags_is_let_go_and_the_others_stay() {
        let hub = Hub::new(10, 2);
        let a = service("a");
        let (mut slow, mut quick) = (hub.listen(&a, "x").unwrap(), hub.listen(&a, "x").unwrap());
        for text in ["1", "2", "3"] {
            hub.broadcast(&a, "x", text);
            assert_eq!(next(&mut quick).await.as_deref(), Some(text));
        }
        assert_eq!(next(&mut slow).await.as_deref(), Some("1"));
        assert_eq!(next(&mut slow).await.as_deref(), Some("2"));
        assert_eq!(next(&mut slow).await, None);
        assert_eq!(hub.broadcast(&a, "x", "4"), 1);
    }

    #[test]
    fn channels_go_with_their_last_listener_and_are_bounded() {
        let hub = Hub::new(1_000, 2);
        let a = service("a");
        let listeners: Vec<_> = (0..1_000)
            .map(|n| hub.listen(&a, &format!("{n}")).unwrap())
            .collect();
        assert_eq!((hub.channels(), hub.listeners()), (1_000, 1_000));
        assert!(hub.listen(&a, "one more").is_none());
        drop(listeners);
        assert_eq!((hub.channels(), hub.listeners()), (0, 0));
        assert!(hub.listen(&a, "again").is_some());
    }
}
