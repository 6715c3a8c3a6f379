//! exprsn-herald: inboxes, the live stream, preferences, quiet hours, webhooks.

use crate::{
    harness::{ALL, Answer, Platform, Setup, User, eventually},
    timeline::{follow, people, person, post},
};
use aws_lc_rs::hmac;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Mutex, OnceLock, mpsc},
};

fn ask(platform: &Platform, user: &User, method: &str, path: &str) -> Answer {
    platform
        .call("herald", method, path)
        .token(&user.token)
        .send()
}

fn tell(platform: &Platform, user: &User, method: &str, path: &str, body: &Value) -> Answer {
    platform
        .call("herald", method, path)
        .token(&user.token)
        .json(body)
        .send()
}

/// What a service sends with a token of its own.
pub fn send(platform: &Platform, kind: &str, body: &Value) -> Answer {
    static TOKEN: OnceLock<Mutex<std::collections::HashMap<String, String>>> = OnceLock::new();
    let mut tokens = TOKEN.get_or_init(Mutex::default).lock().expect("the lock");
    let token = tokens.entry(platform.address.clone()).or_insert_with(|| {
        let claims = json!({ "subject": "service:exprsn-example", "resource": "*", "permissions": ["read", "write"] });
        let answer = platform.call("ca", "POST", "/api/tokens").token(&platform.operator()).json(&claims).send();
        answer.expect_status(201).json()["token"].as_str().expect("a token").to_owned()
    });
    platform
        .call("herald", "POST", &format!("/api/notifications/{kind}"))
        .token(token)
        .json(body)
        .send()
}

fn inbox(platform: &Platform, user: &User, query: &str) -> Vec<Value> {
    let page = ask(platform, user, "GET", &format!("/api/notifications{query}"))
        .expect_status(200)
        .json();
    page["items"].as_array().expect("items").clone()
}

fn unread(platform: &Platform, user: &User) -> i64 {
    let count = ask(platform, user, "GET", "/api/notifications/unread-count")
        .expect_status(200)
        .json();
    count["unread"].as_i64().expect("a count")
}

#[test]
fn notifications_are_listed_read_and_deleted_by_their_user_alone() {
    let platform = Platform::shared();
    let [user, other] = people(platform);
    for title in ["one", "two", "three"] {
        let body = json!({ "userId": user.id, "type": "note", "title": title, "data": { "n": title.len() } });
        let sent = send(platform, "send", &body).expect_status(202).json();
        assert_eq!(
            (&sent["notified"], sent["id"].is_string()),
            (&json!(1), true)
        );
    }
    let items = inbox(platform, &user, "");
    let titles: Vec<&str> = items
        .iter()
        .map(|item| item["title"].as_str().expect("a title"))
        .collect();
    assert_eq!(titles, ["three", "two", "one"]);
    assert_eq!(items[0]["data"], json!({ "n": 5 }));
    let path = format!(
        "/api/notifications/{}",
        items[1]["id"].as_str().expect("an id")
    );
    for (method, path) in [
        ("GET", path.clone()),
        ("POST", format!("{path}/read")),
        ("DELETE", path.clone()),
    ] {
        ask(platform, &other, method, &path).expect_problem(404, "no notification");
    }
    let read = ask(platform, &user, "POST", &format!("{path}/read"))
        .expect_status(200)
        .json();
    assert!(read["readAt"].is_i64());
    let again = ask(platform, &user, "POST", &format!("{path}/read"))
        .expect_status(200)
        .json();
    assert_eq!(read["readAt"], again["readAt"]);
    assert_eq!(
        (
            unread(platform, &user),
            inbox(platform, &user, "?unread=true").len()
        ),
        (2, 2)
    );
    assert_eq!(inbox(platform, &user, "?unread=false").len(), 1);
    assert_eq!(inbox(platform, &user, "?type=other").len(), 0);
    let first = ask(
        platform,
        &user,
        "GET",
        "/api/notifications?limit=2&unread=true",
    )
    .json();
    assert_eq!(first["nextCursor"], Value::Null);
    let marked = ask(platform, &user, "POST", "/api/notifications/read-all")
        .expect_status(200)
        .json();
    assert_eq!(
        (&marked["changed"], unread(platform, &user)),
        (&json!(2), 0)
    );
    ask(platform, &user, "DELETE", &path).expect_status(204);
    ask(platform, &user, "GET", &path).expect_problem(404, "no notification");
}

