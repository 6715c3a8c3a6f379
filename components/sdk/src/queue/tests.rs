//! Which function does which job, and what becomes of its answer.

use super::*;
use crate::testing::now;

fn job(queue: &str, name: &str, data: &str) -> types::Job {
    types::Job {
        id: "1".to_owned(),
        queue: queue.to_owned(),
        name: name.to_owned(),
        data: data.to_owned(),
        attempt: 2,
        attempts: 3,
        priority: 0,
        state: State::Active,
        created_at: 0,
        processed_at: None,
        finished_at: None,
        failed_reason: None,
        return_value: None,
    }
}

fn jobs() -> Jobs {
    async fn any(job: Job<u32>) -> JobResult<u32> {
        Ok(job.data + job.attempt)
    }
    async fn named(_: Job<()>) -> JobResult {
        Ok(())
    }
    async fn failing(_: Job<u32>) -> JobResult {
        Err(crate::sql::Error::Unavailable("x".to_owned()))?
    }
    Jobs::new()
        .on("a", any)
        .on_named("a", "named", named)
        .on("b", failing)
}

#[test]
fn a_named_function_comes_before_the_queues() {
    assert_eq!(
        now(jobs().handle(job("a", "x", "40"))),
        Ok(Some("42".to_owned()))
    );
    assert_eq!(now(jobs().handle(job("a", "named", "null"))), Ok(None));
}

#[test]
fn faults_are_retried_and_what_can_never_succeed_is_not() {
    let (_, retry) = now(jobs().handle(job("b", "x", "1")))
        .unwrap_err()
        .into_parts();
    assert!(retry);
    for job in [
        job("a", "x", "\"text\""),
        job("a", "x", "{"),
        job("c", "x", "1"),
    ] {
        let (reason, retry) = now(jobs().handle(job)).unwrap_err().into_parts();
        assert!(!retry && !reason.is_empty(), "{reason}");
    }
}

#[test]
fn options_reach_the_wire() {
    let options = JobOptions::default()
        .id("x")
        .attempts(3)
        .exponential(2_000)
        .delay_ms(5)
        .priority(1)
        .timeout_ms(9);
    let wire = types::Options::from(options);
    assert_eq!(
        (wire.job_id.as_deref(), wire.attempts, wire.delay_ms),
        (Some("x"), Some(3), 5)
    );
    assert!(matches!(wire.backoff, Some(Backoff::Exponential(2_000))));
    assert_eq!((wire.priority, wire.timeout_ms), (1, Some(9)));
}
