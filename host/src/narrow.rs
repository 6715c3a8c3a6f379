//! Whether what an operator approves lies within what a component asks for. Pure: values in, a verdict out.
//!
//! Both sides are grants as JSON, written down by the same type, so that what was left out stands there as it counts.
//! One rule for each kind of value, whatever the capability:
//!
//! - an object is covered member by member; a member that was not asked for is not covered, one that is left out is less;
//! - each element of an array is covered by some element that was asked for;
//! - a text is covered by itself, and by a pattern that ends in `*` and matches it;
//! - an address outside (`https://*.example.com`) is covered by a pattern that covers all that it does;
//! - `true` is covered by `true`; `false` by either;
//! - a number is covered by one that is as large or larger, and may not be left out: it is a bound;
//! - `null` stands for the default, whatever that is, and is covered by `null` alone.

use crate::{mesh::EgressPattern, name};
use serde_json::Value;

/// Checks that `asked` covers `approved`; the error says at which place it does not, and what was asked for there.
pub fn check(asked: &Value, approved: &Value) -> Result<(), String> {
    check_at("", asked, approved)
}

fn check_at(place: &str, asked: &Value, approved: &Value) -> Result<(), String> {
    match (asked, approved) {
        (Value::Object(asked), Value::Object(approved)) => {
            for (key, value) in approved {
                let place = join(place, key);
                match asked.get(key) {
                    Some(asked) => check_at(&place, asked, value)?,
                    None if is_nothing(value) => {}
                    None => return Err(format!("{place} = {value} was not asked for")),
                }
            }
            match asked
                .iter()
                .find(|(key, value)| value.is_number() && !approved.contains_key(*key))
            {
                Some((key, value)) => Err(format!(
                    "{} is a bound and cannot be left out: at most {value} was asked for",
                    join(place, key)
                )),
                None => Ok(()),
            }
        }
        (Value::Array(all), Value::Array(approved)) => approved.iter().try_for_each(|one| {
            // An object is compared with each that was asked for; the reason why one is not covered would mislead.
            let covered = all.iter().any(|asked| check_at(place, asked, one).is_ok());
            if covered {
                Ok(())
            } else {
                Err(refusal(place, asked, one))
            }
        }),
        _ if covers_plain(asked, approved) => Ok(()),
        _ => Err(refusal(place, asked, approved)),
    }
}

fn covers_plain(asked: &Value, approved: &Value) -> bool {
    match (asked, approved) {
        (Value::String(pattern), Value::String(text)) => covers_text(pattern, text),
        (Value::Bool(asked), Value::Bool(approved)) => *asked || !approved,
        (Value::Number(asked), Value::Number(approved)) => at_most(approved, asked),
        (Value::Null, Value::Null) => true,
        _ => false,
    }
}

fn covers_text(asked: &str, approved: &str) -> bool {
    match (EgressPattern::parse(asked), EgressPattern::parse(approved)) {
        (Ok(asked), Ok(approved)) => asked.includes(&approved),
        _ => name::matches(asked, approved),
    }
}

/// Whole numbers are compared as such: as floating-point numbers two large ones may seem the same.
fn at_most(approved: &serde_json::Number, asked: &serde_json::Number) -> bool {
    match (approved.as_i128(), asked.as_i128()) {
        (Some(approved), Some(asked)) => approved <= asked,
        _ => match (approved.as_f64(), asked.as_f64()) {
            (Some(approved), Some(asked)) => approved <= asked,
            _ => false,
        },
    }
}

/// What permits nothing, whether it was asked for or not.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Bool(yes) => !yes,
        Value::Array(all) => all.is_empty(),
        _ => false,
    }
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() {
        key.to_owned()
    } else {
        format!("{place}.{key}")
    }
}

