//! Where a connection is to lead, in the one spelling that grants are compared with and that is connected to.

use http::{Uri, uri::Authority};
use std::{fmt, net::IpAddr, sync::Arc};

/// Longest name of a host, in bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;
/// Longest part of a name between dots, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// What is spoken over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
    Tcp,
    Tls,
}

impl Scheme {
    /// The scheme called `text`, in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Http, Self::Https, Self::Tcp, Self::Tls]
            .into_iter()
            .find(|scheme| scheme.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// The port where none is written; TCP has none.
    pub fn default_port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https => Some(443),
            Self::Tcp | Self::Tls => None,
        }
    }

    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    pub fn is_secure(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
}

/// A host by name (lower case, no dot at its end) or by address (never an IPv4 address in IPv6 clothes).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    Name(Arc<str>),
    Address(IpAddr),
}

impl Host {
    /// Parses a host as in a URI, brackets around IPv6 or not.
    ///
    /// What some parsers take for an address and others for a name (`127.1`, `0x7f.1`, `2130706433`, `[fe80::1%eth0]`) is
    /// refused; upper case, one dot at the end and mapped IPv4 addresses are brought into the one spelling.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bracketed = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if bracketed.is_some() || text.contains(':') {
            let address: Result<std::net::Ipv6Addr, _> = bracketed.unwrap_or(text).parse();
            let address = address.map_err(|_| format!("`{text}` is no IPv6 address"))?;
            return Ok(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if is_number(name.rsplit('.').next().unwrap_or_default()) {
            let address: Result<std::net::Ipv4Addr, _> = name.parse();
            let address = address.map_err(|_| {
                format!("`{text}` is no IPv4 address; write four decimal numbers, as 192.0.2.1")
            })?;
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        if name.len() > NAME_BYTES_MAX || !name.split('.').all(is_label) {
            return Err(format!("`{text}` is no name of a host"));
        }
        Ok(Self::Name(name.into()))
    }
}

/// Whether parsers of URLs take a name that ends in this label for an IPv4 address.
fn is_number(label: &str) -> bool {
    match label.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

fn is_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(allowed)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A place to connect to. Written as `scheme://host:port`, the port always there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    pub scheme: Scheme,
    pub host: Host,
    pub port: u16,
}

impl Destination {
    /// A destination as a guest names it. The error says what is wrong with it.
    pub fn new(scheme: Scheme, host: &str, port: u16) -> Result<Self, String> {
        if port == 0 {
            return Err("0 is no port to connect to".to_owned());
        }
        Ok(Self {
            scheme,
            host: Host::parse(host)?,
            port,
        })
    }

    /// The destination of a request. A user name in the authority is refused: its reader takes it for the host.
    pub fn of_uri(uri: &Uri) -> Result<Self, String> {
        let scheme = uri.scheme_str().unwrap_or("http");
        let scheme = Scheme::parse(&scheme.to_ascii_lowercase())
            .ok_or_else(|| format!("`{scheme}` is no scheme that is spoken"))?;
        let authority = uri.authority().ok_or("the request names no host")?;
        if authority.as_str().contains('@') {
            return Err(format!("`{authority}` names a user"));
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => scheme.default_port(),
            // What is written and is no number from 0 to 65535 is no port, and not the usual one either.
            _ => authority.port_u16(),
        };
        let port = port.ok_or_else(|| format!("`{authority}` names no port"))?;
        Self::new(scheme, authority.host(), port)
    }

    /// `host:port`, without the port where it is the scheme's own: the `Host` of a request.
    pub fn authority(&self) -> Authority {
        let text = if self.scheme.default_port() == Some(self.port) {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        };
        Authority::try_from(text).expect("a parsed host is an authority")
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str) -> Result<String, String> {
        let uri: Uri = uri.parse().map_err(|error| format!("{error}"))?;
        Destination::of_uri(&uri).map(|destination| destination.to_string())
    }

    #[test]
    fn one_place_has_one_spelling() {
        for (written, normal) in [
            ("http://Example.COM/a", "http://example.com:80"),
            ("HTTPS://example.com", "https://example.com:443"),
            ("https://example.com.:8443/", "https://example.com:8443"),
            ("http://127.0.0.1./", "http://127.0.0.1:80"),
            ("http://[::1]:9/", "http://[::1]:9"),
            ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]:80"),
            ("http://[::FFFF:127.0.0.1]/", "http://127.0.0.1:80"),
            ("http://[::ffff:7f00:1]/", "http://127.0.0.1:80"),
            ("tcp://a_b.example:25", "tcp://a_b.example:25"),
            ("http://exprsn-herald/api", "http://exprsn-herald:80"),
        ] {
            assert_eq!(of(written).as_deref(), Ok(normal), "{written}");
        }
    }

    #[test]
    fn spellings_that_parsers_read_differently_are_refused() {
        for written in [
            "http://127.1/",
            "http://0x7f.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://017700000001/",
            "http://0177.0.0.1/",
            "http://127.0.0.01/",
            "http://127.0.0.1.1/",
            "http://1.2.3.4.5/",
            "http://256.0.0.1/",
            "http://example.0x/",
            "http://a..b/",
            "http://example.com../",
            "http://./",
            "http://user@example.com/",
            "http://user:pass@example.com/",
            "http://127.0.0.1@example.com/",
            "http://[fe80::1%25eth0]/",
            "http://[fe80::1%eth0]/",
            "http://[::1/",
            "http://[127.0.0.1]/",
            "http://%31%32%37.0.0.1/",
            "http://exa%6dple.com/",
            "http://example.com:0/",
            "http://example.com:65536/",
            "http://example.com:/",
            "http://exam ple.com/",
            "http://１２７.0.0.1/",
            "tcp://example.com",
            "ftp://example.com",
            "/no/host",
        ] {
            assert!(of(written).is_err(), "{written}: {:?}", of(written));
        }
    }

    #[test]
    fn names_are_bounded() {
        let label = "a".repeat(63);
        assert!(Host::parse(&label).is_ok());
        assert!(Host::parse(&format!("{label}a")).is_err());
        assert!(Host::parse(&[label.as_str(); 4].join(".")).is_err());
        assert!(Host::parse("").is_err());
    }

    #[test]
    fn the_hosts_field_leaves_out_the_usual_port() {
        let field = |scheme, port| {
            let destination = Destination::new(scheme, "::1", port).unwrap();
            destination.authority().to_string()
        };
        assert_eq!(field(Scheme::Https, 443), "[::1]");
        assert_eq!(field(Scheme::Http, 443), "[::1]:443");
    }
}
