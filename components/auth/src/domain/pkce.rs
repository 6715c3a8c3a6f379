//! Proof Key for Code Exchange (RFC 7636), method `S256` only, as OAuth 2.1 asks of every client.

use super::secret;
use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};

/// Fewest and most characters of a `code_verifier` (RFC 7636 §4.1).
const VERIFIER_CHARS: std::ops::RangeInclusive<usize> = 43..=128;
/// Characters of an `S256` challenge: 32 bytes in base64url.
const CHALLENGE_CHARS: usize = 43;

/// Whether `challenge` can be an `S256` challenge at all.
pub fn is_challenge(challenge: &str) -> bool {
    challenge.len() == CHALLENGE_CHARS && BASE64URL_NOPAD.decode(challenge.as_bytes()).is_ok()
}

/// Whether `verifier` is well formed and is what `challenge` was made from.
pub fn proves(verifier: &str, challenge: &str) -> bool {
    let unreserved = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c);
    VERIFIER_CHARS.contains(&verifier.len())
        && verifier.bytes().all(unreserved)
        && secret::same(
            &BASE64URL_NOPAD.encode(&Sha256::digest(verifier.as_bytes())),
            challenge,
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn accepts_the_example_of_the_rfc() {
        assert!(is_challenge(CHALLENGE));
        assert!(proves(VERIFIER, CHALLENGE));
    }

    #[test]
    fn refuses_another_short_long_or_strange_verifier() {
        assert!(!proves(&VERIFIER.replace('d', "e"), CHALLENGE));
        assert!(!proves(&VERIFIER[..42], CHALLENGE));
        assert!(!proves(&"a".repeat(129), CHALLENGE));
        assert!(!proves(&VERIFIER.replace('-', "+"), CHALLENGE));
    }

    #[test]
    fn refuses_what_cannot_be_a_challenge() {
        assert!(!is_challenge(""));
        assert!(!is_challenge(&CHALLENGE[..42]));
        assert!(!is_challenge(&CHALLENGE.replace('-', "+")));
    }
}
