//! What herald takes and gives: bodies, answers, and the data of the events it listens to.

use std::borrow::Cow;

use exprsn_sdk::Id;
use garde::Validate;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Users that one bulk request may name.
pub const BULK_USERS_MAX: usize = 10_000;
/// Bytes of a notification's `data` as JSON.
pub const DATA_BYTES_MAX: usize = 8_192;
/// Endpoints that one owner may have.
pub const ENDPOINTS_MAX: i64 = 20;
/// Types that an endpoint or a set of preferences may name.
pub const TYPES_MAX: usize = 64;
/// The word for every type.
pub const EVERY_TYPE: &str = "*";

/// A notification's type: `new_post`, `like`, `invoice.paid`. Lower-case letters, digits and `_ . -`, a letter first, 64 at most.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kind(String);

impl Kind {
    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A type of herald's own.
    pub fn own(name: &'static str) -> Self {
        Kind(name.to_owned())
    }
}

impl TryFrom<String> for Kind {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let rest =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
        let fits = (1..=64).contains(&text.len())
            && text.as_bytes()[0].is_ascii_lowercase()
            && text.bytes().all(rest);
        if fits {
            Ok(Kind(text))
        } else {
            Err("a type is 1 to 64 of a-z 0-9 _ . - with a letter first")
        }
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> String {
        kind.0
    }
}

impl JsonSchema for Kind {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Type")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[a-z][a-z0-9_.-]{0,63}$" })
    }
}

/// A notification to one user.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Send {
    #[garde(skip)]
    pub user_id: Id,
    #[garde(skip)]
    #[serde(rename = "type")]
    pub kind: Kind,
    #[garde(skip)]
    #[serde(default)]
    pub post_id: Option<Id>,
    /// Who caused it. Services may name anybody; a user is always their own actor.
    #[garde(skip)]
    #[serde(default)]
    pub actor_id: Option<Id>,
    #[garde(inner(length(chars, min = 1, max = 200), custom(readable)))]
    #[serde(default)]
    pub title: Option<String>,
    #[garde(inner(length(chars, min = 1, max = 2_000), custom(readable)))]
    #[serde(default)]
    pub body: Option<String>,
    #[garde(custom(small))]
    #[serde(default)]
    pub data: Map<String, Value>,
    /// The same sender's same key reaches a user once.
    #[garde(inner(length(min = 1, max = 200), ascii))]
    #[serde(default)]
    pub dedupe_key: Option<String>,
}

/// The same notification to many users.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Bulk {
    #[garde(length(min = 1, max = BULK_USERS_MAX))]
    #[schemars(length(min = 1, max = 10000))]
    pub user_ids: Vec<Id>,
    #[garde(skip)]
    #[serde(rename = "type")]
    pub kind: Kind,
    #[garde(skip)]
    #[serde(default)]
    pub post_id: Option<Id>,
    /// Who caused it. Services may name anybody; a user is always their own actor.
    #[garde(skip)]
    #[serde(default)]
    pub actor_id: Option<Id>,
    #[garde(inner(length(chars, min = 1, max = 200), custom(readable)))]
    #[serde(default)]
    pub title: Option<String>,
    #[garde(inner(length(chars, min = 1, max = 2_000), custom(readable)))]
    #[serde(default)]
    pub body: Option<String>,
    #[garde(custom(small))]
    #[serde(default)]
    pub data: Map<String, Value>,
    /// The same sender's same key reaches a user once.
    #[garde(inner(length(min = 1, max = 200), ascii))]
    #[serde(default)]
    pub dedupe_key: Option<String>,
}

/// What became of a request to notify.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// The notification's id, where one user was to get it and has it in the inbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Users who have it in their inbox since now.
    pub notified: usize,
    /// Users who had it, or want none of its type.
    pub skipped: usize,
    /// Webhooks under way.
    pub webhooks: usize,
}

/// A notification in its user's inbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub actor_id: Option<String>,
    pub post_id: Option<String>,
    pub title: Option<String>,
    pub body: Option<String>,
    pub data: Map<String, Value>,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
    pub read_at: Option<i64>,
}

/// How many notifications are unread.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct UnreadCount {
    pub unread: i64,
}

/// How many notifications an operation changed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    pub changed: u64,
}

/// Where a notification can show.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Kept and listed.
    Inbox,
    /// Pushed to open pages.
    Stream,
    /// Sent to the user's endpoints.
    Webhook,
}

impl Channel {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Channel::Inbox => "inbox",
            Channel::Stream => "stream",
            Channel::Webhook => "webhook",
        }
    }
}

/// Whether a type is wanted on a channel. `*` stands for types without a preference of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct Preference {
    #[garde(custom(type_or_every))]
    #[serde(rename = "type")]
    #[schemars(regex(pattern = r"^(\*|[a-z][a-z0-9_.-]{0,63})$"))]
    pub kind: String,
    #[garde(skip)]
    pub channel: Channel,
    #[garde(skip)]
    pub enabled: bool,
}

/// All preferences of a user. What is not named is on.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct Preferences {
    #[garde(length(max = TYPES_MAX * 3), dive)]
    pub preferences: Vec<Preference>,
}

/// Quiet hours to set.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewQuietHours {
    /// Minutes east of UTC: 60 for Central European Time.
    #[garde(range(min = -720, max = 840))]
    #[schemars(range(min = -720, max = 840))]
    pub utc_offset_minutes: i64,
    /// Minutes after local midnight.
    #[garde(range(min = 0, max = 1_439))]
    #[schemars(range(min = 0, max = 1439))]
    pub start_minute: i64,
    #[garde(range(min = 0, max = 1_439))]
    #[schemars(range(min = 0, max = 1439))]
    pub end_minute: i64,
}

