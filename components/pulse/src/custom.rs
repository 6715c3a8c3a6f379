//! `POST /api/event`: what applications count besides what the platform does by itself.

use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::stmt;
use serde_json::{Map, Value};

use crate::apply;
use crate::effects;

/// Different names of custom events; each is a metric of its own.
const NAMES_MAX: i64 = 1_000;
/// Properties of one event, characters of a text among them, and bytes of all as JSON.
const PROPERTIES_MAX: usize = 50;
const TEXT_CHARS_MAX: usize = 500;
const PROPERTIES_BYTES_MAX: usize = 8_192;

/// Something that happened.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct NewEvent {
    /// Lower-case letters, digits, `_` and `.`, a letter first, 64 at most: `signup.completed`.
    #[garde(custom(fits))]
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_.]{0,63}$"))]
    pub name: String,
    /// Up to 50 texts, numbers and truth values.
    #[garde(custom(flat))]
    #[serde(default)]
    pub properties: Map<String, Value>,
}

/// An event taken down.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    pub id: String,
    pub name: String,
    pub user_id: String,
    pub properties: Map<String, Value>,
    pub created_at: i64,
}

/// Takes down a custom event of the caller's.
pub async fn create(
    caller: Caller,
    key: IdempotencyKey,
    user: User,
    Json(new): Json<NewEvent>,
) -> Result<Once<Created<Recorded>>> {
    once(&key, &caller, &("event", &new), async {
        let event = Recorded {
            id: uuid_v7(),
            name: new.name.clone(),
            user_id: user.id,
            properties: new.properties.clone(),
            created_at: now_ms(),
        };
        record(&event).await?;
        Ok(Created::new(event))
    })
    .await
}

async fn record(event: &Recorded) -> Result<()> {
    let properties = json!(event.properties).to_string();
    let mut statements = vec![
        stmt(
            "INSERT INTO event_names (name) SELECT CAST($1 AS TEXT) WHERE (SELECT COUNT(*) FROM event_names) < $2 \
             ON CONFLICT (name) DO NOTHING",
            params![event.name, NAMES_MAX],
        ),
        stmt(
            "INSERT INTO events (id, name, user_id, properties, created_at) VALUES ($1, $2, $3, $4, $5)",
            params![
                event.id,
                event.name,
                event.user_id,
                properties,
                event.created_at
            ],
        ),
    ];
    statements.extend(apply::statements(
        effects::of_custom(&event.name, &event.user_id),
        event.created_at,
    ));
    match sql::batch(statements).await {
        Ok(_) => Ok(()),
        // The name found no place: the event's reference to it is broken.
        Err(error) if error.is_foreign_key() => Err(Problem::unprocessable(
            "/name",
            format!("there are {NAMES_MAX} names already, and no more can be added"),
        )),
        Err(error) => Err(error.into()),
    }
}

/// Whether a name fits a custom event.
pub fn is_name(name: &str) -> bool {
    let rest =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.".contains(&byte);
    (1..=64).contains(&name.len())
        && name.as_bytes()[0].is_ascii_lowercase()
        && name.bytes().all(rest)
}

fn fits(text: &str, _: &()) -> garde::Result {
    if is_name(text) {
        Ok(())
    } else {
        Err(garde::Error::new(
            "must be 1 to 64 of a-z 0-9 _ . with a letter first",
        ))
    }
}

fn flat(properties: &Map<String, Value>, _: &()) -> garde::Result {
    check_flat(properties).map_err(garde::Error::new)
}

fn check_flat(properties: &Map<String, Value>) -> Result<(), String> {
    if properties.len() > PROPERTIES_MAX {
        return Err(format!("must not be more than {PROPERTIES_MAX}"));
    }
    for (key, value) in properties {
        let fits = match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => true,
            Value::String(text) => text.chars().count() <= TEXT_CHARS_MAX,
            Value::Array(_) | Value::Object(_) => false,
        };
        if !fits || key.is_empty() || key.chars().count() > 64 {
            return Err(format!(
                "`{key:.64}` must be a text of {TEXT_CHARS_MAX} characters at most, a number or a truth value"
            ));
        }
    }
    if json!(properties).to_string().len() > PROPERTIES_BYTES_MAX {
        return Err(format!(
            "must not be longer than {PROPERTIES_BYTES_MAX} bytes"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let event: NewEvent = serde_json::from_str(text).map_err(|error| error.to_string())?;
        event.validate().map_err(|report| report.to_string())
    }

    #[test]
    fn takes_a_name_and_flat_properties() {
        assert_eq!(check(r#"{"name":"signup.completed"}"#), Ok(()));
        assert_eq!(
            check(
                r#"{"name":"a","properties":{"plan":"pro","seats":3,"trial":false,"note":null}}"#
            ),
            Ok(())
        );
    }

    #[test]
    fn refuses_the_rest_by_name() {
        let long = format!(
            r#"{{"name":"a","properties":{{"x":"{}"}}}}"#,
            "y".repeat(TEXT_CHARS_MAX + 1)
        );
        let many: Map<String, Value> = (0..=PROPERTIES_MAX)
            .map(|n| (n.to_string(), n.into()))
            .collect();
        let many = json!({ "name": "a", "properties": many }).to_string();
        let nested = r#"{"name":"a","properties":{"x":{}}}"#;
        for bad in [
            r#"{"name":"A"}"#,
            r#"{"name":""}"#,
            r#"{"properties":{}}"#,
            r#"{"name":"a","x":1}"#,
            nested,
            &long,
            &many,
        ] {
            assert!(check(bad).is_err(), "{bad:.60} passed");
        }
        assert!(check(nested).expect_err("nested").starts_with("properties"));
    }
}
