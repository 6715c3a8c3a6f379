//! Which addresses a grant lets a connection lead to.
//!
//! **Invariant:** a name leads to public addresses only, unless the grant spells it out; then also inside, but to no address
//! that stands for something else (metadata of clouds, multicast, translation prefixes): the grant names such an address
//! itself, or it is not reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses at which clouds hand out credentials, other than link-local ones: Alibaba, Amazon, Azure, Google.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// How far a name may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// A wildcard covers it: public addresses.
    Public,
    /// The grant spells it out: public addresses, and those of hosts inside.
    Named,
}

impl Reach {
    /// Whether a name with this reach may lead to `address`.
    pub fn allows(self, address: IpAddr) -> bool {
        match kind(address.to_canonical()) {
            Kind::Public => true,
            Kind::Inside => self == Self::Named,
            Kind::Special => false,
        }
    }
}

/// Whose an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    /// Of this machine or its own networks.
    Inside,
    /// Of no host, of clouds' metadata, or of another address in disguise.
    Special,
}

fn kind(address: IpAddr) -> Kind {
    if METADATA.contains(&address) {
        return Kind::Special;
    }
    match address {
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => kind_v6(v6),
    }
}

fn kind_v4(v4: Ipv4Addr) -> Kind {
    let [a, b, c, _] = v4.octets();
    let shared = a == 100 && (64..128).contains(&b);
    if v4.is_loopback() || v4.is_private() || shared {
        return Kind::Inside;
    }
    let special = a == 0
        || a >= 224
        || v4.is_link_local()
        || v4.is_documentation()
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b));
    if special { Kind::Special } else { Kind::Public }
}

/// Of IPv6 only 2000::/3 has been given to anybody; in it are prefixes that carry other addresses (Teredo, 6to4) or
/// stand in documents.
fn kind_v6(v6: Ipv6Addr) -> Kind {
    let [first, second, ..] = v6.segments();
    let site_local = first & 0xffc0 == 0xfec0;
    if v6.is_loopback() || v6.is_unique_local() || site_local {
        return Kind::Inside;
    }
    let special = first & 0xe000 != 0x2000
        || first == 0x2002
        || (first == 0x2001 && (second < 0x200 || second == 0xdb8))
        || (first == 0x3fff && second < 0x1000);
    if special { Kind::Special } else { Kind::Public }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(reach: Reach, addresses: &[&str]) -> Vec<bool> {
        let allows = |text: &&str| reach.allows(text.parse().unwrap());
        addresses.iter().map(allows).collect()
    }

    #[test]
    fn public_addresses_are_reached() {
        let public = [
            "93.184.216.34",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "198.20.0.1",
            "2606:2800:220:1::1",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
        ];
        for reach in [Reach::Public, Reach::Named] {
            assert_eq!(allowed(reach, &public), [true; 8], "{reach:?}");
        }
    }

    #[test]
    fn addresses_inside_need_their_name_in_the_grant() {
        let inside = [
            "127.0.0.1",
            "127.255.0.9",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fd00::1",
            "fec0::1",
        ];
        assert_eq!(allowed(Reach::Public, &inside), [false; 11]);
        assert_eq!(allowed(Reach::Named, &inside), [true; 11]);
    }

    #[test]
    fn no_name_leads_to_what_stands_for_something_else() {
        for special in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fe80::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "::127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "5f00::1",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "192.0.0.192",
            "192.88.99.1",
            "198.18.0.1",
        ] {
            let reached = [Reach::Public, Reach::Named].map(|r| r.allows(special.parse().unwrap()));
            assert_eq!(reached, [false; 2], "{special}");
        }
    }
}
