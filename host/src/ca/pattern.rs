//! Resource patterns: what a token is good for, and whether a request's path is among it.
//!
//! A pattern is `*` (everything), `<service>/<path>` (`exprsn-herald/api/*`) or a URL (`http://localhost:3014/api/*`),
//! whose authority the host resolves to a service. In a path a `*` that ends the pattern matches any rest, a `*` that is
//! a whole segment matches that one segment; no other `*` is allowed. A pattern without a path covers the whole service.
//!
//! **Invariant:** access is decided on the normal form of a path (RFC 3986 §6.2.2). A path that different readers could
//! take for different resources (dot segments, encoded separators) has no normal form here and is refused.
//!
//! This file uses nothing but std: exprsn-ca compiles the same file for its narrowing check.

use std::{borrow::Cow, fmt};

/// Longest path that access is decided on, in bytes.
pub const PATH_BYTES_MAX: usize = 4_096;
/// Longest resource pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1_024;

/// Why a path has no normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathFault {
    NotAbsolute,
    TooLong,
    DotSegment,
    EncodedSeparator,
    BadEncoding,
    BadCharacter,
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the path does not begin with `/`",
            Self::TooLong => "the path is too long",
            Self::DotSegment => "the path has a `.` or `..` segment",
            Self::EncodedSeparator => {
                "the path has an encoded slash, backslash or control character"
            }
            Self::BadEncoding => "the path has a `%` that two hexadecimal digits do not follow",
            Self::BadCharacter => "the path has a character that a path must percent-encode",
        })
    }
}

impl std::error::Error for PathFault {}

/// A path in normal form: unreserved characters are plain, what must be encoded is encoded with upper-case digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath<'a>(Cow<'a, str>);

impl<'a> NormalPath<'a> {
    /// Normalises the path of a request; a query is cut off. Borrows where the path is normal already.
    pub fn parse(raw: &'a str) -> Result<Self, PathFault> {
        let path = raw.split(['?', '#']).next().unwrap_or_default();
        if path.len() > PATH_BYTES_MAX {
            return Err(PathFault::TooLong);
        }
        if !path.starts_with('/') {
            return Err(PathFault::NotAbsolute);
        }
        if path
            .bytes()
            .any(|byte| !byte.is_ascii_graphic() || byte == b'\\')
        {
            return Err(PathFault::BadCharacter);
        }
        let path = if path.contains('%') {
            Cow::Owned(decode_unreserved(path)?)
        } else {
            Cow::Borrowed(path)
        };
        if path
            .split('/')
            .any(|segment| segment == "." || segment == "..")
        {
            return Err(PathFault::DotSegment);
        }
        Ok(Self(path))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Decodes what need not be encoded, and writes what must be in upper case.
fn decode_unreserved(path: &str) -> Result<String, PathFault> {
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, encoded)) = rest.split_once('%') {
        let digits = encoded
            .get(..2)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .ok_or(PathFault::BadEncoding)?;
        let byte = u8::from_str_radix(digits, 16).map_err(|_| PathFault::BadEncoding)?;
        normal.push_str(plain);
        match byte {
            b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(PathFault::EncodedSeparator),
            b'-' | b'.' | b'_' | b'~' => normal.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => normal.push(char::from(byte)),
            _ => normal.push_str(&format!("%{byte:02X}")),
        }
        rest = &encoded[2..];
    }
    normal.push_str(rest);
    Ok(normal)
}

/// Why a text is no resource pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternFault {
    Empty,
    TooLong,
    BadService,
    BadAuthority,
    BadStar,
    BadPath(PathFault),
    NotNormal,
}

impl fmt::Display for PatternFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the resource is empty"),
            Self::TooLong => write!(f, "the resource is longer than {PATTERN_BYTES_MAX} bytes"),
            Self::BadService => f.write_str(
                "the resource is none of `*`, `<service>/<path>` and `http(s)://host:port/<path>`",
            ),
            Self::BadAuthority => {
                f.write_str("the resource's host and port are not plain `host:port`")
            }
            Self::BadStar => {
                f.write_str("a `*` in a resource must be a whole segment or its last character")
            }
            Self::BadPath(fault) => write!(f, "in the resource, {fault}"),
            Self::NotNormal => f.write_str(
                "the resource's path is not in normal form: write unreserved characters unencoded",
            ),
        }
    }
}

