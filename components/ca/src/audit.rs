//! The audit log: who did what, chained by hashes, its end sealed with a key that the host keeps.

use crate::chain::{self, Entry, GENESIS, Head};
use exprsn_sdk::{prelude::*, sql::Tx};
use serde_json::Value;

/// The key of the seal, which the host keeps.
const SEAL_KEY: &str = "audit";
/// The action of an entry that tells of a broken seal.
const TAMPERED: &str = "audit.tampered";
/// Entries that one request checks.
const CHECKED_MAX: i64 = 20_000;
/// Entries that are read at a time while checking.
const BATCH: i64 = 500;

const COLUMNS: &str = "seq, at, actor, action, subject, details, previous_hash, hash";

/// Where the log ends, and the seal on it.
#[derive(Deserialize)]
struct Sealed {
    seq: i64,
    hash: String,
    seal: String,
}

/// An entry as clients see it.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    seq: i64,
    /// Milliseconds since the Unix epoch.
    at: i64,
    /// Who did it: `operator:local`, `user:<id>`, `service:<name>`, or `host`.
    actor: String,
    action: String,
    /// What it was done to.
    subject: String,
    details: Value,
    previous_hash: String,
    hash: String,
}

/// What checking the chain has found.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Whether all entries that were checked are as they were written.
    valid: bool,
    checked: i64,
    /// The first entry that is not as it was written.
    broken_at: Option<i64>,
    reason: Option<String>,
    /// Where to go on, as `after`, when the log is longer than one request checks.
    next_after: Option<i64>,
}

/// Which part of the log to check.
#[derive(Deserialize, JsonSchema, Validate)]
pub struct After {
    /// Checks the entries after this one.
    #[garde(range(min = 0))]
    after: Option<i64>,
}

/// Waits until no other transaction adds entries, so that what is done under this one is done alone.
pub async fn lock(tx: &Tx) -> Result<()> {
    let text = "UPDATE audit_head SET seq = seq WHERE only_row = 1";
    tx.execute(text, params![]).await?;
    Ok(())
}

/// Adds an entry within the transaction that does what it tells of.
///
/// Where the end of the log is not as it was sealed, an entry says so first: whatever is written later, that stays.
pub async fn append(
    tx: &Tx,
    actor: &str,
    action: &str,
    subject: &str,
    details: &Value,
) -> Result<()> {
    // The update takes the head's lock, so entries get their places one after the other on either engine.
    let text = "UPDATE audit_head SET seq = seq WHERE only_row = 1 RETURNING seq, hash, seal";
    let sealed: Sealed = tx
        .query_one_as(text, params![])
        .await?
        .ok_or_else(|| Problem::fault("the audit log has no head", "table audit_head is empty"))?;
    let mut head = Head {
        seq: sealed.seq,
        hash: sealed.hash,
    };
    if sealed.seal != seal(&head).await? {
        log::error!("the audit log was shortened or rewritten", seq = head.seq);
        head = write(
            tx,
            &head,
            "host",
            TAMPERED,
            "audit",
            &json!({ "seq": head.seq, "hash": head.hash }),
        )
        .await?;
    }
    head = write(tx, &head, actor, action, subject, details).await?;
    let seal = seal(&head).await?;
    let text = "UPDATE audit_head SET seq = $1, hash = $2, seal = $3 WHERE only_row = 1";
    tx.execute(text, params![head.seq, head.hash, seal]).await?;
    Ok(())
}

/// Writes the entry that follows `head`.
async fn write(
    tx: &Tx,
    head: &Head,
    actor: &str,
    action: &str,
    subject: &str,
    details: &Value,
) -> Result<Head> {
    let entry = Entry {
        seq: head.seq + 1,
        at: now_ms(),
        actor: actor.to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        details: details.to_string(),
        previous_hash: head.hash.clone(),
        hash: String::new(),
    }
    .hashed();
    let text = format!("INSERT INTO audit ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)");
    let values = params![
        entry.seq,
        entry.at,
        entry.actor,
        entry.action,
        entry.subject,
        entry.details,
        entry.previous_hash,
        entry.hash
    ];
    tx.execute(&text, values).await?;
    Ok(Head {
        seq: entry.seq,
        hash: entry.hash,
    })
}

/// The seal that belongs to an end of the log; that of the empty log is empty.
async fn seal(head: &Head) -> Result<String> {
    if head.seq == 0 {
        return Ok(String::new());
    }
    Ok(chain::hex(
        &ca::hmac(SEAL_KEY, format!("{}:{}", head.seq, head.hash)).await?,
    ))
}

/// What other services may record: nothing that looks like an entry of this one.
const NOTED: [&str; 2] = ["queue.", "service."];

/// What a service did.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// `queue.…` or `service.…`.
    #[garde(length(bytes, max = 64), custom(noted))]
    action: String,
    /// What it was done to.
    #[garde(length(bytes, min = 1, max = 512))]
    subject: String,
    #[serde(default)]
    #[garde(skip)]
    details: serde_json::Map<String, Value>,
}

fn noted(action: &str, _: &()) -> garde::Result {
    let plain = |c: char| c.is_ascii_lowercase() || matches!(c, '.' | '-');
    if NOTED.iter().any(|prefix| action.starts_with(prefix)) && action.chars().all(plain) {
        return Ok(());
    }
    Err(garde::Error::new(
        "must begin with queue. or service. and have lower-case letters, `.` and `-` only",
    ))
}