/// An endpoint to register.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct NewEndpoint {
    /// Checked by `address::check`.
    #[garde(length(min = 1, max = 2_048))]
    pub url: String,
    #[garde(length(chars, max = 200))]
    #[serde(default)]
    pub description: String,
    /// Types to send; absent is all, which services must say with `["*"]`.
    #[garde(inner(length(min = 1, max = TYPES_MAX), inner(custom(type_or_every))))]
    #[serde(default)]
    pub types: Option<Vec<String>>,
}

/// What to change of an endpoint.
#[derive(Debug, Serialize, Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct EndpointEdit {
    #[garde(inner(length(min = 1, max = 2_048)))]
    #[serde(default)]
    pub url: Option<String>,
    #[garde(inner(length(chars, max = 200)))]
    #[serde(default)]
    pub description: Option<String>,
    #[garde(inner(length(min = 1, max = TYPES_MAX), inner(custom(type_or_every))))]
    #[serde(default)]
    pub types: Option<Vec<String>>,
    /// False switches an endpoint on again that was disabled.
    #[garde(skip)]
    #[serde(default)]
    pub disabled: Option<bool>,
}

/// Where webhooks go.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    pub id: String,
    pub url: String,
    pub description: String,
    pub types: Vec<String>,
    pub disabled: bool,
    /// Why, where herald itself disabled it.
    pub disabled_reason: Option<String>,
    pub created_at: i64,
    /// Shown once: when registered and when rotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Under way, or waiting for its next attempt.
    Pending,
    /// The receiver took it.
    Delivered,
    /// The last attempt failed: a dead letter, which can be replayed.
    Failed,
}

impl Status {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Delivered => "delivered",
            Status::Failed => "failed",
        }
    }
}

/// One webhook to one endpoint.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Also the `webhook-id` that the receiver sees.
    pub id: String,
    pub endpoint_id: String,
    pub user_id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub status: Status,
    pub attempts: i64,
    /// The receiver's last answer.
    pub response_status: Option<i64>,
    pub error: Option<String>,
    pub replays: i64,
    /// Not sent before: the end of quiet hours.
    pub not_before: i64,
    pub created_at: i64,
    pub updated_at: i64,
}

fn readable(text: &str, _: &()) -> garde::Result {
    let control = text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'));
    if control {
        Err(garde::Error::new("must not contain control characters"))
    } else {
        Ok(())
    }
}

fn small(data: &Map<String, Value>, _: &()) -> garde::Result {
    let text = serde_json::to_string(data).map_err(|_| garde::Error::new("is not JSON"))?;
    if text.len() > DATA_BYTES_MAX {
        return Err(garde::Error::new(format!(
            "is longer than {DATA_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

fn type_or_every(text: &str, _: &()) -> garde::Result {
    if text == EVERY_TYPE {
        return Ok(());
    }
    Kind::try_from(text.to_owned())
        .map(|_| ())
        .map_err(garde::Error::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(text: &str) -> Result<Send, String> {
        let send: Send = serde_json::from_str(text).map_err(|error| error.to_string())?;
        send.validate().map_err(|report| report.to_string())?;
        Ok(send)
    }

    #[test]
    fn takes_the_specifications_requests() {
        let one = send(r#"{"userId":"u1","type":"new_post","postId":"p1"}"#)
            .expect("as in the specification");
        assert_eq!(
            (one.user_id.as_str(), one.kind.as_str()),
            ("u1", "new_post")
        );
        let bulk: Bulk =
            serde_json::from_str(r#"{"type":"new_post","userIds":["a","b"],"postId":"p"}"#)
                .expect("as in the specification");
        assert!(bulk.validate().is_ok());
    }

    #[test]
    fn refuses_what_is_malformed_or_too_much() {
        let long = format!(
            r#"{{"userId":"u","type":"t","data":{{"x":"{}"}}}}"#,
            "a".repeat(DATA_BYTES_MAX)
        );
        for bad in [
            r#"{"type":"t"}"#,
            r#"{"userId":"u"}"#,
            r#"{"userId":"u","type":"T"}"#,
            r#"{"userId":"u","type":"t","title":""}"#,
            r#"{"userId":"u","type":"t","body":"\u0000"}"#,
            r#"{"userId":"u","type":"t","unknown":1}"#,
            r#"{"userId":"u'--","type":"t"}"#,
            &long,
        ] {
            assert!(send(bad).is_err(), "{bad:.80} passed");
        }
        let many = Bulk {
            user_ids: vec![Id::try_from("u".to_owned()).expect("an id"); BULK_USERS_MAX + 1],
            ..bulk()
        };
        assert!(many.validate().is_err());
    }

    fn bulk() -> Bulk {
        serde_json::from_str(r#"{"type":"t","userIds":["a"]}"#).expect("a bulk request")
    }

    #[test]
    fn preferences_name_a_type_or_every_type() {
        let set = |kind: &str| Preferences {
            preferences: vec![Preference {
                kind: kind.to_owned(),
                channel: Channel::Inbox,
                enabled: false,
            }],
        };
        assert!(set("*").validate().is_ok());
        assert!(set("new_post").validate().is_ok());
        assert!(set("New Post").validate().is_err());
    }
}
