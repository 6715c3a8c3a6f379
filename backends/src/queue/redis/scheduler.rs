//! BullMQ's job schedulers: whoever begins a scheduler's job adds the next one.
//!
//! Our own recurrences are in the same place, so that BullMQ lists them, but their jobs are added by the clock.

use super::job::Fields;
use crate::queue::schedule::next_due_in;
use serde_json::{Value, json};

/// The next job of a scheduler.
pub(super) struct Next {
    pub scheduler: String,
    pub due_ms: i64,
    /// JSON.
    pub opts: String,
}

/// What follows the job of `fields`, which begins now; none where it is no scheduler's, or its last.
pub(super) fn next(fields: &Fields, now_ms: i64) -> Option<Next> {
    let scheduler = fields.get("rjk")?.clone();
    let mut opts: Value = serde_json::from_str(fields.get("opts")?).ok()?;
    let repeat = &opts["repeat"];
    let count = repeat["count"].as_i64().unwrap_or(1) + 1;
    let is_over = repeat["limit"].as_i64().is_some_and(|limit| count > limit)
        || repeat["endDate"].as_i64().is_some_and(|end| now_ms > end);
    if is_over {
        return None;
    }
    let before_ms = opts["prevMillis"].as_i64().unwrap_or(now_ms);
    let due_ms = match repeat["every"].as_i64() {
        Some(every_ms) => following(
            before_ms,
            every_ms.max(1),
            repeat["offset"].as_i64(),
            now_ms,
        ),
        None => {
            let zone = repeat["tz"].as_str();
            next_due_in(repeat["pattern"].as_str()?, zone, before_ms.max(now_ms))?
        }
    };
    opts["repeat"]["count"] = json!(count);
    opts["prevMillis"] = json!(due_ms);
    opts["delay"] = json!((due_ms - now_ms).max(0));
    opts["timestamp"] = json!(now_ms);
    opts["jobId"] = json!(format!("repeat:{scheduler}:{due_ms}"));
    Some(Next {
        scheduler,
        due_ms,
        opts: opts.to_string(),
    })
}

/// The instant after `before_ms`, or where that was missed the next of its grid.
fn following(before_ms: i64, every_ms: i64, offset_ms: Option<i64>, now_ms: i64) -> i64 {
    let next = before_ms + every_ms;
    if next >= now_ms {
        return next;
    }
    let aligned = now_ms.div_euclid(every_ms) * every_ms + offset_ms.unwrap_or_default();
    if aligned > now_ms {
        aligned
    } else {
        aligned + every_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_that_was_missed_goes_on_in_its_grid() {
        assert_eq!(following(1_000, 500, None, 1_100), 1_500);
        assert_eq!(following(1_000, 500, None, 9_100), 9_500);
        assert_eq!(following(1_200, 500, Some(200), 9_100), 9_200);
        assert_eq!(following(1_200, 500, Some(200), 9_300), 9_700);
    }

    #[test]
    fn a_schedulers_last_job_has_no_next() {
        let fields = |repeat: Value| {
            let opts = json!({ "repeat": repeat, "prevMillis": 1_000 }).to_string();
            Fields::from([
                ("rjk".to_owned(), "s".to_owned()),
                ("opts".to_owned(), opts),
            ])
        };
        let due = |repeat| next(&fields(repeat), 1_000).map(|next| next.due_ms);
        assert_eq!(due(json!({ "every": 500, "count": 1 })), Some(1_500));
        assert_eq!(due(json!({ "every": 500, "count": 3, "limit": 3 })), None);
        assert_eq!(due(json!({ "every": 500, "endDate": 999 })), None);
        assert_eq!(
            due(json!({ "pattern": "* * * * *", "tz": "UTC" })),
            Some(60_000)
        );
        // Noon in Vienna.
        let noon = json!({ "pattern": "0 12 * * *", "tz": "Europe/Vienna" });
        assert_eq!(due(noon), Some(11 * 3_600_000));
        assert!(next(&Fields::new(), 0).is_none());
    }
}
