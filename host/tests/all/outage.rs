//! PostgreSQL or Redis go away and come back: what was acknowledged is there, what cannot be done says so, and everything
//! recovers by itself.

use crate::{
    fanout::{follow, home, post, users},
    harness::{Platform, Servers, Setup, User, eventually},
};
use serde_json::json;
use std::collections::BTreeMap;

const FOLLOWERS: usize = 5;
const POSTS: usize = 10;

/// A platform on servers of its own, with somebody who posts and some who follow.
fn start() -> (Platform, User, Vec<User>) {
    let platform = Platform::start(&Setup {
        services: &["ca", "setup", "auth", "herald", "pulse", "timeline"],
        production: true,
        ..Setup::default()
    });
    let mut users = users(&platform, FOLLOWERS + 1);
    let author = users.pop().expect("an author");
    follow(&platform, &users, &author);
    (platform, author, users)
}

fn servers(platform: &Platform) -> &Servers {
    platform.servers().expect("it runs on servers")
}

/// Each follower has each post once.
fn arrived(platform: &Platform, followers: &[User], posts: &[String]) {
    let wanted: BTreeMap<String, usize> = posts.iter().map(|id| (id.clone(), 1)).collect();
    for follower in followers {
        eventually("every post has arrived", || {
            let found = home(platform, follower);
            assert!(found.values().all(|times| *times == 1), "{found:?}");
            (found == wanted).then_some(())
        });
    }
}

#[test]
fn posts_are_taken_while_redis_is_away_and_arrive_when_it_is_back() {
    let (platform, author, followers) = start();
    let mut posts = vec![post(&platform, &author, "before").expect("taken")];
    arrived(&platform, &followers, &posts);
    let redis = &servers(&platform).redis;
    redis.lock().expect("the lock").kill();
    for number in 0..POSTS {
        let taken = post(&platform, &author, &format!("while it is away: {number}"));
        posts.push(taken.expect("the outbox holds what a post promises"));
    }
    redis.lock().expect("the lock").restart();
    arrived(&platform, &followers, &posts);
}

#[test]
fn without_postgresql_services_answer_503_and_recover_by_themselves() {
    let (platform, author, followers) = start();
    let mut posts = vec![post(&platform, &author, "before").expect("taken")];
    let write = || {
        platform
            .call("timeline", "POST", "/api/posts")
            .token(&author.token)
            .json(&json!({ "content": "while it is away" }))
            .send()
    };
    servers(&platform).postgres.kill();
    for _ in 0..POSTS {
        let refused = write();
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(
            !refused.header("retry-after").is_empty(),
            "{}",
            refused.text()
        );
    }
    let health = platform.call("timeline", "GET", "/health").send();
    assert_eq!(health.status, 503, "{}", health.text());
    servers(&platform).postgres.resume();
    let answer = eventually("posts are taken again", || {
        let answer = write();
        (answer.status == 201).then_some(answer)
    });
    posts.push(answer.json()["id"].as_str().expect("an id").to_owned());
    eventually("it is healthy again", || {
        let health = platform.call("timeline", "GET", "/health").send();
        (health.status == 200).then_some(())
    });
    arrived(&platform, &followers, &posts);
}

#[test]
fn a_host_that_starts_before_its_servers_waits_for_them() {
    let (platform, author, followers) = start();
    platform.stop();
    let servers = servers(&platform);
    servers.postgres.kill();
    servers.redis.lock().expect("the lock").kill();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| platform.restart());
        let waits = |what: &str| {
            let told = format!("{what} cannot be reached yet");
            eventually(&told, || platform.log().contains(&told).then_some(()));
        };
        waits("the server of [backends.redis]");
        servers.redis.lock().expect("the lock").restart();
        waits("PostgreSQL");
        servers.postgres.resume();
        starting.join().expect("it starts");
    });
    let posts = [post(&platform, &author, "after all").expect("taken")];
    arrived(&platform, &followers, &posts);
}