#[test]
fn a_bulk_reaches_each_user_once_per_dedupe_key() {
    let platform = Platform::shared();
    let users: [User; 3] = people(platform);
    let mut ids: Vec<String> = (0..1_200).map(|n| format!("bulk-{n}")).collect();
    ids.extend(users.iter().map(|user| user.id.clone()));
    ids.push(users[0].id.clone());
    let body = json!({ "type": "new_post", "userIds": ids, "postId": "p-bulk", "dedupeKey": uuid::Uuid::now_v7().to_string() });
    let sent = send(platform, "bulk", &body).expect_status(202).json();
    assert_eq!(
        (&sent["notified"], &sent["skipped"]),
        (&json!(1_203), &json!(1))
    );
    let again = send(platform, "bulk", &body).expect_status(202).json();
    assert_eq!(
        (&again["notified"], &again["skipped"]),
        (&json!(0), &json!(1_204))
    );
    for user in &users {
        let items = inbox(platform, user, "");
        assert_eq!(
            (items.len(), &items[0]["postId"], &items[0]["type"]),
            (1, &json!("p-bulk"), &json!("new_post"))
        );
    }
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    let platform = Platform::shared();
    let user = person(platform);
    for (body, field) in [
        (json!({ "type": "t" }), "/userId"),
        (json!({ "userId": "u", "type": "No" }), "/type"),
        (json!({ "userId": "u'; --", "type": "t" }), "/userId"),
        (json!({ "userId": "u", "type": "t", "title": "" }), "/title"),
        (
            json!({ "userId": "u", "type": "t", "data": { "x": "y".repeat(9_000) } }),
            "/data",
        ),
        (json!({ "userId": "u", "type": "t", "what": 1 }), "/what"),
    ] {
        send(platform, "send", &body).expect_problem(422, field);
    }
    let many = json!({ "type": "t", "userIds": vec!["u"; 10_001] });
    send(platform, "bulk", &many).expect_problem(422, "/userIds");
    ask(platform, &user, "GET", "/api/notifications?unread=maybe").expect_problem(400, "unread");
    ask(platform, &user, "GET", "/api/notifications?cursor=x").expect_problem(400, "cursor");
    ask(
        platform,
        &user,
        "GET",
        "/api/notifications/stream?lastEventId=a%20b",
    )
    .expect_problem(400, "lastEventId");
    ask(platform, &user, "GET", "/api/quiet-hours").expect_problem(404, "quiet hours");
    let hours = json!({ "utcOffsetMinutes": 0, "startMinute": 0, "endMinute": 1_440 });
    tell(platform, &user, "PUT", "/api/quiet-hours", &hours).expect_problem(422, "/endMinute");
    for url in [
        "http://example.com/",
        "https://localhost/x",
        "https://10.0.0.1/",
        "http://127.0.0.1:1/",
        "ftp://x.org",
        "no",
    ] {
        tell(
            platform,
            &user,
            "POST",
            "/api/endpoints",
            &json!({ "url": url }),
        )
        .expect_problem(422, "/url");
    }
    platform
        .call("herald", "GET", "/api/notifications")
        .send()
        .expect_status(401);
}

#[test]
fn people_are_told_of_what_others_do_and_not_of_their_own_doing() {
    let platform = Platform::shared();
    let [author, fan] = people(platform);
    let id = post(platform, &author, "look");
    for user in [&author, &fan] {
        for method in ["PUT", "DELETE", "PUT"] {
            platform
                .call("timeline", method, &format!("/api/posts/{id}/like"))
                .token(&user.token)
                .send()
                .expect_status(200);
        }
        let comment = platform
            .call("timeline", "POST", &format!("/api/posts/{id}/comments"))
            .token(&user.token);
        comment
            .json(&json!({ "content": "well said" }))
            .send()
            .expect_status(201);
    }
    follow(platform, &fan, &author);
    let items = eventually("the author knows", || {
        let items = inbox(platform, &author, "");
        (items.len() >= 3).then_some(items)
    });
    let mut kinds: Vec<&str> = items
        .iter()
        .map(|item| item["type"].as_str().expect("a type"))
        .collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["comment", "follow", "like"]);
    assert!(
        items.iter().all(|item| item["actorId"] == fan.id.as_str()),
        "{items:?}"
    );
    let comment = items
        .iter()
        .find(|item| item["type"] == "comment")
        .expect("a comment");
    assert_eq!(
        (&comment["body"], &comment["postId"]),
        (&json!("well said"), &json!(id))
    );
    let second = post(platform, &author, "again");
    eventually("the follower knows of the new post alone", || {
        let items = inbox(platform, &fan, "");
        let told: Vec<&Value> = items.iter().map(|item| &item["postId"]).collect();
        (told == [&json!(second)]).then_some(())
    });
}

