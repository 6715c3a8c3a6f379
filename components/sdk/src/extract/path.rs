//! Path parameters.

use std::borrow::Cow;
use std::ops::Deref;

use serde::de::DeserializeOwned;

use super::FromRequest;
use super::de::{Pairs, Texts};
use crate::Request;
use crate::openapi::Operation;
use crate::problem::{Problem, Result};

/// The values of the route's `{names}`: one value, a tuple in their order, or a struct by name. Errors are 400.
#[derive(Clone, Debug, PartialEq)]
pub struct Path<T>(pub T);

impl<T> Deref for Path<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: DeserializeOwned> FromRequest for Path<T> {
    async fn from_request(request: &mut Request) -> Result<Self> {
        let params = request.params();
        if let [(name, value)] = params {
            // A single value first: the common case, and the one that a map cannot give.
            match T::deserialize(Texts(vec![value])) {
                Ok(value) => return Ok(Self(value)),
                Err(error) if !error.to_string().starts_with("invalid type") => {
                    return Err(Problem::bad_request(name, error.to_string()));
                }
                Err(_) => {}
            }
        }
        let pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = params
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        serde_path_to_error::deserialize(Pairs(&pairs))
            .map(Self)
            .map_err(|error| {
                let field = match error.path().iter().next() {
                    Some(serde_path_to_error::Segment::Map { key }) => key.clone(),
                    Some(serde_path_to_error::Segment::Seq { index }) => pairs
                        .get(*index)
                        .map(|p| p.0.to_string())
                        .unwrap_or_default(),
                    _ => String::new(),
                };
                Problem::bad_request(field, error.inner().to_string())
            })
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.problem(400);
    }
}
