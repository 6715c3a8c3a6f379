//! The gateway's configuration, read once by each instance.

use crate::{cors::Cors, forwarded::TrustedProxies, limits::Policy};
use exprsn_sdk::prelude::*;
use std::cell::OnceCell;

/// What the operator may decide; component.toml says what each value means.
pub struct Settings {
    pub principal: Policy,
    pub address: Policy,
    pub cors: Cors,
    pub proxies: TrustedProxies,
    pub request_bytes_max: u64,
    pub hsts_s: u64,
    pub compose_ms_max: u64,
    pub compose_answer_bytes_max: usize,
}

impl Settings {
    fn read() -> Self {
        let text = |key: &str| config::get(key).unwrap_or_default();
        let rate = |key: &str, default: f64| config::parse(key, default);
        Self {
            principal: Policy::new(
                "principal",
                rate("rate_principal_per_second", 50.0),
                config::parse("rate_principal_burst", 100),
            ),
            address: Policy::new(
                "address",
                rate("rate_address_per_second", 2_000.0),
                config::parse("rate_address_burst", 4_000),
            ),
            cors: Cors::parse(
                &text("cors_origins"),
                config::parse("cors_credentials", false),
            ),
            proxies: TrustedProxies::parse(&text("trusted_proxies")),
            request_bytes_max: config::parse("request_bytes_max", 1 << 30),
            hsts_s: config::parse("hsts_s", 0),
            compose_ms_max: config::parse("compose_ms_max", 10_000),
            compose_answer_bytes_max: config::parse("compose_answer_bytes_max", 1 << 20),
        }
    }
}

/// The settings of this instance.
pub fn settings() -> &'static Settings {
    thread_local! {
        static SETTINGS: OnceCell<&'static Settings> = const { OnceCell::new() };
    }
    // Leaked once for an instance's life, as the router is.
    SETTINGS.with(|cell| *cell.get_or_init(|| Box::leak(Box::new(Settings::read()))))
}
