//! Bodies that are JSON or a form, told apart by their first character.
//!
//! The specification's example posts JSON with curl's default media type, that of a form; RFC 7009 and RFC 7662 post
//! forms. Both must work on one route.

use exprsn_sdk::{extract::FromRequest, openapi::Operation, prelude::*};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Largest body, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A JSON object, or a form whose values are texts.
pub struct Lenient<T>(pub T);

impl<T: DeserializeOwned + JsonSchema> FromRequest for Lenient<T> {
    const TAKES_BODY: bool = true;

    async fn from_request(request: &mut Request) -> Result<Self> {
        let body = Body::from_request(request)
            .await?
            .bytes(BODY_BYTES_MAX)
            .await?;
        parse(&body).map(Self)
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.request_body::<T>("application/json");
        for status in [400, 413, 422] {
            operation.problem(status);
        }
    }
}

/// Parses a body; unknown members are an error of JSON only, since a form may carry what its standard adds.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let value = if json {
        serde_json::from_slice(body)
            .map_err(|error| Problem::bad_request("", format!("malformed JSON: {error}")))?
    } else {
        form(body)?
    };
    serde_json::from_value(value).map_err(|error| {
        let text = error.to_string();
        let field = text
            .split('`')
            .nth(1)
            .filter(|_| text.contains("field `"))
            .map(|name| format!("/{name}"));
        Problem::unprocessable(field.unwrap_or_default(), text)
    })
}

fn form(body: &[u8]) -> Result<Value> {
    let mut members = Map::new();
    for (name, value) in form_urlencoded::parse(body) {
        if members
            .insert(name.clone().into_owned(), Value::String(value.into_owned()))
            .is_some()
        {
            return Err(Problem::bad_request(name, "occurs twice"));
        }
    }
    Ok(Value::Object(members))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Body {
        token: String,
        hint: Option<String>,
    }

    fn body(token: &str, hint: Option<&str>) -> Body {
        Body {
            token: token.into(),
            hint: hint.map(str::to_owned),
        }
    }

    #[test]
    fn json_and_forms_are_read() {
        assert_eq!(
            parse::<Body>(br#" {"token": "a.b.c"}"#).ok(),
            Some(body("a.b.c", None))
        );
        assert_eq!(
            parse::<Body>(b"token=a.b.c&hint=x%20y").ok(),
            Some(body("a.b.c", Some("x y")))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |text: &str, status: u16, field: &str| {
            let problem = parse::<Body>(text.as_bytes()).expect_err(text);
            assert_eq!(
                (problem.status().as_u16(), problem.errors[0].field.as_str()),
                (status, field),
                "{text}"
            );
        };
        check("{", 400, "");
        check("{}", 422, "/token");
        check("", 422, "/token");
        check(r#"{"token":1}"#, 422, "");
        check("token=a&token=b", 400, "token");
    }
}
