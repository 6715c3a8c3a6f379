//! The service's configuration: `[config]` of component.toml, changed by platform.toml.

use std::fmt::Display;
use std::str::FromStr;

use crate::bindings::wasi::config::store;

/// The value of a key; none where neither file has it.
pub fn get(key: &str) -> Option<String> {
    match store::get(key) {
        Ok(value) => value,
        Err(error) => {
            crate::log::warn!(
                "a configuration value cannot be read",
                key = key,
                error = format!("{error:?}")
            );
            None
        }
    }
}

/// The value of a key as a `T`, or `default` where it is absent. One that is no `T` is logged, and the default is used.
pub fn parse<T: FromStr<Err: Display>>(key: &str, default: T) -> T {
    let Some(text) = get(key) else { return default };
    match text.trim().parse() {
        Ok(value) => value,
        Err(error) => {
            crate::log::error!(
                "a configuration value is wrong; the default is used",
                key = key,
                error = error
            );
            default
        }
    }
}
