//! What administrators do here, in exprsn-ca's audit log. The host tells exprsn-ca for whom this service asks.

use exprsn_sdk::prelude::*;
use serde_json::Value;

const LOG: &str = "http://exprsn-ca/api/audit";

/// Records what is about to be done; without that it must not be done.
pub async fn note(action: &str, subject: &str, details: Value) -> Result<()> {
    let entry = json!({ "action": action, "subject": subject, "details": details });
    let answer = http::post(LOG).json(&entry).send().await?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(Problem::unavailable(1).detail(format!(
            "nothing was done, as the audit log could not be written: exprsn-ca answered {status}"
        ))),
    }
}

/// Records what is about to be done anyway: the platform keeps a history of versions itself, and exprsn-ca may be the
/// service that a rollback is to save.
pub async fn try_note(action: &str, subject: &str, details: Value) {
    if let Err(problem) = note(action, subject, details).await {
        log::error!(
            "a change of versions is not in the audit log",
            action = action,
            subject = subject,
            error = problem
        );
    }
}
