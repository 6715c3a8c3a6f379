//! The operator's settings, read once per instance: a new configuration is a new version of the service.

use crate::domain::argon::Cost;
use crate::domain::lockout::Schedule;
use crate::domain::names;
use exprsn_sdk::config;
use std::cell::OnceCell;
use std::rc::Rc;

/// What component.toml's `[config]` and platform.toml say; the former documents each key.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Without a slash at its end.
    pub issuer: String,
    /// As [`names::key`] makes them.
    pub admin_emails: Vec<String>,
    pub password_chars_min: usize,
    pub cost: Cost,
    pub access_token_s: i64,
    pub session_ms: i64,
    pub browser_session_ms: i64,
    pub refresh_idle_ms: i64,
    pub authorization_code_ms: i64,
    pub account_schedule: Schedule,
    pub address_schedule: Schedule,
    pub registrations_per_hour: u64,
    pub audit_keep_ms: i64,
}

thread_local! {
    static SETTINGS: OnceCell<Rc<Settings>> = const { OnceCell::new() };
}

/// The settings.
pub fn settings() -> Rc<Settings> {
    SETTINGS.with(|cell| cell.get_or_init(|| Rc::new(Settings::read())).clone())
}

impl Settings {
    fn read() -> Self {
        let ms = |key, default: i64| config::parse::<i64>(key, default).saturating_mul(1_000);
        let schedule = |failures_free| Schedule {
            failures_free,
            wait_first_ms: ms("lockout_wait_first_s", 2),
            wait_max_ms: ms("lockout_wait_max_s", 900),
            forget_after_ms: ms("lockout_forget_s", 86_400),
        };
        let issuer = config::get("issuer").unwrap_or_else(|| "http://127.0.0.1:3001".to_owned());
        let emails = config::get("admin_emails").unwrap_or_default();
        Self {
            issuer: issuer.trim_end_matches('/').to_owned(),
            admin_emails: emails
                .split(',')
                .map(|e| names::key(e.trim()))
                .filter(|e| !e.is_empty())
                .collect(),
            password_chars_min: config::parse("password_chars_min", 12),
            cost: Cost {
                memory_kib: config::parse("argon2_memory_kib", Cost::OWASP.memory_kib),
                passes: config::parse("argon2_passes", Cost::OWASP.passes),
                lanes: config::parse("argon2_lanes", Cost::OWASP.lanes),
            },
            access_token_s: config::parse("access_token_s", 900),
            session_ms: ms("session_s", 2_592_000),
            browser_session_ms: ms("browser_session_s", 43_200),
            refresh_idle_ms: ms("refresh_idle_s", 604_800),
            authorization_code_ms: ms("authorization_code_s", 60),
            account_schedule: schedule(config::parse("lockout_account_failures_free", 5)),
            address_schedule: schedule(config::parse("lockout_address_failures_free", 100)),
            registrations_per_hour: config::parse("registrations_per_hour", 0),
            audit_keep_ms: ms("audit_keep_days", 365).saturating_mul(86_400),
        }
    }

    /// The absolute URL of a path of this service, as clients see it.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    /// The path that cookies are bound to: that of the OAuth pages, under whatever prefix the issuer has.
    pub fn cookie_path(&self) -> String {
        let rest = self.issuer.split_once("://").map_or("", |(_, rest)| rest);
        let prefix = rest.find('/').map_or("", |at| &rest[at..]);
        format!("{prefix}/oauth")
    }

    /// Whether cookies may travel over TLS only.
    pub fn is_https(&self) -> bool {
        self.issuer.starts_with("https://")
    }
}
