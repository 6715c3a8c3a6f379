//! Telling what came of the tour: for programs one object, for people figures and a few pages as users see them.

use super::{
    api::{Action, Gateway, Tally},
    plan::display_name,
    tour::{Arrived, Done},
};
use crate::cli::output::{Style, Table, print, span};
use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;

/// Entries shown of each page.
const SHOWN: usize = 4;

/// The one object of `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    pub users: usize,
    pub follows: usize,
    pub posts: usize,
    pub deliveries_expected: usize,
    pub deliveries_seen: usize,
    pub notifications_expected: usize,
    pub notifications_seen: usize,
    pub errors: u64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
}

impl Figures {
    /// The figures of a tour.
    pub fn of(done: &Done, arrived: Arrived, tally: &Tally) -> Self {
        let latencies = tally.all();
        Self {
            users: done.users.len(),
            follows: done.plan.follows.len(),
            posts: done.posts.len(),
            deliveries_expected: done.plan.deliveries().iter().sum(),
            deliveries_seen: arrived.deliveries,
            notifications_expected: done.plan.notifications().iter().sum(),
            notifications_seen: arrived.notifications,
            errors: tally.errors,
            p50_ms: quantile_ms(&latencies, 0.50),
            p95_ms: quantile_ms(&latencies, 0.95),
            p99_ms: quantile_ms(&latencies, 0.99),
        }
    }

    /// What is wrong, if anything is.
    pub fn fault(&self) -> Option<String> {
        if self.errors > 0 {
            Some(format!("{} requests failed", self.errors))
        } else if self.deliveries_seen != self.deliveries_expected {
            Some(format!(
                "{} of {} deliveries were seen",
                self.deliveries_seen, self.deliveries_expected
            ))
        } else if self.notifications_seen != self.notifications_expected {
            Some(format!(
                "{} of {} notifications were seen",
                self.notifications_seen, self.notifications_expected
            ))
        } else {
            None
        }
    }
}

fn quantile_ms(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    let micros = latencies.value_at_quantile(quantile);
    (micros as f64 / 10.0).round() / 100.0
}

/// The figures for people.
pub fn figures(figures: &Figures, done: &Done, tally: &Tally, style: Style) -> String {
    let requests: u64 = Action::COUNTED
        .iter()
        .filter_map(|action| tally.of(*action))
        .map(Histogram::len)
        .sum();
    let seconds = done.took.as_secs_f64();
    let mut table = Table::new(
        &["", "REQUESTS", "P50 ms", "P95 ms", "P99 ms"],
        &[1, 2, 3, 4],
        style,
    );
    let row = |name: &str, latencies: &Histogram<u64>| {
        let at = |quantile| format!("{:.1}", quantile_ms(latencies, quantile));
        [
            name.to_owned(),
            latencies.len().to_string(),
            at(0.50),
            at(0.95),
            at(0.99),
        ]
    };
    for action in Action::COUNTED {
        if let Some(latencies) = tally.of(action) {
            table.row(row(action.as_str(), latencies));
        }
    }
    table.row(row("all but register", &tally.all()));
    let reached = |seen: usize, expected: usize| {
        let text = format!("{seen} of {expected}");
        if seen == expected {
            style.green(&text)
        } else {
            style.red(&text)
        }
    };
    format!(
        "{} users, {} follows, {} posts, {} likes, {} comments in {} ({:.0} requests a second)\n\n{}\n\n\
         in home timelines  {}\nnotifications      {}",
        figures.users,
        figures.follows,
        figures.posts,
        done.plan.likes.len(),
        done.plan.comments.len(),
        span(seconds),
        requests as f64 / seconds.max(0.001),
        table.render(),
        reached(figures.deliveries_seen, figures.deliveries_expected),
        reached(figures.notifications_seen, figures.notifications_expected),
    )
}

