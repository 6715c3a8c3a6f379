//! Questions about what was counted.

use exprsn_sdk::prelude::*;

use crate::custom::is_name;
use crate::effects::{CUSTOM_PREFIX, METRICS};
use crate::window::{HOUR_MS, HOURS_MAX, Window, hour_of};

/// Entries of a ranking, where the query does not say.
const TOP_DEFAULT: i64 = 10;

/// What a post got.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostStats {
    pub post_id: String,
    pub author_id: Option<String>,
    pub likes: i64,
    pub comments: i64,
    /// Home timelines that the post was copied into.
    pub deliveries: i64,
    pub created_at: Option<i64>,
    pub deleted_at: Option<i64>,
}

impl PostStats {
    /// Counters never show below zero, though events may come in any order.
    fn shown(mut self) -> Self {
        for counter in [&mut self.likes, &mut self.comments] {
            *counter = (*counter).max(0);
        }
        self
    }
}

/// What a post got.
pub async fn post(Path(id): Path<Id>) -> Result<Json<PostStats>> {
    let stats: Option<PostStats> = sql::query_one_as(
        "SELECT post_id, author_id, likes, comments, deliveries, created_at, deleted_at FROM post_stats WHERE post_id = $1",
        params![id.as_str()],
    )
    .await?;
    let stats = stats.ok_or_else(|| Problem::not_found("post", id.as_str()))?;
    Ok(Json(stats.shown()))
}

/// What a user did and got.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserStats {
    pub user_id: String,
    pub posts: i64,
    pub likes_given: i64,
    pub likes_received: i64,
    pub comments_given: i64,
    pub comments_received: i64,
    pub followers: i64,
    pub following: i64,
    /// Home timelines that the user's posts were copied into.
    pub reach: i64,
}

impl UserStats {
    /// Counters never show below zero, though events may come in any order.
    fn shown(mut self) -> Self {
        let counters = [
            &mut self.posts,
            &mut self.likes_given,
            &mut self.likes_received,
            &mut self.comments_given,
            &mut self.comments_received,
            &mut self.followers,
            &mut self.following,
        ];
        for counter in counters {
            *counter = (*counter).max(0);
        }
        self
    }
}

/// What a user did and got.
pub async fn user(Path(id): Path<Id>) -> Result<Json<UserStats>> {
    let stats: Option<UserStats> = sql::query_one_as(
        "SELECT user_id, posts, likes_given, likes_received, comments_given, comments_received, followers, following, reach \
         FROM user_stats WHERE user_id = $1 AND deleted_at IS NULL",
        params![id.as_str()],
    )
    .await?;
    let stats = stats.ok_or_else(|| Problem::not_found("user", id.as_str()))?;
    Ok(Json(stats.shown()))
}

/// Which hours of which metric.
#[derive(Debug, Deserialize, JsonSchema, Validate)]
pub struct HourlyQuery {
    /// `posts`, `likes`, `comments`, `follows`, `deliveries`, `users`, `events`, one of these with `_deleted`, or `event:<name>`.
    #[garde(custom(known))]
    pub metric: String,
    /// Milliseconds since the Unix epoch; a day before `to` when absent.
    #[garde(inner(range(min = 0)))]
    pub from: Option<i64>,
    /// Milliseconds since the Unix epoch; now when absent.
    #[garde(inner(range(min = 0)))]
    pub to: Option<i64>,
}

fn known(metric: &str, _: &()) -> garde::Result {
    let custom = metric.strip_prefix(CUSTOM_PREFIX).is_some_and(is_name);
    if custom || METRICS.contains(&metric) {
        return Ok(());
    }
    Err(garde::Error::new(format!(
        "must be {CUSTOM_PREFIX}<name> or one of {}",
        METRICS.join(", ")
    )))
}

/// A metric by the hour.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hourly {
    pub metric: String,
    /// Each hour of the span, those without a count included.
    pub points: Vec<Point>,
    pub total: i64,
}

/// One hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    /// When it begins, in milliseconds since the Unix epoch.
    pub hour: i64,
    pub value: i64,
}

