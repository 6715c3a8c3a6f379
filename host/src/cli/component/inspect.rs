//! `exprsn component inspect`: what a component is and asks for, before anything of it runs.

use crate::{
    cli::{
        client::{Ask, Client},
        output::{Result, Style, Table, print, print_json, size},
        place::CaPlace,
    },
    component::ComponentFile,
    inspection::{AskedLimit, Inspection},
};
use clap::Args;
use http::Method;
use serde_json::Value;
use std::path::PathBuf;

/// Shows what a component file is, who has signed it, and what it asks for.
///
/// The platform need not run; where it does, the signer's name as a trusted publisher is shown.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn component inspect notes.wasm
  exprsn component inspect notes.wasm --json | jq .grants")]
pub struct InspectArgs {
    /// The component file.
    file: PathBuf,
    /// Prints everything as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ca: CaPlace,
}

impl InspectArgs {
    pub(super) async fn run(self) -> Result {
        let inspection = Inspection::of(&ComponentFile::read(&self.file)?)?;
        if self.json {
            return print_json(&inspection);
        }
        let publishers = match self.ca.place.client() {
            Ok(client) => publishers(&client, &self.ca).await,
            Err(_) => None,
        };
        print(&render(&inspection, publishers.as_deref(), Style::stdout()));
        Ok(())
    }
}

/// The publishers that are trusted; none where no platform can be asked.
pub(super) async fn publishers(client: &Client, ca: &CaPlace) -> Option<Vec<Value>> {
    let (url, token) = (
        ca.url("/api/publishers").ok()?,
        ca.place.operator_token().ok()?,
    );
    let ask = Ask::new(Method::GET, &url).token(&token);
    let answer: Value = client.json(ask).await.ok()?;
    answer["items"].as_array().cloned()
}

/// The whole inspection, for a person.
pub(super) fn render(
    inspection: &Inspection,
    publishers: Option<&[Value]>,
    style: Style,
) -> String {
    let mut blocks = vec![
        head(inspection, publishers, style),
        grants(inspection, style),
    ];
    blocks.push(routes(inspection, style));
    blocks.push(triggers(inspection, style));
    blocks.push(limits(&inspection.limits, style));
    blocks.retain(|block| !block.is_empty());
    blocks.join("\n\n")
}

fn head(inspection: &Inspection, publishers: Option<&[Value]>, style: Style) -> String {
    let mut table = Table::new(&[], &[], style);
    let mut line = |name: &str, text: String| table.row([style.dim(name), text]);
    line("size", size(inspection.size));
    line("digest", format!("sha256:{}", inspection.digest));
    line("signer", signer(inspection, publishers, style));
    line("port", inspection.port.to_string());
    line("called for", listed(&inspection.triggers));
    line("needs running", listed(&inspection.depends_on));
    line("migrations", listed(&inspection.migrations));
    let described = match inspection.description.as_str() {
        "" => String::new(),
        text => format!(": {}", printable(text)),
    };
    let title = style.bold(&format!(
        "{} {}",
        inspection.name,
        printable(&inspection.version)
    ));
    format!("{title}{described}{}", table.render())
}

/// Texts of the manifest are a stranger's: no control character of theirs reaches the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "-".to_owned(),
        names => printable(&names.join(", ")),
    }
}

fn signer(inspection: &Inspection, publishers: Option<&[Value]>, style: Style) -> String {
    let Some(signer) = &inspection.signer else {
        return style.yellow("none: nobody vouches for it");
    };
    let key = &signer.key;
    let named = publishers.map(|all| all.iter().find(|one| one["key"] == key.as_str()));
    match named {
        Some(Some(publisher)) => {
            let name = printable(publisher["name"].as_str().unwrap_or_default());
            format!("{key} {}", style.green(&format!("(trusted: {name})")))
        }
        Some(None) => format!("{key} {}", style.yellow("(not a trusted publisher)")),
        None => format!("{key} (no platform was asked whether it is trusted)"),
    }
}

fn grants(inspection: &Inspection, style: Style) -> String {
    if inspection.grants.is_empty() {
        return format!("{}\n  nothing", style.bold("It asks for"));
    }
    let mut lines = vec![style.bold("It asks for")];
    let width = inspection.grants.iter().map(|grant| grant.capability.len());
    let width = width.max().unwrap_or_default();
    for grant in &inspection.grants {
        for (n, meaning) in grant.meaning.iter().enumerate() {
            let name = if n == 0 {
                grant.capability.as_str()
            } else {
                ""
            };
            lines.push(format!("  {name:width$}  {}", printable(meaning)));
        }
        let needed = match grant.interfaces.as_slice() {
            [] => "for its other grants".to_owned(),
            names => format!("for {}", printable(&names.join(", "))),
        };
        let optional = if grant.optional {
            "; it can do without"
        } else {
            ""
        };
        lines.push(format!(
            "  {:width$}  {}",
            "",
            style.dim(&format!("{needed}{optional}"))
        ));
    }
    lines.join("\n")
}