#[test]
fn preferences_switch_types_and_channels_off() {
    let platform = Platform::shared();
    let user = person(platform);
    let none = json!({ "preferences": [
        { "type": "*", "channel": "inbox", "enabled": false },
        { "type": "urgent", "channel": "inbox", "enabled": true },
    ] });
    assert_eq!(
        tell(platform, &user, "PUT", "/api/preferences", &none)
            .expect_status(200)
            .json(),
        none
    );
    assert_eq!(
        ask(platform, &user, "GET", "/api/preferences")
            .expect_status(200)
            .json(),
        none
    );
    let notified = |kind: &str| {
        let sent = send(
            platform,
            "send",
            &json!({ "userId": user.id, "type": kind }),
        )
        .expect_status(202)
        .json();
        sent["notified"].as_i64().expect("a number")
    };
    assert_eq!((notified("news"), notified("urgent")), (0, 1));
    let wrong = json!({ "preferences": [{ "type": "x", "channel": "pigeon", "enabled": true }] });
    tell(platform, &user, "PUT", "/api/preferences", &wrong)
        .expect_problem(422, "/preferences/0/channel");
}

/// Reads a stream of Server-Sent Events.
pub struct Events(mpsc::Receiver<(String, Value)>);

impl Events {
    pub fn open(platform: &Platform, user: &User, last: Option<&str>) -> Self {
        let call = platform
            .call("herald", "GET", "/api/notifications/stream")
            .token(&user.token);
        let call = last
            .into_iter()
            .fold(call, |call, id| call.header("last-event-id", id));
        let (status, headers, body, _) = call.open().expect("an answer");
        assert_eq!(status, 200);
        assert_eq!(headers["content-type"], "text/event-stream");
        let (sender, receiver) = mpsc::channel();
        let mut lines = BufReader::new(body).lines();
        // The comment at the start: from now on nothing is missed.
        assert!(
            lines
                .next()
                .expect("a line")
                .expect("text")
                .starts_with(':')
        );
        std::thread::spawn(move || {
            let mut id = String::new();
            for line in lines.map_while(Result::ok) {
                if let Some(value) = line.strip_prefix("id: ") {
                    id = value.to_owned();
                } else if let Some(data) = line.strip_prefix("data: ")
                    && sender
                        .send((id.clone(), serde_json::from_str(data).expect("JSON")))
                        .is_err()
                {
                    return;
                }
            }
        });
        Events(receiver)
    }

    pub fn next(&self) -> (String, Value) {
        self.0
            .recv_timeout(crate::harness::PATIENCE)
            .expect("an event")
    }
}

#[test]
fn the_live_stream_brings_each_notification_once_and_goes_on_where_it_stopped() {
    let platform = Platform::shared();
    let [user, other] = people(platform);
    let notify = |to: &User, title: &str| {
        send(
            platform,
            "send",
            &json!({ "userId": to.id, "type": "note", "title": title }),
        )
        .expect_status(202);
    };
    notify(&user, "before");
    let events = Events::open(platform, &user, None);
    notify(&other, "not yours");
    notify(&user, "one");
    notify(&user, "two");
    let (first, data) = events.next();
    assert_eq!(
        (&data["title"], &data["id"]),
        (&json!("one"), &json!(first))
    );
    assert_eq!(events.next().1["title"], "two");
    drop(events);
    notify(&user, "three");
    let resumed = Events::open(platform, &user, Some(&first));
    notify(&user, "four");
    let titles: Vec<Value> = (0..3).map(|_| resumed.next().1["title"].clone()).collect();
    assert_eq!(titles, ["two", "three", "four"]);
}

/// A webhook's receiver on this machine: answers with the statuses given, then with 200, and keeps what it got.
struct Receiver {
    url: String,
    got: mpsc::Receiver<Webhook>,
}

struct Webhook {
    id: String,
    timestamp: String,
    signatures: String,
    body: String,
}

impl Receiver {
    fn start(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let (sender, got) = mpsc::channel();
        std::thread::spawn(move || {
            let mut statuses = statuses.iter();
            for stream in listener.incoming() {
                let status = *statuses.next().unwrap_or(&200);
                if sender
                    .send(receive(stream.expect("a connection"), status))
                    .is_err()
                {
                    return;
                }
            }
        });
        Receiver { url, got }
    }

