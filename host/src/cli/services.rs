//! `exprsn services`: the registry.

use super::{
    client::Ask,
    output::{Result, Style, Table, print, print_json},
    place::SetupPlace,
};
use clap::Args;
use http::Method;
use serde_json::Value;

/// Lists the services of the platform, and those that registered.
///
/// Where they are, how they are, what they depend on.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn services
  exprsn services --json | jq '.[] | select(.name==\"exprsn-timeline\")'")]
pub struct ServicesArgs {
    /// Prints the registry's own JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: SetupPlace,
}

impl ServicesArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let url = self.setup.url("/api/registry/services")?;
        let services: Vec<Value> = self
            .setup
            .place
            .client()?
            .json(Ask::new(Method::GET, &url))
            .await?;
        if self.json {
            return print_json(&services);
        }
        print(&render(&services, Style::stdout()));
        Ok(())
    }
}

fn render(services: &[Value], style: Style) -> String {
    let headings = [
        "SERVICE",
        "STATUS",
        "VERSION",
        "ADDRESS",
        "SOURCE",
        "CALLS",
        "FAILED",
        "DIGEST",
        "DEPENDS ON",
    ];
    let mut table = Table::new(&headings, &[5, 6], style);
    for service in services {
        let text = |name: &str| service[name].as_str().unwrap_or_default().to_owned();
        let names = service["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str);
        let short: Vec<&str> = names
            .map(|name| name.strip_prefix("exprsn-").unwrap_or(name))
            .collect();
        let load = |name: &str| {
            service["load"][name]
                .as_u64()
                .map_or_else(|| "-".to_owned(), |count| count.to_string())
        };
        table.row([
            text("name"),
            style.status(&text("status")),
            text("version"),
            format!("{}:{}", text("host"), service["port"]),
            text("source"),
            load("invocations"),
            load("failures"),
            style.dim(text("digest").get(..12).unwrap_or("-")),
            short.join(" "),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_names_and_dependencies() {
        let services = [
            json!({
                "name": "exprsn-timeline", "status": "healthy", "version": "1.0.0", "host": "localhost", "port": 3004, "source": "platform",
                "dependencies": ["exprsn-ca", "exprsn-auth"], "digest": "0123456789abcdef", "load": { "invocations": 5, "failures": 1 },
            }),
            json!({ "name": "legacy", "dependencies": [], "digest": null }),
        ];
        let text = render(&services, Style::stdout());
        assert!(
            text.contains("localhost:3004") && text.contains("0123456789ab  ca auth"),
            "{text}"
        );
        assert!(
            text.lines()
                .nth(2)
                .is_some_and(|line| line.starts_with("legacy")),
            "{text}"
        );
    }
}