fn refusal(place: &str, asked: &Value, approved: &Value) -> String {
    let at = if place.is_empty() {
        String::new()
    } else {
        format!("{place}: ")
    };
    format!("{at}{approved} is more than was asked for, which is {asked}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn covered(asked: Value, approved: Value) {
        assert_eq!(check(&asked, &approved), Ok(()), "{asked} {approved}");
    }

    #[track_caller]
    fn refused(asked: Value, approved: Value, expected: &str) {
        let error = check(&asked, &approved).expect_err("not covered");
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn the_same_is_covered() {
        for value in [
            json!({}),
            json!({ "produce": ["a", "b-*"], "live": true, "bytes_max": 7, "permissions": null }),
            json!({ "call": [{ "service": "exprsn-a", "methods": ["GET"], "act_as": "user", "permissions": ["read"] }] }),
        ] {
            covered(value.clone(), value);
        }
    }

    #[test]
    fn less_is_covered_and_more_is_not() {
        let asked =
            json!({ "produce": ["a", "b-*"], "consume": ["c"], "ddl": false, "live": true });
        covered(asked.clone(), json!({}));
        covered(
            asked.clone(),
            json!({ "produce": ["b-1", "b-*", "b-x*"], "live": false }),
        );
        covered(
            asked.clone(),
            json!({ "produce": [], "manage": [], "other": false }),
        );
        refused(
            asked.clone(),
            json!({ "produce": ["b"] }),
            "produce: \"b\" is more",
        );
        refused(
            asked.clone(),
            json!({ "produce": ["*"] }),
            "[\"a\",\"b-*\"]",
        );
        refused(asked.clone(), json!({ "consume": ["a"] }), "consume");
        refused(asked.clone(), json!({ "ddl": true }), "ddl: true is more");
        refused(
            asked.clone(),
            json!({ "manage": ["a"] }),
            "manage = [\"a\"] was not asked for",
        );
        refused(
            asked.clone(),
            json!({ "mint": { "lifetime_s_max": 1 } }),
            "mint",
        );
        refused(asked.clone(), json!({ "produce": "a" }), "produce");
        refused(asked, json!(null), "null");
    }

    #[test]
    fn a_text_is_a_pattern_only_at_its_end() {
        covered(json!(["b-*"]), json!(["b-1"]));
        refused(
            json!(["*.example.com"]),
            json!(["a.example.com"]),
            "a.example.com",
        );
        refused(json!(["user:1"]), json!(["user:*"]), "user:*");
        refused(json!(["A"]), json!(["a"]), "\"a\"");
    }

    #[test]
    fn an_address_outside_is_covered_as_connections_are() {
        covered(json!(["https://*"]), json!(["https://api.example.com:443"]));
        covered(json!(["https://*.a.b"]), json!(["https://x.a.b"]));
        covered(json!(["tcp://*:*"]), json!(["tcp://mail.a.b:25"]));
        refused(json!(["https://*"]), json!(["https://a.b:8443"]), "8443");
        refused(json!(["https://*"]), json!(["https://10.0.0.1"]), "10.0");
        refused(json!(["https://a.b"]), json!(["https://*"]), "https://*");
    }

    #[test]
    fn numbers_are_bounds() {
        let asked = json!({ "bytes_max": 10 });
        covered(asked.clone(), json!({ "bytes_max": 10 }));
        covered(asked.clone(), json!({ "bytes_max": -1 }));
        covered(json!(1.5), json!(1));
        refused(asked.clone(), json!({ "bytes_max": 11 }), "11");
        refused(
            asked.clone(),
            json!({}),
            "bytes_max is a bound and cannot be left out",
        );
        refused(asked, json!({ "bytes_max": null }), "null");
        refused(json!(u64::MAX - 1), json!(u64::MAX), "18446744073709551615");
    }

    #[test]
    fn null_is_a_default_that_nobody_here_knows() {
        refused(
            json!({ "permissions": null }),
            json!({ "permissions": ["admin"] }),
            "permissions",
        );
        refused(
            json!({ "permissions": ["read"] }),
            json!({ "permissions": null }),
            "permissions",
        );
    }

    #[test]
    fn an_object_in_an_array_is_covered_by_one_that_was_asked_for_not_by_several() {
        let asked = json!({ "call": [
            { "service": "exprsn-a", "methods": ["GET"], "paths": ["/a/*"] },
            { "service": "exprsn-b", "methods": ["*"], "paths": ["/b"] },
        ] });
        let one = |service: &str, method: &str, path: &str| json!({ "call": [{ "service": service, "methods": [method], "paths": [path] }] });
        covered(asked.clone(), one("exprsn-a", "GET", "/a/1"));
        covered(asked.clone(), one("exprsn-b", "PUT", "/b"));
        refused(asked.clone(), one("exprsn-a", "PUT", "/a/1"), "call");
        refused(asked.clone(), one("exprsn-b", "GET", "/a/1"), "/a/1");
        refused(asked, one("*", "GET", "/b"), "\"*\"");
    }
}