    pub fn next(&self) -> Webhook {
        self.got
            .recv_timeout(crate::harness::PATIENCE)
            .expect("a webhook")
    }
}

fn receive(stream: TcpStream, status: u16) -> Webhook {
    let mut reader = BufReader::new(stream.try_clone().expect("the stream"));
    let mut headers = std::collections::HashMap::new();
    let mut line = String::new();
    reader.read_line(&mut line).expect("a request line");
    assert!(line.starts_with("POST /hook "), "{line}");
    loop {
        line.clear();
        reader.read_line(&mut line).expect("a header");
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().expect("a length")];
    reader.read_exact(&mut body).expect("the body");
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} Status\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    .expect("the answer is sent");
    let mut take = |name: &str| headers.remove(name).unwrap_or_else(|| panic!("no {name}"));
    Webhook {
        id: take("webhook-id"),
        timestamp: take("webhook-timestamp"),
        signatures: take("webhook-signature"),
        body: String::from_utf8(body).expect("text"),
    }
}

/// The signature that the secret makes, as the Standard Webhooks specification says.
fn signature(secret: &str, webhook: &Webhook) -> String {
    let key = BASE64_STANDARD
        .decode(secret.strip_prefix("whsec_").expect("the prefix"))
        .expect("base64");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let signed = format!("{}.{}.{}", webhook.id, webhook.timestamp, webhook.body);
    format!(
        "v1,{}",
        BASE64_STANDARD.encode(hmac::sign(&key, signed.as_bytes()))
    )
}

/// A platform whose webhooks may stay on this machine and are tried again soon.
fn with_loopback() -> Platform {
    let config = "[service.exprsn-herald.config]\n\
        webhook_loopback = \"true\"\ndelivery_attempts = \"3\"\ndelivery_backoff_ms = \"20\"\n";
    Platform::start(&Setup {
        services: &ALL,
        config,
        ..Setup::default()
    })
}

fn register(platform: &Platform, user: &User, url: &str) -> Value {
    let endpoint = tell(
        platform,
        user,
        "POST",
        "/api/endpoints",
        &json!({ "url": url, "types": ["note", "test"] }),
    );
    endpoint.expect_status(201).json()
}

fn note(platform: &Platform, user: &User, title: &str) -> Value {
    send(
        platform,
        "send",
        &json!({ "userId": user.id, "type": "note", "title": title }),
    )
    .expect_status(202)
    .json()
}

fn deliveries(platform: &Platform, user: &User, query: &str) -> Vec<Value> {
    let page = ask(platform, user, "GET", &format!("/api/deliveries{query}"))
        .expect_status(200)
        .json();
    page["items"].as_array().expect("items").clone()
}

#[test]
fn webhooks_are_signed_tried_again_buried_and_replayed() {
    let platform = with_loopback();
    signed_and_tried_again(&platform);
    rotated(&platform);
    buried_and_replayed(&platform);
    gone(&platform);
    held_back(&platform);
}

fn signed_and_tried_again(platform: &Platform) {
    let user = person(platform);
    let receiver = Receiver::start(&[500, 503]);
    let endpoint = register(platform, &user, &receiver.url);
    let secret = endpoint["secret"].as_str().expect("the secret, this once");
    let path = format!("/api/endpoints/{}", endpoint["id"].as_str().expect("an id"));
    assert_eq!(
        ask(platform, &user, "GET", &path).expect_status(200).json()["secret"],
        Value::Null
    );
    assert_eq!(note(platform, &user, "signed")["webhooks"], 1);
    let attempts: Vec<Webhook> = (0..3).map(|_| receiver.next()).collect();
    for attempt in &attempts {
        assert_eq!(
            attempt.id, attempts[0].id,
            "a webhook tried again keeps its id"
        );
        assert_eq!(attempt.signatures, signature(secret, attempt));
        let body: Value = serde_json::from_str(&attempt.body).expect("JSON");
        assert_eq!(
            (&body["type"], &body["data"]["title"]),
            (&json!("note"), &json!("signed"))
        );
    }
    eventually("it is delivered", || {
        let delivered = deliveries(platform, &user, "?status=delivered");
        (delivered.len() == 1
            && delivered[0]["attempts"] == 3
            && delivered[0]["responseStatus"] == 200)
            .then_some(())
    });
    let unwanted = send(
        platform,
        "send",
        &json!({ "userId": user.id, "type": "other" }),
    )
    .expect_status(202)
    .json();
    assert_eq!(unwanted["webhooks"], 0);
}

