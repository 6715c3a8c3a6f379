//! Live messages: for whoever listens at this instant, on whichever host; kept nowhere.
//!
//! **Invariant:** a message reaches each host at most once, unless the connection was lost as it was sent; those of one host
//! arrive in the order in which it sent them.
//!
//! Redis does not keep what is published apart by its databases: platforms that share a server hear each other.

#[cfg(test)]
mod tests;

use crate::{
    name::ServiceName,
    queue::backend::{Error, Result},
    redis::Redis,
};
use futures::StreamExt as _;
use redis::{
    Msg, RedisResult,
    aio::{PubSubSink, PubSubStream},
};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{sleep, timeout},
};

/// Longest name of a channel, in bytes.
pub const CHANNEL_BYTES_MAX: usize = 256;
/// Largest message, in bytes.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;
/// What a service's Redis channel is called before its name.
const PREFIX: &str = "exprsn:live:";
/// How long after a subscription was lost another is tried for; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How often a subscription on which nothing comes is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(5);
/// How long the answer may take, and subscribing.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Who is told of messages: the service, its channel, and the data. Called one message after the other; while it has not
/// returned, the following wait in memory.
pub type Deliver = Arc<dyn Fn(&ServiceName, &str, &str) + Send + Sync>;

/// Messages to whoever listens now, on any host, over a Redis server's publish/subscribe; kept nowhere.
pub struct LiveRelay {
    redis: Arc<Redis>,
    is_connected: Arc<AtomicBool>,
    task: AbortHandle,
}

impl LiveRelay {
    /// `deliver(service, channel, data)` is called for each message of any host, this one included. Keeps a subscription,
    /// made anew (with backoff) when lost, until dropped. What is published while there is none is missed.
    pub fn start(redis: Redis, background: &Handle, deliver: Deliver) -> Self {
        let redis = Arc::new(redis);
        let is_connected = Arc::new(AtomicBool::new(false));
        let listener = Listener {
            redis: redis.clone(),
            is_connected: is_connected.clone(),
            deliver,
        };
        Self {
            redis,
            is_connected,
            task: background.spawn(listener.run()).abort_handle(),
        }
    }

    /// Sends a message; how many hosts got it.
    ///
    /// Sent again where the connection was lost before an answer came, so it may arrive twice. Fails with
    /// [`Error::Unavailable`] where the server cannot be reached, and with [`Error::LimitExceeded`] beyond
    /// [`CHANNEL_BYTES_MAX`] or [`DATA_BYTES_MAX`].
    pub async fn publish(&self, service: &ServiceName, channel: &str, data: &str) -> Result<usize> {
        for (what, size, max) in [
            ("name of a live channel", channel.len(), CHANNEL_BYTES_MAX),
            ("live message", data.len(), DATA_BYTES_MAX),
        ] {
            if size > max {
                let told = format!("a {what} has at most {max} bytes, not {size}");
                return Err(Error::LimitExceeded(told));
            }
        }
        let mut command = redis::cmd("PUBLISH");
        command.arg(format!("{PREFIX}{service}"));
        command.arg(encode(channel, data));
        Ok(self.redis.query(&command).await?)
    }

    /// Whether messages of other hosts arrive now.
    pub fn is_connected(&self) -> bool {
        self.is_connected.load(Relaxed)
    }
}

impl Drop for LiveRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for LiveRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveRelay")
            .field("redis", &self.redis)
            .field("is_connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

/// What keeps the subscription.
struct Listener {
    redis: Arc<Redis>,
    is_connected: Arc<AtomicBool>,
    deliver: Deliver,
}

impl Listener {
    async fn run(self) {
        let mut wait = RETRY_MIN;
        loop {
            match self.subscribe().await {
                Ok((sink, messages)) => {
                    wait = RETRY_MIN;
                    self.is_connected.store(true, Relaxed);
                    self.listen(sink, messages).await;
                    self.is_connected.store(false, Relaxed);
                    tracing::warn!("the subscription to live messages was lost; subscribing again");
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot subscribe to live messages; trying again");
                }
            }
            // Hosts that lost the same server do not come back all at once.
            sleep(wait.mul_f64(rand::random_range(0.5..=1.0))).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    async fn subscribe(&self) -> RedisResult<(PubSubSink, PubSubStream)> {
        let (mut sink, messages) = self.redis.subscriber().await?.split();
        in_time(sink.psubscribe(format!("{PREFIX}*"))).await?;
        Ok((sink, messages))
    }

    /// Until the subscription is lost.
    async fn listen(&self, mut sink: PubSubSink, mut messages: PubSubStream) {
        loop {
            match timeout(PING_EVERY, messages.next()).await {
                Ok(Some(message)) => self.tell(&message),
                Ok(None) => return,
                // A connection that a network has swallowed looks like one on which nothing comes.
                Err(_) if in_time(sink.ping::<redis::Value>()).await.is_err() => return,
                Err(_) => {}
            }
        }
    }

    /// What others than hosts publish there is none of ours.
    fn tell(&self, message: &Msg) {
        let name = message.get_channel_name().strip_prefix(PREFIX);
        let service = name.and_then(|name| ServiceName::parse(name).ok());
        match (service, decode(message.get_payload_bytes())) {
            (Some(service), Some((channel, data))) => (self.deliver)(&service, channel, data),
            _ => tracing::debug!(
                channel = message.get_channel_name(),
                "a live message that no host has sent"
            ),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.is_connected.store(false, Relaxed);
    }
}

async fn in_time<T>(asked: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    timeout(ANSWER_MAX, asked).await.unwrap_or_else(|_| {
        let late = "the subscription did not answer in time";
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, late).into())
    })
}

/// The length of the channel's name in bytes, a colon, the name, and the data: `4:newsx` is `x` to `news`.
fn encode(channel: &str, data: &str) -> String {
    format!("{}:{channel}{data}", channel.len())
}

/// The channel's name and the data.
fn decode(payload: &[u8]) -> Option<(&str, &str)> {
    let (length, rest) = std::str::from_utf8(payload).ok()?.split_once(':')?;
    rest.split_at_checked(length.parse().ok()?)
}