impl std::error::Error for PatternFault {}

/// What a pattern's path is on.
#[derive(Clone, Copy, Debug)]
enum Target<'a> {
    Any,
    Service(&'a str),
    Authority(&'a str),
}

/// A parsed pattern, borrowing its text: parsing allocates nothing, so a principal can keep plain strings.
#[derive(Clone, Copy, Debug)]
pub struct ResourcePattern<'a> {
    target: Target<'a>,
    /// Without its leading slash; a final `*` matches any rest.
    path: &'a str,
}

impl<'a> ResourcePattern<'a> {
    /// Parses a pattern and checks that its path is normal.
    pub fn parse(text: &'a str) -> Result<Self, PatternFault> {
        if text.is_empty() {
            return Err(PatternFault::Empty);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternFault::TooLong);
        }
        if text == "*" {
            return Ok(Self {
                target: Target::Any,
                path: "*",
            });
        }
        let url = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"));
        let whole = url.unwrap_or(text);
        let (name, path) = whole
            .find('/')
            .map_or((whole, "/*"), |at| whole.split_at(at));
        let target = if url.is_some() {
            Target::Authority(authority(name)?)
        } else {
            Target::Service(service(name)?)
        };
        check_path(path)?;
        Ok(Self {
            target,
            path: &path[1..],
        })
    }

    /// Whether a request for `path` of `service` is covered; `resolve` names the service behind a URL's authority.
    pub fn matches<S: AsRef<str>>(
        &self,
        service: &str,
        path: &NormalPath<'_>,
        resolve: impl Fn(&str) -> Option<S>,
    ) -> bool {
        let here = match self.target {
            Target::Any => return true,
            Target::Service(name) => name == service,
            Target::Authority(authority) => {
                resolve(authority).is_some_and(|name| name.as_ref() == service)
            }
        };
        here && covers_path(self.path, &path.as_str()[1..], false)
    }

    /// Whether all that `other` covers is covered by this pattern. When in doubt, no.
    pub fn covers<S: AsRef<str>>(&self, other: &Self, resolve: impl Fn(&str) -> Option<S>) -> bool {
        let same = match (self.target, other.target) {
            (Target::Any, _) => return true,
            (_, Target::Any) => false,
            (Target::Service(mine), Target::Service(theirs)) => mine == theirs,
            (Target::Authority(mine), Target::Authority(theirs)) => {
                mine.eq_ignore_ascii_case(theirs)
                    || matches!((resolve(mine), resolve(theirs)), (Some(a), Some(b)) if a.as_ref() == b.as_ref())
            }
            (Target::Service(name), Target::Authority(authority))
            | (Target::Authority(authority), Target::Service(name)) => {
                resolve(authority).is_some_and(|resolved| resolved.as_ref() == name)
            }
        };
        same && covers_path(self.path, other.path, true)
    }
}

fn service(name: &str) -> Result<&str, PatternFault> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.bytes().all(plain)
        && name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_lowercase())
    {
        Ok(name)
    } else {
        Err(PatternFault::BadService)
    }
}

fn authority(name: &str) -> Result<&str, PatternFault> {
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'[' | b']' | b'_')
    };
    if !name.is_empty() && name.bytes().all(plain) {
        Ok(name)
    } else {
        Err(PatternFault::BadAuthority)
    }
}

fn check_path(path: &str) -> Result<(), PatternFault> {
    let (body, last) = path.rsplit_once('/').unwrap_or(("", path));
    let starred = |segment: &str| segment.contains('*') && segment != "*";
    if body.split('/').any(starred) || last.strip_suffix('*').unwrap_or(last).contains('*') {
        return Err(PatternFault::BadStar);
    }
    let normal = NormalPath::parse(path).map_err(PatternFault::BadPath)?;
    if normal.as_str() == path {
        Ok(())
    } else {
        Err(PatternFault::NotNormal)
    }
}

