//! Leases: recording what became of jobs, handing the next ones out, renewing, and returning what stalled.

use super::{
    RedisBackend,
    job::{self, Fields, prefix, settings, token},
    scheduler, script,
};
use crate::queue::{
    backend::{Result, Take, Taken},
    job::{Claim, Claimed, Outcome, REASON_BYTES_MAX, State, truncate},
};
use std::collections::BTreeMap;

/// Data handed out by one request for jobs, in bytes, unless a single job has more.
const TAKE_BYTES_MAX: usize = 16 << 20;

impl RedisBackend {
    pub(super) async fn settle_now(
        &self,
        queue: &str,
        outcomes: &[(Claim, Outcome)],
        take: Option<Take>,
        now_ms: i64,
    ) -> Result<Taken> {
        let mut call = script::SETTLE.key(prefix(queue));
        call.arg(now_ms);
        match take {
            Some(take) => call
                .arg(take.count)
                .arg(token(take.lease))
                .arg(take.lease_ms.max(1)),
            None => call.arg(-1).arg("").arg(0),
        };
        call.arg(TAKE_BYTES_MAX);
        for (id, lease, what, text) in in_order(outcomes) {
            call.arg(what).arg(id).arg(token(lease)).arg(text);
        }
        let (jobs, more, due, defaults): (Vec<(String, Fields)>, u8, i64, Fields) =
            self.redis.invoke(&call).await?;
        for (id, fields) in &jobs {
            self.go_on(queue, id, fields, now_ms).await?;
        }
        let (defaults, lease) = (settings(&defaults), take.map_or(0, |take| take.lease));
        Ok(Taken {
            jobs: jobs
                .into_iter()
                .map(|(id, fields)| job::job(queue, id, &fields, State::Active, &defaults, lease))
                .collect(),
            more: more == 1,
            next_due_ms: (due >= 0).then_some(due),
        })
    }

    /// Adds what follows a job of a scheduler of BullMQ's.
    async fn go_on(&self, queue: &str, id: &str, fields: &Fields, now_ms: i64) -> Result<()> {
        if let Some(next) = scheduler::next(fields, now_ms) {
            let mut call = script::CONTINUE.key(prefix(queue));
            call.arg(now_ms).arg(next.scheduler).arg(id);
            self.redis
                .invoke::<u8>(call.arg(next.due_ms).arg(next.opts))
                .await?;
        }
        Ok(())
    }

    pub(super) async fn extend_now(&self, claims: Vec<Claim>, lease_ms: u64) -> Result<Vec<Claim>> {
        let mut by_queue: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        let mut void = Vec::new();
        for claim in claims {
            match &claim.job {
                Claimed::Named { queue, .. } => {
                    by_queue.entry(queue.to_string()).or_default().push(claim);
                }
                Claimed::Row(_) => void.push(claim),
            }
        }
        for (queue, claims) in by_queue {
            let mut call = script::EXTEND.key(prefix(&queue));
            call.arg(lease_ms.max(1));
            for claim in &claims {
                if let Claimed::Named { id, .. } = &claim.job {
                    call.arg(&**id).arg(token(claim.lease));
                }
            }
            let lost: Vec<usize> = self.redis.invoke(&call).await?;
            void.extend(lost.into_iter().filter_map(|at| claims.get(at).cloned()));
        }
        Ok(void)
    }

    pub(super) async fn rescue_now(&self, stalled_max: u32, now_ms: i64) -> Result<Vec<String>> {
        let mut concerned = Vec::new();
        for queue in self.queues().await? {
            let mut call = script::RESCUE.key(prefix(&queue));
            let rescued: u64 = self.redis.invoke(call.arg(now_ms).arg(stalled_max)).await?;
            if rescued > 0 {
                concerned.push(queue);
            }
        }
        let mut call = script::PULL.key("exprsn:events");
        let pulled: Vec<String> = self.redis.invoke(call.arg(self.config.pending_max)).await?;
        concerned.extend(pulled);
        concerned.sort();
        concerned.dedup();
        Ok(concerned)
    }
}

/// Outcomes as the script wants them. Released jobs go to the front of the line, so the last goes first.
fn in_order(
    outcomes: &[(Claim, Outcome)],
) -> impl Iterator<Item = (&str, i64, &'static str, String)> {
    let is_released = |outcome: &Outcome| matches!(outcome, Outcome::Released);
    let ended = outcomes
        .iter()
        .filter(move |(_, outcome)| !is_released(outcome));
    let released = outcomes
        .iter()
        .rev()
        .filter(move |(_, outcome)| is_released(outcome));
    ended.chain(released).filter_map(|(claim, outcome)| {
        let Claimed::Named { id, .. } = &claim.job else {
            return None;
        };
        let (what, text) = match outcome {
            Outcome::Completed(value) => ("completed", value.clone()),
            Outcome::Failed(failure) if failure.retry => ("failed", Some(failure.reason.clone())),
            Outcome::Failed(failure) => ("fatal", Some(failure.reason.clone())),
            Outcome::Released => ("released", None),
        };
        let text = match (what, text) {
            ("completed", Some(value)) => format!("={value}"),
            (_, Some(reason)) => format!("={}", truncate(reason, REASON_BYTES_MAX)),
            (_, None) => String::new(),
        };
        Some((&**id, claim.lease, what, text))
    })
}
