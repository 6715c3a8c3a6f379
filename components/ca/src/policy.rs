//! Who is trusted to vouch for a component, and what of a service's grants can be withheld. Pure.

use serde_json::Value;

/// How far a component's signature is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A trusted publisher has signed it.
    Publisher,
    /// Somebody else has.
    Untrusted,
    /// Nobody has.
    Unsigned,
}

impl Trust {
    /// What the keys of trusted publishers make of a signer.
    pub fn of(signer: Option<&str>, is_publisher: impl Fn(&str) -> bool) -> Self {
        match signer {
            None => Self::Unsigned,
            Some(key) if is_publisher(key) => Self::Publisher,
            Some(_) => Self::Untrusted,
        }
    }

    /// The name on record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publisher => "publisher",
            Self::Untrusted => "untrusted",
            Self::Unsigned => "unsigned",
        }
    }

    /// Whether a component may be admitted; the error says what to do.
    pub fn allow(self, signer: Option<&str>, allow_unsigned: bool) -> Result<(), String> {
        match self {
            Self::Publisher => Ok(()),
            _ if allow_unsigned => Ok(()),
            Self::Unsigned => Err(
                "nobody has signed it: get a signed one from its publisher, or allow it by name (`allowUnsigned`, --allow-unsigned)"
                    .to_owned(),
            ),
            Self::Untrusted => Err(format!(
                "it is signed by {0}, which is not a trusted publisher: trust it with `exprsn publisher trust NAME {0}`, or allow this \
                 component by name (`allowUnsigned`, --allow-unsigned)",
                signer.unwrap_or_default()
            )),
        }
    }
}

/// All grants, and with that every request.
pub const EVERYTHING: &str = "*";

/// What can be withheld of grants: `sql`, `queue`, `queue:timeline-fanout`, `call:exprsn-herald`, …
pub fn offered(grants: &Value) -> Vec<String> {
    let mut offered = vec![EVERYTHING.to_owned()];
    for (capability, scope) in grants.as_object().into_iter().flatten() {
        offered.push(capability.clone());
        match capability.as_str() {
            "http" => {
                let calls = scope["call"].as_array().into_iter().flatten();
                offered.extend(scopes("call", calls.map(|call| &call["service"])));
                offered.extend(scopes(
                    "egress",
                    scope["egress"].as_array().into_iter().flatten(),
                ));
            }
            "sockets" => offered.extend(scopes("egress", std::iter::once(scope))),
            // Keys and subjects of tokens are no scopes that calls are checked by.
            "ca" => {}
            other => offered.extend(scopes(other, std::iter::once(scope))),
        }
    }
    offered
}

fn scopes<'a>(kind: &str, values: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let mut texts = Vec::new();
    values.for_each(|value| collect(value, &mut texts));
    texts.sort_unstable();
    texts.dedup();
    texts
        .into_iter()
        .map(|text| format!("{kind}:{text}"))
        .collect()
}

fn collect<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(all) => all.iter().for_each(|value| collect(value, texts)),
        Value::Object(all) => all.values().for_each(|value| collect(value, texts)),
        _ => {}
    }
}

/// Whether a service was granted what is to be withheld, in whole or in part.
pub fn is_offered(offered: &[String], grant: &str) -> bool {
    let kind_of = |text: &str| {
        text.split_once(':')
            .map(|(kind, scope)| (kind.to_owned(), scope.to_owned()))
    };
    let Some((kind, scope)) = kind_of(grant) else {
        let prefix = format!("{grant}:");
        return offered
            .iter()
            .any(|one| one == grant || one.starts_with(&prefix));
    };
    let meets = |granted: &str| covers(granted, &scope) || covers(&scope, granted);
    offered
        .iter()
        .filter_map(|one| kind_of(one))
        .any(|(granted_kind, granted)| granted_kind == kind && meets(&granted))
}

/// Whether a pattern in which any `*` stands for any text covers another text.
fn covers(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_publishers_signature_is_trusted() {
        let trust = |signer| Trust::of(signer, |key| key == "ab");
        assert_eq!(
            [trust(None), trust(Some("ab")), trust(Some("cd"))],
            [Trust::Unsigned, Trust::Publisher, Trust::Untrusted]
        );
        assert_eq!(Trust::Publisher.allow(Some("ab"), false), Ok(()));
        for distrusted in [Trust::Unsigned, Trust::Untrusted] {
            assert_eq!(distrusted.allow(Some("cd"), true), Ok(()));
            let error = distrusted.allow(Some("cd"), false).expect_err("refused");
            assert!(error.contains("--allow-unsigned"), "{error}");
        }
        assert!(
            Trust::Untrusted
                .allow(Some("cd"), false)
                .expect_err("refused")
                .contains("trust NAME cd")
        );
    }

    #[test]
    fn what_can_be_withheld_is_what_was_granted() {
        let grants = json!({
            "ca": { "verify": true, "sign": ["key"] },
            "events": { "publish": ["post.*"], "subscribe": [], "live": true },
            "http": { "call": [{ "service": "exprsn-herald", "methods": ["POST"] }], "egress": ["https://*.example.com:443"] },
            "queue": { "produce": ["a", "b-*"], "consume": ["a"], "manage": [] },
            "sql": { "ddl": false },
        });
        let all = offered(&grants);
        assert_eq!(
            all,
            [
                "*",
                "ca",
                "events",
                "events:post.*",
                "http",
                "call:exprsn-herald",
                "egress:https://*.example.com:443",
                "queue",
                "queue:a",
                "queue:b-*",
                "sql"
            ]
        );
        for known in [
            "*",
            "sql",
            "queue",
            "call",
            "egress",
            "http",
            "queue:a",
            "queue:b-1",
            "queue:*",
            "queue:b-*",
            "events:post.created",
            "call:exprsn-herald",
            "call:*",
            "egress:https://api.example.com:443",
            "egress:https://*.example.com:443",
        ] {
            assert!(is_offered(&all, known), "{known}");
        }
        for unknown in [
            "",
            "blob",
            "queue:c",
            "sql:x",
            "call:exprsn-ca",
            "egress:https://example.org:443",
            "egress:http://api.example.com:443",
            "ca:key",
        ] {
            assert!(!is_offered(&all, unknown), "{unknown}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in [
            ("a", "a"),
            ("*", ""),
            ("a*", "a"),
            ("*c", "abc"),
            ("a*c*e", "abcde"),
            ("a*", "a*"),
        ] {
            assert!(covers(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*c", "ab"), ("a*b*b", "ab"), ("", "a")] {
            assert!(!covers(pattern, text), "{pattern} {text}");
        }
    }
}
