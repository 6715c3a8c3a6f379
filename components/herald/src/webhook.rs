//! Standard Webhooks 1.0 (https://www.standardwebhooks.com): secrets, signatures and payloads.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// How a secret begins when shown.
const SECRET_PREFIX: &str = "whsec_";

/// The secret as its owner keeps it: `whsec_` and base64.
pub fn secret_text(key: &[u8]) -> String {
    format!("{SECRET_PREFIX}{}", BASE64_STANDARD.encode(key))
}

/// The value of `webhook-signature`: a `v1` signature for each key, the present one first.
///
/// A receiver accepts any of them, so that a secret can be replaced without losing webhooks.
pub fn signatures(keys: &[Vec<u8>], id: &str, timestamp_s: i64, payload: &str) -> String {
    let signed: Vec<String> = keys
        .iter()
        .map(|key| signature(key, id, timestamp_s, payload))
        .collect();
    signed.join(" ")
}

fn signature(key: &[u8], id: &str, timestamp_s: i64, payload: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{timestamp_s}.").as_bytes());
    mac.update(payload.as_bytes());
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// The body of a webhook: what happened, when, and the particulars.
pub fn payload(kind: &str, at_ms: i64, data: Value) -> String {
    json!({ "type": kind, "timestamp": rfc3339(at_ms), "data": data }).to_string()
}

/// An instant as RFC 3339 in UTC with milliseconds.
fn rfc3339(ms: i64) -> String {
    let (days, in_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (
        in_day / 3_600_000,
        in_day / 60_000 % 60,
        in_day / 1_000 % 60,
    );
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        in_day % 1_000
    )
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn signs_as_the_reference_libraries_do() {
        let key = BASE64_STANDARD
            .decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            .expect("base64");
        let signed = signatures(
            &[key],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn signs_with_each_key() {
        let signed = signatures(&[b"new".to_vec(), b"old".to_vec()], "id", 1, "{}");
        let parts: Vec<&str> = signed.split(' ').collect();
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[1], signature(b"old", "id", 1, "{}"));
    }

    #[test]
    fn shows_secrets_with_their_prefix() {
        assert_eq!(secret_text(b"\0\x01\x02"), "whsec_AAEC");
    }

    #[test]
    fn writes_instants_as_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_392_000_000, "2026-11-23T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn payload_is_type_timestamp_and_data() {
        let payload: Value =
            serde_json::from_str(&payload("like", 0, json!({ "userId": "u" }))).expect("JSON");
        assert_eq!(
            payload,
            json!({ "type": "like", "timestamp": "1970-01-01T00:00:00.000Z", "data": { "userId": "u" } })
        );
    }
}
