//! Cron expressions: when the next occurrence is due, in UTC.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use std::str::FromStr as _;

/// Checks a cron expression of five fields, or six with seconds first, or a nickname such as `@daily`.
pub fn check(cron: &str) -> Result<(), String> {
    match Cron::from_str(cron) {
        Ok(_) if next_due(cron, 0).is_none() => {
            Err(format!("cron expression `{cron}` is never due"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("cron expression `{cron}`: {error}")),
    }
}

/// When `cron` is due next, strictly after `after_ms`, both in milliseconds since the Unix epoch; none where it never is.
pub fn next_due(cron: &str, after_ms: i64) -> Option<i64> {
    next_due_in(cron, None, after_ms)
}

/// The same by the clocks of `zone`, a name such as `Europe/Vienna`; UTC where it is absent, none where it is unknown.
pub(super) fn next_due_in(cron: &str, zone: Option<&str>, after_ms: i64) -> Option<i64> {
    let zone = Tz::from_str(zone.unwrap_or("UTC")).ok()?;
    // Occurrences are whole seconds; croner would carry the fraction along.
    let after =
        DateTime::<Utc>::from_timestamp(after_ms.div_euclid(1_000), 0)?.with_timezone(&zone);
    let cron = Cron::from_str(cron).ok()?;
    cron.find_next_occurrence(&after, false)
        .ok()
        .map(|due| due.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: i64 = 60_000;

    #[test]
    fn occurrences_are_strictly_later() {
        assert_eq!(next_due("*/5 * * * *", 0), Some(5 * MINUTE_MS));
        assert_eq!(next_due("*/5 * * * *", 5 * MINUTE_MS), Some(10 * MINUTE_MS));
        assert_eq!(
            next_due("*/5 * * * *", 5 * MINUTE_MS - 1),
            Some(5 * MINUTE_MS)
        );
        assert_eq!(next_due("*/10 * * * * *", 1), Some(10_000));
        // 1970-02-01T00:00:00Z.
        assert_eq!(next_due("0 0 1 * *", 0), Some(31 * 24 * 60 * MINUTE_MS));
    }

    #[test]
    fn errors_name_the_expression() {
        assert_eq!(check("@daily"), Ok(()));
        assert!(check("61 * * * *").unwrap_err().contains("`61 * * * *`"));
        assert!(check("0 0 30 2 *").unwrap_err().contains("never due"));
    }
}
