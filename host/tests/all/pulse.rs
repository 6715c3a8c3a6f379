//! exprsn-pulse: what happens is counted once, and questions about it are answered.

use crate::{
    harness::{Answer, Platform, User, eventually},
    timeline::{follow, people, person, post},
};
use serde_json::{Value, json};

fn ask(platform: &Platform, user: &User, path: &str) -> Answer {
    platform
        .call("pulse", "GET", path)
        .token(&user.token)
        .send()
}

fn act(platform: &Platform, user: &User, method: &str, path: &str) {
    platform
        .call("timeline", method, path)
        .token(&user.token)
        .send()
        .expect_status(200);
}

/// Waits until the statistics at `path` have these members.
fn becomes(platform: &Platform, user: &User, path: &str, wanted: &Value) {
    eventually(&format!("{path} says {wanted}"), || {
        let answer = ask(platform, user, path);
        let stats = (answer.status == 200).then(|| answer.json())?;
        wanted
            .as_object()
            .expect("members")
            .iter()
            .all(|(name, value)| stats[name] == *value)
            .then_some(())
    });
}

#[test]
fn posts_and_users_are_counted() {
    let platform = Platform::shared();
    let [author, one, two] = people(platform);
    follow(platform, &one, &author);
    follow(platform, &two, &author);
    let id = post(platform, &author, "count me");
    for user in [&one, &two] {
        act(platform, user, "PUT", &format!("/api/posts/{id}/like"));
    }
    act(platform, &two, "DELETE", &format!("/api/posts/{id}/like"));
    let comment = platform
        .call("timeline", "POST", &format!("/api/posts/{id}/comments"))
        .token(&one.token);
    comment
        .json(&json!({ "content": "counted" }))
        .send()
        .expect_status(201);
    let of_post = json!({ "postId": id, "authorId": author.id, "likes": 1, "comments": 1, "deliveries": 2, "deletedAt": null });
    becomes(
        platform,
        &author,
        &format!("/api/stats/posts/{id}"),
        &of_post,
    );
    let of_author = json!({ "posts": 1, "likesReceived": 1, "commentsReceived": 1, "followers": 2, "following": 0, "reach": 2 });
    becomes(
        platform,
        &author,
        &format!("/api/stats/users/{}", author.id),
        &of_author,
    );
    let of_reader = json!({ "posts": 0, "likesGiven": 1, "commentsGiven": 1, "following": 1 });
    becomes(
        platform,
        &author,
        &format!("/api/stats/users/{}", one.id),
        &of_reader,
    );

    let top = ask(
        platform,
        &author,
        "/api/stats/top-posts?window=1d&limit=100",
    )
    .expect_status(200)
    .json();
    let ranked = top["items"]
        .as_array()
        .expect("items")
        .iter()
        .find(|item| item["postId"] == id.as_str())
        .expect("the post");
    assert_eq!(
        (&ranked["likes"], &ranked["comments"], &ranked["score"]),
        (&json!(1), &json!(1), &json!(3))
    );
    let active = ask(platform, &author, "/api/stats/active-users?window=1h")
        .expect_status(200)
        .json();
    assert!(
        active["activeUsers"].as_i64().expect("a number") >= 3,
        "{active}"
    );
    let summary = ask(platform, &author, "/api/stats/summary")
        .expect_status(200)
        .json();
    for name in [
        "posts",
        "likes",
        "comments",
        "follows",
        "deliveries",
        "activeUsers",
    ] {
        assert!(
            summary[name].as_i64().expect("a number") >= 1,
            "{name} in {summary}"
        );
    }
    platform
        .call("timeline", "DELETE", &format!("/api/posts/{id}"))
        .token(&author.token)
        .send()
        .expect_status(204);
    eventually("the deletion is known", || {
        let stats = ask(platform, &author, &format!("/api/stats/posts/{id}"))
            .expect_status(200)
            .json();
        stats["deletedAt"].is_i64().then_some(())
    });
    becomes(
        platform,
        &author,
        &format!("/api/stats/users/{}", author.id),
        &json!({ "posts": 0 }),
    );
}

#[test]
fn custom_events_are_taken_once_per_key_and_counted_by_name() {
    let platform = Platform::shared();
    let user = person(platform);
    let name = format!("test.e{}", uuid::Uuid::new_v4().simple());
    let send = |key: &str, body: &Value| {
        platform
            .call("pulse", "POST", "/api/event")
            .token(&user.token)
            .header("idempotency-key", key)
            .json(body)
            .send()
    };
    let body = json!({ "name": name, "properties": { "plan": "pro", "seats": 3, "trial": false } });
    let first = send("a", &body).expect_status(201).json();
    assert_eq!(
        (&first["userId"], &first["properties"]),
        (&json!(user.id), &body["properties"])
    );
    assert_eq!(send("a", &body).expect_status(201).json(), first);
    send("b", &json!({ "name": name })).expect_status(201);
    let hourly = ask(
        platform,
        &user,
        &format!("/api/stats/hourly?metric=event:{name}"),
    )
    .expect_status(200)
    .json();
    assert_eq!(
        (
            &hourly["total"],
            hourly["points"].as_array().expect("points").len()
        ),
        (&json!(2), 24)
    );
    let top = ask(platform, &user, "/api/stats/events?window=1h&limit=100")
        .expect_status(200)
        .json();
    assert!(
        top["items"]
            .as_array()
            .expect("items")
            .contains(&json!({ "name": name, "count": 2 })),
        "{top}"
    );
    for (body, field) in [
        (json!({}), "/name"),
        (json!({ "name": "Not so" }), "/name"),
        (
            json!({ "name": "a", "properties": { "deep": {} } }),
            "/properties",
        ),
        (json!({ "name": "a", "more": 1 }), "/more"),
    ] {
        send("c", &body).expect_problem(422, field);
    }
    platform
        .call("pulse", "POST", "/api/event")
        .json(&body)
        .send()
        .expect_status(401);
}

#[test]
fn wrong_questions_are_refused_by_name() {
    let platform = Platform::shared();
    let user = person(platform);
    for (path, field) in [
        ("hourly", "metric"),
        ("hourly?metric=nonsense", "metric"),
        ("hourly?metric=posts&from=yesterday", "from"),
        ("hourly?metric=posts&from=2&to=-1", "to"),
        ("hourly?metric=posts&from=0", "from"),
        ("top-posts?window=1w", "window"),
        ("top-posts?limit=0", "limit"),
        ("active-users?window=91d", "window"),
    ] {
        ask(platform, &user, &format!("/api/stats/{path}")).expect_problem(400, field);
    }
    ask(
        platform,
        &user,
        "/api/stats/posts/0193b1a4-7c3e-7d6b-8f10-2f4a5b6c7d8e",
    )
    .expect_problem(404, "no post");
    ask(platform, &user, "/api/stats/users/nobody").expect_problem(404, "nobody");
    platform
        .call("pulse", "GET", "/api/stats/summary")
        .send()
        .expect_status(401);
}

#[test]
fn prometheus_can_read_the_metrics_of_the_host() {
    let platform = Platform::shared();
    let answer = platform
        .call("pulse", "GET", "/metrics")
        .send()
        .expect_status(200);
    assert_eq!(
        answer.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(
        text.contains("exprsn-pulse"),
        "the host's metrics name its services:\n{text}"
    );
}