/// Whether the pattern covers `path`, which is itself a pattern if `starred`. Both without their leading slash.
fn covers_path(pattern: &str, path: &str, starred: bool) -> bool {
    let (mut pattern, mut path) = (Some(pattern), Some(path));
    while let Some(wanted) = pattern {
        let Some(found) = path else { return false };
        let Some((segment, rest)) = wanted.split_once('/') else {
            return covers_last(wanted, found);
        };
        let (given, left) = split(found);
        let open = starred && left.is_none() && given.ends_with('*');
        if open || !(segment == given || segment == "*" && !given.is_empty()) {
            return false;
        }
        (pattern, path) = (Some(rest), left);
    }
    false
}

/// The pattern's last segment against all that is left of the path.
fn covers_last(wanted: &str, found: &str) -> bool {
    match wanted.strip_suffix('*') {
        // `post*` does not cover the one-segment wildcard of `*/x`, of which `post` is no prefix.
        Some(prefix) => found.starts_with(prefix),
        None => wanted == found,
    }
}

fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('/')
        .map_or((path, None), |(head, tail)| (head, Some(tail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(authority: &str) -> Option<&'static str> {
        ["localhost:3014", "127.0.0.1:3014"]
            .contains(&authority)
            .then_some("exprsn-herald")
    }

    fn matches(pattern: &str, path: &str) -> bool {
        let path = NormalPath::parse(path).expect("a normal path");
        ResourcePattern::parse(pattern)
            .expect("a pattern")
            .matches("exprsn-herald", &path, resolve)
    }

    #[test]
    fn patterns_match_what_they_say() {
        for (pattern, path) in [
            ("*", "/"),
            ("exprsn-herald", "/anything/at/all"),
            ("exprsn-herald/*", "/"),
            (
                "exprsn-herald/api/notifications/*",
                "/api/notifications/send",
            ),
            (
                "exprsn-herald/api/notifications/*",
                "/api/notifications/a/b/c",
            ),
            ("exprsn-herald/api/notif*", "/api/notifications/send"),
            ("exprsn-herald/api/*/read", "/api/7/read"),
            ("exprsn-herald/api/x", "/api/x?y=/../z"),
            ("http://localhost:3014/api/*", "/api/x"),
            ("https://127.0.0.1:3014", "/api/x"),
            ("exprsn-herald/api/abc", "/api/%61b%63"),
        ] {
            assert!(matches(pattern, path), "{pattern} should match {path}");
        }
        for (pattern, path) in [
            ("exprsn-timeline/*", "/api/x"),
            ("exprsn-herald/api/notifications/*", "/api/notifications"),
            ("exprsn-herald/api/*/read", "/api/7/8/read"),
            ("exprsn-herald/api/*/read", "/api//read"),
            ("exprsn-herald/api/x", "/api/x/y"),
            ("exprsn-herald/api/x", "/api/x/"),
            ("exprsn-herald/api/*", "//api/x"),
            ("exprsn-herald/api/x", "/API/x"),
            ("http://localhost:3015/api/*", "/api/x"),
            ("http://evil.example/api/*", "/api/x"),
        ] {
            assert!(!matches(pattern, path), "{pattern} should not match {path}");
        }
    }

    #[test]
    fn tricky_paths_have_no_normal_form() {
        for (path, fault) in [
            ("/api/public/../admin", PathFault::DotSegment),
            ("/api/public/%2e%2e/admin", PathFault::DotSegment),
            ("/api/public/.%2E/admin", PathFault::DotSegment),
            ("/api/./x", PathFault::DotSegment),
            ("/api/public%2f..%2fadmin", PathFault::EncodedSeparator),
            ("/api/public%5cadmin", PathFault::EncodedSeparator),
            ("/api/x%00", PathFault::EncodedSeparator),
            ("/api\\admin", PathFault::BadCharacter),
            ("/api/%zz", PathFault::BadEncoding),
            ("/api/%2", PathFault::BadEncoding),
            ("/api/%€", PathFault::BadCharacter),
            ("api", PathFault::NotAbsolute),
            ("", PathFault::NotAbsolute),
        ] {
            assert_eq!(NormalPath::parse(path), Err(fault), "{path}");
        }
        assert_eq!(
            NormalPath::parse(&format!("/{}", "a".repeat(PATH_BYTES_MAX))),
            Err(PathFault::TooLong)
        );
        assert_eq!(
            NormalPath::parse("/a%2bb/%c3%a9").expect("normal").as_str(),
            "/a%2Bb/%C3%A9"
        );
        // Decoded once only: what a second decoding would make of it is not asked.
        assert_eq!(
            NormalPath::parse("/%252e%252e/x").expect("normal").as_str(),
            "/%252e%252e/x"
        );
    }

    #[test]
    fn bad_patterns_are_refused() {
        for (pattern, fault) in [
            ("", PatternFault::Empty),
            ("Exprsn/x", PatternFault::BadService),
            ("/api/*", PatternFault::BadService),
            ("ftp://x/y", PatternFault::BadService),
            ("**", PatternFault::BadService),
            ("http:///x", PatternFault::BadAuthority),
            ("http://user@host/x", PatternFault::BadAuthority),
            ("exprsn-a/x*y/z", PatternFault::BadStar),
            ("exprsn-a/**", PatternFault::BadStar),
            ("exprsn-a/*x", PatternFault::BadStar),
            (
                "exprsn-a/../x",
                PatternFault::BadPath(PathFault::DotSegment),
            ),
            ("exprsn-a/%61", PatternFault::NotNormal),
            ("exprsn-a/x?y", PatternFault::NotNormal),
        ] {
            assert_eq!(
                ResourcePattern::parse(pattern).err(),
                Some(fault),
                "{pattern}"
            );
        }
    }

    #[test]
    fn covering_is_never_wider_than_matching() {
        let covers = |wide: &str, narrow: &str| {
            ResourcePattern::parse(wide)
                .unwrap()
                .covers(&ResourcePattern::parse(narrow).unwrap(), resolve)
        };
        for (wide, narrow) in [
            ("*", "*"),
            ("*", "exprsn-herald/api/*"),
            ("exprsn-herald", "exprsn-herald/api/*"),
            ("exprsn-herald/api/*", "exprsn-herald/api/*/read"),
            ("exprsn-herald/api/*", "exprsn-herald/api/x*"),
            ("exprsn-herald/api/*/read", "exprsn-herald/api/*/read"),
            ("exprsn-herald/api/*/read", "exprsn-herald/api/7/read"),
            ("exprsn-herald/api/x*", "exprsn-herald/api/xy/z"),
            ("exprsn-herald/api/*", "http://localhost:3014/api/x"),
            ("http://localhost:3014/api/*", "exprsn-herald/api/x"),
            ("http://localhost:3014/api/*", "http://127.0.0.1:3014/api/x"),
            ("http://unknown:1/api/*", "http://UNKNOWN:1/api/x"),
        ] {
            assert!(covers(wide, narrow), "{wide} should cover {narrow}");
        }
        for (wide, narrow) in [
            ("exprsn-herald", "*"),
            ("exprsn-herald/api/*", "exprsn-herald/*"),
            ("exprsn-herald/api/x", "exprsn-herald/api/*"),
            ("exprsn-herald/api/*/read", "exprsn-herald/api/*"),
            ("exprsn-herald/api/*/x*", "exprsn-herald/api/y*"),
            ("exprsn-herald/api/x*", "exprsn-herald/api/*/x"),
            ("exprsn-herald/api/7/read", "exprsn-herald/api/*/read"),
            ("exprsn-herald/api/*", "exprsn-timeline/api/*"),
            ("http://unknown:1/*", "http://unknown:2/*"),
            ("exprsn-herald/a/*", "exprsn-herald/a*"),
        ] {
            assert!(!covers(wide, narrow), "{wide} should not cover {narrow}");
        }
    }
}