/// A metric by the hour, over 90 days at most.
pub async fn hourly(query: Query<HourlyQuery>) -> Result<Json<Hourly>> {
    let (from, to) = span(query.from, query.to, now_ms())?;
    let counted: Vec<Point> = sql::query_as(
        "SELECT hour, value FROM hourly WHERE metric = $1 AND hour >= $2 AND hour <= $3 ORDER BY hour",
        params![query.metric, from, to],
    )
    .await?;
    let total = counted.iter().map(|point| point.value).sum();
    Ok(Json(Hourly {
        metric: query.metric.clone(),
        points: filled(&counted, from, to),
        total,
    }))
}

/// First and last hour of a span.
fn span(from: Option<i64>, to: Option<i64>, now: i64) -> Result<(i64, i64)> {
    let to = hour_of(to.unwrap_or(now));
    let from = from.map_or(to - 23 * HOUR_MS, hour_of);
    if from > to {
        return Err(Problem::bad_request("from", "must not be after `to`"));
    }
    if (to - from) / HOUR_MS >= HOURS_MAX {
        return Err(Problem::bad_request(
            "from",
            format!("must not be more than {HOURS_MAX} hours before `to`"),
        ));
    }
    Ok((from, to))
}

/// Every hour from `from` to `to`, with 0 where nothing was counted.
fn filled(counted: &[Point], from: i64, to: i64) -> Vec<Point> {
    let mut counted = counted.iter().peekable();
    let hours = (0..=(to - from) / HOUR_MS).map(|n| from + n * HOUR_MS);
    hours
        .map(|hour| {
            counted
                .next_if(|point| point.hour == hour)
                .copied()
                .unwrap_or(Point { hour, value: 0 })
        })
        .collect()
}

/// Since when, and how many.
#[derive(Debug, Deserialize, JsonSchema, Validate)]
pub struct TopQuery {
    /// `24h` when absent.
    #[garde(skip)]
    pub window: Option<Window>,
    /// 1 to 100; 10 when absent.
    #[garde(inner(range(min = 1, max = 100)))]
    pub limit: Option<i64>,
}

/// A ranking.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Ranking<T> {
    pub window: Window,
    pub items: Vec<T>,
}

/// A post in the ranking.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopPost {
    pub post_id: String,
    pub author_id: Option<String>,
    /// Got within the window.
    pub likes: i64,
    pub comments: i64,
    /// A like counts 1, a comment 2.
    pub score: i64,
}

/// The posts that got the most likes and comments within a window.
pub async fn top_posts(query: Query<TopQuery>) -> Result<Json<Ranking<TopPost>>> {
    let window = query.window.unwrap_or(Window::DAY);
    let items: Vec<TopPost> = sql::query_as(
        "SELECT h.post_id, p.author_id, CAST(h.likes AS BIGINT) AS likes, CAST(h.comments AS BIGINT) AS comments, \
             CAST(h.likes + 2 * h.comments AS BIGINT) AS score \
         FROM (SELECT post_id, SUM(likes) AS likes, SUM(comments) AS comments FROM post_hours WHERE hour >= $1 GROUP BY post_id) AS h \
         LEFT JOIN post_stats p ON p.post_id = h.post_id \
         WHERE p.deleted_at IS NULL AND h.likes + 2 * h.comments > 0 ORDER BY score DESC, h.post_id DESC LIMIT $2",
        params![window.first_hour(now_ms()), query.limit.unwrap_or(TOP_DEFAULT)],
    )
    .await?;
    Ok(Json(Ranking { window, items }))
}

/// A custom event's name and count.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct EventCount {
    pub name: String,
    pub count: i64,
}

/// The custom events that happened most within a window.
pub async fn top_events(query: Query<TopQuery>) -> Result<Json<Ranking<EventCount>>> {
    let window = query.window.unwrap_or(Window::DAY);
    let items: Vec<EventCount> = sql::query_as(
        "SELECT substr(metric, length($1) + 1) AS name, CAST(SUM(value) AS BIGINT) AS count FROM hourly \
         WHERE metric IN (SELECT $1 || name FROM event_names) AND hour >= $2 \
         GROUP BY metric ORDER BY count DESC, metric LIMIT $3",
        params![CUSTOM_PREFIX, window.first_hour(now_ms()), query.limit.unwrap_or(TOP_DEFAULT)],
    )
    .await?;
    Ok(Json(Ranking { window, items }))
}

