//! Delivering messages, and what is kept of events and of those who want them.

use super::{RedisBackend, job::describe, script};
use crate::{
    events::Event,
    name::{ServiceName, matches},
    queue::backend::{Delivered, Message, Result, Subscription},
    trace::TraceContext,
};
use redis::streams::{StreamId, StreamRangeReply};
use serde_json::{Value, json};

/// Events read at a time by a listing.
const PAGE: usize = 50;

impl RedisBackend {
    pub(super) async fn deliver_now(
        &self,
        batch: &[Message],
        pending_max: u64,
        now_ms: i64,
    ) -> Result<Delivered> {
        let mut call = script::DELIVER.key("exprsn:events");
        call.arg(now_ms).arg(pending_max);
        call.arg(self.config.seen_ms_min).arg(self.config.seen_max);
        for message in batch {
            match message {
                Message::Job { queue, job } => {
                    let mut head = describe(job);
                    head["queue"] = json!(queue);
                    call.arg("job").arg(head.to_string()).arg(&job.data);
                }
                Message::Event(event) => {
                    let head = event_head(event).to_string();
                    call.arg("event").arg(head).arg(&event.data);
                }
            }
        }
        let (queues, services, missed): (Vec<String>, Vec<String>, Vec<u64>) =
            self.redis.invoke(&call).await?;
        let missed = services.iter().zip(missed).filter_map(|(name, missed)| {
            ServiceName::parse(name)
                .ok()
                .map(|service| (service, missed))
        });
        Ok(Delivered {
            queues,
            missed: missed.collect(),
        })
    }

    pub(super) async fn events_now(&self, pattern: &str, limit: usize) -> Result<Vec<Event>> {
        let mut found = Vec::new();
        let mut end = "+".to_owned();
        while found.len() < limit {
            let mut command = redis::cmd("XREVRANGE");
            command.arg("exprsn:events").arg(&end).arg("-");
            command.arg("COUNT").arg(PAGE);
            let page: StreamRangeReply = self.redis.query(&command).await?;
            let Some(last) = page.ids.last() else {
                break;
            };
            end = format!("({}", last.id);
            let events = page.ids.iter().filter_map(event);
            found.extend(events.filter(|event| matches(pattern, &event.topic)));
        }
        found.truncate(limit);
        Ok(found)
    }
}

fn event_head(event: &Event) -> Value {
    let mut head = json!({
        "id": event.id,
        "source": event.source.as_str(),
        "topic": event.topic,
        // As text, because Lua would round it.
        "time": event.time.to_string(),
    });
    if let Some(subject) = &event.subject {
        head["subject"] = json!(subject);
    }
    if let Some(trace) = event.trace {
        head["trace"] = json!(trace.to_header());
    }
    head
}

/// An event from its entry; none where somebody else wrote something else there.
fn event(entry: &StreamId) -> Option<Event> {
    let text = |name: &str| entry.get::<String>(name);
    Some(Event {
        id: text("id")?,
        source: ServiceName::parse(&text("source")?).ok()?,
        topic: text("topic")?,
        subject: text("subject"),
        time: text("time")?.parse().ok()?,
        data: text("data")?,
        trace: text("trace").and_then(|header| TraceContext::parse(&header)),
    })
}

/// What a service wants, from its entry; nothing where the entry is not ours.
pub(super) fn subscriptions_of(service: &str, wanted: &str) -> Vec<Subscription> {
    let Ok(service) = ServiceName::parse(service) else {
        return Vec::new();
    };
    let wanted: Vec<Value> = serde_json::from_str(wanted).unwrap_or_default();
    let mut wanted: Vec<Subscription> = wanted
        .iter()
        .filter_map(|entry| {
            Some(Subscription {
                service: service.clone(),
                topic: entry["topic"].as_str()?.to_owned(),
                attempts: u32::try_from(entry["attempts"].as_u64()?).ok()?,
            })
        })
        .collect();
    wanted.sort_by(|a, b| a.topic.cmp(&b.topic));
    wanted
}
