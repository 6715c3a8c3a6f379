//! JSON bodies: parsed, then validated, with errors that name the field.

use garde::Validate;
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment};

use super::{FromRequest, camel_case, named_field, same_name, validate, with_fields};
use crate::Request;
use crate::openapi::Operation;
use crate::problem::{Problem, Result};
use crate::response::{IntoResponse, Json, Response};

/// Most bytes of a JSON or form body. The host's limit of the route comes first and is usually lower.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

impl<T> FromRequest for Json<T>
where
    T: DeserializeOwned + JsonSchema + Validate<Context = ()>,
{
    const TAKES_BODY: bool = true;

    async fn from_request(request: &mut Request) -> Result<Self> {
        let bytes = read(request).await?;
        let value: T = parse(&bytes)?;
        validate(&value, |path| pointer_in(&bytes, path)).map_err(|errors| {
            with_fields(Problem::new(http::StatusCode::UNPROCESSABLE_ENTITY), errors)
        })?;
        Ok(Self(value))
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.request_body::<T>("application/json");
        for status in [400, 413, 415, 422] {
            operation.problem(status);
        }
    }
}

/// Any JSON value, as request body or answer.
#[derive(Clone, Debug, PartialEq)]
pub struct AnyJson(pub Value);

impl FromRequest for AnyJson {
    const TAKES_BODY: bool = true;

    async fn from_request(request: &mut Request) -> Result<Self> {
        let bytes = read(request).await?;
        parse(&bytes).map(Self)
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.request_body::<Value>("application/json");
        for status in [400, 413, 415] {
            operation.problem(status);
        }
    }
}

impl IntoResponse for AnyJson {
    fn into_response(self) -> Response {
        Response::ok().json(&self.0)
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.json_response::<Value>(http::StatusCode::OK);
    }
}

async fn read(request: &mut Request) -> Result<Vec<u8>> {
    if !request.headers().get("content-type").is_some_and(is_json) {
        return Err(Problem::unsupported_media_type("application/json"));
    }
    request.take_body().bytes(BODY_BYTES_MAX).await
}

/// `application/json` or a type with the suffix `+json`, whatever its parameters.
fn is_json(media_type: &str) -> bool {
    let essence = media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Parses JSON: 400 with the position where it is malformed, 422 with a pointer where a field is wrong.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let error = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // Malformed anywhere is malformed, though a wrong field may come before. The field is looked for only now, as
    // tracking it slows parsing down.
    match serde_json::from_slice::<IgnoredAny>(bytes) {
        Err(error) => Err(malformed(&error)),
        Ok(_) if error.classify() == Category::Data => Err(wrong_field::<T>(bytes, &error)),
        Ok(_) => Err(malformed(&error)),
    }
}

fn malformed(error: &serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    Problem::new(http::StatusCode::BAD_REQUEST)
        .detail(format!("malformed JSON: {error}"))
        .field("", format!("malformed at line {line} column {column}"))
        .with("line", line)
        .with("column", column)
}

fn wrong_field<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Problem {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let found = serde_path_to_error::deserialize::<_, T>(&mut deserializer).err();
    let path = found.map(|e| pointer(e.path())).unwrap_or_default();
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or_default();
    let field = match named_field(message) {
        Some(name) if !path.ends_with(&format!("/{}", escape(name))) => {
            format!("{path}/{}", escape(name))
        }
        _ => path,
    };
    Problem::unprocessable(field, message)
}

fn pointer(path: &Path) -> String {
    let mut out = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => out.push_str(&format!("/{index}")),
            Segment::Map { key } => out.push_str(&format!("/{}", escape(key))),
            Segment::Enum { variant } => out.push_str(&format!("/{}", escape(variant))),
            Segment::Unknown => {}
        }
    }
    out
}

/// RFC 6901 §3.
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A garde path (`author_id`, `items[2].text`) as a pointer into the body, with the names that the body uses.
fn pointer_in(bytes: &[u8], path: &str) -> String {
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let parts: Vec<&str> = path
        .split(['.', '[', ']'])
        .filter(|part| !part.is_empty())
        .collect();
    let mut at = Some(&body);
    let mut out = String::new();
    for (i, part) in parts.iter().enumerate() {
        let (name, next) = match at {
            Some(Value::Object(members)) => match member(members, part) {
                Some((name, value)) => (name.clone(), Some(value)),
                // A struct flattened into this one has no member of its own.
                None if parts
                    .get(i + 1)
                    .is_some_and(|next| member(members, next).is_some()) =>
                {
                    continue;
                }
                None => (camel_case(part), None),
            },
            Some(Value::Array(items)) => (
                (*part).to_owned(),
                part.parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index)),
            ),
            _ => (camel_case(part), None),
        };
        out.push('/');
        out.push_str(&escape(&name));
        at = next;
    }
    out
}

fn member<'a>(members: &'a Map<String, Value>, name: &str) -> Option<(&'a String, &'a Value)> {
    members.iter().find(|(key, _)| same_name(key, name))
}
