//! exprsn-timeline: posts, reactions, relations, and the timelines made of them.

use crate::harness::{ALL, Answer, Platform, Setup, User, eventually};
use serde_json::{Value, json};

/// Somebody with a token from exprsn-ca: cheaper than registering, as no password is hashed.
pub fn person(platform: &Platform) -> User {
    holder(platform, &["read", "write", "append", "update", "delete"])
}

/// Somebody whose token has these permissions only.
fn holder(platform: &Platform, permissions: &[&str]) -> User {
    let id = uuid::Uuid::now_v7().to_string();
    let claims =
        json!({ "subject": format!("user:{id}"), "resource": "*", "permissions": permissions });
    let answer = platform
        .call("ca", "POST", "/api/tokens")
        .token(&platform.operator())
        .json(&claims)
        .send();
    let token = answer.expect_status(201).json()["token"]
        .as_str()
        .expect("a token")
        .to_owned();
    User { id, token }
}

pub fn people<const N: usize>(platform: &Platform) -> [User; N] {
    std::array::from_fn(|_| person(platform))
}

fn ask(platform: &Platform, user: &User, method: &str, path: &str) -> Answer {
    platform
        .call("timeline", method, path)
        .token(&user.token)
        .send()
}

fn tell(platform: &Platform, user: &User, method: &str, path: &str, body: &Value) -> Answer {
    platform
        .call("timeline", method, path)
        .token(&user.token)
        .json(body)
        .send()
}