/// `POST /api/audit`
pub async fn note(caller: Caller, Json(note): Json<Note>) -> Result<NoContent> {
    if caller.caller.kind != Kind::Service {
        return Err(Problem::forbidden("only services record what they did"));
    }
    let mut details = note.details;
    details.insert("via".to_owned(), caller.caller.full_subject().into());
    let (actor, details) = (caller.principal().full_subject(), Value::Object(details));
    let tx = sql::begin().await?;
    append(&tx, &actor, &note.action, &note.subject, &details).await?;
    tx.commit().await?;
    Ok(NoContent)
}

/// `GET /api/audit`
pub async fn list(page: Query<PageQuery>) -> Result<Json<Page<AuditEntry>>> {
    let before = page.cursor::<i64>()?.unwrap_or(i64::MAX);
    let text = format!("SELECT {COLUMNS} FROM audit WHERE seq < $1 ORDER BY seq DESC LIMIT $2");
    let entries: Vec<Entry> = sql::query_as(&text, params![before, page.limit_plus_one()]).await?;
    Ok(Json(page.page(entries, |entry| entry.seq).map(told)))
}

fn told(entry: Entry) -> AuditEntry {
    AuditEntry {
        seq: entry.seq,
        at: entry.at,
        actor: entry.actor,
        action: entry.action,
        subject: entry.subject,
        details: serde_json::from_str(&entry.details).unwrap_or(Value::String(entry.details)),
        previous_hash: entry.previous_hash,
        hash: entry.hash,
    }
}

/// `GET /api/audit/verify`
pub async fn verify(range: Query<After>) -> Result<Json<Verification>> {
    let after = range.after.unwrap_or(0);
    let Some(mut head) = start(after).await? else {
        return Ok(Json(broken(0, after, "the entry is missing")));
    };
    let text = format!("SELECT {COLUMNS} FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2");
    while head.seq - after < CHECKED_MAX {
        let entries: Vec<Entry> = sql::query_as(&text, params![head.seq, BATCH]).await?;
        if entries.is_empty() {
            return Ok(Json(at_end(&head, after).await?));
        }
        match chain::check(&head, &entries) {
            Ok(end) => head = end,
            Err((seq, reason)) => return Ok(Json(broken(seq - after - 1, seq, reason))),
        }
    }
    let checked = head.seq - after;
    Ok(Json(Verification {
        valid: true,
        checked,
        broken_at: None,
        reason: None,
        next_after: Some(head.seq),
    }))
}

/// The end of what precedes the part to check; none if there is no such entry.
async fn start(after: i64) -> Result<Option<Head>> {
    if after == 0 {
        return Ok(Some(Head {
            seq: 0,
            hash: GENESIS.to_owned(),
        }));
    }
    Ok(sql::query_one_as("SELECT seq, hash FROM audit WHERE seq = $1", params![after]).await?)
}

/// Compares the last entry with the sealed end of the log.
async fn at_end(last: &Head, after: i64) -> Result<Verification> {
    let sealed: Option<Sealed> = sql::query_one_as(
        "SELECT seq, hash, seal FROM audit_head WHERE only_row = 1",
        params![],
    )
    .await?;
    let checked = last.seq - after;
    let Some(sealed) = sealed else {
        return Ok(broken(
            checked,
            last.seq + 1,
            "the end of the log is not sealed",
        ));
    };
    // An entry may have been added since the last one was read.
    if sealed.seq > last.seq && start(last.seq + 1).await?.is_some() {
        return Ok(Verification {
            valid: true,
            checked,
            broken_at: None,
            reason: None,
            next_after: Some(last.seq),
        });
    }
    if sealed.seq != last.seq || sealed.hash != last.hash {
        return Ok(broken(
            checked,
            last.seq + 1,
            "entries at the end are missing",
        ));
    }
    if sealed.seal != seal(last).await? {
        return Ok(broken(
            checked,
            last.seq,
            "the end of the log was rewritten: its seal is not the host's",
        ));
    }
    let text = "SELECT min(seq) FROM audit WHERE action = $1";
    match sql::scalar::<Option<i64>>(text, params![TAMPERED]).await? {
        Some(seq) => Ok(broken(
            checked,
            seq,
            "the log was shortened or rewritten before this entry",
        )),
        None => Ok(Verification {
            valid: true,
            checked,
            broken_at: None,
            reason: None,
            next_after: None,
        }),
    }
}

fn broken(checked: i64, at: i64, reason: &str) -> Verification {
    Verification {
        valid: false,
        checked: checked.max(0),
        broken_at: Some(at),
        reason: Some(reason.to_owned()),
        next_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_record_nothing_that_looks_like_an_entry_of_the_authority() {
        for action in ["queue.job-retried", "service.swap"] {
            assert!(noted(action, &()).is_ok(), "{action}");
        }
        for action in [
            "certificate.revoked",
            "grant.restored",
            "queues",
            "queue.A",
            "queue. x",
            "",
        ] {
            assert!(noted(action, &()).is_err(), "{action}");
        }
    }
}
