//! How long to wait after failed attempts to prove who one is.
//!
//! An attempt is counted before the password is looked at, so that many at once cannot outrun the counter; a success
//! gives the count back. The same schedule answers for accounts that do not exist.

use std::net::IpAddr;

/// The waiting that follows failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Failures that cost no waiting; the next one does.
    pub failures_free: u32,
    /// The first waiting; it doubles with each further failure.
    pub wait_first_ms: i64,
    /// The longest waiting, so that nobody can lock another out for ever.
    pub wait_max_ms: i64,
    /// Failures are forgotten this long after the last one.
    pub forget_after_ms: i64,
}

impl Schedule {
    /// Milliseconds during which no further attempt is let through after the `failures`-th.
    pub fn wait_ms(&self, failures: u32) -> i64 {
        let Some(beyond) = failures.checked_sub(self.failures_free.saturating_add(1)) else {
            return 0;
        };
        1_i64
            .checked_shl(beyond)
            .filter(|factor| *factor > 0)
            .and_then(|factor| self.wait_first_ms.checked_mul(factor))
            .map_or(self.wait_max_ms, |wait| wait.min(self.wait_max_ms))
    }
}

/// Whole seconds of a `Retry-After` that is not too early.
pub fn retry_after_s(wait_ms: i64) -> u64 {
    u64::try_from(wait_ms.max(0)).map_or(1, |ms| ms.div_ceil(1000).max(1))
}

/// What failures from `address` are counted under: the address, or for IPv6 its /64, which one person commands whole.
pub fn address_key(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(v4)) => v4.to_string(),
        Ok(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.to_string(),
            None => {
                let s = v6.segments();
                format!("{:x}:{:x}:{:x}:{:x}::/64", s[0], s[1], s[2], s[3])
            }
        },
        Err(_) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        failures_free: 5,
        wait_first_ms: 2_000,
        wait_max_ms: 900_000,
        forget_after_ms: 86_400_000,
    };

    #[test]
    fn doubles_from_the_first_waiting_up_to_the_longest() {
        let waits: Vec<i64> = (0..=9).map(|n| SCHEDULE.wait_ms(n)).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 2_000, 4_000, 8_000, 16_000]);
        assert_eq!(SCHEDULE.wait_ms(15), 900_000);
        assert_eq!(SCHEDULE.wait_ms(69), 900_000);
        assert_eq!(SCHEDULE.wait_ms(u32::MAX), 900_000);
    }

    #[test]
    fn rounds_the_retry_up() {
        assert_eq!(retry_after_s(-5), 1);
        assert_eq!(retry_after_s(1), 1);
        assert_eq!(retry_after_s(1_000), 1);
        assert_eq!(retry_after_s(1_001), 2);
    }

    #[test]
    fn keys_addresses_by_what_one_person_commands() {
        assert_eq!(address_key("192.0.2.7"), "192.0.2.7");
        assert_eq!(address_key("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(
            address_key("2001:db8:1:2:3:4:5:6"),
            address_key("2001:db8:1:2:ffff::1")
        );
        assert_ne!(
            address_key("2001:db8:1:2::1"),
            address_key("2001:db8:1:3::1")
        );
        assert_eq!(address_key("nonsense"), "unknown");
    }
}
