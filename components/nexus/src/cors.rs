//! Cross-origin resource sharing (Fetch §3.2): which pages' scripts may use the platform through the gateway.
//!
//! **Invariant:** credentials are allowed to origins named one by one, never to `*`.

/// How long a browser may remember a preflight's answer, in seconds.
const MAX_AGE_S: u32 = 600;
/// Methods that a preflight is told, besides the one asked for.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
/// Response fields that scripts may read, besides the safelisted ones.
const EXPOSED: &str = "Location, Link, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id, ETag, \
                       Idempotency-Replayed, WWW-Authenticate, Content-Disposition";
/// Longest value of a request's field that is repeated in an answer, in bytes.
const REFLECTED_BYTES_MAX: usize = 2_048;

/// Who may use the gateway from a browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    origins: Vec<Origin>,
    credentials: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    Any,
    Exactly(String),
    /// `http://localhost:*`: any port.
    AnyPort(String),
}

/// A header field to add.
pub type Field = (&'static str, String);

impl Cors {
    /// Reads origins separated by commas: `*`, `https://app.example`, `http://localhost:*`. What is none is ignored.
    pub fn parse(origins: &str, credentials: bool) -> Self {
        let origins = origins
            .split(',')
            .map(str::trim)
            .filter(|origin| !origin.is_empty());
        Self {
            origins: origins.map(Origin::parse).collect(),
            credentials,
        }
    }

    /// Fields of an ordinary answer. `Vary` is there whenever the answer depends on the origin.
    pub fn actual(&self, origin: Option<&str>) -> Vec<Field> {
        let mut fields = self.allow(origin);
        if !fields.is_empty() {
            fields.push(("access-control-expose-headers", EXPOSED.to_owned()));
        }
        if self.depends_on_origin() {
            fields.push(("vary", "Origin".to_owned()));
        }
        fields
    }

    /// Fields of a preflight's answer, or none where the origin is not allowed.
    pub fn preflight(
        &self,
        origin: &str,
        method: &str,
        headers: Option<&str>,
    ) -> Option<Vec<Field>> {
        let mut fields = self.allow(Some(origin));
        if fields.is_empty() || !is_token(method) {
            return None;
        }
        let methods = match METHODS.split(", ").any(|known| known == method) {
            true => METHODS.to_owned(),
            false => format!("{METHODS}, {method}"),
        };
        fields.push(("access-control-allow-methods", methods));
        if let Some(headers) = headers.filter(|headers| is_token_list(headers)) {
            fields.push(("access-control-allow-headers", headers.to_owned()));
        }
        fields.push(("access-control-max-age", MAX_AGE_S.to_string()));
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        fields.push(("vary", vary.to_owned()));
        Some(fields)
    }

    fn allow(&self, origin: Option<&str>) -> Vec<Field> {
        let Some(origin) = origin else {
            return Vec::new();
        };
        let Some(pattern) = self.origins.iter().find(|pattern| pattern.covers(origin)) else {
            return Vec::new();
        };
        if *pattern == Origin::Any {
            return vec![("access-control-allow-origin", "*".to_owned())];
        }
        let mut fields = vec![("access-control-allow-origin", origin.to_owned())];
        if self.credentials {
            fields.push(("access-control-allow-credentials", "true".to_owned()));
        }
        fields
    }

    fn depends_on_origin(&self) -> bool {
        self.origins.iter().any(|pattern| *pattern != Origin::Any)
    }
}

impl Origin {
    fn parse(text: &str) -> Self {
        let text = text.trim_end_matches('/').to_ascii_lowercase();
        if text == "*" {
            return Self::Any;
        }
        match text.strip_suffix(":*") {
            Some(base) => Self::AnyPort(base.to_owned()),
            None => Self::Exactly(text),
        }
    }

    fn covers(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(exact) => exact == origin,
            Self::AnyPort(base) => match origin.strip_prefix(base.as_str()) {
                Some("") => true,
                Some(rest) => rest.strip_prefix(':').is_some_and(is_port),
                None => false,
            },
        }
    }
}

fn is_port(text: &str) -> bool {
    !text.is_empty() && text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// RFC 9110 §5.6.2.
pub fn is_token(text: &str) -> bool {
    let special = b"!#$%&'*+-.^_`|~";
    let good = |byte: u8| byte.is_ascii_alphanumeric() || special.contains(&byte);
    !text.is_empty() && text.bytes().all(good)
}

fn is_token_list(text: &str) -> bool {
    text.len() <= REFLECTED_BYTES_MAX && text.split(',').all(|name| is_token(name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value<'a>(fields: &'a [Field], name: &str) -> Option<&'a str> {
        fields
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.as_str())
    }

    #[test]
    fn named_origins_are_repeated_with_vary() {
        let cors = Cors::parse("https://app.example, http://localhost:*", true);
        for origin in [
            "https://app.example",
            "http://localhost",
            "http://localhost:5173",
        ] {
            let fields = cors.actual(Some(origin));
            assert_eq!(value(&fields, "access-control-allow-origin"), Some(origin));
            assert_eq!(
                value(&fields, "access-control-allow-credentials"),
                Some("true")
            );
            assert!(
                value(&fields, "access-control-expose-headers")
                    .unwrap()
                    .contains("RateLimit")
            );
            assert_eq!(value(&fields, "vary"), Some("Origin"));
        }
    }

    #[test]
    fn other_origins_get_nothing_but_vary() {
        let cors = Cors::parse("https://app.example,http://localhost:*", true);
        for origin in [
            "https://app.example.evil",
            "http://app.example",
            "http://localhost.evil",
            "http://localhost:80.evil",
            "http://localhost:",
            "null",
        ] {
            assert_eq!(
                cors.actual(Some(origin)),
                [("vary", "Origin".to_owned())],
                "{origin}"
            );
            assert_eq!(cors.preflight(origin, "GET", None), None, "{origin}");
        }
        assert_eq!(cors.actual(None), [("vary", "Origin".to_owned())]);
    }

    #[test]
    fn any_origin_never_gets_credentials() {
        let fields = Cors::parse("*", true).actual(Some("https://x.example"));
        assert_eq!(value(&fields, "access-control-allow-origin"), Some("*"));
        assert_eq!(value(&fields, "access-control-allow-credentials"), None);
        assert_eq!(Cors::parse("", true).actual(Some("https://x.example")), []);
    }

    #[test]
    fn a_preflight_repeats_method_and_headers() {
        let cors = Cors::parse("http://localhost:*", false);
        let fields = cors
            .preflight("http://localhost:1", "REPORT", Some("authorization, x-a"))
            .unwrap();
        assert!(
            value(&fields, "access-control-allow-methods")
                .unwrap()
                .ends_with(", REPORT")
        );
        assert_eq!(
            value(&fields, "access-control-allow-headers"),
            Some("authorization, x-a")
        );
        assert!(
            value(&fields, "vary")
                .unwrap()
                .contains("Access-Control-Request-Headers")
        );
        let fields = cors
            .preflight("http://localhost:1", "GET", Some("a\nb"))
            .unwrap();
        assert_eq!(value(&fields, "access-control-allow-headers"), None);
        assert_eq!(cors.preflight("http://localhost:1", "G T", None), None);
    }
}
