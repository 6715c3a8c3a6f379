//! What a grant names outside: `scheme://host:port`.

use super::{
    address::Reach,
    destination::{Destination, Host, Scheme},
};
use std::fmt;

/// An egress pattern, `scheme://host:port`, in which host may begin with `*.` or be `*`, and port may be `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressPattern {
    pub scheme: Scheme,
    host: HostPattern,
    /// None is any port.
    port: Option<u16>,
}

/// Which hosts a pattern covers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    /// Any name; no address.
    Any,
    /// Names below this one, which begins with a dot.
    Below(String),
    /// This host alone.
    One(Host),
}

impl EgressPattern {
    /// Parses a pattern; the error says what it should look like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "egress pattern `{text}` {what}; it should look like https://api.example.com, https://*.example.com:8443, https://* or tcp://mail.example.com:25"
            )
        };
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| wrong("has no scheme"))?;
        let scheme = Scheme::parse(scheme)
            .ok_or_else(|| wrong("has a scheme other than http, https, tcp and tls"))?;
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (rest, ""),
        };
        let port = match port {
            "*" => None,
            "" if rest.ends_with(':') => return Err(wrong("has no port after its colon")),
            "" => Some(scheme.default_port().ok_or_else(|| wrong("has no port"))?),
            digits => Some(
                digits
                    .parse()
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or_else(|| wrong("has no port from 1 to 65535"))?,
            ),
        };
        let host =
            HostPattern::parse(host).map_err(|error| wrong(&format!("is wrong: {error}")))?;
        Ok(Self { scheme, host, port })
    }

    /// How far the pattern lets a connection to `destination` lead; none if it does not cover it.
    pub fn reach(&self, destination: &Destination) -> Option<Reach> {
        if self.scheme != destination.scheme
            || self.port.is_some_and(|port| port != destination.port)
        {
            return None;
        }
        match (&self.host, &destination.host) {
            (HostPattern::One(host), other) => (host == other).then_some(Reach::Named),
            (HostPattern::Any, Host::Name(_)) => Some(Reach::Public),
            (HostPattern::Below(suffix), Host::Name(name)) => {
                name.ends_with(suffix.as_str()).then_some(Reach::Public)
            }
            (_, Host::Address(_)) => None,
        }
    }

    /// Whether every destination that `other` covers is covered by this pattern: a narrower grant. An operator who narrows
    /// `*` to one name has spelled that name out, and lets it lead inside.
    pub fn includes(&self, other: &Self) -> bool {
        let host = match (&self.host, &other.host) {
            (HostPattern::Any, HostPattern::One(Host::Address(_))) => false,
            (HostPattern::Any, _) => true,
            (HostPattern::Below(suffix), HostPattern::Below(other)) => {
                other.ends_with(suffix.as_str())
            }
            (HostPattern::Below(suffix), HostPattern::One(Host::Name(name))) => {
                name.ends_with(suffix.as_str())
            }
            (own, other) => own == other,
        };
        self.scheme == other.scheme && host && self.port.is_none_or(|port| other.port == Some(port))
    }

    /// Whether withholding this pattern withholds `destination`: here `*` is also every address.
    pub fn withholds(&self, destination: &Destination) -> bool {
        let any_address = self.host == HostPattern::Any
            && self.scheme == destination.scheme
            && self.port.is_none_or(|port| port == destination.port);
        any_address || self.reach(destination).is_some()
    }
}

impl HostPattern {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        match text.strip_prefix("*.") {
            Some(domain) => match Host::parse(domain)? {
                Host::Name(name) => Ok(Self::Below(format!(".{name}"))),
                Host::Address(address) => Err(format!("there is no name below {address}")),
            },
            None => Host::parse(text).map(Self::One),
        }
    }
}

impl fmt::Display for EgressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        match &self.host {
            HostPattern::Any => f.write_str("*")?,
            HostPattern::Below(suffix) => write!(f, "*{suffix}")?,
            HostPattern::One(host) => host.fmt(f)?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":*"),
        }
    }
}

