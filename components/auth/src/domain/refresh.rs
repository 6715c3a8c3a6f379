//! Refresh token rotation (OAuth 2.1 §4.3.1): every token is good once, and a second use ends its family.
//!
//! A family is the chain of refresh tokens that began with one sign-in or one authorization: the rows of a grant.

/// What is stored about a refresh token and the grant that it belongs to. Instants in milliseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Presented {
    /// When it was exchanged for its successor.
    pub used_at: Option<i64>,
    pub expires_at: i64,
    /// When the grant was revoked, by whatever means.
    pub grant_revoked_at: Option<i64>,
    pub grant_expires_at: i64,
    /// The client it was issued to.
    pub client_id: String,
}

/// What to do about a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Exchange it for a new pair.
    Rotate,
    /// It was exchanged before: somebody has a copy. Revoke the whole family.
    RevokeFamily,
    /// It is over, or another client's; say no more than that.
    Refuse,
}

/// Decides about a token that `client_id` presents at `now`.
///
/// Another client's token is refused without harm to its owner, and a token of a family that is already over causes nothing
/// further.
pub fn decide(token: &Presented, client_id: &str, now: i64) -> Decision {
    if token.client_id != client_id || token.grant_revoked_at.is_some() {
        Decision::Refuse
    } else if token.used_at.is_some() {
        Decision::RevokeFamily
    } else if token.expires_at <= now || token.grant_expires_at <= now {
        Decision::Refuse
    } else {
        Decision::Rotate
    }
}

/// When a refresh token made at `now` ends: after `idle_ms` unused, and never after its grant.
pub fn expires_at(now: i64, idle_ms: i64, grant_expires_at: i64) -> i64 {
    now.saturating_add(idle_ms).min(grant_expires_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Presented {
        Presented {
            used_at: None,
            expires_at: 1_000,
            grant_revoked_at: None,
            grant_expires_at: 5_000,
            client_id: "app".into(),
        }
    }

    fn check(change: impl FnOnce(&mut Presented), client: &str, now: i64, expected: Decision) {
        let mut token = token();
        change(&mut token);
        assert_eq!(decide(&token, client, now), expected, "{token:?}");
    }

    #[test]
    fn rotates_a_fresh_token() {
        check(|_| {}, "app", 999, Decision::Rotate);
    }

    #[test]
    fn refuses_an_expired_token_or_grant() {
        check(|_| {}, "app", 1_000, Decision::Refuse);
        check(|t| t.grant_expires_at = 500, "app", 500, Decision::Refuse);
    }

    #[test]
    fn a_second_use_ends_the_family_even_when_expired() {
        check(|t| t.used_at = Some(10), "app", 20, Decision::RevokeFamily);
        check(
            |t| t.used_at = Some(10),
            "app",
            2_000,
            Decision::RevokeFamily,
        );
    }

    #[test]
    fn what_is_revoked_stays_quietly_revoked() {
        check(
            |t| {
                t.used_at = Some(10);
                t.grant_revoked_at = Some(11);
            },
            "app",
            20,
            Decision::Refuse,
        );
    }

    #[test]
    fn another_client_can_neither_use_nor_end_it() {
        check(|_| {}, "other", 20, Decision::Refuse);
        check(|t| t.used_at = Some(10), "other", 20, Decision::Refuse);
    }

    #[test]
    fn never_outlives_its_grant() {
        assert_eq!(expires_at(100, 50, 1_000), 150);
        assert_eq!(expires_at(100, 5_000, 1_000), 1_000);
        assert_eq!(expires_at(i64::MAX - 1, 5_000, 1_000), 1_000);
    }
}
