//! Grants in plain words. A member that has none is told as it is written, so that nothing is left unsaid.

use serde_json::{Map, Value};

/// What a grant lets a component do, one thing a line.
pub(super) fn meaning(capability: &str, scope: &Value) -> Vec<String> {
    let empty = Map::new();
    let members = scope.as_object().unwrap_or(&empty);
    let mut lines: Vec<String> = base(capability).into_iter().map(str::to_owned).collect();
    for (name, value) in members.iter().filter(|(_, value)| says_something(value)) {
        match (capability, name.as_str(), value) {
            ("http", "call", Value::Array(calls)) => lines.extend(calls.iter().map(call)),
            ("ca", "mint", Value::Object(bounds)) => lines.push(mint(bounds)),
            _ => lines.push(member(capability, name, value)),
        }
    }
    if lines.is_empty() {
        lines.push(format!("uses {capability}"));
    }
    lines
}

/// What a grant of a capability permits whatever its scope.
fn base(capability: &str) -> Option<&'static str> {
    Some(match capability {
        "ca" => "sees who is calling it",
        "cache" => "keeps short-lived values of its own",
        "config" => "reads its configuration",
        "sql" => "reads and writes a database of its own, and no other",
        "telemetry" => "writes log records and metrics",
        _ => return None,
    })
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
        Value::Number(_) | Value::String(_) => true,
    }
}

fn member(capability: &str, name: &str, value: &Value) -> String {
    let phrase = match (capability, name) {
        ("blob", "read") => "reads objects in",
        ("blob", "write") => "writes and deletes objects in",
        ("ca", "verify") => "verifies anybody's tokens",
        ("ca", "revoke") => "revokes tokens by their id",
        ("ca", "sign") => "signs with keys of its own, which the host keeps:",
        ("ca", "authority") => "uses the keys of the certificate authority itself",
        ("events", "publish") => "publishes events on",
        ("events", "subscribe") => "receives events on",
        ("events", "live") => "sends and receives on live channels",
        ("http", "egress") => "calls addresses outside the platform:",
        ("platform", "read") => "sees which services run, and how",
        ("platform", "metrics") => "reads the metrics of the whole host",
        ("platform", "queues") => "sees the queues of all services",
        ("queue", "produce") => "adds jobs to",
        ("queue", "consume") => "works on the jobs of",
        ("queue", "manage") => "removes, retries and pauses the jobs of",
        ("sockets", "connect") => "opens connections to",
        ("sql", "ddl") => "changes its database's schema while it runs",
        _ => return format!("{name}: {}", plain(value)),
    };
    match value {
        Value::Bool(_) => phrase.to_owned(),
        value => format!("{phrase} {}", plain(value)),
    }
}

/// `calls exprsn-herald (GET, POST on /api/*) as itself`
fn call(call: &Value) -> String {
    let (service, act_as) = (plain(&call["service"]), plain(&call["act_as"]));
    let service = if service == "*" {
        "any service".to_owned()
    } else {
        service
    };
    let methods = match plain(&call["methods"]).as_str() {
        "*" => "any method".to_owned(),
        methods => methods.to_owned(),
    };
    let on = match act_as.as_str() {
        "service" => "as itself".to_owned(),
        other => format!("as the {other}"),
    };
    let paths = plain(&call["paths"]);
    let mut text = format!("calls {service} ({methods} on {paths}) {on}");
    if says_something(&call["permissions"]) {
        text.push_str(&format!(", with {}", plain(&call["permissions"])));
    }
    text
}

fn mint(bounds: &Map<String, Value>) -> String {
    let bound = |name: &str| bounds.get(name).map(plain).unwrap_or_default();
    format!(
        "mints tokens for {} with {} on {}, for at most {} s",
        bound("subjects"),
        bound("permissions"),
        bound("resources"),
        bound("lifetime_s_max")
    )
}

/// A value without JSON's quotes where it is a text or a list of texts.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn grants_are_told_in_words_and_nothing_is_left_out() {
        let check = |capability: &str, scope: Value, expected: &[&str]| {
            assert_eq!(
                meaning(capability, &scope),
                expected,
                "{capability} {scope}"
            );
        };
        check(
            "sql",
            json!({ "ddl": false }),
            &["reads and writes a database of its own, and no other"],
        );
        check(
            "queue",
            json!({ "produce": ["a", "b-*"], "consume": [] }),
            &["adds jobs to a, b-*"],
        );
        check(
            "http",
            json!({ "call": [{ "service": "exprsn-herald", "methods": ["GET"], "paths": ["/api/*"], "permissions": null, "act_as": "service" },
                { "service": "*", "methods": ["*"], "paths": ["*"], "permissions": ["read"], "act_as": "user" }], "egress": ["https://a:443"] }),
            &[
                "calls exprsn-herald (GET on /api/*) as itself",
                "calls any service (any method on *) as the user, with read",
                "calls addresses outside the platform: https://a:443",
            ],
        );
        check(
            "ca",
            json!({ "verify": true, "mint": { "subjects": ["user:*"], "permissions": ["read"], "resources": ["*"], "lifetime_s_max": 60 } }),
            &[
                "sees who is calling it",
                "mints tokens for user:* with read on *, for at most 60 s",
                "verifies anybody's tokens",
            ],
        );
        check(
            "later",
            json!({ "reach": ["x"], "far": true }),
            &["far: true", "reach: x"],
        );
        check("later", json!({}), &["uses later"]);
    }
}
