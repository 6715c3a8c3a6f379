//! `[cluster]`: how this host meets the others.

use crate::config::or_environment;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use wasmtime::{Result, ensure, format_err};

/// Longest name of a host, in bytes: a label of DNS.
const NAME_BYTES_MAX: usize = 63;

/// `[cluster]` in platform.toml.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address and port that other hosts reach this one by, HTTP/2 with mutual TLS only; empty is one host alone.
    pub listen: String,
    /// What others are told instead: `host:port`, or `$NAME`; empty is `listen`.
    pub address: String,
    /// The host's name, a label of DNS, or `$NAME`; empty is one that is made at the first start.
    pub name: String,
    /// An invitation, or `$NAME`; empty is none. Needed at a host's first start only.
    pub join: String,
    /// How often the lease is renewed and news are heard, in milliseconds.
    pub heartbeat_ms: u64,
    /// How long a lease lasts that is not renewed, in milliseconds.
    pub lease_ms: u64,
    /// How long this host trusts what it knows without hearing from the platform, in milliseconds.
    pub deaf_ms_max: u64,
    /// How long a connection to another host may take to come about, in milliseconds.
    pub connect_ms_max: u64,
    /// How often a connection to another host is asked for a sign of life, and how long that may take, in milliseconds.
    pub ping_ms: u64,
    /// Hosts that one call is tried on.
    pub attempts_max: usize,
    /// How long a host that failed is passed over, in milliseconds; it doubles with each failure in a row …
    pub eject_ms: u64,
    /// … up to this.
    pub eject_ms_max: u64,
    /// Calls under way at once on one connection to another host.
    pub streams_max: u32,
    /// Connections from other hosts, per core.
    pub connections_max: usize,
    /// Validity of a host's certificate, in days; it is followed by another when a third of it is left.
    pub certificate_days: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: String::new(),
            address: String::new(),
            name: String::new(),
            join: String::new(),
            heartbeat_ms: 200,
            lease_ms: 3_000,
            deaf_ms_max: 1_000,
            connect_ms_max: 1_000,
            ping_ms: 1_000,
            attempts_max: 3,
            eject_ms: 500,
            eject_ms_max: 30_000,
            streams_max: 1_000,
            connections_max: 1_000,
            certificate_days: 30,
        }
    }
}

impl Config {
    /// Names the first key that cannot be, and the backends that hosts cannot share.
    pub(super) fn check(&self, whole: &crate::config::Config) -> Result<()> {
        let numbers = [
            ("heartbeat_ms", self.heartbeat_ms),
            ("lease_ms", self.lease_ms),
            ("deaf_ms_max", self.deaf_ms_max),
            ("connect_ms_max", self.connect_ms_max),
            ("ping_ms", self.ping_ms),
            ("attempts_max", self.attempts_max as u64),
            ("streams_max", u64::from(self.streams_max)),
            ("connections_max", self.connections_max as u64),
            ("certificate_days", u64::from(self.certificate_days)),
        ];
        if let Some((key, _)) = numbers.into_iter().find(|(_, value)| *value == 0) {
            return Err(format_err!("[cluster] {key} is 0; it must be at least 1"));
        }
        ensure!(
            self.heartbeat_ms * 2 <= self.deaf_ms_max && self.deaf_ms_max <= self.lease_ms,
            "[cluster] must have heartbeat_ms * 2 <= deaf_ms_max <= lease_ms"
        );
        self.listen_address()?;
        let capability = &whole.capability;
        let embedded = [
            ("sql", "postgres", !capability.sql.is_shared()),
            ("queue", "redis", !capability.queue.is_shared()),
            ("cache", "redis", !capability.cache.is_shared()),
        ];
        if let Some((name, wanted, _)) = embedded.into_iter().find(|(_, _, embedded)| *embedded) {
            return Err(format_err!(
                "[cluster] listen is set, and [capability.{name}] keeps its data on this host alone: write backend = \"{wanted}\" there"
            ));
        }
        Ok(())
    }

    /// Where other hosts' connections are accepted.
    pub(super) fn listen_address(&self) -> Result<SocketAddr> {
        self.listen.parse().map_err(|_| {
            format_err!(
                "[cluster] listen is `{}`; write an address and a port, like 10.0.0.1:3100",
                self.listen
            )
        })
    }

    /// What other hosts are told.
    pub(super) fn advertised(&self) -> String {
        let told = or_environment("cluster", "address", &self.address).unwrap_or_default();
        match told.as_str() {
            "" => self.listen.clone(),
            // A bare address of `$POD_IP`'s kind has this host's port.
            told if told.parse::<std::net::IpAddr>().is_ok() => {
                let port = self.listen.rsplit(':').next().unwrap_or_default();
                match told.contains(':') {
                    true => format!("[{told}]:{port}"),
                    false => format!("{told}:{port}"),
                }
            }
            told => told.to_owned(),
        }
    }

    /// The name that the operator gave; none is to be made.
    pub(super) fn given_name(&self) -> Result<Option<String>> {
        let name = or_environment("cluster", "name", &self.name)?;
        if name.is_empty() {
            return Ok(None);
        }
        ensure!(
            is_host_name(&name),
            "[cluster] name is `{name}`; write lower-case letters, digits and hyphens, at most {NAME_BYTES_MAX}"
        );
        Ok(Some(name))
    }

    /// The invitation; none where there is none.
    pub(super) fn invitation(&self) -> Result<Option<String>> {
        // A variable that is not set is no invitation: a host that has joined needs none.
        let token = or_environment("cluster", "join", &self.join).unwrap_or_default();
        Ok((!token.is_empty()).then_some(token))
    }
}

/// Whether a text can be the name of a host.
pub(super) fn is_host_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_an_address_with_a_port() {
        let mut config = Config {
            listen: "0.0.0.0:3100".to_owned(),
            ..Config::default()
        };
        for (address, told) in [
            ("", "0.0.0.0:3100"),
            ("10.0.0.7", "10.0.0.7:3100"),
            ("fd00::7", "[fd00::7]:3100"),
            ("a.example:1", "a.example:1"),
        ] {
            config.address = address.to_owned();
            assert_eq!(config.advertised(), told);
        }
    }

    #[test]
    fn host_names_are_labels() {
        for good in ["a", "host-1", "0"] {
            assert!(is_host_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", &"a".repeat(64)] {
            assert!(!is_host_name(bad), "{bad}");
        }
    }
}
