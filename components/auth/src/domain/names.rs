//! What people may call themselves: user names, email addresses, display names.

/// Fewest and most characters of a user name.
pub const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 3..=32;
/// Most characters of an email address (RFC 5321 §4.5.3.1.3, less the angle brackets).
pub const EMAIL_CHARS_MAX: usize = 254;
/// Most characters of the part before the `@` (RFC 5321 §4.5.3.1.1).
const EMAIL_LOCAL_CHARS_MAX: usize = 64;
/// Most characters of a label in a domain name (RFC 1035 §2.3.4).
const LABEL_CHARS_MAX: usize = 63;
/// Names that others could take for the platform itself, or that paths use.
const RESERVED: [&str; 14] = [
    "admin",
    "administrator",
    "anonymous",
    "api",
    "exprsn",
    "help",
    "me",
    "moderator",
    "oauth",
    "operator",
    "root",
    "security",
    "support",
    "system",
];

/// Checks a user name: letters and digits, with single `.`, `_` or `-` between them.
pub fn check_username(name: &str) -> Result<(), &'static str> {
    let mark = |b: u8| b"._-".contains(&b);
    let bytes = name.as_bytes();
    if !USERNAME_CHARS.contains(&bytes.len()) {
        Err("must have 3 to 32 characters")
    } else if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || mark(*b)) {
        Err("may have letters a–z, digits, and . _ - only")
    } else if mark(bytes[0]) || mark(bytes[bytes.len() - 1]) {
        Err("must begin and end with a letter or a digit")
    } else if bytes.windows(2).any(|pair| mark(pair[0]) && mark(pair[1])) {
        Err("may not have two of . _ - in a row")
    } else if RESERVED.contains(&key(name).as_str()) {
        Err("is reserved")
    } else {
        Ok(())
    }
}

/// Checks an email address as far as its form goes; only a message sent there would tell more.
pub fn check_email(email: &str) -> Result<(), &'static str> {
    const BAD: &str = "must be an email address";
    if email.len() > EMAIL_CHARS_MAX {
        return Err("must have at most 254 characters");
    }
    let (local, domain) = email.rsplit_once('@').ok_or(BAD)?;
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    let local_ok = (1..=EMAIL_LOCAL_CHARS_MAX).contains(&local.len())
        && local.bytes().all(atom)
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..");
    let domain_ok = domain.contains('.') && domain.split('.').all(is_label);
    if local_ok && domain_ok {
        Ok(())
    } else {
        Err(BAD)
    }
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_CHARS_MAX).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Checks text that is shown to others: no control characters, no marks that turn the direction of reading.
pub fn check_shown(text: &str) -> Result<(), &'static str> {
    let bidi = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text
        .chars()
        .any(|c| (c.is_control() && c != '\n') || bidi(c))
    {
        Err("may not have control characters")
    } else {
        Ok(())
    }
}

/// Checks the name of a role: a word of small letters.
pub fn check_role(role: &str) -> Result<(), &'static str> {
    let good = (1..=32).contains(&role.len())
        && role
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && role.as_bytes()[0].is_ascii_lowercase();
    if good {
        Ok(())
    } else {
        Err("must be a word of small letters, digits and hyphens, at most 32")
    }
}

/// What names are compared by: two that differ in case only are one.
pub fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_ordinary_user_names() {
        for name in ["ann", "Ann.Lee", "a_b-c.d", "007", &"x".repeat(32)] {
            assert_eq!(check_username(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn refuses_user_names_that_mislead_or_break_things() {
        for name in [
            "",
            "ab",
            "x y z",
            "ann!",
            "-ann",
            "ann.",
            "a..b",
            "a._b",
            "Admin",
            "ME",
            "änn",
            "a@b",
            "a/b",
            "' OR 1=1 --",
            &"x".repeat(33),
        ] {
            assert!(check_username(name).is_err(), "{name}");
        }
    }

    #[test]
    fn knows_the_form_of_email_addresses() {
        for good in [
            "ann@example.org",
            "a.b+c@x-y.example.co",
            "o'brien@example.ie",
        ] {
            assert_eq!(check_email(good), Ok(()), "{good}");
        }
        let long = format!("{}@example.org", "a".repeat(65));
        for bad in [
            "",
            "ann",
            "@example.org",
            "ann@",
            "ann@localhost",
            ".a@example.org",
            "a..b@example.org",
            "a b@example.org",
            "a@-x.org",
            "a@x..org",
            "a@b@c d.org",
            "ann@example.org\r\nBcc: x@y.z",
            &long,
        ] {
            assert!(check_email(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shown_text_has_no_tricks() {
        assert_eq!(check_shown("Ann Łee 李\nsecond line"), Ok(()));
        assert!(check_shown("a\u{0}b").is_err());
        assert!(check_shown("a\u{202e}b").is_err());
    }

    #[test]
    fn roles_are_words() {
        assert_eq!(check_role("admin"), Ok(()));
        for bad in ["", "Admin", "1a", "a b", &"a".repeat(33)] {
            assert!(check_role(bad).is_err(), "{bad}");
        }
    }
}
