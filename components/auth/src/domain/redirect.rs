//! Redirect URIs: which may be registered, which match, and how an answer is put into one.
//!
//! **Invariant:** a URI matches by its exact text (OAuth 2.1 §2.3.1); only the port of a loopback address is free, because
//! native applications listen where they can (RFC 8252 §7.3).

/// Most characters of a redirect URI.
pub const URI_CHARS_MAX: usize = 2_000;
/// Schemes that a browser acts on itself, and that must never receive a code.
const FORBIDDEN_SCHEMES: [&str; 9] = [
    "about",
    "blob",
    "data",
    "file",
    "filesystem",
    "javascript",
    "mailto",
    "vbscript",
    "view-source",
];

/// The parts of a URI that matter here.
struct Parts<'a> {
    scheme: String,
    /// Between `//` and the path; none for `com.example.app:/callback`.
    authority: Option<&'a str>,
    /// From the path on.
    rest: &'a str,
}

fn split(uri: &str) -> Option<Parts<'_>> {
    let (scheme, after) = uri.split_once(':')?;
    let word = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(word) {
        return None;
    }
    let scheme = scheme.to_ascii_lowercase();
    let Some(after) = after.strip_prefix("//") else {
        return Some(Parts {
            scheme,
            authority: None,
            rest: after,
        });
    };
    let end = after.find(['/', '?']).unwrap_or(after.len());
    Some(Parts {
        scheme,
        authority: Some(&after[..end]),
        rest: &after[end..],
    })
}

/// Checks that a client may register `uri`: https, http on the own machine, or a private-use scheme (RFC 8252 §7.1).
pub fn check(uri: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_graphic() && !b"\"'<>\\^`{|}".contains(&b);
    if uri.len() > URI_CHARS_MAX {
        return Err("must have at most 2000 characters");
    } else if !uri.bytes().all(plain) {
        return Err("must be a URI, other characters percent-encoded");
    } else if uri.contains('#') {
        return Err("may not have a fragment");
    }
    let parts = split(uri).ok_or("must be an absolute URI")?;
    match (parts.scheme.as_str(), parts.authority) {
        ("https", Some(authority)) => check_authority(authority),
        ("http", Some(authority)) if is_own_machine(host_of(authority)) => {
            check_authority(authority)
        }
        ("http", _) => Err("must be https, except on 127.0.0.1, [::1] and localhost"),
        (scheme, _) if FORBIDDEN_SCHEMES.contains(&scheme) => {
            Err("has a scheme that may not be used")
        }
        (scheme, _) if scheme.contains('.') && !parts.rest.is_empty() => Ok(()),
        _ => Err("must be https, or a private-use scheme such as com.example.app:/callback"),
    }
}

fn check_authority(authority: &str) -> Result<(), &'static str> {
    let (host, port) = split_port(authority);
    let named = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let literal = host.starts_with('[')
        && host.ends_with(']')
        && host[1..host.len() - 1]
            .parse::<std::net::Ipv6Addr>()
            .is_ok();
    if host.is_empty() || !(literal || host.bytes().all(named)) {
        Err("must have a host, and no user or password")
    } else if port.is_some_and(|p| p.parse::<u16>().is_err()) {
        Err("must have a port between 0 and 65535, or none")
    } else {
        Ok(())
    }
}

/// Host and port; the port is none when there is no colon.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn host_of(authority: &str) -> &str {
    split_port(authority).0
}

fn is_loopback_literal(host: &str) -> bool {
    host == "127.0.0.1" || host == "[::1]"
}

fn is_own_machine(host: &str) -> bool {
    is_loopback_literal(host) || host == "localhost"
}

/// Whether `asked` is the registered URI, the port of a loopback address aside.
pub fn matches(registered: &str, asked: &str) -> bool {
    registered == asked
        || (check(asked).is_ok()
            && loopback_less_port(registered).is_some_and(|r| Some(r) == loopback_less_port(asked)))
}

/// A loopback URI as host and rest, without its port; none for any other URI.
fn loopback_less_port(uri: &str) -> Option<(&str, &str)> {
    let parts = split(uri)?;
    let host = host_of(parts.authority?);
    (parts.scheme == "http" && is_loopback_literal(host)).then_some((host, parts.rest))
}

