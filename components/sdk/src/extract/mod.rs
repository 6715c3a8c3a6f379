//! Extractors: what a handler asks for, taken from the request and checked.

mod body;
mod caller;
mod de;
mod idempotency_key;
mod json;
mod path;
mod query;

pub use caller::{Caller, Permission, User};
pub use idempotency_key::IdempotencyKey;
pub use json::AnyJson;
pub use path::Path;
pub use query::{Form, Query};

use garde::Validate;

use crate::Request;
use crate::openapi::Operation;
use crate::problem::{FieldError, Problem, Result};

/// What a handler may ask for.
#[allow(async_fn_in_trait, reason = "a component has one thread")]
pub trait FromRequest: Sized {
    /// Whether it takes the request's body; a handler has one such extractor at most.
    const TAKES_BODY: bool = false;

    /// Takes it from the request, or says what is wrong with the request.
    async fn from_request(request: &mut Request) -> Result<Self>;

    /// Adds what it reads to the OpenAPI operation.
    fn describe(_operation: &mut Operation<'_>) {}
}

/// Checks a value by its garde rules; `name` turns a garde path into the name the client knows.
fn validate<T: Validate<Context = ()>>(
    value: &T,
    name: impl Fn(&str) -> String,
) -> Result<(), Vec<FieldError>> {
    let Err(report) = value.validate() else {
        return Ok(());
    };
    let errors = report.iter();
    Err(errors
        .map(|(path, e)| FieldError {
            field: name(&path.to_string()),
            message: e.message().to_owned(),
        })
        .collect())
}

fn with_fields(mut problem: Problem, errors: Vec<FieldError>) -> Problem {
    for error in errors {
        problem = problem.field(error.field, error.message);
    }
    problem
}

/// `author_id` and `authorId` are one name.
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    let letters = |s: &'_ str| {
        s.bytes()
            .filter(|b| *b != b'_')
            .map(|b| b.to_ascii_lowercase())
            .collect::<Vec<_>>()
    };
    a == b || letters(a) == letters(b)
}

/// `author_id` as `authorId`, the way names are on the wire.
fn camel_case(name: &str) -> String {
    let mut upper = false;
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c == '_' && !out.is_empty() {
            upper = true;
        } else {
            out.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    out
}

/// The field that a serde message about an unknown or missing field names.
fn named_field(message: &str) -> Option<&str> {
    let rest = message
        .strip_prefix("missing field `")
        .or_else(|| message.strip_prefix("unknown field `"));
    rest.or_else(|| message.strip_prefix("duplicate field `"))
        .and_then(|rest| rest.split('`').next())
}

#[cfg(test)]
mod tests;
