//! Who really asks, and how the services behind the gateway are told.
//!
//! **Invariant:** what a client says about itself in `Forwarded` or `X-Forwarded-*` is believed only as far as trusted
//! proxies vouch for it, and never passed on.

use std::net::IpAddr;

/// Entries of `X-Forwarded-For` that are looked at, from the right.
const ENTRIES_MAX: usize = 16;

/// Networks whose machines may say for whom they speak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<(IpAddr, u8)>);

impl TrustedProxies {
    /// Reads networks separated by commas (`10.0.0.0/8, 192.0.2.7, fd00::/8`); what is none is ignored.
    pub fn parse(text: &str) -> Self {
        Self(
            text.split(',')
                .filter_map(|network| parse_network(network.trim()))
                .collect(),
        )
    }

    /// Whether a machine is one of them.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0
            .iter()
            .any(|(network, bits)| covers(*network, *bits, address))
    }

    /// The client's address: the peer's, or the last of `X-Forwarded-For` that no trusted proxy has.
    pub fn client(&self, peer: IpAddr, forwarded_for: &[&str]) -> IpAddr {
        let mut client = peer.to_canonical();
        let entries = forwarded_for.iter().rev().flat_map(|line| line.rsplit(','));
        for entry in entries.take(ENTRIES_MAX) {
            if !self.trusts(client) {
                break;
            }
            let Ok(next) = entry.trim().parse::<IpAddr>() else {
                break;
            };
            client = next.to_canonical();
        }
        client
    }
}

fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (
            address.parse::<IpAddr>().ok()?,
            Some(bits.parse::<u8>().ok()?),
        ),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    (bits <= width).then_some((address, bits))
}

fn covers(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let as_bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
        IpAddr::V6(v6) => (u128::from(v6), false),
    };
    let ((network, v4), (address, same)) = (as_bits(network), as_bits(address));
    let shift = 128 - u32::from(bits);
    v4 == same && network.checked_shr(shift) == address.checked_shr(shift)
}

/// What requests are counted under: the address, or for IPv6 its /64, which one person commands whole.
pub fn address_key(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// Whether a request's field is dropped on the way in, because only the gateway may say it.
pub fn is_forwarding_field(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "forwarded"
        || name == "x-real-ip"
        || name == "true-client-ip"
        || name.starts_with("x-forwarded-")
}

/// The fields that tell a service about the request as it came to the gateway: RFC 7239 and its forerunners.
pub fn fields(client: IpAddr, host: Option<&str>, proto: &str) -> Vec<(&'static str, String)> {
    let node = match client {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("\"[{v6}]\""),
    };
    let mut forwarded = format!("for={node}");
    let mut fields = vec![("x-forwarded-for", client.to_string())];
    if let Some(host) = host.filter(|host| is_host(host)) {
        forwarded.push_str(&format!(";host=\"{host}\""));
        fields.push(("x-forwarded-host", host.to_owned()));
    }
    forwarded.push_str(&format!(";proto={proto}"));
    fields.push(("x-forwarded-proto", proto.to_owned()));
    fields.push(("forwarded", forwarded));
    fields
}

fn is_host(host: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !host.is_empty() && host.len() <= 255 && host.bytes().all(good)
}

/// Whether a client's `X-Request-Id` may be kept: short and plain, so that it is safe in every log.
pub fn is_request_id(id: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    (1..=128).contains(&id.len()) && id.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn strangers_are_not_believed() {
        let none = TrustedProxies::default();
        assert_eq!(
            none.client(address("192.0.2.1"), &["10.0.0.1"]),
            address("192.0.2.1")
        );
    }

    #[test]
    fn trusted_proxies_are_believed_from_the_right() {
        let proxies =
            TrustedProxies::parse("10.0.0.0/8, fd00::/8, 198.51.100.7, nonsense, 1.2.3.4/99");
        let check = |peer: &str, lines: &[&str], expected: &str| {
            assert_eq!(
                proxies.client(address(peer), lines),
                address(expected),
                "{peer} {lines:?}"
            );
        };
        check("10.1.1.1", &["192.0.2.9"], "192.0.2.9");
        check("10.1.1.1", &["6.6.6.6, 192.0.2.9", "10.2.2.2"], "192.0.2.9");
        check(
            "10.1.1.1",
            &["6.6.6.6, 192.0.2.9, 198.51.100.7"],
            "192.0.2.9",
        );
        check("::ffff:10.1.1.1", &["2001:db8::1"], "2001:db8::1");
        check("fd00::1", &["not an address"], "fd00::1");
        check("1.2.3.4", &["192.0.2.9"], "1.2.3.4");
    }

    #[test]
    fn a_zero_length_network_trusts_its_family_only() {
        let proxies = TrustedProxies::parse("0.0.0.0/0");
        assert_eq!(
            proxies.client(address("9.9.9.9"), &["8.8.8.8, fd00::1"]),
            address("fd00::1")
        );
    }

    #[test]
    fn tells_services_who_asked() {
        let fields = fields(address("2001:db8::1"), Some("gw.example:3005"), "http");
        let forwarded = &fields
            .iter()
            .find(|(name, _)| *name == "forwarded")
            .unwrap()
            .1;
        assert_eq!(
            forwarded,
            "for=\"[2001:db8::1]\";host=\"gw.example:3005\";proto=http"
        );
        assert!(fields.contains(&("x-forwarded-host", "gw.example:3005".to_owned())));
        let fields = super::fields(address("192.0.2.1"), Some("a\"b"), "http");
        assert_eq!(fields.last().unwrap().1, "for=192.0.2.1;proto=http");
    }

    #[test]
    fn keys_and_ids() {
        assert_eq!(
            address_key(address("2001:db8:1:2:3::4")),
            "2001:db8:1:2::/64"
        );
        assert_eq!(address_key(address("::ffff:192.0.2.1")), "192.0.2.1");
        assert!(is_forwarding_field("X-Forwarded-Whatever") && !is_forwarding_field("x-forward"));
        assert!(is_request_id("a-1") && !is_request_id("") && !is_request_id("a\nb"));
    }
}
