//! Hearing what other hosts and BullMQ's producers add: the queues' streams of events, read without taking anything away.
//!
//! BullMQ's workers wait for a marker that one of them takes; a host has many queues and may be too busy to take what the
//! marker stands for, so ours look at the streams instead, all of them in one command on one connection. The markers
//! are left to BullMQ's workers.

use super::job::prefix;
use crate::redis::Redis;
use redis::{
    RedisResult, Value,
    aio::MultiplexedConnection,
    streams::{StreamRangeReply, StreamReadReply},
};
use std::{collections::HashMap, time::Duration};

/// How long one command waits. Then every queue is looked at, in case something was not announced.
const WAIT: Duration = Duration::from_secs(5);
/// Events read of one stream at a time. Those of completed jobs hold what the workers answered.
const READ_MAX: usize = 100;
/// Events after which there may be something to take, or another delayed job is the next.
const NEWS: [&[u8]; 4] = [b"waiting", b"delayed", b"resumed", b"stalled"];

/// The last event read of each queue, and the connection that waits for the next.
#[derive(Default)]
pub(super) struct Listener {
    connection: Option<MultiplexedConnection>,
    last: HashMap<String, String>,
}

impl Listener {
    /// Waits for news of `queues`; answers of which there are any. A queue that is asked after for the first time has news.
    pub(super) async fn wait(
        &mut self,
        redis: &Redis,
        queues: &[String],
    ) -> RedisResult<Vec<String>> {
        // Dropped while it waits, the connection is closed with whatever the server would still say on it.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => redis.blocking(WAIT).await?,
        };
        let news = self.news(&mut connection, queues).await;
        match news {
            Ok(_) => self.connection = Some(connection),
            // What was missed meanwhile may be gone from the streams: all queues are news afterwards.
            Err(_) => self.last.clear(),
        }
        news
    }

    async fn news(
        &mut self,
        connection: &mut MultiplexedConnection,
        queues: &[String],
    ) -> RedisResult<Vec<String>> {
        let mut found = Vec::new();
        for queue in queues {
            if !self.last.contains_key(queue) {
                found.push((queue.clone(), last_event(connection, queue).await?));
            }
        }
        // All at once: broken off before, none of them would be news to anybody.
        let mut fresh: Vec<String> = found.iter().map(|(queue, _)| queue.clone()).collect();
        self.last.extend(found);
        while fresh.is_empty() {
            let Some(read) = self.read(connection, queues).await? else {
                return Ok(queues.to_vec());
            };
            fresh = read;
        }
        Ok(fresh)
    }

    /// The queues with news among the next events; none where no event came in time.
    async fn read(
        &mut self,
        connection: &mut MultiplexedConnection,
        queues: &[String],
    ) -> RedisResult<Option<Vec<String>>> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(READ_MAX);
        command.arg("BLOCK").arg(WAIT.as_millis() as u64);
        command.arg("STREAMS");
        for queue in queues {
            command.arg(stream(queue));
        }
        for queue in queues {
            command.arg(&self.last[queue]);
        }
        let Some(reply): Option<StreamReadReply> = command.query_async(connection).await? else {
            return Ok(None);
        };
        let mut news = Vec::new();
        for read in reply.keys {
            let Some(queue) = queues.iter().find(|queue| stream(queue) == read.key) else {
                continue;
            };
            if let Some(last) = read.ids.last() {
                self.last.insert(queue.clone(), last.id.clone());
            }
            if read.ids.iter().any(|event| is_news(event.map.get("event"))) {
                news.push(queue.clone());
            }
        }
        Ok(Some(news))
    }
}

fn stream(queue: &str) -> String {
    format!("{}events", prefix(queue))
}

async fn last_event(connection: &mut MultiplexedConnection, queue: &str) -> RedisResult<String> {
    let mut command = redis::cmd("XREVRANGE");
    command.arg(stream(queue)).arg("+").arg("-");
    command.arg("COUNT").arg(1);
    let newest: StreamRangeReply = command.query_async(connection).await?;
    Ok(newest
        .ids
        .into_iter()
        .next()
        .map_or_else(|| "0-0".to_owned(), |event| event.id))
}

fn is_news(event: Option<&Value>) -> bool {
    matches!(event, Some(Value::BulkString(name)) if NEWS.contains(&name.as_slice()))
}
