//! One-time passwords by time (RFC 6238): SHA-1, six digits, thirty seconds, which every authenticator understands.

use super::secret;
use data_encoding::{BASE32, BASE32_NOPAD};
use hmac::{Hmac, Mac};
use sha1::Sha1;

/// Seconds of one time step (RFC 6238 §5.2 recommends 30).
pub const STEP_S: i64 = 30;
/// Digits of a code.
pub const DIGITS: usize = 6;
/// Bytes of a secret: the length of the hash, as RFC 4226 §4 recommends.
pub const SECRET_BYTES: usize = 20;
/// Steps before and after the present one whose codes are accepted, for clocks that differ (RFC 6238 §5.2).
const DRIFT_STEPS: i64 = 1;
/// Recovery codes given at once.
pub const RECOVERY_CODES: usize = 10;
/// Random bytes of a recovery code: 80 bits, 16 characters of base32.
pub const RECOVERY_BYTES: usize = 10;

/// The code of one time step.
pub fn code(secret: &[u8], step: i64) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(&step.to_be_bytes());
    let hash = mac.finalize().into_bytes();
    let offset = usize::from(hash[19] & 0x0f);
    let word = u32::from_be_bytes([
        hash[offset],
        hash[offset + 1],
        hash[offset + 2],
        hash[offset + 3],
    ]);
    format!("{:06}", (word & 0x7fff_ffff) % 1_000_000)
}

/// The step whose code this is, if it is one that may be accepted at `now_s`.
///
/// Only steps after `last_step` count: a code is accepted once (RFC 6238 §5.2), and neither is an older one after it.
pub fn accepted_step(
    secret: &[u8],
    offered: &str,
    now_s: i64,
    last_step: Option<i64>,
) -> Option<i64> {
    let present = now_s.div_euclid(STEP_S);
    let mut found = None;
    for step in present - DRIFT_STEPS..=present + DRIFT_STEPS {
        let matches = secret::same(&code(secret, step), offered);
        if matches && last_step.is_none_or(|last| step > last) {
            found = Some(step);
        }
    }
    found
}

/// Whether this can be a code: six digits, spaces between them allowed. Answers the digits.
pub fn parse(offered: &str) -> Option<String> {
    let digits: String = offered.chars().filter(|c| !c.is_whitespace()).collect();
    (digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

/// The secret as a person types it: base32 without padding.
pub fn secret_text(secret: &[u8]) -> String {
    BASE32_NOPAD.encode(secret)
}

/// The `otpauth://` URI that authenticators read from a QR code.
pub fn otpauth_uri(issuer: &str, account: &str, secret: &[u8]) -> String {
    let (issuer, account) = (percent(issuer), percent(account));
    format!(
        "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={STEP_S}",
        secret_text(secret)
    )
}

/// A recovery code as it is shown: four groups of four, lower case.
pub fn recovery_code(random: &[u8; RECOVERY_BYTES]) -> String {
    let text = BASE32.encode(random).to_ascii_lowercase();
    format!(
        "{}-{}-{}-{}",
        &text[..4],
        &text[4..8],
        &text[8..12],
        &text[12..]
    )
}

/// What a person typed as a recovery code, made comparable: case, spaces and hyphens do not matter.
pub fn parse_recovery(offered: &str) -> Option<String> {
    let text: String = offered
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .map(|c| c.to_ascii_lowercase())
        .collect();
    let base32 = |b: u8| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b);
    (text.len() == RECOVERY_BYTES * 8 / 5 && text.bytes().all(base32)).then_some(text)
}

fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 6238, appendix B (SHA-1), the last six of its eight digits.
    const KEY: &[u8] = b"12345678901234567890";

    #[test]
    fn agrees_with_the_vectors_of_the_rfc() {
        for (at_s, expected) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code(KEY, at_s / STEP_S), expected, "at {at_s}");
        }
    }

    #[test]
    fn accepts_a_step_of_drift_and_no_more() {
        let now = 1_111_111_111;
        let present = now / STEP_S;
        for (step, accepted) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let found = accepted_step(KEY, &code(KEY, present + step), now, None);
            assert_eq!(found, accepted.then_some(present + step), "{step}");
        }
    }

    #[test]
    fn accepts_a_code_once_and_none_before_it() {
        let now = 1_111_111_111;
        let present = now / STEP_S;
        let code_now = code(KEY, present);
        assert_eq!(accepted_step(KEY, &code_now, now, Some(present)), None);
        assert_eq!(
            accepted_step(KEY, &code(KEY, present - 1), now, Some(present)),
            None
        );
        let next = code(KEY, present + 1);
        assert_eq!(
            accepted_step(KEY, &next, now, Some(present)),
            Some(present + 1)
        );
    }

    #[test]
    fn reads_codes_as_people_type_them() {
        assert_eq!(parse(" 123 456 ").as_deref(), Some("123456"));
        for bad in ["", "12345", "1234567", "12345a", "１２３４５６"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn writes_the_uri_of_authenticators() {
        assert_eq!(
            otpauth_uri("Exprsn & Co", "ann@example.org", KEY),
            "otpauth://totp/Exprsn%20%26%20Co:ann%40example.org?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=Exprsn%20%26%20Co&algorithm=SHA1&digits=6&period=30"
        );
    }

    #[test]
    fn recovery_codes_survive_being_typed() {
        let shown = recovery_code(&[0xa5; RECOVERY_BYTES]);
        assert_eq!(shown.len(), 19);
        let canonical = parse_recovery(&shown);
        assert!(canonical.is_some());
        assert_eq!(
            parse_recovery(&shown.to_uppercase().replace('-', " ")),
            canonical
        );
        assert_eq!(parse_recovery("abcd-efgh"), None);
        assert_eq!(parse_recovery("abcd-efgh-ijkl-mno1"), None);
    }
}
