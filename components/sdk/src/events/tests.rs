//! Which function takes which event.

use super::*;
use crate::testing::now;

fn event(topic: &str, data: &str) -> types::Event {
    types::Event {
        id: "1".to_owned(),
        source: "spiffe://exprsn.local/service/exprsn-auth".to_owned(),
        topic: topic.to_owned(),
        subject: None,
        time: 0,
        data: data.to_owned(),
        attempt: 1,
    }
}

#[test]
fn the_first_pattern_that_matches_takes_the_event() {
    async fn created(event: Event<u32>) -> EventResult {
        Err(EventError::fail(format!("created {}", event.data)))
    }
    async fn other(event: Event<serde_json::Value>) -> EventResult {
        Err(EventError::retry(format!("other {}", event.topic)))
    }
    let events = || {
        Events::new()
            .on("user.created", created)
            .on("user.*", other)
    };
    let taken = |topic: &str, data: &str| {
        now(events().handle(event(topic, data)))
            .unwrap_err()
            .into_parts()
    };
    assert_eq!(taken("user.created", "7"), ("created 7".to_owned(), false));
    assert_eq!(
        taken("user.deleted", "null"),
        ("other user.deleted".to_owned(), true)
    );
    assert!(!taken("user.created", "{}").1);
    assert!(!taken("users", "7").1);
}

#[test]
fn an_event_carries_json() {
    let event = Event::new("post.created", &serde_json::json!({ "id": 1 }))
        .subject("1")
        .id("e")
        .encode()
        .unwrap();
    assert_eq!(
        (event.topic.as_str(), event.data.as_str()),
        ("post.created", r#"{"id":1}"#)
    );
    assert_eq!(
        (event.subject.as_deref(), event.id.as_deref()),
        (Some("1"), Some("e"))
    );
}