pub fn post(platform: &Platform, author: &User, content: &str) -> String {
    let answer = tell(
        platform,
        author,
        "POST",
        "/api/posts",
        &json!({ "content": content }),
    )
    .expect_status(201);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

pub fn follow(platform: &Platform, follower: &User, followee: &User) {
    ask(
        platform,
        follower,
        "PUT",
        &format!("/api/users/{}/follow", followee.id),
    )
    .expect_status(200);
}

/// The contents of a page, and the cursor of the next.
fn page(answer: Answer) -> (Vec<String>, Option<String>) {
    let page = answer.expect_status(200).json();
    let contents = page["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["content"].as_str().expect("content").to_owned());
    (
        contents.collect(),
        page["nextCursor"].as_str().map(str::to_owned),
    )
}

fn home(platform: &Platform, user: &User) -> Vec<String> {
    page(ask(platform, user, "GET", "/api/timeline/home")).0
}

fn home_becomes(platform: &Platform, user: &User, wanted: &[&str]) {
    eventually(&format!("the home timeline is {wanted:?}"), || {
        (home(platform, user) == wanted).then_some(())
    });
}

#[test]
fn a_post_is_written_read_edited_and_deleted() {
    let platform = Platform::shared();
    let [author, reader] = people(platform);
    let answer = tell(
        platform,
        &author,
        "POST",
        "/api/posts",
        &json!({ "content": "one" }),
    )
    .expect_status(201);
    let post = answer.json();
    let path = format!("/api/posts/{}", post["id"].as_str().expect("an id"));
    assert_eq!(answer.header("location"), path);
    assert_eq!(
        (&post["authorId"], &post["revision"], &post["likeCount"]),
        (&json!(author.id), &json!(1), &json!(0))
    );
    assert_eq!(
        ask(platform, &reader, "GET", &path)
            .expect_status(200)
            .json(),
        post
    );

    tell(
        platform,
        &reader,
        "PUT",
        &path,
        &json!({ "content": "mine" }),
    )
    .expect_problem(403, "author");
    let edited = tell(
        platform,
        &author,
        "PUT",
        &path,
        &json!({ "content": "two", "revision": 1 }),
    )
    .expect_status(200)
    .json();
    assert_eq!(
        (&edited["content"], &edited["revision"]),
        (&json!("two"), &json!(2))
    );
    tell(
        platform,
        &author,
        "PATCH",
        &path,
        &json!({ "content": "late", "revision": 1 }),
    )
    .expect_problem(409, "revision 2");
    tell(
        platform,
        &author,
        "PATCH",
        &path,
        &json!({ "content": "three" }),
    )
    .expect_status(200);
    let said = |query: &str| {
        page(ask(
            platform,
            &reader,
            "GET",
            &format!("{path}/history{query}"),
        ))
    };
    assert_eq!(said("").0, ["three", "two", "one"]);
    let (newest, cursor) = said("?limit=2");
    assert_eq!(newest, ["three", "two"]);
    assert_eq!(
        said(&format!("?limit=2&cursor={}", cursor.expect("more"))),
        (vec!["one".to_owned()], None)
    );

    ask(platform, &reader, "DELETE", &path).expect_problem(403, "author");
    ask(platform, &author, "DELETE", &path).expect_status(204);
    for method in ["GET", "DELETE"] {
        ask(platform, &author, method, &path).expect_problem(404, "no post");
    }
    ask(platform, &author, "GET", &format!("{path}/history")).expect_problem(404, "no post");
    ask(platform, &reader, "PUT", &format!("{path}/like")).expect_problem(404, "no post");
    let counters = ask(
        platform,
        &author,
        "GET",
        &format!("/api/users/{}", author.id),
    )
    .expect_status(200)
    .json();
    assert_eq!(counters["postCount"], 0);
}

#[test]
fn likes_count_once_each_whoever_hurries() {
    let platform = Platform::shared();
    let author = person(platform);
    let likers: [User; 6] = people(platform);
    let path = format!("/api/posts/{}", post(platform, &author, "like me"));
    let like = format!("{path}/like");
    std::thread::scope(|scope| {
        for liker in &likers {
            for method in ["PUT", "POST", "PUT", "PUT"] {
                let like = &like;
                scope.spawn(move || ask(platform, liker, method, like).expect_status(200));
            }
        }
    });
    let seen = ask(platform, &likers[0], "GET", &path)
        .expect_status(200)
        .json();
    assert_eq!(
        (&seen["likeCount"], &seen["liked"]),
        (&json!(likers.len()), &json!(true))
    );
    let who = ask(platform, &author, "GET", &format!("{path}/likes"))
        .expect_status(200)
        .json();
    assert_eq!(who["items"].as_array().expect("items").len(), likers.len());
    let undone = ask(platform, &likers[0], "DELETE", &like)
        .expect_status(200)
        .json();
    assert_eq!(
        (&undone["likeCount"], &undone["liked"]),
        (&json!(likers.len() - 1), &json!(false))
    );
    let again = ask(platform, &likers[0], "POST", &format!("{path}/unlike"))
        .expect_status(200)
        .json();
    assert_eq!(again["likeCount"], likers.len() - 1);
}

#[test]
fn comments_are_listed_oldest_first_and_deleted_by_either_author() {
    let platform = Platform::shared();
    let [author, guest, stranger] = people(platform);
    let post = format!("/api/posts/{}", post(platform, &author, "discuss"));
    let path = format!("{post}/comments");
    let write = |content: &str| {
        let answer = tell(
            platform,
            &guest,
            "POST",
            &path,
            &json!({ "content": content }),
        )
        .expect_status(201);
        format!(
            "/api/comments/{}",
            answer.json()["id"].as_str().expect("an id")
        )
    };
    let [first, second, third] = ["first", "second", "third"].map(write);
    let (oldest, cursor) = page(ask(platform, &stranger, "GET", &format!("{path}?limit=2")));
    assert_eq!(oldest, ["first", "second"]);
    let next = format!("{path}?limit=2&cursor={}", cursor.expect("more"));
    assert_eq!(page(ask(platform, &stranger, "GET", &next)).0, ["third"]);
    ask(platform, &stranger, "DELETE", &first).expect_problem(403, "author");
    ask(platform, &guest, "DELETE", &first).expect_status(204);
    ask(platform, &author, "DELETE", &second).expect_status(204);
    ask(platform, &guest, "DELETE", &second).expect_problem(404, "no comment");
    assert_eq!(page(ask(platform, &stranger, "GET", &path)).0, ["third"]);
    assert_eq!(
        ask(platform, &author, "GET", &post).json()["commentCount"],
        1
    );
    ask(platform, &author, "DELETE", &post).expect_status(204);
    ask(platform, &guest, "DELETE", &third).expect_problem(404, "no comment");
}

#[test]
fn following_fills_the_home_timeline_and_unfollowing_empties_it_at_once() {
    let platform = Platform::shared();
    let [author, reader] = people(platform);
    post(platform, &author, "before");
    follow(platform, &reader, &author);
    follow(platform, &reader, &author);
    home_becomes(platform, &reader, &["before"]);
    post(platform, &author, "after");
    home_becomes(platform, &reader, &["after", "before"]);
    post(platform, &reader, "my own");
    assert_eq!(home(platform, &reader), ["my own", "after", "before"]);

    let account = |of: &User| {
        ask(platform, &reader, "GET", &format!("/api/users/{}", of.id))
            .expect_status(200)
            .json()
    };
    assert_eq!(
        (
            &account(&author)["followerCount"],
            &account(&author)["following"]
        ),
        (&json!(1), &json!(true))
    );
    assert_eq!(account(&reader)["followingCount"], 1);
    let followers = ask(
        platform,
        &reader,
        "GET",
        &format!("/api/users/{}/followers", author.id),
    )
    .expect_status(200)
    .json();
    assert_eq!(followers["items"][0]["userId"], reader.id);
    let following = ask(
        platform,
        &author,
        "GET",
        &format!("/api/users/{}/following", reader.id),
    )
    .expect_status(200)
    .json();
    assert_eq!(following["items"][0]["userId"], author.id);

    ask(
        platform,
        &reader,
        "POST",
        &format!("/api/users/{}/unfollow", author.id),
    )
    .expect_status(200);
    assert_eq!(home(platform, &reader), ["my own"]);
    ask(
        platform,
        &reader,
        "DELETE",
        &format!("/api/users/{}/follow", author.id),
    )
    .expect_status(200);
    assert_eq!(account(&author)["followerCount"], 0);
    follow(platform, &reader, &author);
    home_becomes(platform, &reader, &["my own", "after", "before"]);
    let oneself = ask(
        platform,
        &reader,
        "PUT",
        &format!("/api/users/{}/follow", reader.id),
    );
    oneself.expect_problem(422, "themselves");
}

#[test]
fn a_block_ends_follows_both_ways_and_hides_both_from_each_other() {
    let platform = Platform::shared();
    let [one, other] = people(platform);
    follow(platform, &one, &other);
    follow(platform, &other, &one);
    let id = post(platform, &one, "of one");
    home_becomes(platform, &other, &["of one"]);
    let like = format!("/api/posts/{id}/like");
    ask(platform, &other, "PUT", &like).expect_status(200);

    ask(
        platform,
        &one,
        "PUT",
        &format!("/api/users/{}/block", other.id),
    )
    .expect_status(200);
    assert!(home(platform, &other).is_empty());
    for (who, whom) in [(&one, &other), (&other, &one)] {
        for path in ["", "/posts", "/followers", "/following"] {
            ask(
                platform,
                who,
                "GET",
                &format!("/api/users/{}{path}", whom.id),
            )
            .expect_problem(404, "no user");
        }
        ask(
            platform,
            who,
            "PUT",
            &format!("/api/users/{}/follow", whom.id),
        )
        .expect_problem(404, "no user");
        let public = page(ask(platform, who, "GET", "/api/timeline/public?limit=100")).0;
        assert_eq!(public.contains(&"of one".to_owned()), who.id == one.id);
    }
    ask(platform, &other, "GET", &format!("/api/posts/{id}")).expect_problem(404, "no post");
    ask(platform, &other, "DELETE", &like).expect_problem(404, "no post");
    let likes = ask(platform, &one, "GET", &format!("/api/posts/{id}/likes"))
        .expect_status(200)
        .json();
    assert_eq!(likes["items"], json!([]));
    let counters = ask(platform, &one, "GET", &format!("/api/users/{}", one.id))
        .expect_status(200)
        .json();
    assert_eq!(
        (&counters["followerCount"], &counters["followingCount"]),
        (&json!(0), &json!(0))
    );

    let blocks = ask(platform, &one, "GET", "/api/blocks")
        .expect_status(200)
        .json();
    assert_eq!(blocks["items"][0]["userId"], other.id);
    ask(
        platform,
        &one,
        "POST",
        &format!("/api/users/{}/unblock", other.id),
    )
    .expect_status(200);
    ask(platform, &other, "GET", &format!("/api/posts/{id}")).expect_status(200);
    assert!(
        home(platform, &other).is_empty(),
        "follows that a block ended stay ended"
    );
}

#[test]
fn pages_neither_repeat_nor_skip_while_posts_come_and_go() {
    let platform = Platform::shared();
    let [author, reader] = people(platform);
    let ids: Vec<String> = (0..6)
        .map(|n| post(platform, &author, &n.to_string()))
        .collect();
    let path = format!("/api/users/{}/posts", author.id);
    let (first, cursor) = page(ask(platform, &reader, "GET", &format!("{path}?limit=2")));
    assert_eq!(first, ["5", "4"]);
    post(platform, &author, "new");
    ask(
        platform,
        &author,
        "DELETE",
        &format!("/api/posts/{}", ids[4]),
    )
    .expect_status(204);
    let (second, cursor) = page(ask(
        platform,
        &reader,
        "GET",
        &format!("{path}?limit=3&cursor={}", cursor.expect("more")),
    ));
    assert_eq!(second, ["3", "2", "1"]);
    let (last, end) = page(ask(
        platform,
        &reader,
        "GET",
        &format!("{path}?limit=3&cursor={}", cursor.expect("more")),
    ));
    assert_eq!((last, end), (vec!["0".to_owned()], None));
}

#[test]
fn what_is_wrong_is_refused_by_name_and_harms_nothing() {
    let platform = Platform::shared();
    let user = person(platform);
    let refused = |body: Value, status: u16, text: &str| {
        tell(platform, &user, "POST", "/api/posts", &body).expect_problem(status, text);
    };
    refused(json!({ "content": "" }), 422, "/content");
    refused(json!({ "content": " \n" }), 422, "/content");
    refused(json!({ "content": "nul \u{0}" }), 422, "/content");
    refused(json!({ "content": "x".repeat(5_001) }), 422, "/content");
    refused(json!({ "content": 5 }), 422, "/content");
    refused(
        json!({ "content": "x", "authorId": "somebody" }),
        422,
        "/authorId",
    );
    refused(json!({}), 422, "/content");
    let send = |kind: &str, body: String| {
        platform
            .call("timeline", "POST", "/api/posts")
            .token(&user.token)
            .body(kind, body)
            .send()
    };
    send("application/json", r#"{"content": "#.to_owned()).expect_problem(400, "line 1");
    send("text/plain", "hello".to_owned()).expect_problem(415, "application/json");
    let large = json!({ "content": "x".repeat(70_000) }).to_string();
    assert_eq!(send("application/json", large).status, 413);

    let get = |path: &str| ask(platform, &user, "GET", path);
    for list in ["/api/timeline/home", "/api/timeline/public", "/api/blocks"] {
        get(&format!("{list}?cursor=garbage")).expect_problem(400, "cursor");
        get(&format!("{list}?limit=0")).expect_problem(400, "limit");
        get(&format!("{list}?limit=ten")).expect_problem(400, "limit");
    }
    get("/api/posts/0193b1a4-7c3e-7d6b-8f10-2f4a5b6c7d8e").expect_problem(404, "no post");
    for bad in ["x'%20OR%20'1'='1", "%00", "a%20b", &"a".repeat(129)] {
        let answer = get(&format!("/api/posts/{bad}"));
        assert!(
            (400..405).contains(&answer.status),
            "{bad}: {}",
            answer.text()
        );
    }
    let metacharacters = "'); DROP TABLE posts; -- %_\\ \" $1 ?";
    let id = post(platform, &user, metacharacters);
    assert_eq!(
        get(&format!("/api/posts/{id}")).expect_status(200).json()["content"],
        metacharacters
    );
}

#[test]
fn tokens_decide_who_may_do_what() {
    let platform = Platform::shared();
    let reader = holder(platform, &["read"]);
    let id = post(platform, &person(platform), "guarded");
    let body = json!({ "content": "x" });
    tell(platform, &reader, "POST", "/api/posts", &body).expect_status(403);
    ask(platform, &reader, "PUT", &format!("/api/posts/{id}/like")).expect_status(403);
    ask(platform, &reader, "GET", &format!("/api/posts/{id}")).expect_status(200);
    platform
        .call("timeline", "POST", "/api/posts")
        .json(&body)
        .send()
        .expect_status(401);
    platform
        .call("timeline", "GET", "/api/timeline/home")
        .send()
        .expect_status(401);
    platform
        .call("timeline", "GET", "/api/timeline/public")
        .send()
        .expect_status(200);
}

#[test]
fn a_post_sent_again_with_its_key_is_written_once() {
    let platform = Platform::shared();
    let author = person(platform);
    let send = |content: &str| {
        let call = platform
            .call("timeline", "POST", "/api/posts")
            .token(&author.token)
            .header("idempotency-key", "k-1");
        call.json(&json!({ "content": content })).send()
    };
    let first = send("once").expect_status(201);
    let second = send("once").expect_status(201);
    assert_eq!(first.json(), second.json());
    assert_eq!(second.header("idempotency-replayed"), "true");
    send("another").expect_problem(422, "Idempotency-Key");
    let posts = page(ask(
        platform,
        &author,
        "GET",
        &format!("/api/users/{}/posts", author.id),
    ))
    .0;
    assert_eq!(posts, ["once"]);
}

#[test]
fn an_import_follows_many_and_skips_those_that_it_cannot() {
    let platform = Platform::shared();
    let [mover, one, two, blocker] = people(platform);
    post(platform, &one, "of one");
    post(platform, &two, "of two");
    follow(platform, &mover, &one);
    ask(
        platform,
        &blocker,
        "PUT",
        &format!("/api/users/{}/block", mover.id),
    )
    .expect_status(200);
    let ids = json!({ "userIds": [one.id, two.id, two.id, blocker.id, mover.id] });
    let done = tell(platform, &mover, "POST", "/api/follows/bulk", &ids)
        .expect_status(200)
        .json();
    assert_eq!(done, json!({ "followed": 1, "skipped": 4 }));
    home_becomes(platform, &mover, &["of two", "of one"]);
    let too_many: Vec<String> = (0..1_001).map(|n| format!("u{n}")).collect();
    tell(
        platform,
        &mover,
        "POST",
        "/api/follows/bulk",
        &json!({ "userIds": too_many }),
    )
    .expect_problem(422, "/userIds");
}

#[test]
fn posts_of_the_much_followed_are_merged_at_read() {
    let config = "[service.exprsn-timeline.config]\nfanout_followers_max = \"1\"";
    let platform = Platform::start(&Setup {
        services: &ALL,
        config,
        ..Setup::default()
    });
    let [author, quiet, reader, other] = people(&platform);
    follow(&platform, &reader, &author);
    follow(&platform, &reader, &quiet);
    post(&platform, &author, "pushed");
    home_becomes(&platform, &reader, &["pushed"]);
    follow(&platform, &other, &author);
    let id = post(&platform, &author, "pulled");
    post(&platform, &quiet, "between");
    post(&platform, &author, "pulled again");
    home_becomes(
        &platform,
        &reader,
        &["pulled again", "between", "pulled", "pushed"],
    );
    let (newest, cursor) = page(ask(&platform, &reader, "GET", "/api/timeline/home?limit=3"));
    assert_eq!(newest, ["pulled again", "between", "pulled"]);
    let next = format!(
        "/api/timeline/home?limit=3&cursor={}",
        cursor.expect("more")
    );
    assert_eq!(
        page(ask(&platform, &reader, "GET", &next)),
        (vec!["pushed".to_owned()], None)
    );
    assert_eq!(
        home(&platform, &author),
        ["pulled again", "pulled", "pushed"]
    );
    ask(&platform, &author, "DELETE", &format!("/api/posts/{id}")).expect_status(204);
    assert_eq!(
        home(&platform, &reader),
        ["pulled again", "between", "pushed"]
    );
    ask(
        &platform,
        &reader,
        "DELETE",
        &format!("/api/users/{}/follow", author.id),
    )
    .expect_status(200);
    assert_eq!(home(&platform, &reader), ["between"]);
}

#[test]
fn a_deleted_account_takes_its_traces_along() {
    let platform = Platform::shared();
    let (leaver, [friend]) = (platform.user("leaver"), people(platform));
    let own = format!("/api/posts/{}", post(platform, &leaver, "goodbye"));
    let theirs = format!("/api/posts/{}", post(platform, &friend, "hello"));
    follow(platform, &leaver, &friend);
    ask(platform, &leaver, "PUT", &format!("{theirs}/like")).expect_status(200);
    tell(
        platform,
        &leaver,
        "POST",
        &format!("{theirs}/comments"),
        &json!({ "content": "nice" }),
    )
    .expect_status(201);
    let leave = platform
        .call("auth", "DELETE", "/api/users/me")
        .token(&leaver.token);
    let left = leave
        .json(&json!({ "password": "correct horse battery staple 7" }))
        .send();
    assert!(left.status < 300, "{}", left.text());
    eventually("nothing of the account is left", || {
        let post = ask(platform, &friend, "GET", &theirs)
            .expect_status(200)
            .json();
        let account = ask(
            platform,
            &friend,
            "GET",
            &format!("/api/users/{}", friend.id),
        )
        .expect_status(200)
        .json();
        let gone = ask(platform, &friend, "GET", &own).status == 404;
        (gone
            && post["likeCount"] == 0
            && post["commentCount"] == 0
            && account["followerCount"] == 0)
            .then_some(())
    });
    let statistics = platform
        .call("pulse", "GET", &format!("/api/stats/users/{}", leaver.id))
        .token(&friend.token)
        .send();
    statistics.expect_problem(404, "no user");
}
