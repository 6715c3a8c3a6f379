//! `exprsn host`: the hosts of one platform.

use super::{
    client::{Ask, Client},
    output::{CliError, Result, Style, Table, print, print_json, span},
    place::{Place, certificates},
};
use crate::cluster;
use clap::{Args, Subcommand};
use http::Method;
use rustls::{RootCertStore, pki_types::ServerName};
use serde_json::{Value, json};

/// The hosts that form one platform.
///
/// Hosts share PostgreSQL and Redis, call each other's services by HTTP/2 with mutual TLS, and follow each other's changes.
/// `[cluster]` in platform.toml says where this host meets the others.
#[derive(Subcommand, Debug)]
pub enum HostCommand {
    Invite(InviteArgs),
    List(ListArgs),
    Remove(RemoveArgs),
}

/// Makes an invitation for another host, on the platform's first host.
///
/// The token is printed alone on stdout. It is a secret: whoever has it can become a host of this platform.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn host invite
  exprsn host invite --services timeline,herald --valid 15m
  ssh other \"EXPRSN_JOIN=$(exprsn host invite) exprsn up --config /etc/exprsn/platform.toml\"
  exprsn host invite --uses 100 --valid 90d --json     # for pods that come and go")]
pub struct InviteArgs {
    /// Services that the host may run and speak for, by full or short name; all by default.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    services: Vec<String>,
    /// How many hosts may use it.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    uses: i32,
    /// How long it is good: a number of s, m, h or d.
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = seconds)]
    valid: i64,
    /// Prints everything as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Lists the hosts that are there now: what each runs, how busy it is, whether it is about to stop.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn host list
  exprsn host list --json | jq '.hosts[].services[] | {name, digest}'")]
pub struct ListArgs {
    /// Prints everything as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// Removes a host: its certificates are revoked, and no host speaks with it within a second.
///
/// What it ran runs on elsewhere. To come back it needs an empty data directory and another invitation.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn host remove host-1a2b3c4d")]
pub struct RemoveArgs {
    /// The host's name, as `exprsn host list` shows it.
    host: String,
    /// Prints the outcome as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// A span in seconds: `90`, `15m`, `1h`, `7d`.
fn seconds(text: &str) -> std::result::Result<i64, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(format!("`{text}` is no span; write 30s, 15m, 1h or 7d")),
    };
    number
        .parse::<i64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| format!("`{text}` is no span; write 30s, 15m, 1h or 7d"))
}

impl HostCommand {
    /// Runs the command.
    pub async fn run(self) -> Result {
        match self {
            Self::Invite(command) => command.run().await,
            Self::List(command) => command.run().await,
            Self::Remove(command) => command.run().await,
        }
    }
}

impl InviteArgs {
    async fn run(self) -> Result {
        let asked = json!({ "services": self.services, "uses": self.uses, "valid_s": self.valid });
        let made = ask(&self.place, Method::POST, "/invite", Some(asked)).await?;
        if self.json {
            return print_json(&made);
        }
        print(made["token"].as_str().unwrap_or_default());
        let services = names(&made["services"]);
        let services = if services.is_empty() {
            "all services".to_owned()
        } else {
            services
        };
        eprintln!(
            "good for {} host{}, for {}, with {services}: start it with `exprsn up --join TOKEN`",
            self.uses,
            if self.uses == 1 { "" } else { "s" },
            span(self.valid as f64),
        );
        Ok(())
    }
}

impl ListArgs {
    async fn run(self) -> Result {
        let told = ask(&self.place, Method::GET, "/hosts", None).await?;
        if self.json {
            return print_json(&told);
        }
        print(&render(&told, Style::stdout()));
        Ok(())
    }
}

impl RemoveArgs {
    async fn run(self) -> Result {
        let asked = json!({ "host": self.host });
        let done = ask(&self.place, Method::POST, "/remove", Some(asked)).await?;
        if self.json {
            return print_json(&done);
        }
        print(&format!(
            "{} is removed: {} certificates are revoked",
            self.host, done["certificates"]
        ));
        Ok(())
    }
}

fn render(told: &Value, style: Style) -> String {
    let headings = ["HOST", "ADDRESS", "STATUS", "LOAD", "VERSION", "SERVICES"];
    let mut table = Table::new(&headings, &[3], style);
    for host in told["hosts"].as_array().into_iter().flatten() {
        let text = |name: &str| host[name].as_str().unwrap_or_default().to_owned();
        let mut name = text("name");
        if host["self"] == true {
            name.push_str(" (this)");
        }
        let status = match (host["draining"] == true, host["seat"] == true) {
            (true, _) => style.yellow("draining"),
            (_, true) => style.green("live, authority"),
            _ => style.green("live"),
        };
        let services: Vec<String> = host["services"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|service| service_of(service, style))
            .collect();
        let load = host["load"].to_string();
        table.row([
            name,
            text("address"),
            status,
            load,
            text("version"),
            services.join(" "),
        ]);
    }
    table.render()
}

fn service_of(service: &Value, style: Style) -> String {
    let name = service["name"].as_str().unwrap_or_default();
    let name = name.strip_prefix("exprsn-").unwrap_or(name);
    let digest: String = service["digest"]
        .as_str()
        .unwrap_or_default()
        .chars()
        .take(8)
        .collect();
    let shown = format!("{name}@{digest}");
    match (service["state"].as_str(), &service["refused"]) {
        (_, Value::Object(_)) => style.red(&shown),
        (Some("live"), _) => shown,
        _ => style.yellow(&shown),
    }
}

fn names(value: &Value) -> String {
    let names = value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(", ")
}

/// Asks this host itself, where other hosts meet it.
async fn ask(place: &Place, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
    let config = place.read()?.cluster;
    if config.listen.is_empty() {
        return Err(CliError::failed("this host is alone: [cluster] listen is empty in its configuration")
            .remedy("name the platform's configuration with --config, or let the host meet others with [cluster]"));
    }
    let folder = place.data.join("ca");
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&folder.join("root.pem"))? {
        let _ = roots.add(certificate);
    }
    let name = cluster::name_in(&folder, &config)?;
    let name = ServerName::try_from(name)
        .map_err(|error| CliError::failed(format!("the host's name: {error}")))?;
    let url = format!("https://{}{path}", cluster::reachable(&config.listen));
    let token = place.operator_token()?;
    let mut ask = Ask::new(method, &url).token(&token);
    if let Some(body) = body {
        ask = ask.json(body);
    }
    Client::with(roots, Some(name)).json(ask).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_units() {
        for (text, expected) in [("90", 90), ("15m", 900), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for text in ["", "h", "0s", "-1s", "1w", "1.5h", "99999999999999999999d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_table_shows_who_is_there() {
        let told = json!({ "hosts": [
            { "name": "a", "address": "10.0.0.1:3100", "self": true, "seat": true, "load": 3, "version": "0.1.0",
              "services": [{ "name": "exprsn-timeline", "digest": "0123456789", "state": "live" }] },
            { "name": "b", "address": "10.0.0.2:3100", "draining": true, "load": 0, "version": "0.1.0", "services": [] },
        ] });
        let shown = render(&told, Style::stdout());
        for expected in [
            "a (this)",
            "live, authority",
            "timeline@01234567",
            "draining",
        ] {
            assert!(shown.contains(expected), "{shown}");
        }
    }
}
