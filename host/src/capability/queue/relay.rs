//! The end of the outbox: what committed transactions announce becomes jobs and events, each once.

use super::{backend::Message, broker::Broker, job::NewJob};
use crate::{
    capability::{
        events::Event,
        sql::outbox::{Content, OutboxItem, Sink},
    },
    clock::now_ms,
    invocation::TraceContext,
    telemetry::spans::relaying,
};
use exprsn_backends::sql::error::BoxError;

impl Sink for Broker {
    async fn deliver(&self, batch: Vec<OutboxItem>) -> Result<(), BoxError> {
        let now_ms = now_ms();
        let mut spans = Vec::new();
        let messages = batch.into_iter().map(|mut item| {
            item.trace = item.trace.map(TraceContext::child);
            if let Some(trace) = item.trace {
                let destination = item.content.destination();
                let span = relaying(&item.service, trace, destination, item.created_at);
                spans.push(span);
            }
            message(item, now_ms)
        });
        self.relay(messages.collect()).await?;
        for span in spans {
            span.end();
        }
        Ok(())
    }
}

/// What the broker makes of an announcement. A job's delay counts from when it was announced.
fn message(item: OutboxItem, now_ms: i64) -> Message {
    match item.content {
        Content::Job {
            queue,
            id,
            name,
            data,
            attempts,
            backoff,
            delay_ms,
            priority,
        } => {
            let passed_ms =
                u64::try_from(now_ms.saturating_sub(item.created_at)).unwrap_or_default();
            let mut job = NewJob::new(id, name, data);
            job.attempts = attempts;
            job.backoff = backoff;
            job.delay_ms = delay_ms.saturating_sub(passed_ms);
            job.priority = priority;
            job.origin = Some(item.service);
            job.trace = item.trace;
            Message::Job { queue, job }
        }
        Content::Event {
            id,
            topic,
            subject,
            data,
        } => Message::Event(Event {
            id,
            source: item.service,
            topic,
            subject,
            time: item.created_at,
            data,
            trace: item.trace,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::ServiceName;

    #[test]
    fn a_delay_counts_from_the_announcement() {
        let item = OutboxItem {
            service: ServiceName::parse("exprsn-a").unwrap(),
            created_at: 1_000,
            trace: None,
            content: Content::Job {
                queue: "q".to_owned(),
                id: "1".to_owned(),
                name: "n".to_owned(),
                data: "{}".to_owned(),
                attempts: Some(2),
                backoff: None,
                delay_ms: 500,
                priority: 3,
            },
        };
        let delay = |now_ms| match message(item.clone(), now_ms) {
            Message::Job { job, .. } => job.delay_ms,
            Message::Event(_) => panic!("a job was announced"),
        };
        assert_eq!((delay(1_000), delay(1_200), delay(9_000)), (500, 300, 0));
    }
}
