//! How names become keys of the bucket, and back.
//!
//! ```text
//! <prefix>/<service>/_containers/<container>     that there is such a container; an empty object
//! <prefix>/<service>/<container>/<encoded name>  an object
//! ```
//!
//! **Invariants**
//! - A key holds nothing but `0-9A-Za-z_~-` and `/`: no server and no proxy changes it on its way, and no name leaves the
//!   prefix of its container.
//! - The keys of a container are in the order of its names' bytes. Names whose spelling exceeds [`SPELT_BYTES_MAX`] end in a
//!   digest; those that begin alike up to there are one group, in its place among the others.
//! - No part between two `/` has more than 255 bytes, which is what MinIO bears, and no key begins another one's folder.

use crate::blob::name::{ObjectName, hex};
use aws_lc_rs::digest::{SHA256, digest};

/// Longest prefix of all keys that an operator may ask for, in bytes.
pub(super) const PREFIX_BYTES_MAX: usize = 128;
/// The folder of what marks containers. No container has its name.
pub(super) const CONTAINERS: &str = "_containers";
/// Longest encoded name that is spelt out; a whole number of parts.
const SPELT_BYTES_MAX: usize = 3 * PART_BYTES;
/// Bytes of an encoded name between two `/`.
const PART_BYTES: usize = 200;
/// Ends a part that another one follows. An escape always has digits here.
const GOES_ON: &str = "-/";
/// Begins the digest of a long name. An escape always has digits here.
const DIGEST_MARK: &str = "~~";

/// What a key says of its object's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named {
    Spelt(ObjectName),
    /// The name is in the object's metadata; the group is what it begins with, encoded.
    Digest {
        group: String,
    },
}

/// The end of an object's key, after its container's prefix.
pub(super) fn of_name(name: &ObjectName) -> String {
    let encoded = encode(name.as_str());
    match encoded.get(..SPELT_BYTES_MAX) {
        Some(group) if encoded.len() > SPELT_BYTES_MAX => format!(
            "{}{GOES_ON}{DIGEST_MARK}{}",
            parts(group),
            hex(digest(&SHA256, name.as_str().as_bytes()))
        ),
        _ => parts(&encoded),
    }
}

/// Whether a name is too long to be spelt by its key.
pub(super) fn is_long(name: &ObjectName) -> bool {
    encode(name.as_str()).len() > SPELT_BYTES_MAX
}

/// What the keys of names that begin with `prefix` begin with; longer prefixes are cut, so others may match.
pub(super) fn of_prefix(prefix: &str) -> String {
    parts(&cut(&encode(prefix)))
}

/// A key that is before those of all names after `name`, with none but the name's own group between.
pub(super) fn before_next(name: &ObjectName) -> String {
    parts(&cut(&encode(name.as_str())))
}

fn cut(encoded: &str) -> String {
    encoded[..encoded.len().min(SPELT_BYTES_MAX)].to_owned()
}

/// What the end of a key says; none where it is no key of ours.
pub(super) fn named(key: &str) -> Option<Named> {
    if let Some((group, digest)) = key.split_once(DIGEST_MARK) {
        let group = group.strip_suffix(GOES_ON)?.replace(GOES_ON, "");
        let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let whole =
            group.len() == SPELT_BYTES_MAX && digest.len() == 64 && digest.bytes().all(digits);
        return whole.then_some(Named::Digest { group });
    }
    let name = decode(&key.replace(GOES_ON, ""))?;
    (of_name(&name) == key).then_some(Named::Spelt(name))
}

/// The character that begins the escape of a byte: it is where the byte would be among those that stand for themselves.
fn escape(byte: u8) -> Option<char> {
    match byte {
        b'0'..=b'9' | b'B'..=b'Z' | b'a'..=b'z' => None,
        ..b'0' => Some('-'),
        b':'..=b'A' => Some('A'),
        b'['..=b'`' => Some('_'),
        _ => Some('~'),
    }
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match escape(byte) {
            None => encoded.push(char::from(byte)),
            Some(begin) => encoded.push_str(&format!("{begin}{byte:02x}")),
        }
    }
    encoded
}

