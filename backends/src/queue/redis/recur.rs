//! Recurrences: ours, in the place of BullMQ's job schedulers, so that BullMQ lists them. Their jobs are added by the clock.

use super::{
    RedisBackend,
    job::{describe, prefix},
    script,
};
use crate::queue::{
    backend::{NextDue, Recurrence, Result},
    job::NewJob,
};

/// Latest instant that a sorted set keeps exactly.
const INSTANT_MAX: i64 = 1 << 53;

impl RedisBackend {
    pub(super) async fn schedule_now(
        &self,
        queues: &[String],
        wanted: &[Recurrence],
        next_due: NextDue,
        now_ms: i64,
    ) -> Result<()> {
        for queue in queues {
            let mut call = script::SCHEDULE.key(prefix(queue));
            for recurrence in wanted.iter().filter(|wanted| wanted.queue == *queue) {
                let due = next_due(&recurrence.cron, now_ms).unwrap_or(INSTANT_MAX);
                call.arg(scheduler_id(recurrence)).arg(&recurrence.name);
                call.arg(&recurrence.cron).arg(&recurrence.data);
                call.arg(due.min(INSTANT_MAX));
            }
            self.redis.invoke::<()>(&call).await?;
        }
        Ok(())
    }

    /// Adds the jobs of occurrences that are due; answers whether there were any, and when the next one is due.
    pub(super) async fn recur_now(
        &self,
        queue: &str,
        next_due: NextDue,
        now_ms: i64,
    ) -> Result<(bool, Option<i64>)> {
        let call = script::RECURRENCES.key(prefix(queue));
        let found: Vec<(String, String, String, String, i64)> = self.redis.invoke(&call).await?;
        let (mut added, mut next) = (false, None::<i64>);
        for (id, name, cron, data, due) in found {
            let mut following = due;
            if due <= now_ms {
                following = next_due(&cron, now_ms).map_or(INSTANT_MAX, |at| at.min(INSTANT_MAX));
                let job = NewJob::new(format!("repeat:{id}:{due}"), name, "");
                let mut call = script::RECUR.key(prefix(queue));
                call.arg(now_ms).arg(id).arg(due).arg(following);
                call.arg(describe(&job).to_string()).arg(data);
                added |= self.redis.invoke::<u8>(&call).await? == 1;
            }
            next = Some(next.map_or(following, |next| next.min(following)));
        }
        Ok((added, next))
    }
}

/// A recurrence's id among the schedulers of its queue. With it, the id of an occurrence is that of the other backends.
fn scheduler_id(recurrence: &Recurrence) -> String {
    format!("{}:{}", recurrence.queue, recurrence.name)
}
