//! Checks of fields, in the form that the derive of `Validate` wants.

use crate::domain::names;

fn checked(verdict: Result<(), &'static str>) -> garde::Result {
    verdict.map_err(garde::Error::new)
}

/// A user name that may be chosen.
pub fn username(name: &str, (): &()) -> garde::Result {
    checked(names::check_username(name))
}

/// An email address.
pub fn email(email: &str, (): &()) -> garde::Result {
    checked(names::check_email(email))
}

/// Text that others see.
pub fn shown(text: &str, (): &()) -> garde::Result {
    checked(names::check_shown(text))
}

/// The name of a role.
pub fn role(role: &str, (): &()) -> garde::Result {
    checked(names::check_role(role))
}