/// Since when.
#[derive(Debug, Deserialize, JsonSchema, Validate)]
pub struct WindowQuery {
    /// `24h` when absent.
    #[garde(skip)]
    pub window: Option<Window>,
}

/// How many users did something.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActiveUsers {
    pub window: Window,
    /// When the window's first hour begins, in milliseconds since the Unix epoch.
    pub from: i64,
    pub active_users: i64,
}

/// How many users did something within a window.
pub async fn active_users(query: Query<WindowQuery>) -> Result<Json<ActiveUsers>> {
    let window = query.window.unwrap_or(Window::DAY);
    let from = window.first_hour(now_ms());
    Ok(Json(ActiveUsers {
        window,
        from,
        active_users: count_active(from).await?,
    }))
}

async fn count_active(from: i64) -> Result<i64> {
    Ok(sql::scalar(
        "SELECT COUNT(DISTINCT user_id) FROM activity WHERE hour >= $1",
        params![from],
    )
    .await?)
}

/// The platform in numbers.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Written and not deleted; so with likes, comments, follows and users.
    pub posts: i64,
    pub likes: i64,
    pub comments: i64,
    pub follows: i64,
    /// Copies of posts in home timelines.
    pub deliveries: i64,
    /// Registered since pulse listens.
    pub users: i64,
    /// Custom events.
    pub events: i64,
    /// Users who did something in the last 24 hours.
    pub active_users: i64,
}

#[derive(Deserialize)]
struct Total {
    metric: String,
    total: i64,
}

/// The platform in numbers.
pub async fn summary() -> Result<Json<Summary>> {
    let text = "SELECT metric, CAST(SUM(value) AS BIGINT) AS total FROM hourly WHERE metric NOT LIKE 'event:%' GROUP BY metric";
    let totals: Vec<Total> = sql::query_as(text, params![]).await?;
    let active_users = count_active(Window::DAY.first_hour(now_ms())).await?;
    Ok(Json(Summary {
        active_users,
        ..summed(&totals)
    }))
}

fn summed(totals: &[Total]) -> Summary {
    let of = |metric: &str| {
        totals
            .iter()
            .find(|total| total.metric == metric)
            .map_or(0, |total| total.total)
    };
    let left = |metric: &str| of(metric) - of(&format!("{metric}_deleted"));
    Summary {
        posts: left("posts"),
        likes: left("likes"),
        comments: left("comments"),
        follows: left("follows"),
        deliveries: of("deliveries"),
        users: left("users"),
        events: of("events"),
        active_users: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_day_unless_said_and_90_days_at_most() {
        let now = 1_000 * HOUR_MS + 5;
        assert_eq!(
            span(None, None, now).expect("a day"),
            (977 * HOUR_MS, 1_000 * HOUR_MS)
        );
        assert_eq!(
            span(Some(now), Some(now), now).expect("an hour"),
            (1_000 * HOUR_MS, 1_000 * HOUR_MS)
        );
        assert!(span(Some(0), Some((HOURS_MAX - 1) * HOUR_MS), now).is_ok());
        for (from, to) in [(0, HOURS_MAX * HOUR_MS), (now, now - 2 * HOUR_MS)] {
            let problem = span(Some(from), Some(to), now).expect_err("refused");
            assert_eq!(
                (problem.status, problem.errors[0].field.as_str()),
                (400, "from")
            );
        }
        assert!(span(Some(i64::MAX), Some(i64::MAX), now).is_ok());
    }

    #[test]
    fn hours_without_a_count_are_there() {
        let counted = [Point {
            hour: HOUR_MS,
            value: 7,
        }];
        let values: Vec<i64> = filled(&counted, 0, 2 * HOUR_MS)
            .iter()
            .map(|point| point.value)
            .collect();
        assert_eq!(values, [0, 7, 0]);
    }

    #[test]
    fn what_was_deleted_is_not_in_the_summary() {
        let total = |metric: &str, total| Total {
            metric: metric.to_owned(),
            total,
        };
        let summary = summed(&[
            total("posts", 5),
            total("posts_deleted", 2),
            total("deliveries", 9),
        ]);
        assert_eq!(
            (summary.posts, summary.deliveries, summary.likes),
            (3, 9, 0)
        );
    }
}
