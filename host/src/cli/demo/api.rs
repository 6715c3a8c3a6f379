//! The platform as the demo's users see it: requests through the gateway, counted and timed.

use crate::cli::{
    client::{Answer, Ask, Client},
    output::{CliError, Result},
};
use hdrhistogram::Histogram;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

/// Tries of a request that the platform is too busy for.
const TRIES_MAX: u32 = 8;
/// The longest wait between two tries, in seconds, whatever `Retry-After` says.
const RETRY_S_MAX: u64 = 5;
/// Errors that are kept to be told.
const ERRORS_KEPT_MAX: usize = 5;
/// The longest latency told apart, in microseconds.
const LATENCY_US_MAX: u64 = 60_000_000;

/// A kind of request, timed by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Register,
    Follow,
    Post,
    Like,
    Comment,
    /// Looking at what came of it; not part of the figures.
    Read,
}

impl Action {
    /// Those that count, in the order in which they are done.
    pub const COUNTED: [Self; 5] = [
        Self::Register,
        Self::Follow,
        Self::Post,
        Self::Like,
        Self::Comment,
    ];

    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Follow => "follow",
            Self::Post => "post",
            Self::Like => "like",
            Self::Comment => "comment",
            Self::Read => "read",
        }
    }
}

/// Latencies and errors of all requests.
pub struct Tally {
    latencies: [Histogram<u64>; Action::COUNTED.len()],
    pub errors: u64,
    /// The first errors, to be told.
    pub told: Vec<String>,
}

impl Tally {
    fn new() -> Self {
        let empty =
            || Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are in order");
        Self {
            latencies: std::array::from_fn(|_| empty()),
            errors: 0,
            told: Vec::new(),
        }
    }

    /// The latencies of one kind of request, in microseconds.
    pub fn of(&self, action: Action) -> Option<&Histogram<u64>> {
        let at = Action::COUNTED
            .iter()
            .position(|counted| *counted == action)?;
        Some(&self.latencies[at])
    }

    /// The latencies of all but registrations: those hash a password, which is slow on purpose.
    pub fn all(&self) -> Histogram<u64> {
        let mut all =
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are in order");
        for latencies in &self.latencies[1..] {
            all.add(latencies).expect("the bounds are the same");
        }
        all
    }

    fn record(&mut self, action: Action, latency: Duration) {
        if let Some(at) = Action::COUNTED
            .iter()
            .position(|counted| *counted == action)
        {
            let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
            self.latencies[at].saturating_record(micros.max(1));
        }
    }

    fn fail(&mut self, error: String) {
        self.errors += 1;
        if self.told.len() < ERRORS_KEPT_MAX {
            self.told.push(error);
        }
    }
}

/// A user of the demo.
#[derive(Clone, Debug)]
pub struct User {
    pub id: String,
    pub token: String,
}

/// The way to the platform.
pub struct Gateway {
    client: Client,
    base: String,
    /// One task makes all requests, so nobody else borrows it meanwhile.
    pub tally: RefCell<Tally>,
}

impl Gateway {
    /// The gateway at `base`, after making sure that it is one.
    pub async fn connect(client: Client, base: &str) -> Result<Self> {
        let base = base.trim_end_matches('/').to_owned();
        let url = format!("{base}/");
        let index: Value = client.json(Ask::new(Method::GET, &url)).await?;
        if !index["services"].is_array() {
            return Err(
                CliError::failed(format!("{url} is not the platform's gateway"))
                    .remedy("name it with --gateway"),
            );
        }
        Ok(Self {
            client,
            base,
            tally: RefCell::new(Tally::new()),
        })
    }

    /// Registers a user, who is signed in at once.
    pub async fn register(
        &self,
        username: &str,
        display_name: &str,
        password: &str,
    ) -> Option<User> {
        let body =
            json!({ "username": username, "displayName": display_name, "password": password });
        let answer = self
            .call(
                Action::Register,
                Method::POST,
                "/auth/api/auth/register",
                None,
                Some(body),
            )
            .await?;
        let (id, token) = (
            answer["user"]["id"].as_str(),
            answer["accessToken"].as_str(),
        );
        let user = id.zip(token).map(|(id, token)| User {
            id: id.to_owned(),
            token: token.to_owned(),
        });
        if user.is_none() {
            self.tally
                .borrow_mut()
                .fail("the answer to a registration has no user or no token".to_owned());
        }
        user
    }

