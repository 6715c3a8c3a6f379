//! Doing what is planned, then waiting until all of it has arrived.

use super::{
    api::{Gateway, User},
    plan::{Comment, Plan, display_name, username},
};
use crate::cli::output::{CliError, Result};
use futures::{StreamExt as _, stream};
use indicatif::ProgressBar;
use serde_json::Value;
use std::{
    collections::HashSet,
    future::Future,
    time::{Duration, Instant},
};

/// Entries asked for at once: the platform's largest page.
const PAGE: usize = 100;
/// The first and the longest pause between two looks, in milliseconds.
const LOOK_MS: u64 = 100;
const LOOK_MS_MAX: u64 = 1_000;

/// What was done, and by whom.
pub struct Done {
    pub users: Vec<User>,
    /// Only what the platform acknowledged.
    pub plan: Plan,
    /// Ids of the plan's posts.
    pub posts: Vec<String>,
    /// How long it took to do it.
    pub took: Duration,
}

/// What of it has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    pub deliveries: usize,
    pub notifications: usize,
}

/// Carries the plan out, step by step, `concurrency` requests at a time.
pub async fn act(
    gateway: &Gateway,
    plan: &Plan,
    run: &str,
    concurrency: usize,
    bar: &ProgressBar,
) -> Result<Done> {
    let begun = Instant::now();
    let requests =
        plan.users + plan.follows.len() + plan.posts.len() + plan.likes.len() + plan.comments.len();
    bar.set_length(requests as u64);
    let steps = Steps {
        gateway,
        plan,
        concurrency,
        bar,
    };
    let users = steps.users(run).await?;
    let follows = steps.follows(&users).await;
    let ids = steps.posts(&users).await;
    let likes = steps.likes(&users, &ids).await;
    let comments = steps.comments(&users, &ids).await;
    let done = Plan {
        users: plan.users,
        follows,
        posts: plan.posts.clone(),
        likes,
        comments,
    };
    let (plan, posts) = acknowledged(done, ids);
    Ok(Done {
        users,
        plan,
        posts,
        took: begun.elapsed(),
    })
}

/// The steps of a tour; each answers what the platform acknowledged.
struct Steps<'a> {
    gateway: &'a Gateway,
    plan: &'a Plan,
    concurrency: usize,
    bar: &'a ProgressBar,
}

impl Steps<'_> {
    /// Everybody; without all of them there is no tour.
    async fn users(&self, run: &str) -> Result<Vec<User>> {
        self.bar.set_message("users");
        let password = &format!("the tour {run} through the platform");
        let register = |user: usize| async move {
            let registered = self
                .gateway
                .register(&username(run, user), &display_name(user), password)
                .await;
            (user, registered)
        };
        let mut users = self.together(0..self.plan.users, register).await;
        users.sort_by_key(|(user, _)| *user);
        let users: Vec<User> = users.into_iter().filter_map(|(_, user)| user).collect();
        if users.len() == self.plan.users {
            return Ok(users);
        }
        let told = self
            .gateway
            .tally
            .borrow()
            .told
            .first()
            .cloned()
            .unwrap_or_default();
        Err(CliError::failed(format!(
            "only {} of {} users could be registered: {told}",
            users.len(),
            self.plan.users
        )))
    }

    async fn follows(&self, users: &[User]) -> Vec<(usize, usize)> {
        self.bar.set_message("follows");
        let follow = |(from, to): (usize, usize)| async move {
            self.gateway
                .follow(&users[from], &users[to])
                .await
                .then_some((from, to))
        };
        self.together(self.plan.follows.iter().copied(), follow)
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// The ids of the posts in the plan's order.
    async fn posts(&self, users: &[User]) -> Vec<Option<String>> {
        self.bar.set_message("posts");
        let post = |at: usize| async move {
            let post = &self.plan.posts[at];
            (at, self.gateway.post(&users[post.author], &post.text).await)
        };
        let mut ids = vec![None; self.plan.posts.len()];
        for (at, id) in self.together(0..self.plan.posts.len(), post).await {
            ids[at] = id;
        }
        ids
    }

    async fn likes(&self, users: &[User], ids: &[Option<String>]) -> Vec<(usize, usize)> {
        self.bar.set_message("likes");
        let like = |(user, post): (usize, usize)| async move {
            let id = ids[post].as_deref()?;
            self.gateway
                .like(&users[user], id)
                .await
                .then_some((user, post))
        };
        self.together(self.plan.likes.iter().copied(), like)
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    async fn comments(&self, users: &[User], ids: &[Option<String>]) -> Vec<Comment> {
        self.bar.set_message("comments");
        let comment = |comment: &'_ Comment| {
            let comment = comment.clone();
            async move {
                let id = ids[comment.post].as_deref()?;
                self.gateway
                    .comment(&users[comment.user], id, &comment.text)
                    .await
                    .then_some(comment)
            }
        };
        self.together(&self.plan.comments, comment)
            .await
            .into_iter()
            .flatten()
            .collect()
    }

    /// Does something with each item, `concurrency` at a time; the answers come in any order.
    async fn together<I, F, Fut>(&self, items: I, act: F) -> Vec<Fut::Output>
    where
        I: IntoIterator,
        F: Fn(I::Item) -> Fut,
        Fut: Future,
    {
        stream::iter(items)
            .map(act)
            .buffer_unordered(self.concurrency)
            .inspect(|_| self.bar.inc(1))
            .collect()
            .await
    }
}

