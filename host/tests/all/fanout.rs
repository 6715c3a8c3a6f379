//! A post reaches every follower exactly once, also when the host is killed in the middle.

use crate::harness::{ALL, Platform, Setup, User, eventually};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

const FOLLOWERS: usize = 1_000;

/// Users with tokens from exprsn-ca, without passwords to hash.
pub fn users(platform: &Platform, count: usize) -> Vec<User> {
    let operator = platform.operator();
    in_parallel(count, |index| {
        let id = uuid::Uuid::now_v7().to_string();
        let claims = json!({
            "subject": format!("user:{id}"),
            "resource": "*",
            "permissions": ["read", "write", "append", "update", "delete"],
            "expiresIn": 3600,
        });
        let answer = platform
            .call("ca", "POST", "/api/tokens")
            .token(&operator)
            .json(&claims)
            .send()
            .expect_status(201);
        let token = answer.json()["token"]
            .as_str()
            .unwrap_or_else(|| panic!("token {index}"))
            .to_owned();
        User { id, token }
    })
}

/// Runs `work` for 0..count on eight threads.
fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = 8;
    let work = &work;
    let mut results: Vec<(usize, T)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    (thread..count)
                        .step_by(threads)
                        .map(|index| (index, work(index)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().expect("the thread ends"))
            .collect()
    });
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

pub fn follow(platform: &Platform, followers: &[User], author: &User) {
    in_parallel(followers.len(), |index| {
        let path = format!("/api/users/{}/follow", author.id);
        let answer = platform
            .call("timeline", "PUT", &path)
            .token(&followers[index].token)
            .send();
        assert!(answer.status < 300, "{}", answer.text());
    });
}

pub fn post(platform: &Platform, author: &User, content: &str) -> Option<String> {
    let call = platform
        .call("timeline", "POST", "/api/posts")
        .token(&author.token)
        .json(&json!({ "content": content }));
    let answer = call.try_send().ok()?.expect_status(201).json();
    Some(answer["id"].as_str().expect("an id").to_owned())
}

/// How often each post stands in a list that is read page after page.
fn counted(
    platform: &Platform,
    service: &str,
    path: &str,
    user: &User,
    id_of: fn(&Value) -> &Value,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = platform
            .call(service, "GET", &format!("{path}?limit=100{cursor}"))
            .token(&user.token)
            .send();
        let page = page.expect_status(200).json();
        for item in page["items"].as_array().expect("items") {
            if let Some(id) = id_of(item).as_str() {
                *counts.entry(id.to_owned()).or_insert(0) += 1;
            }
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return counts,
        }
    }
}

pub fn home(platform: &Platform, user: &User) -> BTreeMap<String, usize> {
    counted(platform, "timeline", "/api/timeline/home", user, |item| {
        &item["id"]
    })
}

pub fn inbox(platform: &Platform, user: &User) -> BTreeMap<String, usize> {
    counted(platform, "herald", "/api/notifications", user, |item| {
        &item["postId"]
    })
}

/// Waits until no queue of the platform has anything left to do, and none has failed.
pub fn settled(platform: &Platform) {
    eventually("all queues are empty", || {
        let answer = platform
            .call("setup", "GET", "/api/queues")
            .token(&platform.operator())
            .send()
            .expect_status(200);
        let queues = answer.json();
        let queues = queues
            .as_array()
            .or(queues["items"].as_array())
            .expect("queues")
            .clone();
        let open: u64 = queues
            .iter()
            .flat_map(|queue| {
                ["waiting", "active", "prioritized"].map(|state| queue[state].as_u64().unwrap_or(0))
            })
            .sum();
        let failed: Vec<_> = queues
            .iter()
            .filter(|queue| queue["failed"].as_u64() != Some(0))
            .collect();
        assert!(failed.is_empty(), "jobs failed: {failed:?}");
        (open == 0).then_some(())
    });
}