    /// Follows somebody.
    pub async fn follow(&self, user: &User, other: &User) -> bool {
        let path = format!("/timeline/api/users/{}/follow", other.id);
        self.call(Action::Follow, Method::PUT, &path, Some(user), None)
            .await
            .is_some()
    }

    /// Writes a post; answers its id.
    pub async fn post(&self, user: &User, text: &str) -> Option<String> {
        let body = json!({ "content": text });
        let answer = self
            .call(
                Action::Post,
                Method::POST,
                "/timeline/api/posts",
                Some(user),
                Some(body),
            )
            .await?;
        answer["id"].as_str().map(str::to_owned)
    }

    /// Likes a post.
    pub async fn like(&self, user: &User, post: &str) -> bool {
        let path = format!("/timeline/api/posts/{post}/like");
        self.call(Action::Like, Method::PUT, &path, Some(user), None)
            .await
            .is_some()
    }

    /// Comments on a post.
    pub async fn comment(&self, user: &User, post: &str, text: &str) -> bool {
        let path = format!("/timeline/api/posts/{post}/comments");
        self.call(
            Action::Comment,
            Method::POST,
            &path,
            Some(user),
            Some(json!({ "content": text })),
        )
        .await
        .is_some()
    }

    /// Reads something that only the user may see.
    pub async fn read(&self, user: &User, path: &str) -> Option<Value> {
        self.call(Action::Read, Method::GET, path, Some(user), None)
            .await
    }

    /// Makes a request until the platform has time for it; none (and counted) when it cannot be done.
    async fn call(
        &self,
        action: Action,
        method: Method,
        path: &str,
        user: Option<&User>,
        body: Option<Value>,
    ) -> Option<Value> {
        let url = format!("{}{path}", self.base);
        let mut tries = 0;
        loop {
            tries += 1;
            let mut ask = Ask::new(method.clone(), &url);
            ask.token = user.map(|user| user.token.as_str());
            if let Some(body) = &body {
                ask = ask.json(body.clone());
            }
            let begun = Instant::now();
            let answer = self.client.send(ask).await;
            let latency = begun.elapsed();
            match answer {
                Ok(answer) if is_busy(&answer) && tries < TRIES_MAX => {
                    let wait = answer.retry_after().unwrap_or(Duration::from_secs(1));
                    tokio::time::sleep(wait.min(Duration::from_secs(RETRY_S_MAX))).await;
                }
                answer => {
                    let done = answer.and_then(|answer| {
                        if answer.body.is_empty() {
                            answer.check(&url)
                        } else {
                            answer.json(&url)
                        }
                    });
                    let mut tally = self.tally.borrow_mut();
                    match done {
                        Ok(value) => {
                            tally.record(action, latency);
                            return Some(value);
                        }
                        Err(error) => {
                            tally.fail(format!("{method} {}", error.cause));
                            return None;
                        }
                    }
                }
            }
        }
    }
}

/// Whether the platform asks to come again later.
fn is_busy(answer: &Answer) -> bool {
    matches!(
        answer.status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

impl Answer {
    /// Null for an answer without a body, where the status is good.
    fn check(&self, url: &str) -> Result<Value> {
        if self.status.is_success() {
            Ok(Value::Null)
        } else {
            Err(self.refusal(url))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_are_not_in_the_figures() {
        let mut tally = Tally::new();
        tally.record(Action::Register, Duration::from_secs(2));
        tally.record(Action::Post, Duration::from_millis(3));
        tally.record(Action::Read, Duration::from_secs(9));
        let all = tally.all();
        assert_eq!((all.len(), all.max().div_ceil(100)), (1, 31));
        assert_eq!(tally.of(Action::Register).map(Histogram::len), Some(1));
        assert!(tally.of(Action::Read).is_none());
    }

    #[test]
    fn only_the_first_errors_are_kept() {
        let mut tally = Tally::new();
        (0..9).for_each(|n| tally.fail(n.to_string()));
        assert_eq!((tally.errors, tally.told.len()), (9, ERRORS_KEPT_MAX));
    }
}
