//! `exprsn logs`, `exprsn trace`, `exprsn levels`: what the host keeps in memory of what happened lately.

use super::{
    client::{Ask, Client},
    output::{CliError, Result, Style, Table, harmless, print, print_json},
    place::{Place, SETUP_PORT},
};
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// How often new lines are asked for.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

/// Shows the log of a service, or of all and the host's own; with -f as it is written.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn logs timeline
  exprsn logs -f timeline
  exprsn logs --json | jq 'select(.severity == \"error\")'")]
pub struct LogsArgs {
    /// The service, by full or short name; all by default.
    service: Option<String>,
    /// Goes on with what is written from now on, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Prints a JSON object for each line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Shows the spans of a trace: who called whom, for how long, and what became of it.
///
/// The id is that of `traceparent`, which answers carry as `x-request-id`.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn trace 0af7651916cd43dd8448eb211c80319c
  exprsn trace 0af7651916cd43dd8448eb211c80319c --json | jq '.items[].name'")]
pub struct TraceArgs {
    /// 32 hexadecimal digits.
    id: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Shows, or sets until the next start, which lines the host writes.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn levels
  exprsn levels info,exprsn-timeline=debug")]
pub struct LevelsArgs {
    /// A filter as in RUST_LOG; the full name of a service is a target of its own.
    filter: Option<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// The host itself, as administrators ask it.
struct Host {
    client: Client,
    base: String,
    place: Place,
}

impl Host {
    fn open(place: &Place) -> Result<Self> {
        Ok(Self {
            client: place.client()?,
            base: format!("{}{}", place.url(SETUP_PORT)?, crate::own::ADMIN),
            place: place.clone(),
        })
    }

    async fn ask(&self, method: Method, what: &str, body: Option<Value>) -> Result<Value> {
        let (url, token) = (format!("{}{what}", self.base), self.place.operator_token()?);
        let mut ask = Ask::new(method, &url).token(&token);
        if let Some(body) = body {
            ask = ask.json(body);
        }
        self.client.json(ask).await
    }
}

impl LogsArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let host = Host::open(&self.place)?;
        let service = match &self.service {
            Some(name) => {
                let full = crate::name::ServiceName::parse_short(name).map_err(CliError::failed)?;
                format!("service={full}&")
            }
            None => String::new(),
        };
        let (mut after, style) = (0, Style::stdout());
        loop {
            let told = host
                .ask(Method::GET, &format!("logs?{service}after={after}"), None)
                .await?;
            for line in told["items"].as_array().into_iter().flatten() {
                match self.json {
                    true => print(&line.to_string()),
                    false => print(&shown(line, style)),
                }
            }
            after = told["next"].as_u64().unwrap_or(after);
            if !self.follow {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }
}

impl TraceArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let host = Host::open(&self.place)?;
        let told = host
            .ask(Method::GET, &format!("traces/{}", self.id), None)
            .await?;
        if self.json {
            return print_json(&told);
        }
        let spans = told["items"].as_array().cloned().unwrap_or_default();
        if spans.is_empty() {
            return Err(CliError::failed(format!("nothing is known of trace {}", self.id)).remedy(
                "only what happened lately is kept ([telemetry] recent_spans_max), and only of traces that are sampled",
            ));
        }
        print(&tree(&spans, Style::stdout()));
        Ok(())
    }
}

impl LevelsArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let host = Host::open(&self.place)?;
        let told = match &self.filter {
            Some(filter) => {
                host.ask(Method::PUT, "levels", Some(json!({ "filter": filter })))
                    .await?
            }
            None => host.ask(Method::GET, "levels", None).await?,
        };
        if self.json {
            return print_json(&told);
        }
        print(told["filter"].as_str().unwrap_or_default());
        Ok(())
    }
}

fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn source_of(record: &Value) -> String {
    let name = text_of(&record["source"]["name"]);
    name.strip_prefix("exprsn-").unwrap_or(&name).to_owned()
}