fn routes(inspection: &Inspection, style: Style) -> String {
    if inspection.routes.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[], &[], style);
    for route in &inspection.routes {
        let access = match route.access.as_str() {
            "public" => style.yellow("anybody"),
            permission => format!("whoever has `{permission}`"),
        };
        let mut notes = Vec::new();
        if route.stream {
            notes.push("streams".to_owned());
        }
        if let Some(bytes) = route.body_bytes_max {
            notes.push(format!("body up to {}", size(bytes)));
        }
        table.row([
            format!("  {}", printable(&route.methods.join(" "))),
            printable(&route.path),
            access,
            style.dim(&notes.join(", ")),
        ]);
    }
    format!("{}{}", style.bold("It answers"), table.render())
}

/// What it is called for besides requests.
fn triggers(inspection: &Inspection, style: Style) -> String {
    let mut lines = Vec::new();
    for queue in &inspection.queues {
        lines.push(format!(
            "  jobs of {}: {} at once, {} attempts, {} s each",
            printable(&queue.name),
            queue.concurrency,
            queue.attempts,
            queue.timeout_ms.div_ceil(1_000)
        ));
    }
    for schedule in &inspection.schedules {
        lines.push(format!(
            "  by the clock (`{}`): job {} of {}",
            printable(&schedule.cron),
            printable(&schedule.name),
            printable(&schedule.queue)
        ));
    }
    for topic in &inspection.subscriptions {
        lines.push(format!("  events of {}", printable(topic)));
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("{}\n{}", style.bold("It works on"), lines.join("\n"))
}

fn limits(limits: &[AskedLimit], style: Style) -> String {
    if limits.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[], &[1, 3], style);
    for limit in limits {
        let flag = if limit.beyond {
            style.yellow("more than the default of")
        } else {
            "less than the default of".to_owned()
        };
        table.row([
            format!("  {}", limit.name),
            limit.asked.to_string(),
            flag,
            limit.default.to_string(),
        ]);
    }
    format!("{}{}", style.bold("Its limits"), table.render())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn inspection() -> Inspection {
        serde_json::from_value(json!({
            "name": "exprsn-notes", "version": "1.0.0", "description": "Takes\u{1b}[2J notes", "port": 3021, "size": 137_001,
            "digest": "ab", "signer": { "key": "cd" }, "dependsOn": [], "triggers": ["http"], "imports": [], "exports": [],
            "grants": [
                { "capability": "http", "optional": true, "scope": {}, "meaning": ["calls exprsn-herald", "calls others"], "interfaces": ["wasi:http/client@0.3.0"] },
                { "capability": "sql", "optional": false, "scope": {}, "meaning": ["has a database"], "interfaces": [] },
            ],
            "routes": [{ "methods": ["GET"], "path": "/api/notes", "access": "read", "stream": true, "bodyBytesMax": null }],
            "queues": [{ "name": "notes", "concurrency": 4, "attempts": 3, "timeoutMs": 1_500 }],
            "schedules": [], "subscriptions": ["post.*"], "migrations": ["0001_init.sql"], "config": {},
            "limits": [{ "name": "cpu_ms_max", "asked": 9_000, "default": 5_000, "beyond": true }],
        }))
        .unwrap()
    }

    #[test]
    fn a_person_can_judge_by_it() {
        let text = render(
            &inspection(),
            Some(&[json!({ "key": "cd", "name": "acme" })]),
            Style::stdout(),
        );
        for expected in [
            "exprsn-notes 1.0.0: Takes\u{fffd}[2J notes\n",
            "size           138 kB\n",
            "(trusted: acme)",
            "  http  calls exprsn-herald\n        calls others\n        for wasi:http/client@0.3.0; it can do without\n",
            "for its other grants\n",
            "  GET  /api/notes  whoever has `read`  streams\n",
            "jobs of notes: 4 at once, 3 attempts, 2 s each",
            "events of post.*",
            "cpu_ms_max  9000  more than the default of  5000",
        ] {
            assert!(text.contains(expected), "no {expected:?} in:\n{text}");
        }
        assert!(
            render(&inspection(), Some(&[]), Style::stdout()).contains("not a trusted publisher")
        );
        let unsigned = Inspection {
            signer: None,
            ..inspection()
        };
        assert!(render(&unsigned, None, Style::stdout()).contains("nobody vouches"));
    }
}