fn rotated(platform: &Platform) {
    let user = person(platform);
    let receiver = Receiver::start(&[]);
    let endpoint = register(platform, &user, &receiver.url);
    let path = format!("/api/endpoints/{}", endpoint["id"].as_str().expect("an id"));
    let new = ask(platform, &user, "POST", &format!("{path}/rotate"))
        .expect_status(200)
        .json();
    ask(platform, &user, "POST", &format!("{path}/test")).expect_status(202);
    let webhook = receiver.next();
    let both = [&new, &endpoint]
        .map(|shown| signature(shown["secret"].as_str().expect("a secret"), &webhook));
    assert_eq!(webhook.signatures, both.join(" "));
}

fn buried_and_replayed(platform: &Platform) {
    let [user, other] = people(platform);
    let receiver = Receiver::start(&[500, 500, 500]);
    register(platform, &user, &receiver.url);
    note(platform, &user, "buried");
    let failed = eventually("it is a dead letter", || {
        deliveries(platform, &user, "?status=failed").pop()
    });
    assert_eq!(
        (&failed["attempts"], &failed["responseStatus"]),
        (&json!(3), &json!(500))
    );
    let path = format!("/api/deliveries/{}", failed["id"].as_str().expect("an id"));
    ask(platform, &other, "POST", &format!("{path}/replay")).expect_problem(404, "no delivery");
    ask(platform, &user, "POST", &format!("{path}/replay")).expect_status(202);
    eventually("it is delivered", || {
        let delivery = ask(platform, &user, "GET", &path).expect_status(200).json();
        (delivery["status"] == "delivered" && delivery["replays"] == 1).then_some(())
    });
    ask(platform, &user, "POST", &format!("{path}/replay")).expect_problem(409, "delivered");
}

fn gone(platform: &Platform) {
    let user = person(platform);
    let receiver = Receiver::start(&[410]);
    let endpoint = register(platform, &user, &receiver.url);
    let path = format!("/api/endpoints/{}", endpoint["id"].as_str().expect("an id"));
    note(platform, &user, "gone");
    eventually("the endpoint is disabled", || {
        let endpoint = ask(platform, &user, "GET", &path).expect_status(200).json();
        (endpoint["disabled"] == true && endpoint["disabledReason"].as_str()?.contains("410"))
            .then_some(())
    });
    assert_eq!(note(platform, &user, "to nobody")["webhooks"], 0);
    let edited = tell(
        platform,
        &user,
        "PATCH",
        &path,
        &json!({ "disabled": false }),
    )
    .expect_status(200)
    .json();
    assert_eq!(
        (&edited["disabled"], &edited["disabledReason"]),
        (&json!(false), &Value::Null)
    );
    note(platform, &user, "back");
    eventually("the first is a dead letter", || {
        (deliveries(platform, &user, "?status=failed").len() == 1).then_some(())
    });
    eventually("webhooks come again", || {
        (deliveries(platform, &user, "?status=delivered").len() == 1).then_some(())
    });
    ask(platform, &user, "DELETE", &path).expect_status(204);
    ask(platform, &user, "GET", &path).expect_problem(404, "no endpoint");
    assert!(deliveries(platform, &user, "").is_empty());
}

/// In quiet hours a notification is kept, and its webhook waits for their end.
fn held_back(platform: &Platform) {
    let user = person(platform);
    let receiver = Receiver::start(&[]);
    register(platform, &user, &receiver.url);
    let minute = i64::try_from(std::time::UNIX_EPOCH.elapsed().expect("the time").as_secs() / 60)
        .expect("minutes");
    let hours = json!({
        "utcOffsetMinutes": 0, "startMinute": (minute - 60).rem_euclid(1_440), "endMinute": (minute + 60).rem_euclid(1_440),
    });
    tell(platform, &user, "PUT", "/api/quiet-hours", &hours).expect_status(200);
    note(platform, &user, "later");
    assert_eq!(inbox(platform, &user, "").len(), 1);
    let waiting = deliveries(platform, &user, "?status=pending")
        .pop()
        .expect("a delivery");
    assert_eq!(waiting["notBefore"], (minute + 60) * 60_000);
    ask(platform, &user, "DELETE", "/api/quiet-hours").expect_status(204);
    note(platform, &user, "now");
    assert!(receiver.next().body.contains("now"));
    eventually("the first alone is still held back", || {
        let pending = deliveries(platform, &user, "?status=pending");
        (pending.len() == 1 && pending[0]["id"] == waiting["id"]).then_some(())
    });
}
