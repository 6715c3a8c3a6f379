//! Jobs of one queue: listed, shown, tried again, removed; and the queue paused, resumed, emptied.

use crate::cli::{
    client::{Ask, Client},
    output::{CliError, Failure, Result, Style, Table, harmless, print, print_json},
    place::SetupPlace,
};
use clap::Args;
use http::Method;
use serde_json::{Value, json};

/// Jobs that one question answers.
const PAGE: usize = 200;
/// Most jobs that one `drain` or `retry --all` goes through.
const JOBS_MAX: usize = 100_000;
/// States in which a job has not been begun.
const WAITING: [&str; 4] = ["waiting", "prioritized", "delayed", "paused"];
/// All states, those first in which somebody looks for a job.
const STATES: [&str; 7] = [
    "failed",
    "active",
    "waiting",
    "prioritized",
    "delayed",
    "paused",
    "completed",
];

/// Lists jobs of a queue: those that failed for good, unless another state is named.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn queue list timeline-fanout
  exprsn queue list timeline-fanout --state waiting --limit 20
  exprsn queue list events:exprsn-herald --json | jq '.items[].failedReason'")]
pub struct ListArgs {
    /// The queue, as `exprsn queue monitor` shows it.
    queue: String,
    /// waiting, delayed, prioritized, active, completed, failed or paused.
    #[arg(long, value_name = "STATE", default_value = "failed", value_parser = STATES)]
    state: String,
    /// How many are skipped.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    offset: usize,
    /// How many are shown.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: SetupPlace,
}

/// Shows one job: its data, its attempts, why it failed.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn queue show timeline-fanout 42
  exprsn queue show timeline-fanout 42 --json | jq -r .data")]
pub struct ShowArgs {
    /// The queue.
    queue: String,
    /// The job.
    id: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: SetupPlace,
}

/// Has a failed job tried again, or all of a queue.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn queue retry timeline-fanout 42
  exprsn queue retry timeline-fanout --all")]
pub struct RetryArgs {
    /// The queue.
    queue: String,
    /// The job.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<String>,
    /// Every job of the queue that failed.
    #[arg(long)]
    all: bool,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: SetupPlace,
}

/// Removes a job that nobody is working on. It is gone.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn queue remove timeline-fanout 42")]
pub struct RemoveArgs {
    /// The queue.
    queue: String,
    /// The job.
    id: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: SetupPlace,
}

/// Lets no worker take jobs of a queue, on any host; jobs are added all the same.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn queue pause timeline-fanout")]
pub struct PauseArgs {
    /// The queue.
    queue: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: SetupPlace,
}

/// Lets workers take jobs of a paused queue again.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn queue resume timeline-fanout")]
pub struct ResumeArgs {
    /// The queue.
    queue: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: SetupPlace,
}

/// Removes every job of a queue that has not been begun. They are gone: what they were to do is not done.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn queue drain timeline-fanout --yes
  exprsn queue drain timeline-fanout --yes --json")]
pub struct DrainArgs {
    /// The queue.
    queue: String,
    /// Yes, remove them.
    #[arg(long)]
    yes: bool,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: SetupPlace,
}

/// A queue of a running platform.
struct Queue {
    client: Client,
    token: String,
    base: String,
}

impl Queue {
    fn open(setup: &SetupPlace, name: &str) -> Result<Self> {
        Ok(Self {
            client: setup.place.client()?,
            token: setup.place.operator_token()?,
            base: setup.url(&format!("/api/queues/{}", escaped(name)))?,
        })
    }

    fn url(&self, rest: &str) -> String {
        format!("{}{rest}", self.base)
    }

    async fn jobs(&self, state: &str, offset: usize, limit: usize) -> Result<Vec<Value>> {
        let url = self.url(&format!(
            "/jobs?state={state}&offset={offset}&limit={limit}"
        ));
        let page: Value = self
            .client
            .json(Ask::new(Method::GET, &url).token(&self.token))
            .await?;
        Ok(page["items"].as_array().cloned().unwrap_or_default())
    }

    /// Does something that answers nothing.
    async fn act(&self, method: Method, rest: &str) -> Result {
        let url = self.url(rest);
        let asked = Ask::new(method, &url).token(&self.token);
        let answer = self.client.send(asked).await?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(answer.refusal(&url)),
        }
    }

    async fn retry(&self, id: &str) -> Result {
        self.act(Method::POST, &format!("/jobs/{}/retry", escaped(id)))
            .await
    }

    async fn remove(&self, id: &str) -> Result {
        self.act(Method::DELETE, &format!("/jobs/{}", escaped(id)))
            .await
    }

    /// Does something with each job of these states, of which it leaves none; says how many.
    async fn each(&self, states: &[&str], act: impl AsyncFn(&str) -> Result) -> Result<usize> {
        let mut done = 0;
        for state in states {
            while done < JOBS_MAX {
                let page = self.jobs(state, 0, PAGE).await?;
                let before = done;
                for job in &page {
                    match act(job["id"].as_str().unwrap_or_default()).await {
                        Ok(()) => done += 1,
                        // A worker was quicker.
                        Err(error) if error.failure == Failure::Failed => {}
                        Err(error) => return Err(error),
                    }
                }
                if done == before {
                    break;
                }
            }
        }
        Ok(done)
    }
}