/// Shows a home timeline, an inbox and the analytics.
pub async fn show(gateway: &Gateway, done: &Done, style: Style) {
    let names: HashMap<&str, String> = done
        .users
        .iter()
        .enumerate()
        .map(|(at, user)| (user.id.as_str(), display_name(at)))
        .collect();
    let followers: Vec<usize> = done.plan.followers().iter().map(Vec::len).collect();
    let (Some(popular), Some(reader)) = (most(&followers), most(&done.plan.deliveries())) else {
        return;
    };
    if let Some(page) = gateway
        .read(
            &done.users[reader],
            &format!("/timeline/api/timeline/home?limit={SHOWN}"),
        )
        .await
    {
        print(&format!(
            "\n{}",
            style.bold(&format!("{}'s home timeline", display_name(reader)))
        ));
        items(&page).for_each(|post| print(&timeline_line(post, &names, style)));
    }
    if let Some(page) = gateway
        .read(
            &done.users[popular],
            &format!("/herald/api/notifications?limit={SHOWN}"),
        )
        .await
    {
        let title = format!(
            "{}'s notifications ({} followers)",
            display_name(popular),
            followers[popular]
        );
        print(&format!("\n{}", style.bold(&title)));
        items(&page).for_each(|notification| print(&notification_line(notification, &names)));
    }
    if let Some(ranking) = gateway
        .read(
            &done.users[reader],
            &format!("/pulse/api/stats/top-posts?limit={SHOWN}"),
        )
        .await
    {
        print(&format!(
            "\n{}",
            style.bold("Top posts of the last 24 hours")
        ));
        items(&ranking).for_each(|post| print(&ranking_line(post, done, &names)));
    }
    if let Some(summary) = gateway
        .read(&done.users[reader], "/pulse/api/stats/summary")
        .await
    {
        let counts = summary
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, count)| format!("{name} {count}"));
        print(&format!(
            "\n{} {}",
            style.bold("The platform so far:"),
            counts.collect::<Vec<_>>().join(", ")
        ));
    }
}

/// Whoever has the most; none among nobody.
fn most(counts: &[usize]) -> Option<usize> {
    (0..counts.len()).max_by_key(|user| (counts[*user], std::cmp::Reverse(*user)))
}

fn items(page: &Value) -> impl Iterator<Item = &Value> {
    page["items"].as_array().into_iter().flatten()
}

fn name<'a>(id: &Value, names: &'a HashMap<&str, String>) -> &'a str {
    id.as_str()
        .and_then(|id| names.get(id))
        .map_or("somebody", String::as_str)
}

fn timeline_line(post: &Value, names: &HashMap<&str, String>, style: Style) -> String {
    let counts = format!(
        "({} likes, {} comments)",
        post["likeCount"], post["commentCount"]
    );
    format!(
        "  {}: {} {}",
        name(&post["authorId"], names),
        post["content"].as_str().unwrap_or_default(),
        style.dim(&counts)
    )
}

fn notification_line(notification: &Value, names: &HashMap<&str, String>) -> String {
    let who = name(&notification["actorId"], names);
    match notification["type"].as_str().unwrap_or_default() {
        "follow" => format!("  {who} follows you"),
        "like" => format!("  {who} likes your post"),
        "comment" => format!(
            "  {who} commented: {}",
            notification["body"].as_str().unwrap_or_default()
        ),
        "new_post" => format!("  {who} wrote a post"),
        other => format!("  {other} from {who}"),
    }
}

fn ranking_line(post: &Value, done: &Done, names: &HashMap<&str, String>) -> String {
    let at = done
        .posts
        .iter()
        .position(|id| post["postId"] == id.as_str());
    let text = at.map_or("(of another run)", |at| done.plan.posts[at].text.as_str());
    format!(
        "  {} likes, {} comments  {}: {text}",
        post["likes"],
        post["comments"],
        name(&post["authorId"], names)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sound() -> Figures {
        Figures {
            users: 2,
            follows: 1,
            posts: 1,
            deliveries_expected: 1,
            deliveries_seen: 1,
            notifications_expected: 2,
            notifications_seen: 2,
            errors: 0,
            p50_ms: 1.0,
            p95_ms: 2.0,
            p99_ms: 3.0,
        }
    }

    #[test]
    fn too_much_is_as_wrong_as_too_little() {
        assert_eq!(sound().fault(), None);
        assert!(
            Figures {
                deliveries_seen: 2,
                ..sound()
            }
            .fault()
            .is_some()
        );
        assert!(
            Figures {
                notifications_seen: 1,
                ..sound()
            }
            .fault()
            .is_some_and(|fault| fault.contains("1 of 2"))
        );
        assert!(
            Figures {
                errors: 3,
                ..sound()
            }
            .fault()
            .is_some_and(|fault| fault.contains('3'))
        );
    }

    #[test]
    fn the_object_has_the_agreed_members() {
        let json = serde_json::to_value(sound()).unwrap();
        let mut members: Vec<&str> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        members.sort_unstable();
        let agreed = [
            "deliveries_expected",
            "deliveries_seen",
            "errors",
            "follows",
            "notifications_expected",
            "notifications_seen",
            "p50_ms",
            "p95_ms",
            "p99_ms",
            "posts",
            "users",
        ];
        assert_eq!(members, agreed);
    }

    #[test]
    fn lines_read_well() {
        let names = HashMap::from([("1", "Ada".to_owned())]);
        assert_eq!(
            notification_line(&json!({ "type": "follow", "actorId": "1" }), &names),
            "  Ada follows you"
        );
        assert_eq!(
            notification_line(&json!({ "type": "x", "actorId": "9" }), &names),
            "  x from somebody"
        );
        assert_eq!(most(&[1, 3, 3]), Some(1));
        assert_eq!(most(&[]), None);
    }
}
