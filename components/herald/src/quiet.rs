//! Quiet hours: when a user is not to be disturbed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const MINUTE_MS: i64 = 60_000;
const DAY_MINUTES: i64 = 24 * 60;

/// A part of the day in a user's time zone, as a fixed offset from UTC. From start to before end; past midnight where end is the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuietHours {
    /// Minutes east of UTC: 60 for Central European Time.
    pub utc_offset_minutes: i64,
    /// Minutes after local midnight, 0 to 1439.
    pub start_minute: i64,
    /// Minutes after local midnight, 0 to 1439. Equal to the start: never quiet.
    pub end_minute: i64,
}

impl QuietHours {
    /// When the quiet hours end that `now_ms` lies in; none when it lies in none.
    pub fn until(&self, now_ms: i64) -> Option<i64> {
        let local_minutes = now_ms.div_euclid(MINUTE_MS) + self.utc_offset_minutes;
        let minute = local_minutes.rem_euclid(DAY_MINUTES);
        let length = (self.end_minute - self.start_minute).rem_euclid(DAY_MINUTES);
        let passed = (minute - self.start_minute).rem_euclid(DAY_MINUTES);
        (passed < length).then(|| (now_ms.div_euclid(MINUTE_MS) + length - passed) * MINUTE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 in UTC at this hour and minute.
    fn at(hour: i64, minute: i64) -> i64 {
        1_795_392_000_000 + (hour * 60 + minute) * MINUTE_MS
    }

    fn hours(utc_offset_minutes: i64, start: i64, end: i64) -> QuietHours {
        QuietHours {
            utc_offset_minutes,
            start_minute: start,
            end_minute: end,
        }
    }

    #[test]
    fn ends_the_same_day() {
        let quiet = hours(0, 13 * 60, 14 * 60);
        assert_eq!(quiet.until(at(12, 59)), None);
        assert_eq!(quiet.until(at(13, 0)), Some(at(14, 0)));
        assert_eq!(quiet.until(at(13, 59) + 59_999), Some(at(14, 0)));
        assert_eq!(quiet.until(at(14, 0)), None);
    }

    #[test]
    fn spans_midnight_in_the_users_zone() {
        let night = hours(60, 22 * 60, 7 * 60);
        assert_eq!(night.until(at(20, 59)), None);
        assert_eq!(night.until(at(21, 0)), Some(at(30, 0)));
        assert_eq!(night.until(at(3, 0)), Some(at(6, 0)));
        assert_eq!(night.until(at(6, 0)), None);
    }

    #[test]
    fn equal_start_and_end_is_never() {
        assert_eq!(hours(0, 480, 480).until(at(8, 0)), None);
    }
}
