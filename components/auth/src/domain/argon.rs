//! Password hashes: Argon2id (RFC 9106), kept as PHC strings so that the parameters travel with the hash.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, Salt, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

/// Bytes of salt: RFC 9106 §3.1 recommends 16.
pub const SALT_BYTES: usize = 16;

/// The cost of a hash. OWASP's first choice is 19 MiB, two passes, one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl Cost {
    /// OWASP's recommendation (Password Storage Cheat Sheet), which fits an instance's memory.
    pub const OWASP: Self = Self {
        memory_kib: 19_456,
        passes: 2,
        lanes: 1,
    };

    fn hasher(self) -> Result<Argon2<'static>, String> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, None)
            .map_err(|e| e.to_string())?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

/// Hashes `password` into a PHC string. Fails only for a cost that Argon2 does not know.
pub fn hash(password: &str, salt: &[u8; SALT_BYTES], cost: Cost) -> Result<String, String> {
    let salt = SaltString::encode_b64(salt).map_err(|e| e.to_string())?;
    let hash = cost
        .hasher()?
        .hash_password(password.as_bytes(), Salt::from(&salt));
    hash.map(|h| h.to_string()).map_err(|e| e.to_string())
}

/// What looking at a password found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// Right, but hashed at another cost than today's: hash it anew while it is at hand.
    RightButOutdated,
    Wrong,
}

/// Compares `password` with a stored hash; with none, spends the same work and answers [`Verdict::Wrong`].
///
/// So an unknown account costs what a known one does, and time does not tell them apart.
pub fn verify(password: &str, stored: Option<&str>, cost: Cost) -> Verdict {
    let Some(parsed) = stored.and_then(|text| PasswordHash::new(text).ok()) else {
        spend(password, cost);
        return Verdict::Wrong;
    };
    if Argon2::default()
        .verify_password(password.as_bytes(), &parsed)
        .is_err()
    {
        return Verdict::Wrong;
    }
    match Params::try_from(&parsed) {
        Ok(p)
            if (p.m_cost(), p.t_cost(), p.p_cost())
                == (cost.memory_kib, cost.passes, cost.lanes) =>
        {
            Verdict::Right
        }
        _ => Verdict::RightButOutdated,
    }
}

/// Does the work of a hash for its time alone.
fn spend(password: &str, cost: Cost) {
    let done = hash(password, &[0; SALT_BYTES], cost);
    std::hint::black_box(done).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Cost = Cost {
        memory_kib: 64,
        passes: 1,
        lanes: 1,
    };

    #[test]
    fn tells_right_from_wrong() {
        let stored = hash("correct horse", &[7; SALT_BYTES], SMALL).expect("a known cost");
        assert!(
            stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"),
            "{stored}"
        );
        assert_eq!(
            verify("correct horse", Some(&stored), SMALL),
            Verdict::Right
        );
        assert_eq!(
            verify("correct house", Some(&stored), SMALL),
            Verdict::Wrong
        );
    }

    #[test]
    fn notices_an_outdated_cost() {
        let stored = hash("correct horse", &[7; SALT_BYTES], SMALL).expect("a known cost");
        let dearer = Cost { passes: 2, ..SMALL };
        assert_eq!(
            verify("correct horse", Some(&stored), dearer),
            Verdict::RightButOutdated
        );
    }

    #[test]
    fn nothing_stored_or_nonsense_stored_is_wrong() {
        assert_eq!(verify("x", None, SMALL), Verdict::Wrong);
        assert_eq!(verify("x", Some("not a hash"), SMALL), Verdict::Wrong);
    }

    #[test]
    fn refuses_a_cost_that_argon2_does_not_know() {
        assert!(hash("x", &[0; SALT_BYTES], Cost { passes: 0, ..SMALL }).is_err());
    }

    /// The reference implementation's answer for the same input (argon2 CLI: `-id -t 2 -k 65536 -p 1 -l 32`).
    #[test]
    fn agrees_with_the_reference_implementation() {
        let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let cost = Cost {
            memory_kib: 65_536,
            passes: 2,
            lanes: 1,
        };
        assert_eq!(verify("password", Some(stored), cost), Verdict::Right);
    }
}
