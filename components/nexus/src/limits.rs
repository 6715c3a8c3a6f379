//! Rate limits: token buckets per principal and per address, and the fields that tell a client about them
//! (draft-ietf-httpapi-ratelimit-headers-10).

/// A bucket's size and refill.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The name in `RateLimit-Policy`.
    pub name: &'static str,
    /// Requests added each second.
    pub per_second: f64,
    /// Requests that may come at once.
    pub burst: u64,
}

/// What a bucket said when it was asked for a request's worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub allowed: bool,
    /// Requests left.
    pub remaining: u64,
    /// Milliseconds until a request will be let through; 0 when allowed.
    pub retry_after_ms: u64,
    /// Milliseconds until the bucket is full.
    pub reset_ms: u64,
}

impl Policy {
    /// The policy with a rate and a burst from the configuration; nonsense becomes the smallest sensible value.
    pub fn new(name: &'static str, per_second: f64, burst: u64) -> Self {
        let per_second = if per_second.is_finite() {
            per_second.max(0.001)
        } else {
            1.0
        };
        Self {
            name,
            per_second,
            burst: burst.max(1),
        }
    }

    /// The item of `RateLimit-Policy`: quota and the window in which it comes back.
    pub fn item(&self) -> String {
        format!("\"{}\";q={};w={}", self.name, self.burst, self.window_s())
    }

    /// The item of `RateLimit`: what is left, and when all of it will be there again.
    pub fn reading_item(&self, reading: Reading) -> String {
        format!(
            "\"{}\";r={};t={}",
            self.name,
            reading.remaining,
            reading.reset_ms.div_ceil(1_000)
        )
    }

    /// Seconds in which an empty bucket fills.
    fn window_s(&self) -> u64 {
        let seconds = (self.burst as f64 / self.per_second).ceil();
        // Bounded by the check above: burst/0.001 may be large but is finite and positive.
        (seconds as u64).max(1)
    }
}

/// The readings of all buckets that a request was counted in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    readings: Vec<(Policy, Reading)>,
}

impl Usage {
    /// Notes the answer of one bucket.
    pub fn note(&mut self, policy: &Policy, reading: Reading) {
        self.readings.push((policy.clone(), reading));
    }

    /// Whether every bucket let the request through.
    pub fn allowed(&self) -> bool {
        self.readings.iter().all(|(_, reading)| reading.allowed)
    }

    /// Seconds to wait, never too few, never none.
    pub fn retry_after_s(&self) -> u64 {
        let longest = self
            .readings
            .iter()
            .map(|(_, reading)| reading.retry_after_ms)
            .max();
        longest.unwrap_or_default().div_ceil(1_000).max(1)
    }

    /// Names of the policies that refused the request.
    pub fn violated(&self) -> Vec<&'static str> {
        let refused = self.readings.iter().filter(|(_, reading)| !reading.allowed);
        refused.map(|(policy, _)| policy.name).collect()
    }

    /// `RateLimit-Policy` and `RateLimit`; nothing where no bucket was asked.
    pub fn fields(&self) -> Option<(String, String)> {
        if self.readings.is_empty() {
            return None;
        }
        let join = |items: Vec<String>| items.join(", ");
        let policies = self
            .readings
            .iter()
            .map(|(policy, _)| policy.item())
            .collect();
        let readings = self
            .readings
            .iter()
            .map(|(policy, reading)| policy.reading_item(*reading));
        Some((join(policies), join(readings.collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Reading = Reading {
        allowed: true,
        remaining: 99,
        retry_after_ms: 0,
        reset_ms: 20,
    };

    #[test]
    fn tells_policies_and_what_is_left() {
        let mut usage = Usage::default();
        assert_eq!(usage.fields(), None);
        usage.note(
            &Policy::new("address", 2_000.0, 4_000),
            Reading {
                remaining: 3_999,
                ..ALLOWED
            },
        );
        usage.note(&Policy::new("principal", 50.0, 100), ALLOWED);
        let (policies, left) = usage.fields().unwrap();
        assert_eq!(policies, r#""address";q=4000;w=2, "principal";q=100;w=2"#);
        assert_eq!(left, r#""address";r=3999;t=1, "principal";r=99;t=1"#);
        assert!(usage.allowed());
    }

    #[test]
    fn names_the_policy_that_refuses_and_the_longest_wait() {
        let mut usage = Usage::default();
        usage.note(&Policy::new("address", 1.0, 1), ALLOWED);
        let refused = Reading {
            allowed: false,
            remaining: 0,
            retry_after_ms: 1_001,
            reset_ms: 9_000,
        };
        usage.note(&Policy::new("principal", 1.0, 1), refused);
        assert!(!usage.allowed());
        assert_eq!(
            (usage.retry_after_s(), usage.violated()),
            (2, vec!["principal"])
        );
    }

    #[test]
    fn nonsense_configuration_does_not_break_arithmetic() {
        for rate in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            assert!(
                Policy::new("address", rate, 0)
                    .item()
                    .starts_with("\"address\";q=1;w="),
                "{rate}"
            );
        }
    }
}
