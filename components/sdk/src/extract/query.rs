//! Queries and forms: names with text values.

use std::borrow::Cow;
use std::ops::Deref;

use garde::Validate;
use http::StatusCode;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::de::Pairs;
use super::json::BODY_BYTES_MAX;
use super::{FromRequest, camel_case, named_field, same_name, validate, with_fields};
use crate::Request;
use crate::openapi::Operation;
use crate::problem::{Problem, Result};

/// The query as a struct: repeated names are sequences, an absent name is `None`. Errors are 400 and name the parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Query<T>(pub T);

impl<T> Deref for Query<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: DeserializeOwned + JsonSchema + Validate<Context = ()>> FromRequest for Query<T> {
    async fn from_request(request: &mut Request) -> Result<Self> {
        parse(
            request.query().unwrap_or_default().as_bytes(),
            StatusCode::BAD_REQUEST,
        )
        .map(Self)
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.query::<T>();
        operation.problem(400);
    }
}

/// A form (`application/x-www-form-urlencoded`) as a struct. Errors are 422 and name the field.
#[derive(Clone, Debug, PartialEq)]
pub struct Form<T>(pub T);

impl<T: DeserializeOwned + JsonSchema + Validate<Context = ()>> FromRequest for Form<T> {
    const TAKES_BODY: bool = true;

    async fn from_request(request: &mut Request) -> Result<Self> {
        let is_form = |value: &str| {
            value
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .eq_ignore_ascii_case(FORM)
        };
        if !request.headers().get("content-type").is_some_and(is_form) {
            return Err(Problem::unsupported_media_type(FORM));
        }
        let bytes = request.take_body().bytes(BODY_BYTES_MAX).await?;
        parse(&bytes, StatusCode::UNPROCESSABLE_ENTITY).map(Self)
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.request_body::<T>(FORM);
        for status in [400, 413, 415, 422] {
            operation.problem(status);
        }
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

fn parse<T: DeserializeOwned + Validate<Context = ()>>(
    text: &[u8],
    status: StatusCode,
) -> Result<T> {
    let pairs: Vec<Pair<'_>> = form_urlencoded::parse(text).collect();
    let value: T = serde_path_to_error::deserialize(Pairs(&pairs)).map_err(|error| {
        let message = error.inner().to_string();
        let path = error.path().to_string();
        let field = match named_field(&message) {
            Some(name) => name.to_owned(),
            None if path == "." => culprit::<T>(&pairs, &message).unwrap_or_default(),
            None => path,
        };
        Problem::new(status).field(field, message)
    })?;
    validate(&value, |path| name_in(&pairs, path))
        .map_err(|errors| with_fields(Problem::new(status), errors))?;
    Ok(value)
}

fn name_in(pairs: &[Pair<'_>], path: &str) -> String {
    // The last name: those before it are structs that the query is flattened into.
    let name = path.rsplit('.').next().unwrap_or_default();
    let name = name.split('[').next().unwrap_or_default();
    let sent = pairs.iter().find(|(sent, _)| same_name(sent, name));
    sent.map_or_else(|| camel_case(name), |(sent, _)| sent.clone().into_owned())
}

/// The name without which there is no error, or another one: beside a flattened struct, serde loses the path.
fn culprit<T: DeserializeOwned>(pairs: &[Pair<'_>], message: &str) -> Option<String> {
    let without = |name: &str| {
        let others: Vec<Pair<'_>> = pairs
            .iter()
            .filter(|(other, _)| other != name)
            .cloned()
            .collect();
        T::deserialize(Pairs(&others))
            .err()
            .map(|error| error.to_string())
    };
    let names = || pairs.iter().map(|(name, _)| name.as_ref());
    let found = names().find(|name| without(name).is_none());
    found
        .or_else(|| names().find(|name| without(name).is_some_and(|other| other != message)))
        .map(str::to_owned)
}