/// Leaves out the posts that were not acknowledged, and numbers the others anew.
fn acknowledged(mut plan: Plan, ids: Vec<Option<String>>) -> (Plan, Vec<String>) {
    let mut next = 0;
    let numbers: Vec<Option<usize>> = ids
        .iter()
        .map(|id| {
            id.as_ref()?;
            next += 1;
            Some(next - 1)
        })
        .collect();
    let mut kept = ids.iter();
    plan.posts
        .retain(|_| kept.next().is_some_and(Option::is_some));
    plan.likes = plan
        .likes
        .into_iter()
        .filter_map(|(user, post)| Some((user, numbers[post]?)))
        .collect();
    plan.comments.retain_mut(|comment| {
        numbers[comment.post]
            .map(|number| comment.post = number)
            .is_some()
    });
    (plan, ids.into_iter().flatten().collect())
}

/// Looks again and again until everything has arrived or `patience` ends; then looks once more at everything, so that
/// what arrived twice shows too.
pub async fn wait(
    gateway: &Gateway,
    done: &Done,
    patience: Duration,
    concurrency: usize,
    bar: &ProgressBar,
) -> Arrived {
    let (deliveries, notifications) = (done.plan.deliveries(), done.plan.notifications());
    let expected: usize = deliveries.iter().chain(&notifications).sum();
    bar.reset();
    bar.set_length(expected as u64);
    bar.set_message("arriving");
    let ours: HashSet<&str> = done.posts.iter().map(String::as_str).collect();
    let look = Look {
        gateway,
        users: &done.users,
        ours: &ours,
        concurrency,
    };
    let deadline = Instant::now() + patience;
    let mut seen = vec![(0, 0); done.users.len()];
    let mut pause_ms = LOOK_MS;
    loop {
        let lacking = |user: &usize| {
            seen[*user].0 < deliveries[*user] || seen[*user].1 < notifications[*user]
        };
        let waiting: Vec<usize> = (0..done.users.len()).filter(lacking).collect();
        if waiting.is_empty() || Instant::now() >= deadline {
            break;
        }
        look.at(&waiting, &mut seen).await;
        bar.set_position(seen.iter().map(|(home, inbox)| home + inbox).sum::<usize>() as u64);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(LOOK_MS_MAX);
    }
    let everybody: Vec<usize> = (0..done.users.len()).collect();
    look.at(&everybody, &mut seen).await;
    Arrived {
        deliveries: seen.iter().map(|(home, _)| home).sum(),
        notifications: seen.iter().map(|(_, inbox)| inbox).sum(),
    }
}

/// Counting what users have.
struct Look<'a> {
    gateway: &'a Gateway,
    users: &'a [User],
    ours: &'a HashSet<&'a str>,
    concurrency: usize,
}

impl Look<'_> {
    /// Counts posts of others and notifications of some users.
    async fn at(&self, wanted: &[usize], seen: &mut [(usize, usize)]) {
        let counts = stream::iter(wanted.iter().copied())
            .map(|user| async move {
                (
                    user,
                    self.home(&self.users[user]).await,
                    self.inbox(&self.users[user]).await,
                )
            })
            .buffer_unordered(self.concurrency);
        let counts: Vec<_> = counts.collect().await;
        for (user, home, inbox) in counts {
            seen[user] = (home.unwrap_or(seen[user].0), inbox.unwrap_or(seen[user].1));
        }
    }

    /// Posts of this run by others in a home timeline, each as often as it is there.
    async fn home(&self, user: &User) -> Option<usize> {
        let mut count = 0;
        let mut cursor = String::new();
        loop {
            let page = self
                .gateway
                .read(
                    user,
                    &format!("/timeline/api/timeline/home?limit={PAGE}{cursor}"),
                )
                .await?;
            let items = page["items"].as_array()?;
            let is_delivery = |post: &&Value| {
                post["authorId"] != user.id.as_str()
                    && post["id"].as_str().is_some_and(|id| self.ours.contains(id))
            };
            count += items.iter().filter(is_delivery).count();
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Some(count),
            }
        }
    }

    async fn inbox(&self, user: &User) -> Option<usize> {
        let answer = self
            .gateway
            .read(user, "/herald/api/notifications/unread-count")
            .await?;
        answer["unread"]
            .as_u64()
            .and_then(|unread| usize::try_from(unread).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Post;
    use super::*;

    #[test]
    fn what_was_not_acknowledged_is_not_expected() {
        let post = |author| Post {
            author,
            text: String::new(),
        };
        let comment = |post| Comment {
            user: 1,
            post,
            text: String::new(),
        };
        let plan = Plan {
            users: 2,
            follows: vec![(1, 0)],
            posts: vec![post(0), post(0), post(0)],
            likes: vec![(1, 1), (1, 2)],
            comments: vec![comment(0), comment(2)],
        };
        let (plan, ids) = acknowledged(plan, vec![Some("a".into()), None, Some("c".into())]);
        assert_eq!(
            (plan.posts.len(), ids),
            (2, vec!["a".to_owned(), "c".to_owned()])
        );
        assert_eq!(plan.likes, [(1, 1)]);
        assert_eq!(
            plan.comments
                .iter()
                .map(|comment| comment.post)
                .collect::<Vec<_>>(),
            [0, 1]
        );
        assert_eq!(plan.deliveries(), [0, 2]);
    }
}
