//! Bearer secrets: refresh tokens, authorization codes, client secrets, cookies.
//!
//! **Invariant:** a secret is 256 random bits and is stored as its SHA-256 only; that many bits need no slow hash.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Bytes of randomness in every bearer secret.
pub const SECRET_BYTES: usize = 32;

/// The text of a secret as it is given away: base64url without padding, 43 characters.
pub fn encode(random: &[u8; SECRET_BYTES]) -> String {
    BASE64URL_NOPAD.encode(random)
}

/// What is stored of a secret: its SHA-256, lower-case hex.
pub fn digest(secret: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(secret.as_bytes()))
}

/// Whether two texts are the same, in a time that depends on their lengths only.
pub fn same(left: &str, right: &str) -> bool {
    left.as_bytes().ct_eq(right.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_and_digests() {
        assert_eq!(encode(&[0; 32]).len(), 43);
        assert_eq!(
            digest("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn compares_whole_texts() {
        assert!(same("abc", "abc"));
        assert!(!same("abc", "abd"));
        assert!(!same("abc", "abcd"));
        assert!(same("", ""));
    }
}
