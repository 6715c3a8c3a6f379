//! `exprsn health`: how all services are.

use super::{
    client::{Ask, Client},
    output::{CliError, Result, Style, Table, clear_screen, for_a_person, print, print_json, span},
    place::SetupPlace,
};
use clap::Args;
use http::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// Shows how every service is.
///
/// Its own word, its database, what backs its queue and cache, and how fast it answers.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn health                 once; exit code 1 where anything is not healthy
  exprsn health --watch         again every two seconds, until Ctrl-C
  exprsn health --json | jq -r '.services[] | select(.status != \"healthy\") | .service'")]
pub struct HealthArgs {
    /// Asks again and again until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// Seconds between two looks with --watch.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Prints JSON: one object, or one a line with --watch.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: SetupPlace,
}

impl HealthArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let client = self.setup.place.client()?;
        let url = self.setup.url("/api/health")?;
        if !self.watch {
            let report = ask(&client, &url).await?;
            return self.show(&report);
        }
        loop {
            let report = ask(&client, &url).await;
            self.look(&report);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(self.interval)) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }

    fn show(&self, report: &Value) -> Result {
        if self.json {
            print_json(report)?;
        } else {
            print(&render(report, Style::stdout()));
        }
        let status = report["status"].as_str().unwrap_or("unknown");
        match status {
            "healthy" => Ok(()),
            _ => Err(CliError::failed(format!("the platform is {status}"))),
        }
    }

    /// One look of many: what is wrong is shown, and the next look follows.
    fn look(&self, report: &Result<Value>) {
        match report {
            Ok(report) if self.json => print(&report.to_string()),
            Err(error) if self.json => {
                print(
                    &serde_json::json!({ "status": "unreachable", "reason": error.cause })
                        .to_string(),
                );
            }
            report => {
                if for_a_person() {
                    clear_screen();
                }
                match report {
                    Ok(report) => print(&render(report, Style::stdout())),
                    Err(error) => error.tell(),
                }
            }
        }
    }
}

/// The report; 503 is an answer too: something is not healthy.
async fn ask(client: &Client, url: &str) -> Result<Value> {
    let answer = client.send(Ask::new(Method::GET, url)).await?;
    if answer.status == StatusCode::SERVICE_UNAVAILABLE
        && let Ok(report) = serde_json::from_slice::<Value>(&answer.body)
        && report.get("services").is_some()
    {
        return Ok(report);
    }
    answer.json(url)
}

fn render(report: &Value, style: Style) -> String {
    let mut table = Table::new(
        &[
            "SERVICE", "STATUS", "VERSION", "UPTIME", "DATABASE", "REDIS", "ANSWERED", "",
        ],
        &[6],
        style,
    );
    for service in report["services"].as_array().into_iter().flatten() {
        let text = |name: &str| service[name].as_str().unwrap_or_default().to_owned();
        table.row([
            text("service"),
            style.status(&text("status")),
            text("version"),
            service["uptime"]
                .as_f64()
                .map_or_else(|| "-".to_owned(), span),
            reading(&service["database"], style),
            reading(&service["redis"], style),
            service["latencyMs"]
                .as_u64()
                .map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
            text("reason"),
        ]);
    }
    let status = report["status"].as_str().unwrap_or("unknown");
    format!(
        "{}\n\nthe platform is {}",
        table.render(),
        style.status(status)
    )
}

fn reading(value: &Value, style: Style) -> String {
    match value.as_bool() {
        Some(true) => style.green("yes"),
        Some(false) => style.red("no"),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_what_is_wrong() {
        let report = json!({ "status": "unhealthy", "services": [
            { "service": "exprsn-ca", "status": "healthy", "version": "1.0.0", "uptime": 61.0, "database": true, "redis": null, "latencyMs": 1 },
            { "service": "exprsn-auth", "status": "unhealthy", "version": "1.0.0", "uptime": null, "database": false, "redis": null, "latencyMs": null, "reason": "its database does not answer" },
        ] });
        let text = render(&report, Style::stdout());
        assert!(
            text.contains("1 min 1 s") && text.contains("its database does not answer"),
            "{text}"
        );
        assert!(text.ends_with("the platform is unhealthy"), "{text}");
    }
}