/// A name as a segment of a path.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn told(json: bool, value: &Value, text: &str) -> Result {
    if json {
        return print_json(value);
    }
    print(text);
    Ok(())
}

impl ListArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let queue = Queue::open(&self.setup, &self.queue)?;
        let jobs = queue.jobs(&self.state, self.offset, self.limit).await?;
        if self.json {
            return print_json(&json!({ "items": jobs }));
        }
        let text = match jobs.is_empty() {
            true => format!("{} has no job that is {}", self.queue, self.state),
            false => render(&jobs, Style::stdout()),
        };
        print(&text);
        Ok(())
    }
}

impl ShowArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let queue = Queue::open(&self.setup, &self.queue)?;
        for state in STATES {
            let mut offset = 0;
            loop {
                let page = queue.jobs(state, offset, PAGE).await?;
                if let Some(job) = page.iter().find(|job| job["id"] == self.id.as_str()) {
                    return told(self.json, job, &shown(job));
                }
                offset += page.len();
                if page.len() < PAGE || offset >= JOBS_MAX {
                    break;
                }
            }
        }
        Err(
            CliError::failed(format!("{} has no job {}", self.queue, self.id))
                .remedy("`exprsn queue list` shows the jobs of a state"),
        )
    }
}

impl RetryArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let queue = Queue::open(&self.setup, &self.queue)?;
        let retried = match &self.id {
            Some(id) => queue.retry(id).await.map(|()| 1)?,
            None => {
                queue
                    .each(&["failed"], async |id| queue.retry(id).await)
                    .await?
            }
        };
        let text = format!("{retried} of {} are tried again", self.queue);
        told(
            self.json,
            &json!({ "queue": self.queue, "retried": retried }),
            &text,
        )
    }
}

impl RemoveArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let queue = Queue::open(&self.setup, &self.queue)?;
        queue.remove(&self.id).await?;
        let text = format!("{} is removed from {}", self.id, self.queue);
        told(
            self.json,
            &json!({ "queue": self.queue, "removed": self.id }),
            &text,
        )
    }
}

impl PauseArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        Queue::open(&self.setup, &self.queue)?
            .act(Method::POST, "/pause")
            .await?;
        let text = format!(
            "{} is paused; `exprsn queue resume {0}` goes on",
            self.queue
        );
        told(
            self.json,
            &json!({ "queue": self.queue, "paused": true }),
            &text,
        )
    }
}

impl ResumeArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        Queue::open(&self.setup, &self.queue)?
            .act(Method::POST, "/resume")
            .await?;
        let text = format!("{} goes on", self.queue);
        told(
            self.json,
            &json!({ "queue": self.queue, "paused": false }),
            &text,
        )
    }
}

impl DrainArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        if !self.yes {
            return Err(
                CliError::failed(format!("{} would lose its waiting jobs", self.queue))
                    .remedy("say --yes if what they were to do need not be done"),
            );
        }
        let queue = Queue::open(&self.setup, &self.queue)?;
        let removed = queue
            .each(&WAITING, async |id| queue.remove(id).await)
            .await?;
        let text = format!("{removed} jobs are removed from {}", self.queue);
        told(
            self.json,
            &json!({ "queue": self.queue, "removed": removed }),
            &text,
        )
    }
}

fn render(jobs: &[Value], style: Style) -> String {
    let headings = ["ID", "NAME", "STATE", "ATTEMPT", "REASON"];
    let mut table = Table::new(&headings, &[3], style);
    for job in jobs {
        let text = |name: &str| harmless(job[name].as_str().unwrap_or_default());
        let attempt = format!("{}/{}", job["attempt"], job["attempts"]);
        let state = match job["state"] == "failed" {
            true => style.red(&text("state")),
            false => text("state"),
        };
        table.row([
            text("id"),
            text("name"),
            state,
            attempt,
            text("failedReason"),
        ]);
    }
    table.render()
}

fn shown(job: &Value) -> String {
    let mut lines = Vec::new();
    for (name, value) in job.as_object().into_iter().flatten() {
        let value = match value {
            Value::Null => continue,
            Value::String(text) => harmless(text),
            other => other.to_string(),
        };
        lines.push(format!("{name:14} {value}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_jobs_hold_does_not_rule_the_terminal() {
        let job = json!({
            "id": "1", "name": "a\u{1b}[2Jb", "state": "failed", "attempt": 3, "attempts": 3, "failedReason": "x\ny",
        });
        for text in [
            render(std::slice::from_ref(&job), Style::stdout()),
            shown(&job),
        ] {
            assert!(
                !text.contains("\u{1b}[2J") && text.contains("x\\ny"),
                "{text}"
            );
        }
    }

    #[test]
    fn names_are_segments_of_paths() {
        assert_eq!(escaped("events:exprsn-herald"), "events:exprsn-herald");
        assert_eq!(escaped("../a b/ä"), "..%2Fa%20b%2F%C3%A4");
    }
}
