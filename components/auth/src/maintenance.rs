//! Chores: pruning what is over, and revoking tokens that a failing host left behind.

use crate::flow::end::{Doomed, QUEUE, REVOKE_JOB};
use crate::settings::settings;
use exprsn_sdk::prelude::*;

/// Rows deleted by one statement, so that no transaction holds the database for long.
const ROWS_PER_STATEMENT: u64 = 500;
/// Statements per table and run; what is left waits for the next run.
const STATEMENTS_MAX: u32 = 100;
/// How long ended sessions and grants are kept after their end, in milliseconds: reuse of their tokens is still noticed.
const ENDED_KEPT_MS: i64 = 7 * 86_400_000;

/// The jobs of this service.
pub fn jobs() -> Jobs {
    Jobs::new()
        .on_named(QUEUE, REVOKE_JOB, revoke_tokens)
        .on_named(QUEUE, "prune", prune)
}

async fn revoke_tokens(job: Job<Doomed>) -> JobResult {
    for token in &job.data.tokens {
        ca::revoke(&token.id, token.expires_at)
            .await
            .map_err(|e| JobError::retry(format!("{e:?}")))?;
    }
    Ok(())
}

/// A table, its key, what of it is over, and how that compares with the instant.
struct Stale {
    table: &'static str,
    key: &'static str,
    condition: &'static str,
    before: i64,
}

fn stale(now: i64) -> [Stale; 8] {
    let row = |table, key, condition, before| Stale {
        table,
        key,
        condition,
        before,
    };
    let ended = now - ENDED_KEPT_MS;
    [
        row(
            "authorization_codes",
            "digest",
            "expires_at < $1",
            now - 86_400_000,
        ),
        row("login_challenges", "digest", "expires_at < $1", now),
        row(
            "access_tokens",
            "id",
            "expires_at < $1",
            now.div_euclid(1_000),
        ),
        row("refresh_tokens", "digest", "expires_at < $1", ended),
        row("grants", "id", "expires_at < $1 OR revoked_at < $1", ended),
        // A session stays as long as a grant tells of it.
        row(
            "sessions",
            "id",
            "(expires_at < $1 OR ended_at < $1) AND NOT EXISTS (SELECT 1 FROM grants g WHERE g.session_id = sessions.id)",
            ended,
        ),
        row(
            "login_attempts",
            "id",
            "last_at < $1",
            now - settings().address_schedule.forget_after_ms,
        ),
        row(
            "audit_events",
            "id",
            "at < $1",
            now - settings().audit_keep_ms,
        ),
    ]
}

async fn prune(_: Job<serde_json::Value>) -> JobResult {
    for Stale {
        table,
        key,
        condition,
        before,
    } in stale(now_ms())
    {
        let text = format!(
            "DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {condition} LIMIT {ROWS_PER_STATEMENT})"
        );
        let mut total = 0;
        for _ in 0..STATEMENTS_MAX {
            let deleted = sql::execute(&text, params![before]).await?;
            total += deleted;
            if deleted < ROWS_PER_STATEMENT {
                break;
            }
        }
        if total > 0 {
            log::info!("pruned", table = table, rows = total);
        }
    }
    Ok(())
}