fn decode(encoded: &str) -> Option<ObjectName> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match escape(*first) {
            None => bytes.push(*first),
            Some(_) => {
                let digits = std::str::from_utf8(after.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &after[2..];
            }
        }
    }
    ObjectName::parse(&String::from_utf8(bytes).ok()?, usize::MAX).ok()
}

/// Divides an encoded name, which is ASCII.
fn parts(encoded: &str) -> String {
    let mut divided = String::with_capacity(encoded.len() + 8);
    let mut rest = encoded;
    while rest.len() > PART_BYTES {
        let (part, after) = rest.split_at(PART_BYTES);
        divided.push_str(part);
        divided.push_str(GOES_ON);
        rest = after;
    }
    divided + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::name::CONTAINER_BYTES_MAX;
    use crate::name::SERVICE_NAME_BYTES_MAX;

    fn object(text: &str) -> ObjectName {
        ObjectName::parse(text, 1_024).unwrap()
    }

    fn names() -> Vec<ObjectName> {
        let mut names: Vec<String> = (0..0x250_u32)
            .filter_map(char::from_u32)
            .flat_map(|c| [c.to_string(), format!("a{c}"), format!("{c}/..")])
            .collect();
        for length in [66, 67, 199, 200, 201, 400, 599, 600, 601, 1_023] {
            names.push("a".repeat(length));
            names.push(format!("{}b", "a".repeat(length)));
            names.push("/".repeat(length));
        }
        names.extend(["ä".repeat(512), "\u{1f600}".repeat(256), "..".to_owned()]);
        names.iter().map(|name| object(name)).collect()
    }

    #[test]
    fn every_name_has_a_harmless_key_that_says_it() {
        let around = PREFIX_BYTES_MAX + SERVICE_NAME_BYTES_MAX + CONTAINER_BYTES_MAX + 3;
        for name in names() {
            let key = of_name(&name);
            assert!(key.len() + around <= 1_024, "{}", key.len());
            assert!(
                key.split('/')
                    .all(|part| (1..=255).contains(&part.len()) && !part.contains('.'))
            );
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_~/".contains(&b);
            assert!(key.bytes().all(plain), "{key}");
            match named(&key) {
                Some(Named::Spelt(said)) => assert_eq!((said, is_long(&name)), (name, false)),
                Some(Named::Digest { group }) => {
                    assert!(is_long(&name) && encode(name.as_str()).starts_with(&group));
                }
                None => panic!("{key} says nothing"),
            }
        }
    }

    #[test]
    fn keys_are_in_the_order_of_names() {
        let mut names = names();
        names.sort();
        names.dedup();
        for pair in names.windows(2) {
            let group = |name| match named(&of_name(name)) {
                Some(Named::Digest { group }) => Some(group),
                _ => None,
            };
            let (first, second) = (group(&pair[0]), group(&pair[1]));
            let ordered = of_name(&pair[0]) < of_name(&pair[1]);
            assert!(ordered || (first.is_some() && first == second), "{pair:?}");
            assert!(before_next(&pair[0]) < of_name(&pair[1]));
        }
    }

    #[test]
    fn keys_of_names_begin_with_the_key_of_their_prefix() {
        for name in names() {
            for (at, _) in name.as_str().char_indices() {
                let prefix = of_prefix(&name.as_str()[..at]);
                assert!(of_name(&name).starts_with(&prefix), "{name:?} {at}");
            }
        }
    }

    #[test]
    fn other_keys_say_nothing() {
        let long = "a".repeat(201);
        for key in [
            "", "a/b", "..", "-", "-2", "-zz", "-2F", "a-61", "~~", "~~ab", "é", "_ff", &long,
        ] {
            assert_eq!(named(key), None, "{key}");
        }
    }
}
