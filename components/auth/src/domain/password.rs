//! Which passwords are good enough, after NIST SP 800-63B: long, not guessable, no rules about kinds of characters.

use unicode_normalization::UnicodeNormalization;

/// Most characters of a password. NIST asks for 64 at least; without a limit, hashing megabytes would be an attack.
pub const CHARS_MAX: usize = 256;
/// Fewest characters that the operator may ask for (NIST SP 800-63B-4 §3.1.1.2).
pub const CHARS_MIN_FLOOR: usize = 8;
/// Fewest characters that must remain when what is easy to guess has been counted small; see [`effort`].
const EFFORT_MIN: usize = 8;

/// Parts that guessing programs try first. Each counts as one character, in any case and with the usual substitutions.
const COMMON: [&str; 62] = [
    "123456",
    "111111",
    "abc123",
    "abcdef",
    "admin",
    "amazing",
    "asdf",
    "asdfgh",
    "autumn",
    "baseball",
    "batman",
    "changeme",
    "charlie",
    "computer",
    "daniel",
    "default",
    "donald",
    "dragon",
    "exprsn",
    "football",
    "freedom",
    "guest",
    "hello",
    "hunter",
    "iloveyou",
    "internet",
    "jesus",
    "jordan",
    "killer",
    "letmein",
    "liverpool",
    "login",
    "love",
    "master",
    "michael",
    "monkey",
    "mustang",
    "ninja",
    "passw0rd",
    "password",
    "pokemon",
    "princess",
    "qazwsx",
    "qwer",
    "qwerty",
    "qwertyuiop",
    "robert",
    "root",
    "secret",
    "shadow",
    "spring",
    "summer",
    "sunshine",
    "superman",
    "test",
    "trustno1",
    "welcome",
    "whatever",
    "winter",
    "yxcvbn",
    "zxcvbn",
    "zaq1",
];

/// What a password is compared and hashed as: Unicode NFKC, so that every keyboard types the same one.
pub fn normalize(password: &str) -> String {
    password.nfkc().collect()
}

/// Checks a normalised password against the policy. `own` are words tied to the account: its name, its address.
pub fn check(password: &str, own: &[&str], chars_min: usize) -> Result<(), String> {
    let chars = password.chars().count();
    if chars < chars_min.max(CHARS_MIN_FLOOR) {
        Err(format!(
            "must have at least {} characters",
            chars_min.max(CHARS_MIN_FLOOR)
        ))
    } else if chars > CHARS_MAX {
        Err(format!("must have at most {CHARS_MAX} characters"))
    } else if effort(password, own) < EFFORT_MIN {
        Err("is too easy to guess: use several unrelated words, or a password manager".to_owned())
    } else {
        Ok(())
    }
}

/// How many characters' worth of guessing a password is, roughly.
///
/// A common word, or a word of the account, counts as one character; so does a run such as `aaaa`, `1234` or `fedc`, and a
/// repetition of what went before. Everything else counts as it is.
fn effort(password: &str, own: &[&str]) -> usize {
    let text: Vec<char> = password
        .chars()
        .flat_map(char::to_lowercase)
        .map(plain)
        .collect();
    let words = guessable(own);
    let (mut at, mut effort) = (0, 0);
    while at < text.len() {
        let word = words
            .iter()
            .filter(|w| text[at..].starts_with(w))
            .map(Vec::len)
            .max();
        let skip = word
            .unwrap_or(0)
            .max(run(&text[at..]))
            .max(repetition(&text, at))
            .max(1);
        at += skip;
        effort += 1;
    }
    effort
}

/// The words to look for, as characters, substitutions undone.
fn guessable(own: &[&str]) -> Vec<Vec<char>> {
    let parts = own
        .iter()
        .flat_map(|w| w.split(|c: char| !c.is_alphanumeric()))
        .filter(|w| w.chars().count() >= 4);
    COMMON
        .iter()
        .copied()
        .chain(own.iter().copied().filter(|w| w.chars().count() >= 3))
        .chain(parts)
        .map(|word| {
            word.chars()
                .flat_map(char::to_lowercase)
                .map(plain)
                .collect()
        })
        .collect()
}

/// Undoes the substitution that everybody makes.
fn plain(c: char) -> char {
    match c {
        '@' => 'a',
        '$' => 's',
        '0' => 'o',
        '3' => 'e',
        '!' => 'i',
        c => c,
    }
}

/// The length of the run that begins here, such as `aaaa`, `4567` or `dcba`, when it is three or more.
fn run(text: &[char]) -> usize {
    let order = |c: char| match c {
        // The digits as `plain` leaves them.
        'o' => u32::from('0'),
        'e' => u32::from('3'),
        c => u32::from(c),
    };
    let longest = |step: i64, order: &dyn Fn(char) -> u32| {
        1 + text
            .windows(2)
            .take_while(|pair| i64::from(order(pair[1])) - i64::from(order(pair[0])) == step)
            .count()
    };
    let letters = &|c: char| u32::from(c);
    [-1, 0, 1]
        .into_iter()
        .flat_map(|step| [longest(step, letters), longest(step, &order)])
        .max()
        .filter(|length| *length >= 3)
        .unwrap_or(0)
}

/// How much of what follows repeats what went directly before it, when three characters or more.
fn repetition(text: &[char], at: usize) -> usize {
    (3..=at)
        .filter(|period| text[at..].starts_with(&text[at - period..at]))
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_all(passwords: &[&str], good: bool) {
        for password in passwords {
            let verdict = check(
                &normalize(password),
                &["ann.lee", "annabel@example.org"],
                12,
            );
            assert_eq!(
                verdict.is_ok(),
                good,
                "{password}: {verdict:?}, effort {}",
                effort(password, &[])
            );
        }
    }

    #[test]
    fn accepts_what_is_hard_to_guess() {
        check_all(
            &[
                "correct horse battery staple",
                "tr0ub4dor&3-xkcd-936",
                "x7Qp-92kd-LmZ0",
                "Schöne Grüße aus Wien",
                "hebben wij vandaag pap?",
                "密码是很长的一句话没有人知道",
            ],
            true,
        );
    }

    #[test]
    fn refuses_what_guessing_programs_try_first() {
        check_all(
            &[
                "password1234",
                "P@ssw0rd1234!",
                "aaaaaaaaaaaaaaaa",
                "123456789012345",
                "098765432109",
                "abcdefghijklmnop",
                "qwertyuiop1234",
                "letmeinletmein",
                "abcxyzabcxyzabcxyz",
                "ann.lee.2026!",
                "annabel@example.org",
                "exprsnexprsn1",
                "summerwinter1",
            ],
            false,
        );
    }

    #[test]
    fn counts_characters_not_bytes() {
        assert!(
            check("密码是很长的一句话没有", &[], 12).is_err(),
            "eleven characters"
        );
        assert!(check(&"ab9 ".repeat(100), &[], 12).is_err_and(|e| e.contains("at most")));
        assert!(check("short", &[], 1).is_err_and(|e| e.contains("at least 8")));
    }

    #[test]
    fn one_password_however_it_is_typed() {
        assert_eq!(normalize("Gru\u{308}\u{df}e"), normalize("Gr\u{fc}\u{df}e"));
        assert_eq!(normalize("\u{ff41}"), "a");
    }
}