/// What a page whose form ends at `uri` must name in `form-action` of its Content-Security-Policy.
pub fn csp_source(uri: &str) -> String {
    match split(uri) {
        Some(Parts {
            scheme,
            authority: Some(authority),
            ..
        }) if scheme == "https" || scheme == "http" => {
            format!("{scheme}://{authority}")
        }
        Some(parts) => format!("{}:", parts.scheme),
        None => String::new(),
    }
}

/// `uri` with `parameters` added to its query, those that are there kept.
pub fn with_query(uri: &str, parameters: &[(&str, &str)]) -> String {
    let mut out = uri.to_owned();
    for (name, value) in parameters {
        out.push(if out.contains('?') { '&' } else { '?' });
        out.push_str(&super::form::encode(name));
        out.push('=');
        out.push_str(&super::form::encode(value));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_clients_register() {
        for uri in [
            "https://app.example.org/callback",
            "https://app.example.org:8443/cb?tenant=1",
            "http://127.0.0.1/cb",
            "http://127.0.0.1:3000/cb",
            "http://[::1]:3000/cb",
            "http://localhost:8080/login/oauth2/code/exprsn",
            "com.example.app:/oauth2redirect",
            "com.example.app://callback/here",
        ] {
            assert_eq!(check(uri), Ok(()), "{uri}");
        }
    }

    #[test]
    fn refuses_what_would_leak_a_code() {
        for uri in [
            "",
            "/callback",
            "//evil.example/cb",
            "http://app.example.org/cb",
            "http://127.0.0.1.evil.example/cb",
            "http://127.0.0.1@evil.example/cb",
            "https://user:pw@app.example.org/cb",
            "https://app.example.org/cb#part",
            "https:///cb",
            "https://app.example.org:99999/cb",
            "https://app.example.org\\@evil.example/",
            "https://app.example.org/a b",
            "https://app.example.org/\r\nSet-Cookie: a=b",
            "javascript:alert(1)",
            "data:text/html,x",
            "myapp:/cb",
            "com.example.app:",
        ] {
            assert!(check(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn matches_exactly() {
        let registered = "https://app.example.org/cb";
        assert!(matches(registered, registered));
        for other in [
            "https://app.example.org/cb/",
            "https://app.example.org/cb?x=1",
            "https://APP.example.org/cb",
            "https://app.example.org:443/cb",
            "https://app.example.org/cb/../x",
            "http://app.example.org/cb",
        ] {
            assert!(!matches(registered, other), "{other}");
        }
    }

    #[test]
    fn the_port_of_a_loopback_literal_is_free_and_nothing_else() {
        assert!(matches("http://127.0.0.1/cb", "http://127.0.0.1:51004/cb"));
        assert!(matches(
            "http://127.0.0.1:8080/cb",
            "http://127.0.0.1:51004/cb"
        ));
        assert!(matches("http://[::1]/cb", "http://[::1]:51004/cb"));
        assert!(!matches(
            "http://127.0.0.1/cb",
            "http://127.0.0.1:51004/other"
        ));
        assert!(!matches("http://127.0.0.1/cb", "http://[::1]:51004/cb"));
        assert!(!matches(
            "http://127.0.0.1/cb",
            "http://127.0.0.1:x@evil.example/cb"
        ));
        assert!(!matches(
            "http://localhost:8080/cb",
            "http://localhost:9090/cb"
        ));
        assert!(!matches(
            "https://app.example.org/cb",
            "https://app.example.org:1/cb"
        ));
    }

    #[test]
    fn names_the_source_for_the_policy() {
        assert_eq!(
            csp_source("https://a.example:8443/cb?x"),
            "https://a.example:8443"
        );
        assert_eq!(csp_source("com.example.app:/cb"), "com.example.app:");
    }

    #[test]
    fn adds_to_the_query_that_is_there() {
        assert_eq!(
            with_query(
                "https://a.example/cb",
                &[("code", "a+b"), ("state", "x y&z")]
            ),
            "https://a.example/cb?code=a%2Bb&state=x+y%26z"
        );
        assert_eq!(
            with_query("https://a.example/cb?t=1", &[("code", "c")]),
            "https://a.example/cb?t=1&code=c"
        );
    }
}