/// Parses the patterns of a grant, whose schemes must be among those of its capability. The error names pattern and remedy.
pub fn parse_all(patterns: &[String], http: bool) -> Result<Vec<EgressPattern>, String> {
    let parse = |text: &String| {
        let pattern = EgressPattern::parse(text)?;
        match (pattern.scheme.is_http(), http) {
            (true, false) => Err(format!(
                "`{text}` is HTTP; write it into [grants.http] egress"
            )),
            (false, true) => Err(format!(
                "`{text}` is no HTTP; write it into [grants.sockets] connect"
            )),
            _ => Ok(pattern),
        }
    };
    patterns.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> EgressPattern {
        EgressPattern::parse(text).unwrap()
    }

    fn reach(text: &str, uri: &str) -> Option<Reach> {
        pattern(text).reach(&Destination::of_uri(&uri.parse().unwrap()).unwrap())
    }

    #[test]
    fn patterns_cover_what_they_say() {
        let (public, named) = (Some(Reach::Public), Some(Reach::Named));
        for (text, uri, expected) in [
            ("https://*", "https://example.com/a", public),
            ("https://*", "http://example.com/a", None),
            ("https://*", "https://example.com:8443/a", None),
            ("https://*:*", "https://example.com:8443/a", public),
            ("http://127.0.0.1:*", "http://127.0.0.1:9/a", named),
            ("http://[::1]", "http://[::1]/", named),
            ("http://[::ffff:127.0.0.1]:80", "http://127.0.0.1/", named),
            ("https://*.example.com", "https://a.EXAMPLE.com/", public),
            ("https://*.example.com", "https://example.com/", None),
            ("https://*.example.com", "https://badexample.com/", None),
            (
                "https://*.example.com",
                "https://example.com.evil.org/",
                None,
            ),
            (
                "https://api.example.com",
                "https://API.example.com./",
                named,
            ),
            (
                "https://api.example.com",
                "https://api.example.com.evil/",
                None,
            ),
            (
                "tls://smtp.example.com:465",
                "tls://smtp.example.com:465",
                named,
            ),
            (
                "tcp://smtp.example.com:465",
                "tls://smtp.example.com:465",
                None,
            ),
        ] {
            assert_eq!(reach(text, uri), expected, "{text} {uri}");
        }
    }

    #[test]
    fn a_wildcard_covers_no_address() {
        for uri in [
            "http://127.0.0.1/",
            "http://8.8.8.8/",
            "http://[::1]/",
            "http://[2606::1]/",
        ] {
            assert_eq!(reach("http://*:*", uri), None, "{uri}");
        }
    }

    #[test]
    fn nonsense_is_told() {
        for text in [
            "example.com",
            "ftp://example.com",
            "https://",
            "https://example.com/path",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:x",
            "https://*example.com",
            "https://a.*.com",
            "https://*.1.2.3.4",
            "https://0x7f.1",
            "https://user@example.com",
            "tcp://example.com",
            "tls://*",
        ] {
            let error = EgressPattern::parse(text).expect_err(text);
            assert!(
                error.contains(text) && error.contains("should look like"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_narrower_pattern_is_included() {
        for (wide, narrow, expected) in [
            ("https://*:*", "https://*", true),
            ("https://*", "https://*.example.com", true),
            ("https://*.example.com", "https://*.a.example.com", true),
            ("https://*.a.example.com", "https://*.example.com", false),
            ("https://*", "https://*:*", false),
            ("https://*", "http://*:443", false),
            ("https://a.b:*", "https://a.b", true),
            ("https://*", "https://a.b", true),
            ("https://*", "https://10.0.0.1", false),
            ("https://*.b", "https://a.b", true),
            ("https://*.b", "https://a.c", false),
            ("https://a.b", "https://*", false),
        ] {
            assert_eq!(
                pattern(wide).includes(&pattern(narrow)),
                expected,
                "{wide} {narrow}"
            );
        }
    }

    #[test]
    fn withholding_all_withholds_addresses_too() {
        let destination = Destination::new(Scheme::Http, "10.0.0.1", 80).unwrap();
        assert!(pattern("http://*").withholds(&destination));
        assert!(!pattern("http://*:81").withholds(&destination));
        assert!(!pattern("https://*:*").withholds(&destination));
    }

    #[test]
    fn a_pattern_is_written_as_it_is_read() {
        for text in ["https://*:443", "https://*.a.b:*", "tcp://[::1]:25"] {
            assert_eq!(pattern(text).to_string(), text);
        }
    }

    #[test]
    fn a_grants_schemes_are_its_capabilitys() {
        let texts = |text: &str| vec![text.to_owned()];
        assert!(parse_all(&texts("https://*"), true).is_ok());
        assert!(parse_all(&texts("tcp://a:1"), false).is_ok());
        let error = parse_all(&texts("tcp://a:1"), true).unwrap_err();
        assert!(error.contains("[grants.sockets] connect"), "{error}");
        let error = parse_all(&texts("http://a"), false).unwrap_err();
        assert!(error.contains("[grants.http] egress"), "{error}");
    }
}