fn shown(line: &Value, style: Style) -> String {
    let seconds = line["time_ns"].as_u64().unwrap_or_default() / 1_000_000;
    let time = chrono::DateTime::from_timestamp_millis(i64::try_from(seconds).unwrap_or_default());
    let time = time
        .map(|time| time.format("%H:%M:%S%.3f").to_string())
        .unwrap_or_default();
    let severity = text_of(&line["severity"]).to_lowercase();
    let level = match severity.as_str() {
        "error" | "critical" | "fatal" => style.red(&severity),
        "warn" | "warning" => style.yellow(&severity),
        _ => style.dim(&severity),
    };
    let attributes = match &line["attributes"] {
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let attributes = match attributes.as_str() {
        "[]" | "{}" => "",
        text => text,
    };
    let body = harmless(&text_of(&line["body"]));
    format!(
        "{time} {level:5} {:10} {body} {}",
        source_of(line),
        style.dim(&harmless(attributes))
    )
    .trim_end()
    .to_owned()
}

/// Spans under those that caused them, with how long each took.
fn tree(spans: &[Value], style: Style) -> String {
    let mut children: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    let known: Vec<String> = spans.iter().map(|span| text_of(&span["span_id"])).collect();
    for span in spans {
        let parent = text_of(&span["parent_id"]);
        let place = if known.contains(&parent) {
            parent
        } else {
            String::new()
        };
        children.entry(place).or_default().push(span);
    }
    for list in children.values_mut() {
        list.sort_by_key(|span| span["start_ns"].as_u64());
    }
    let begun = spans
        .iter()
        .filter_map(|span| span["start_ns"].as_u64())
        .min()
        .unwrap_or_default();
    let mut table = Table::new(&["AFTER", "TOOK", "SERVICE", "WHAT"], &[0, 1], style);
    let mut waiting: Vec<(usize, &Value)> = Vec::new();
    waiting.extend(
        children
            .get("")
            .into_iter()
            .flatten()
            .rev()
            .map(|span| (0, *span)),
    );
    // Each span once, however wrong the ids are.
    let mut left = spans.len();
    while let (Some((depth, span)), 1..) = (waiting.pop(), left) {
        left -= 1;
        let ms = |ns: u64| format!("{:.1} ms", ns as f64 / 1e6);
        let (start, end) = (
            span["start_ns"].as_u64().unwrap_or_default(),
            span["end_ns"].as_u64().unwrap_or_default(),
        );
        let name = format!(
            "{}{}",
            "  ".repeat(depth),
            harmless(&text_of(&span["name"]))
        );
        let name = if text_of(&span["status"]).to_lowercase().contains("error") {
            style.red(&name)
        } else {
            name
        };
        table.row([
            ms(start.saturating_sub(begun)),
            ms(end.saturating_sub(start)),
            source_of(span),
            name,
        ]);
        let below = children.get(&text_of(&span["span_id"]));
        waiting.extend(
            below
                .into_iter()
                .flatten()
                .rev()
                .map(|span| (depth + 1, *span)),
        );
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_stand_under_their_causes() {
        let span = |id: &str, parent: &str, start: u64, name: &str| {
            json!({ "span_id": id, "parent_id": parent, "start_ns": start, "end_ns": start + 1_000_000, "name": name,
                    "source": { "name": "exprsn-a" }, "status": "ok" })
        };
        let spans = [
            span("3", "2", 2_000_000, "third"),
            span("1", "0", 0, "first"),
            span("2", "1", 1_000_000, "second"),
        ];
        let text = tree(&spans, Style::stdout());
        let order: Vec<usize> = ["first", "second", "third"]
            .map(|name| text.find(name).unwrap())
            .to_vec();
        assert!(order.is_sorted(), "{text}");
        assert!(
            text.contains("  second") && text.contains("    third"),
            "{text}"
        );
    }

    #[test]
    fn lines_do_not_rule_the_terminal() {
        let line = json!({ "time_ns": 1, "severity": "error", "source": { "name": "exprsn-a" }, "body": "a\u{1b}[2Jb" });
        let text = shown(&line, Style::stdout());
        assert!(
            !text.contains("\u{1b}[2J") && text.contains("a\\u{1b}[2Jb"),
            "{text}"
        );
    }
}
