//! Spans of time as queries name them, in whole hours.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// An hour in milliseconds.
pub const HOUR_MS: i64 = 3_600_000;
/// Longest span, in hours: statistics by the hour of posts and users are kept for as long.
pub const HOURS_MAX: i64 = 90 * 24;

/// A window that ends now: `1h` to `2160h`, or `1d` to `90d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    hours: i64,
}

impl Window {
    /// A day.
    pub const DAY: Window = Window { hours: 24 };

    /// The first hour of the window: it and the present one are counted whole.
    pub fn first_hour(self, now_ms: i64) -> i64 {
        hour_of(now_ms) - (self.hours - 1) * HOUR_MS
    }
}

/// The hour that an instant lies in.
pub fn hour_of(ms: i64) -> i64 {
    ms.div_euclid(HOUR_MS) * HOUR_MS
}

impl TryFrom<String> for Window {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WRONG: &str = "must be 1h to 2160h or 1d to 90d";
        let (number, hours_each) = match (text.strip_suffix('h'), text.strip_suffix('d')) {
            (Some(number), _) => (number, 1),
            (_, Some(number)) => (number, 24),
            _ => return Err(WRONG),
        };
        let digits =
            (1..=4).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
        let number: i64 = if digits {
            number.parse().map_err(|_| WRONG)?
        } else {
            return Err(WRONG);
        };
        let hours = number * hours_each;
        if (1..=HOURS_MAX).contains(&hours) {
            Ok(Window { hours })
        } else {
            Err(WRONG)
        }
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        match window.hours {
            hours if hours % 24 == 0 => format!("{}d", hours / 24),
            hours => format!("{hours}h"),
        }
    }
}

impl JsonSchema for Window {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Window")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]{1,4}[hd]$", "examples": ["24h", "7d"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Result<Window, &'static str> {
        Window::try_from(text.to_owned())
    }

    #[test]
    fn takes_hours_and_days_up_to_90_days() {
        assert_eq!(window("24h"), Ok(Window::DAY));
        assert_eq!(window("1d"), Ok(Window::DAY));
        assert_eq!(window("90d"), window("2160h"));
        for bad in [
            "", "h", "0h", "2161h", "91d", "-1h", "+1h", "1.5h", "1w", "99999h", "1 h", "١h",
        ] {
            assert!(window(bad).is_err(), "{bad} passed");
        }
    }

    #[test]
    fn ends_with_the_present_hour() {
        let now = 100 * HOUR_MS + 1;
        assert_eq!(
            window("1h").expect("an hour").first_hour(now),
            100 * HOUR_MS
        );
        assert_eq!(Window::DAY.first_hour(now), 77 * HOUR_MS);
        assert_eq!(hour_of(-1), -HOUR_MS);
    }
}
