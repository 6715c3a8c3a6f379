//! `exprsn component list`: what was admitted.

use super::all;
use crate::cli::{
    output::{Result, Style, Table, print, print_json},
    place::CaPlace,
};
use clap::Args;
use serde_json::Value;

/// Lists admitted components, newest first: by whose decision, signed by whom, with what withheld.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn component list
  exprsn component list --json | jq '.[] | select(.live) | .digest'")]
pub struct ListArgs {
    /// Prints everything as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ca: CaPlace,
}

impl ListArgs {
    pub(super) async fn run(self) -> Result {
        let components = all(&self.ca.place.client()?, &self.ca).await?;
        if self.json {
            return print_json(&components);
        }
        print(&render(&components, Style::stdout()));
        Ok(())
    }
}

fn render(components: &[Value], style: Style) -> String {
    let headings = [
        "SERVICE",
        "VERSION",
        "DIGEST",
        "",
        "DECIDED BY",
        "SIGNER",
        "WITHHELD",
    ];
    let mut table = Table::new(&headings, &[], style);
    for one in components {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let signer = match (one["publisher"].as_str(), one["signer"].as_str()) {
            (Some(publisher), _) => publisher.to_owned(),
            (None, Some(key)) => format!("{} (not trusted)", key.get(..12).unwrap_or(key)),
            (None, None) => "-".to_owned(),
        };
        let decided = match one["decision"]["by"].as_str() {
            Some(by) => by.to_owned(),
            None => "platform.toml".to_owned(),
        };
        let withheld: Vec<_> = one["withheld"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["grant"].as_str())
            .collect();
        table.row([
            text(&one["service"]),
            text(&one["version"]),
            style.dim(&text(&one["digest"])),
            if one["live"] == true {
                style.green("live")
            } else {
                String::new()
            },
            decided,
            signer,
            style.red(&withheld.join(" ")),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_tells_of_decision_signer_and_what_is_withheld() {
        let components = [
            json!({ "service": "exprsn-a", "version": "1.0.0", "digest": "ab", "live": true, "decision": { "by": "operator:local" },
                "publisher": "acme", "signer": "cd", "withheld": [{ "grant": "sql" }, { "grant": "queue:a" }] }),
            json!({ "service": "exprsn-b", "version": "1.0.0", "digest": "cd", "decision": null, "publisher": null,
                "signer": "0123456789abcdef", "withheld": [] }),
        ];
        let text = render(&components, Style::stdout());
        assert!(text.contains("live  operator:local  acme"), "{text}");
        assert!(
            text.contains("sql queue:a") && text.contains("platform.toml"),
            "{text}"
        );
        assert!(text.contains("0123456789ab (not trusted)"), "{text}");
    }
}
