//! What a service says of itself when it registers.

use exprsn_sdk::prelude::*;
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr};

/// How long a registration lasts without a heartbeat, where the service does not say, in seconds.
pub const LEASE_S_DEFAULT: u32 = 30;
const LEASE_S_MIN: u32 = 5;
const LEASE_S_MAX: u32 = 3_600;
/// Longest name, in bytes: the host's limit.
const NAME_BYTES_MAX: usize = 48;
const DEPENDENCIES_MAX: usize = 64;
/// Size of `metadata` as JSON, in bytes.
const METADATA_BYTES_MAX: usize = 4_096;

/// The body of `POST /api/registry/register`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewRegistration {
    /// Lower-case letters, digits and inner hyphens: `exprsn-timeline`.
    #[garde(custom(is_name))]
    pub name: String,
    /// A semantic version: `1.0.0`.
    #[garde(custom(is_version))]
    pub version: String,
    /// A host name or address, without scheme and port: `localhost`.
    #[garde(custom(is_host))]
    pub host: String,
    #[garde(range(min = 1))]
    pub port: u16,
    /// Asked by `GET /api/health`: `/health`.
    #[serde(default = "health")]
    #[garde(custom(is_path))]
    pub health_check_path: String,
    /// Names of services that this one needs.
    #[serde(default)]
    #[garde(length(max = DEPENDENCIES_MAX), inner(custom(is_name)), custom(not_itself(&self.name)))]
    pub dependencies: Vec<String>,
    /// How long the registration lasts without a heartbeat; 30 where it is absent.
    #[serde(default = "lease")]
    #[garde(range(min = LEASE_S_MIN, max = LEASE_S_MAX))]
    pub lease_seconds: u32,
    /// Whatever else others may want to know: a region, a protocol.
    #[serde(default)]
    #[garde(custom(is_small))]
    pub metadata: BTreeMap<String, Value>,
}

fn health() -> String {
    "/health".to_owned()
}

fn lease() -> u32 {
    LEASE_S_DEFAULT
}

fn refuse(reason: &str) -> garde::Result {
    Err(garde::Error::new(reason))
}

/// The rule of the host's own names, so that a registered service could become one.
fn is_name(name: &str, _: &()) -> garde::Result {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let begins = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase());
    if !begins || !name.bytes().all(plain) || name.ends_with('-') || name.len() > NAME_BYTES_MAX {
        return refuse(
            "must begin with a lower-case letter and hold at most 48 lower-case letters, digits and inner hyphens",
        );
    }
    Ok(())
}

/// <https://semver.org>, as far as a registry must know it: three numbers, then `-pre` and `+build` of plain characters.
fn is_version(version: &str, _: &()) -> garde::Result {
    let end = version.find(['-', '+']).unwrap_or(version.len());
    let (core, rest) = version.split_at(end);
    let number = |text: &str| {
        let digits =
            !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
        digits && (text == "0" || !text.starts_with('0'))
    };
    let plain = rest
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-+.".contains(&byte));
    let parts: Vec<&str> = core.split('.').collect();
    if parts.len() != 3
        || !parts.into_iter().all(number)
        || !plain
        || rest.len() == 1
        || version.len() > 64
    {
        return refuse("must be a semantic version such as 1.0.0");
    }
    Ok(())
}

fn is_host(host: &str, _: &()) -> garde::Result {
    let label = |label: &str| {
        let plain = label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() || (host.len() <= 253 && host.split('.').all(label)) {
        return Ok(());
    }
    refuse("must be a host name or an address, without scheme, port and path")
}

fn is_path(path: &str, _: &()) -> garde::Result {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%?=&".contains(&byte);
    if !path.starts_with('/') || path.len() > 256 || !path.bytes().all(plain) || path.contains("..")
    {
        return refuse("must be a plain path that begins with `/`");
    }
    Ok(())
}

fn not_itself(name: &str) -> impl FnOnce(&Vec<String>, &()) -> garde::Result + '_ {
    move |dependencies, _| match dependencies.iter().any(|wanted| wanted == name) {
        true => refuse("a service cannot depend on itself"),
        false => Ok(()),
    }
}

fn is_small(metadata: &BTreeMap<String, Value>, _: &()) -> garde::Result {
    match serde_json::to_vec(metadata) {
        Ok(json) if json.len() <= METADATA_BYTES_MAX => Ok(()),
        _ => refuse("must not be larger than 4,096 bytes as JSON"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The specification's own example.
    fn example() -> Value {
        json!({
            "name": "exprsn-timeline", "version": "1.0.0", "host": "localhost", "port": 3004,
            "healthCheckPath": "/health", "dependencies": ["exprsn-ca", "exprsn-auth", "exprsn-herald"],
        })
    }

    fn errors(change: &str, value: Value) -> Vec<String> {
        let mut body = example();
        body[change] = value;
        let new: NewRegistration = serde_json::from_value(body).unwrap();
        match new.validate() {
            Ok(()) => Vec::new(),
            Err(report) => report.iter().map(|(path, _)| path.to_string()).collect(),
        }
    }

    #[test]
    fn takes_the_specifications_example() {
        let new: NewRegistration = serde_json::from_value(example()).unwrap();
        assert!(new.validate().is_ok());
        assert_eq!(
            (new.lease_seconds, new.health_check_path.as_str()),
            (30, "/health")
        );
        let least = json!({ "name": "a", "version": "0.1.0-rc.1+b", "host": "[::1]", "port": 1 });
        assert!(
            serde_json::from_value::<NewRegistration>(least)
                .unwrap()
                .validate()
                .is_ok()
        );
    }

    #[test]
    fn refuses_what_is_no_service() {
        for (field, value) in [
            ("name", json!("Exprsn_Timeline")),
            ("name", json!("a".repeat(49))),
            ("version", json!("1.0")),
            ("version", json!("1.0.x")),
            ("version", json!("01.0.0")),
            ("version", json!("1.0.0-")),
            ("host", json!("http://localhost")),
            ("host", json!("localhost:80")),
            ("host", json!("user@host")),
            ("host", json!("")),
            ("port", json!(0)),
            ("healthCheckPath", json!("health")),
            ("healthCheckPath", json!("/a/../b")),
            ("healthCheckPath", json!("/ HTTP/1.1\r\nHost: x")),
            ("leaseSeconds", json!(4)),
            ("leaseSeconds", json!(3_601)),
            ("dependencies", json!(["exprsn-timeline"])),
            ("metadata", json!({ "big": "x".repeat(5_000) })),
        ] {
            assert!(
                !errors(field, value.clone()).is_empty(),
                "{field} = {value}"
            );
        }
        assert_eq!(
            errors("dependencies", json!(["ok", "Not Ok"])),
            ["dependencies[1]"]
        );
    }
}
