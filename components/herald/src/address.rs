//! Where a webhook may go: checked when an endpoint is registered. The host checks the resolved address of each call besides.

use std::net::{IpAddr, Ipv4Addr};

use http::Uri;

/// Longest address in bytes.
const ADDRESS_BYTES_MAX: usize = 2_048;

/// Says what is wrong with an endpoint's address, if anything.
///
/// It is an https URL of a host on the Internet, without credentials and fragment. With `loopback`, plain http to 127.0.0.1 passes too.
/// Names without a dot and addresses of private networks are refused, for behind them are the platform's own services.
pub fn check(address: &str, loopback: bool) -> Result<(), &'static str> {
    if address.len() > ADDRESS_BYTES_MAX {
        return Err("is longer than 2048 bytes");
    }
    if address.contains('#') {
        return Err("must not have a fragment");
    }
    let uri: Uri = address.parse().map_err(|_| "is not a URL")?;
    let authority = uri.authority().ok_or("needs a host")?;
    if authority.as_str().contains('@') {
        return Err("must not contain credentials");
    }
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_ascii_lowercase();
    let ip: Option<IpAddr> = host.parse().ok();
    match (uri.scheme_str(), ip) {
        (Some("http"), Some(IpAddr::V4(Ipv4Addr::LOCALHOST))) if loopback => Ok(()),
        (Some("https"), Some(ip)) if is_public(ip) => Ok(()),
        (Some("https"), None) if is_public_name(&host) => Ok(()),
        (Some("https"), _) => Err("must be a host on the Internet"),
        _ => Err("must be an https URL"),
    }
}

/// Names with a dot whose last part is a word: neither `localhost` nor the likes of `127.1`, which resolvers take for an address.
fn is_public_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    let private = [
        "localhost",
        "local",
        "internal",
        "lan",
        "home",
        "corp",
        "arpa",
    ];
    host.contains('.')
        && last.starts_with(|c: char| c.is_ascii_alphabetic())
        && !private.contains(&last)
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_public_v4(ip),
            // 2000::/3 is what IANA has given out; 2002::/16 and 64:ff9b::/96 wrap IPv4 addresses.
            None => ip.segments()[0] & 0xe000 == 0x2000 && ip.segments()[0] != 0x2002,
        },
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    let shared = first == 100 && (64..128).contains(&second);
    let reserved = first == 0
        || first >= 224
        || (first == 198 && (18..20).contains(&second))
        || (first == 192 && second == 0);
    !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared || reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_https_on_the_internet() {
        for good in [
            "https://example.com/hook",
            "https://example.com:8443/a?b=c",
            "https://93.184.216.34/",
            "https://[2606:2800:220:1::1]/x",
        ] {
            assert_eq!(check(good, false), Ok(()), "{good}");
        }
    }

    #[test]
    fn refuses_what_is_behind_the_wall() {
        for bad in [
            "",
            "/hook",
            "ftp://example.com/",
            "http://example.com/",
            "https://",
            "https://user:pw@example.com/",
            "https://example.com/#x",
            "https://localhost/",
            "https://exprsn-timeline/",
            "https://vault.internal/",
            "https://127.0.0.1/",
            "https://10.0.0.1/",
            "https://192.168.1.1/",
            "https://169.254.169.254/latest/",
            "https://100.64.0.1/",
            "https://0.0.0.0/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[fd00::1]/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "http://127.0.0.1:9/",
            "https://localhost./",
        ] {
            assert!(check(bad, false).is_err(), "{bad} passed");
        }
        assert!(
            check(
                &format!("https://example.com/{}", "a".repeat(ADDRESS_BYTES_MAX)),
                false
            )
            .is_err()
        );
    }

    #[test]
    fn loopback_needs_leave_and_is_the_one_address() {
        assert_eq!(check("http://127.0.0.1:8080/hook", true), Ok(()));
        for bad in [
            "http://localhost:8080/",
            "http://127.0.0.2/",
            "http://10.0.0.1/",
            "http://[::1]/",
            "http://127.0.0.1@evil.example/",
        ] {
            assert!(check(bad, true).is_err(), "{bad} passed");
        }
    }
}
