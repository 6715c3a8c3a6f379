//! Where a gateway path leads: `/timeline/api/posts?limit=2` is `/api/posts?limit=2` of exprsn-timeline.
//!
//! **Invariant:** what is forwarded is the very text that was checked; nothing is decoded and encoded again on the way.

use std::fmt;

/// Longest path with query that is forwarded, in bytes.
pub const PATH_BYTES_MAX: usize = 8_192;
/// Longest name of a service in a path, in bytes: the host's limit without the prefix `exprsn-`.
const SERVICE_BYTES_MAX: usize = 41;
/// The gateway itself, which does not forward to itself.
const SELF: &str = "nexus";

/// A service and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name in the gateway's path: `timeline`.
    pub short: String,
    /// Path and query at the service, beginning with `/`.
    pub path_and_query: String,
}

/// Why a path leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not a path of the form `/<service>/…`.
    NotAbsolute,
    TooLong,
    /// A character that a path must percent-encode, or a broken percent-encoding.
    BadCharacter,
    /// `.` or `..` as a segment, or an encoded `/` or `\`: different readers would take it for different resources.
    Ambiguous,
    /// The first segment cannot be a service's name.
    NoService,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAbsolute => f.write_str("a path must have the form `/<service>/<path>`"),
            Self::TooLong => write!(f, "a path must not be longer than {PATH_BYTES_MAX} bytes"),
            Self::BadCharacter => {
                f.write_str("a path must percent-encode (RFC 3986) what is not allowed in it")
            }
            Self::Ambiguous => f.write_str(
                "a path must not have `.` or `..` segments, nor an encoded slash or backslash",
            ),
            Self::NoService => f.write_str("the path's first segment is no name of a service"),
        }
    }
}

impl Target {
    /// Splits a gateway path with its query. The service may still be unknown.
    pub fn parse(path_and_query: &str) -> Result<Self, Fault> {
        let rest = path_and_query.strip_prefix('/').ok_or(Fault::NotAbsolute)?;
        if path_and_query.len() > PATH_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        check_characters(path_and_query)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (short, rest) = rest.split_at(end);
        if !is_service(short) {
            return Err(Fault::NoService);
        }
        let path_and_query = match rest.strip_prefix('/') {
            Some(_) => rest.to_owned(),
            None => format!("/{rest}"),
        };
        check_segments(&path_and_query)?;
        Ok(Self {
            short: short.to_owned(),
            path_and_query,
        })
    }

    /// The service's full name, which is also the authority of calls to it.
    pub fn service(&self) -> String {
        format!("exprsn-{}", self.short)
    }
}

fn is_service(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let shaped = name.bytes().all(plain) && !name.starts_with('-') && !name.ends_with('-');
    !name.is_empty() && name.len() <= SERVICE_BYTES_MAX && shaped && name != SELF
}

/// RFC 3986's characters of a path and a query; `%` only before two hexadecimal digits.
fn check_characters(text: &str) -> Result<(), Fault> {
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let good = match byte {
            b'%' => {
                let digits = bytes.get(at + 1..at + 3);
                digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            }
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#' => false,
            byte => byte.is_ascii_graphic(),
        };
        if !good {
            return Err(Fault::BadCharacter);
        }
    }
    Ok(())
}

fn check_segments(path_and_query: &str) -> Result<(), Fault> {
    let path = path_and_query
        .split('?')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let dots = |segment: &str| matches!(segment.replace("%2e", ".").as_str(), "." | "..");
    if path.contains("%2f") || path.contains("%5c") || path.split('/').any(dots) {
        return Err(Fault::Ambiguous);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, short: &str, rest: &str) {
        let expected = Target {
            short: short.to_owned(),
            path_and_query: rest.to_owned(),
        };
        assert_eq!(Target::parse(path), Ok(expected), "{path}");
    }

    #[test]
    fn splits_service_and_path() {
        check(
            "/timeline/api/posts?limit=2",
            "timeline",
            "/api/posts?limit=2",
        );
        check("/timeline", "timeline", "/");
        check("/timeline/", "timeline", "/");
        check("/timeline?x=/../y", "timeline", "/?x=/../y");
        check("/auth/a%20b/%C3%A9", "auth", "/a%20b/%C3%A9");
        check("/ca//double", "ca", "//double");
        check("/auth/...", "auth", "/...");
        assert_eq!(Target::parse("/ca/").unwrap().service(), "exprsn-ca");
    }

    #[test]
    fn refuses_what_readers_could_take_differently() {
        for path in [
            "/ca/..",
            "/ca/./x",
            "/ca/%2e%2E/x",
            "/ca/.%2e",
            "/ca/a%2fb",
            "/ca/a%5Cb",
        ] {
            assert_eq!(Target::parse(path), Err(Fault::Ambiguous), "{path}");
        }
        for path in [
            "/ca/a b",
            "/ca/%",
            "/ca/%4",
            "/ca/%zz",
            "/ca/é",
            "/ca/\\x",
            "/ca/#x",
            "/ca/\r\nX: y",
        ] {
            assert_eq!(Target::parse(path), Err(Fault::BadCharacter), "{path}");
        }
    }

    #[test]
    fn refuses_what_is_no_service() {
        for path in [
            "/",
            "//api",
            "/Timeline/x",
            "/-a",
            "/a-/x",
            "/nexus/api/compose",
            "/a_b",
        ] {
            assert_eq!(Target::parse(path), Err(Fault::NoService), "{path}");
        }
        assert_eq!(Target::parse("timeline/x"), Err(Fault::NotAbsolute));
        assert_eq!(Target::parse(""), Err(Fault::NotAbsolute));
        assert_eq!(
            Target::parse(&format!("/ca/{}", "a".repeat(PATH_BYTES_MAX))),
            Err(Fault::TooLong)
        );
    }
}
