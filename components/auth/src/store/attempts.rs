//! Counting failures to prove who one is: see [`crate::domain::lockout`].

use crate::domain::lockout::Schedule;
use exprsn_sdk::prelude::*;

/// What an attempt is counted under, and by which schedule.
pub struct Counter {
    pub id: String,
    pub schedule: Schedule,
}

#[derive(Deserialize)]
struct Row {
    failures: u32,
    locked_until: i64,
}

/// Counts an attempt under every counter before it is made. Answers the waiting in milliseconds when one of them says so;
/// then nothing is counted.
pub async fn begin(counters: &[Counter], now: i64) -> Result<Option<i64>> {
    let tx = sql::begin().await?;
    for counter in counters {
        let row = count(&tx, counter, now).await?;
        if row.locked_until > now {
            tx.rollback().await?;
            return Ok(Some(row.locked_until - now));
        }
        let until = now + counter.schedule.wait_ms(row.failures);
        if until > now {
            let text = "UPDATE login_attempts SET locked_until = $2 WHERE id = $1";
            tx.execute(text, params![counter.id, until]).await?;
        }
    }
    tx.commit().await?;
    Ok(None)
}

/// One statement, so that concurrent attempts are counted one after the other on every engine.
async fn count(tx: &sql::Tx, counter: &Counter, now: i64) -> Result<Row> {
    let forgotten_before = now - counter.schedule.forget_after_ms;
    let row = tx
        .query_one_as::<Row>(
            "INSERT INTO login_attempts (id, failures, last_at) VALUES ($1, 1, $2) ON CONFLICT (id) DO UPDATE SET \
             failures = CASE WHEN login_attempts.last_at < $3 THEN 1 ELSE login_attempts.failures + 1 END, \
             last_at = excluded.last_at RETURNING failures, locked_until",
            params![counter.id, now, forgotten_before],
        )
        .await?;
    row.ok_or_else(|| Problem::fault("counting an attempt", "RETURNING gave no row"))
}

/// Takes back the count of an attempt that succeeded, and whatever was counted before it.
pub async fn forget(tx: &sql::Tx, id: &str) -> Result<()> {
    tx.execute("DELETE FROM login_attempts WHERE id = $1", params![id])
        .await?;
    Ok(())
}

/// Takes back the count of one attempt only: successes must not wipe out the failures of an address.
pub async fn give_back(tx: &sql::Tx, id: &str) -> Result<()> {
    tx.execute(
        "UPDATE login_attempts SET failures = failures - 1, locked_until = 0 WHERE id = $1 AND failures > 0",
        params![id],
    )
    .await?;
    Ok(())
}