/// Every follower has exactly `posts` (and what else is in `others`), each once.
pub fn expect_delivered(platform: &Platform, followers: &[User], posts: &[String]) {
    for (what, read) in [
        ("home", home as fn(&Platform, &User) -> _),
        ("inbox", inbox),
    ] {
        eventually(&format!("the last {what} has all posts"), || {
            let last = followers.last().expect("a follower");
            let seen: BTreeMap<String, usize> = read(platform, last);
            posts
                .iter()
                .all(|post| seen.contains_key(post))
                .then_some(())
        });
        in_parallel(followers.len(), |index| {
            let seen: BTreeMap<String, usize> = eventually("all posts are there", || {
                let seen: BTreeMap<String, usize> = read(platform, &followers[index]);
                posts
                    .iter()
                    .all(|post| seen.contains_key(post))
                    .then_some(seen)
            });
            for (post, times) in &seen {
                assert_eq!(
                    *times, 1,
                    "{what} of follower {index} has {post} {times} times"
                );
            }
        });
    }
}

#[test]
fn one_post_reaches_a_thousand_followers_exactly_once_and_is_counted() {
    let platform = Platform::start(&Setup {
        services: &ALL,
        ..Setup::default()
    });
    reaches_a_thousand(&platform);
}

#[test]
fn the_same_on_postgresql_and_redis() {
    let platform = Platform::start(&Setup {
        services: &ALL,
        production: true,
        ..Setup::default()
    });
    reaches_a_thousand(&platform);
}

#[test]
fn the_same_on_three_hosts() {
    let first = Platform::start(&Setup {
        services: &["ca", "setup", "auth"],
        meets: true,
        ..Setup::default()
    });
    let second = Platform::beside(
        &first,
        &Setup {
            services: &["timeline", "nexus", "herald"],
            ..Setup::default()
        },
    );
    let third = Platform::beside(
        &first,
        &Setup {
            services: &["timeline", "herald", "pulse"],
            ..Setup::default()
        },
    );
    first.ask_elsewhere(&["timeline", "nexus"], &second);
    first.ask_elsewhere(&["herald", "pulse"], &third);
    reaches_a_thousand(&first);
}

/// One post to a thousand followers: each has it once in the timeline and once as a notification, and it is counted.
fn reaches_a_thousand(platform: &Platform) {
    let author = users(platform, 1).remove(0);
    let followers = users(platform, FOLLOWERS);
    follow(platform, &followers, &author);
    let id = post(platform, &author, "to a thousand").expect("an answer");
    expect_delivered(platform, &followers, std::slice::from_ref(&id));
    settled(platform);
    expect_delivered(platform, &followers, std::slice::from_ref(&id));
    let stats = eventually("pulse has counted the post", || {
        let answer = platform
            .call("pulse", "GET", &format!("/api/stats/posts/{id}"))
            .token(&author.token)
            .send();
        (answer.status == 200 && answer.json()["deliveries"] == FOLLOWERS).then(|| answer.json())
    });
    assert_eq!(stats["deliveries"], FOLLOWERS, "{stats}");
    let stats = platform
        .call("pulse", "GET", &format!("/api/stats/users/{}", author.id))
        .token(&author.token)
        .send();
    assert_eq!(stats.expect_status(200).json()["posts"], 1);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_host_is_killed_in_the_middle() {
    let platform = Platform::start(&Setup {
        services: &ALL,
        ..Setup::default()
    });
    let author = users(&platform, 1).remove(0);
    let followers = users(&platform, FOLLOWERS);
    follow(&platform, &followers, &author);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        // The kill comes at another moment each time, while posts are being written and fanned out.
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut acknowledged = Vec::new();
                while let Some(id) = post(&platform, &author, "under fire") {
                    acknowledged.push(id);
                    if acknowledged.len() == 8 {
                        break;
                    }
                }
                acknowledged
            });
            std::thread::sleep(Duration::from_millis(60 + 90 * round));
            platform.kill();
            acknowledged.extend(writer.join().expect("the writer ends"));
        });
        platform.restart();
    }
    assert!(
        !acknowledged.is_empty(),
        "no post was acknowledged before a kill"
    );
    settled(&platform);
    expect_delivered(&platform, &followers, &acknowledged);
    for id in &acknowledged {
        platform
            .call("timeline", "GET", &format!("/api/posts/{id}"))
            .token(&author.token)
            .send()
            .expect_status(200);
    }
}
