//! `exprsn swap`, `rollback`, `canary` and `history`: which version of a service runs.

use super::{
    client::Ask,
    deliver::{Answers, Steps, deliver},
    output::{CliError, Result, Style, Table, print, print_json},
    place::CaPlace,
};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// How long a change may take: compilation, migrations and a health check are in it.
const CHANGE_MAX: Duration = Duration::from_secs(180);
/// Hexadecimal digits of a digest.
const DIGEST_DIGITS: usize = 64;

/// Where exprsn-setup and exprsn-ca are.
#[derive(Args, Clone, Debug)]
pub struct ChangePlace {
    /// The address of exprsn-setup, where it is not the one that the configuration says.
    #[arg(long, value_name = "URL", env = "EXPRSN_SETUP_URL")]
    setup: Option<String>,
    #[command(flatten)]
    ca: CaPlace,
}

/// Which service a command is about, and how the outcome is told.
#[derive(Args, Debug)]
pub struct ServiceArgs {
    /// The service: timeline is exprsn-timeline.
    name: String,
    /// Prints the outcome as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: ChangePlace,
}

/// Gives a running service another version without losing a request.
///
/// A file is sent, admitted as platform.toml or the service's last admission says, loaded and checked beside the running
/// version; then it takes over, and what the old one has begun it finishes. If the new one does worse, the old one returns.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn swap timeline target/components/exprsn-timeline.wasm
  exprsn swap timeline 3b1f…                  a component that was sent before, by its whole digest
  exprsn swap timeline new.wasm --percent 10  as a canary; then `exprsn canary promote timeline`
  exprsn swap notes notes.wasm --allow-unsigned --json")]
pub struct SwapArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// A component file, or the digest of an admitted component.
    component: String,
    /// Makes it a canary with this share of the invocations.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=99))]
    percent: Option<u8>,
    /// Takes the running version off before the new one is loaded: for migrations that it cannot bear.
    #[arg(long)]
    restart: bool,
    #[command(flatten)]
    answers: Answers,
}

/// Returns a service to the version that was live before.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn rollback timeline
  exprsn rollback timeline --json")]
pub struct RollbackArgs {
    #[command(flatten)]
    service: ServiceArgs,
}

/// Decides on a canary: a version that `exprsn swap --percent` gave a share.
#[derive(Subcommand, Debug)]
pub enum CanaryCommand {
    Promote(PromoteArgs),
    Abort(AbortArgs),
}

/// Gives a canary everything.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn canary promote timeline")]
pub struct PromoteArgs {
    #[command(flatten)]
    service: ServiceArgs,
}

/// Ends a canary; the version beside it has everything again.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn canary abort timeline")]
pub struct AbortArgs {
    #[command(flatten)]
    service: ServiceArgs,
}

/// Lists what a service has run as, newest first.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn history timeline
  exprsn history timeline --json | jq '.items[0].digest'")]
pub struct HistoryArgs {
    #[command(flatten)]
    service: ServiceArgs,
}

impl SwapArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let steps = Steps::new();
        let digest = if Path::new(&self.component).is_file() {
            steps.next("sending and admitting the component");
            let file = Path::new(&self.component);
            let delivered = deliver(&self.service.place.ca, file, &self.answers).await?;
            delivered.digest
        } else {
            digest(&self.component)?
        };
        steps.next("loading it, checking its health, swapping it in");
        let body = json!({ "digest": digest, "percent": self.percent, "restart": self.restart });
        let changed = self.service.change("swap", Some(body)).await?;
        drop(steps);
        self.service.tell(&changed)
    }
}

/// A digest as written on a command line, or why it is none.
fn digest(text: &str) -> Result<String> {
    let digits = text.trim_start_matches("sha256:");
    let shaped = digits.len() == DIGEST_DIGITS
        && digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if shaped {
        return Ok(digits.to_owned());
    }
    Err(
        CliError::failed(format!("`{text}` is neither a file nor a digest"))
            .remedy("name a component file, or 64 hexadecimal digits as `exprsn component list --json` shows them"),
    )
}

impl RollbackArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let changed = self.service.change("rollback", None).await?;
        self.service.tell(&changed)
    }
}

impl CanaryCommand {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let (service, what) = match self {
            Self::Promote(args) => (args.service, "canary/promote"),
            Self::Abort(args) => (args.service, "canary/abort"),
        };
        service.tell(&service.change(what, None).await?)
    }
}

