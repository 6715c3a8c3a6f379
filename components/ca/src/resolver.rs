//! Which service a URL means: this machine's ports, and names of services.

use exprsn_sdk::prelude::*;

/// The running services, as URLs name them.
pub struct Resolver(Vec<(String, u16)>);

impl Resolver {
    /// What runs now.
    pub async fn present() -> Self {
        let services = platform::services().await.unwrap_or_else(|error| {
            log::warn!(
                "the registry cannot be read, so URLs in resources mean nothing",
                error = format!("{error:?}")
            );
            Vec::new()
        });
        Self::of(
            services
                .into_iter()
                .map(|service| (service.name, service.port))
                .collect(),
        )
    }

    fn of(services: Vec<(String, u16)>) -> Self {
        Self(services)
    }

    /// The service behind `localhost:3014`, `127.0.0.1:3014`, `[::1]:3014` or `exprsn-herald`, with any port.
    pub fn resolve(&self, authority: &str) -> Option<String> {
        let (host, port) = authority
            .rsplit_once(':')
            .filter(|(_, port)| port.parse::<u16>().is_ok())
            .unwrap_or((authority, ""));
        let local = ["localhost", "127.0.0.1", "[::1]"]
            .iter()
            .any(|name| host.eq_ignore_ascii_case(name));
        let matching = |(name, own): &&(String, u16)| {
            if local {
                port.parse() == Ok(*own)
            } else {
                host.eq_ignore_ascii_case(name)
            }
        };
        self.0.iter().find(matching).map(|(name, _)| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::Resolver;

    #[test]
    fn authorities_name_services() {
        let resolver = Resolver::of(vec![
            ("exprsn-herald".into(), 3014),
            ("exprsn-ca".into(), 3000),
        ]);
        for (authority, expected) in [
            ("localhost:3014", Some("exprsn-herald")),
            ("LOCALHOST:3000", Some("exprsn-ca")),
            ("127.0.0.1:3014", Some("exprsn-herald")),
            ("[::1]:3014", Some("exprsn-herald")),
            ("exprsn-herald", Some("exprsn-herald")),
            ("exprsn-herald:80", Some("exprsn-herald")),
            ("localhost", None),
            ("localhost:3015", None),
            ("example.org:3014", None),
            ("", None),
        ] {
            assert_eq!(
                resolver.resolve(authority).as_deref(),
                expected,
                "{authority}"
            );
        }
    }
}
