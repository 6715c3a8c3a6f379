//! Names of containers and objects, how an object's name becomes a file's, and where a page of a list ended.
//!
//! **Invariant:** no file name is longer than 255 bytes, is `.` or `..`, or holds a `/`, a NUL or an upper-case letter,
//! and two objects of one container never share one: whatever a name says, it stays a name.

use super::backend::{Error, Result};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::fmt;

/// Longest name of a container, in bytes.
pub const CONTAINER_BYTES_MAX: usize = 63;
/// Longest name of a file that spells the object's; those of longer names are digests.
const SPELT_BYTES_MAX: usize = 240;
/// Begins the file name that is a digest. No spelt one has it.
const DIGEST_MARK: char = '~';

/// A container's name: lower-case letters, digits and inner hyphens. Fit to be a folder or a part of a bucket's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerName(Box<str>);

impl ContainerName {
    /// Parses a name; the error says what it must be.
    pub fn parse(text: &str) -> Result<Self> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let whole = (1..=CONTAINER_BYTES_MAX).contains(&text.len())
            && text.bytes().all(plain)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if whole {
            return Ok(Self(text.into()));
        }
        Err(Error::Invalid(format!(
            "a container's name is 1 to {CONTAINER_BYTES_MAX} lower-case letters, digits and inner hyphens"
        )))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object's name: any text of at least one byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Box<str>);

impl ObjectName {
    /// Checks that the name has 1 to `bytes_max` bytes.
    pub fn parse(text: &str, bytes_max: usize) -> Result<Self> {
        match text.len() {
            0 => Err(Error::Invalid(
                "an object's name has at least 1 byte".to_owned(),
            )),
            bytes if bytes > bytes_max => Err(Error::LimitExceeded(format!(
                "the object's name has {bytes} bytes, and name_bytes_max is {bytes_max}"
            ))),
            _ => Ok(Self(text.into())),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its file in the container's folder.
    pub fn file_name(&self) -> String {
        let mut spelt = String::with_capacity(self.0.len());
        for byte in self.0.bytes() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => spelt.push(char::from(byte)),
                other => spelt.push_str(&format!("%{other:02x}")),
            }
            if spelt.len() > SPELT_BYTES_MAX {
                return format!("{DIGEST_MARK}{}", hex(digest(&SHA256, self.0.as_bytes())));
            }
        }
        spelt
    }

    /// The name that a file's name spells; none where it is a digest or not one of ours.
    pub fn spelt(file_name: &str) -> Option<Self> {
        let mut bytes = Vec::with_capacity(file_name.len());
        let mut rest = file_name.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            if *first == b'%' {
                let digits = after
                    .get(..2)
                    .filter(|d| d.iter().all(u8::is_ascii_hexdigit));
                let digits = std::str::from_utf8(digits?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &after[2..];
            } else {
                bytes.push(*first);
            }
        }
        let name = Self(String::from_utf8(bytes).ok()?.into());
        (!name.0.is_empty() && name.file_name() == file_name).then_some(name)
    }

    /// Whether a file's name could be a digest; the file says of which name.
    pub fn is_digest(file_name: &str) -> bool {
        file_name.starts_with(DIGEST_MARK)
    }

    /// The cursor of the page that follows this object.
    pub fn cursor(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0.as_bytes())
    }

    /// The object that a cursor follows; the error says that it is no cursor of ours.
    pub fn of_cursor(cursor: &str, bytes_max: usize) -> Result<Self> {
        // Longer than any cursor is not decoded.
        let name = (cursor.len() / 2 <= bytes_max)
            .then(|| URL_SAFE_NO_PAD.decode(cursor).ok())
            .flatten()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        name.and_then(|name| Self::parse(&name, bytes_max).ok())
            .ok_or_else(|| Error::Invalid("the cursor is none of this list".to_owned()))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bytes in lower-case hexadecimal.
pub(super) fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn object(text: &str) -> ObjectName {
        ObjectName::parse(text, 1_024).expect(text)
    }

    #[test]
    fn hostile_names_become_harmless_files() {
        let long = "ä".repeat(512);
        let names = [
            "a",
            "A",
            "a/b",
            "../a",
            "..",
            ".",
            "/etc/passwd",
            "a\0b",
            "\0",
            "%2e%2e",
            "~",
            "a%",
            "a%2",
            "a%zz",
            "CON",
            "x ",
            "x.",
            "\u{e9}",
            "e\u{301}",
            "\u{1f600}",
            "\\..\\a",
            "_partial",
            "-",
            &long,
            &long[2..],
            &"a".repeat(240),
            &"a".repeat(241),
        ];
        let files: HashSet<String> = names.iter().map(|name| object(name).file_name()).collect();
        assert_eq!(files.len(), names.len(), "each has a file of its own");
        for name in names {
            let file = object(name).file_name();
            assert!(file.len() <= 255, "{file}");
            assert!(!file.contains(['/', '\0', '.', '\\']), "{file}");
            assert_eq!(file, file.to_ascii_lowercase());
            assert!(file.is_ascii());
            match ObjectName::spelt(&file) {
                Some(spelt) => assert_eq!(spelt, object(name)),
                None => assert!(ObjectName::is_digest(&file), "{file}"),
            }
        }
    }

    #[test]
    fn files_that_are_not_ours_spell_nothing() {
        for file in [
            "", "A", "%2E", "%61", "a.b", "%", "%2", "%zz", "%ff", "%€", "~ab", "a b",
        ] {
            assert_eq!(ObjectName::spelt(file), None, "{file}");
        }
    }

    #[test]
    fn names_are_bounded() {
        for good in ["a", "0", "a-1", &"a".repeat(63)] {
            assert_eq!(ContainerName::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "A",
            "-a",
            "a-",
            "_partial",
            "a.b",
            "ä",
            "a\0",
            &"a".repeat(64),
        ] {
            assert!(
                matches!(ContainerName::parse(bad), Err(Error::Invalid(_))),
                "{bad}"
            );
        }
        assert!(matches!(ObjectName::parse("", 9), Err(Error::Invalid(_))));
        assert!(matches!(
            ObjectName::parse("0123456789", 9),
            Err(Error::LimitExceeded(text)) if text.contains("name_bytes_max is 9")
        ));
    }

    #[test]
    fn a_cursor_comes_back_as_its_name() {
        for name in ["a", "a/b/ä\0", &"x".repeat(1_024)] {
            let cursor = object(name).cursor();
            assert_eq!(ObjectName::of_cursor(&cursor, 1_024).unwrap(), object(name));
        }
        let longer = URL_SAFE_NO_PAD.encode("x".repeat(1_025));
        for cursor in ["", "%", "a b", "_w", &longer, &"A".repeat(100_000)] {
            let refused = ObjectName::of_cursor(cursor, 1_024);
            assert!(
                matches!(refused, Err(Error::Invalid(_))),
                "{}",
                cursor.len()
            );
        }
    }
}