impl HistoryArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let (url, token) = self.service.target("history")?;
        let ask = Ask::new(Method::GET, &url).token(&token);
        let history: Value = self.service.place.ca.place.client()?.json(ask).await?;
        if self.service.json {
            return print_json(&history);
        }
        print(&render(&history, Style::stdout()));
        Ok(())
    }
}

impl ServiceArgs {
    fn target(&self, what: &str) -> Result<(String, String)> {
        let ChangePlace { setup, ca } = &self.place;
        let path = format!("/api/services/{}/{what}", self.name);
        let url = ca.place.setup_url(setup.as_deref(), &path)?;
        Ok((url, ca.place.operator_token()?))
    }

    async fn change(&self, what: &str, body: Option<Value>) -> Result<Value> {
        let (url, token) = self.target(what)?;
        let ask = Ask::new(Method::POST, &url)
            .token(&token)
            .json(body.unwrap_or_else(|| json!({})))
            .patience(CHANGE_MAX);
        self.place.ca.place.client()?.json(ask).await
    }

    fn tell(&self, changed: &Value) -> Result {
        if self.json {
            return print_json(changed);
        }
        print(&told(changed, Style::stdout()));
        Ok(())
    }
}

/// `exprsn-timeline 1.1.0 3b1f0c… is live in 21 ms (from the cache); before: 9a…`.
fn told(changed: &Value, style: Style) -> String {
    let text = |name: &str| changed[name].as_str().unwrap_or_default();
    let outcome = match text("outcome") {
        "trial" => "is on trial",
        "removed" => "is removed",
        _ => "is live",
    };
    let code = match changed["cached"].as_bool() {
        Some(false) => "compiled",
        _ => "from the cache",
    };
    let former = match changed["former"].as_str() {
        Some(former) => format!("; before: {}", short(former)),
        None => String::new(),
    };
    format!(
        "{} {} {} {} in {} ms ({code}{former})",
        text("service"),
        text("version"),
        style.dim(short(text("digest"))),
        style.green(outcome),
        changed["tookMs"]
    )
}

/// `2026-11-25 10:05:38`, in UTC.
fn moment(at_ms: i64) -> String {
    match time::OffsetDateTime::from_unix_timestamp(at_ms / 1_000) {
        Ok(at) => format!(
            "{} {:02}:{:02}:{:02}",
            at.date(),
            at.hour(),
            at.minute(),
            at.second()
        ),
        Err(_) => String::new(),
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn render(history: &Value, style: Style) -> String {
    let headings = [
        "WHEN", "ACTION", "OUTCOME", "VERSION", "DIGEST", "BY", "TOOK", "REASON",
    ];
    let mut table = Table::new(&headings, &[6], style);
    for entry in history["items"].as_array().into_iter().flatten() {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        table.row([
            moment(entry["at"].as_i64().unwrap_or_default()),
            text("action"),
            style.status(&text("outcome")),
            text("version"),
            style.dim(short(&text("digest"))),
            text("by"),
            format!("{} ms", entry["tookMs"]),
            text("reason"),
        ]);
    }
    let canary = &history["canary"];
    let trial = canary["digest"].as_str().map(|digest| {
        format!(
            "\non trial: {} {} with {} %",
            canary["version"].as_str().unwrap_or_default(),
            short(digest),
            canary["percent"]
        )
    });
    format!("{}{}", table.render(), trial.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_recognised() {
        let whole = "0123456789abcdef".repeat(4);
        assert_eq!(digest(&format!("sha256:{whole}")).unwrap(), whole);
        assert!(
            digest("nowhere.wasm")
                .unwrap_err()
                .to_string()
                .contains("neither a file nor")
        );
    }

    #[test]
    fn outcomes_and_history_read_well() {
        let changed = json!({ "service": "exprsn-a", "version": "1.1.0", "digest": "0123456789abcdef", "outcome": "live",
            "former": "fedcba9876543210", "cached": false, "tookMs": 21 });
        assert_eq!(
            told(&changed, Style::stdout()),
            "exprsn-a 1.1.0 0123456789ab is live in 21 ms (compiled; before: fedcba987654)"
        );
        let history = json!({ "items": [{ "action": "auto-rollback", "outcome": "live", "version": "1.0.0", "digest": "01",
            "by": "host", "at": 0, "tookMs": 3, "reason": "50.0 % failed" }], "canary": { "version": "2", "digest": "ab", "percent": 10 } });
        let text = render(&history, Style::stdout());
        assert!(
            text.contains("1970-01-01 00:00:00") && text.contains("50.0 % failed"),
            "{text}"
        );
        assert!(text.contains("on trial: 2 ab with 10 %"), "{text}");
    }
}
