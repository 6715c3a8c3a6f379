//! `exprsn queue monitor`: what the queues hold.

use crate::cli::{
    client::Ask,
    output::{Result, Style, Table, clear_screen, for_a_person, print, print_json},
    place::SetupPlace,
};
use clap::Args;
use http::Method;
use serde_json::Value;
use std::time::Duration;

/// Shows every queue with its counts: the services' own, and the deliveries of events (`events:<service>`).
///
/// On a terminal the view is drawn again every second until Ctrl-C; otherwise it is printed once.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn queue monitor
  exprsn queue monitor --once
  exprsn queue monitor --json | jq '.[] | select(.failed > 0)'")]
pub struct MonitorArgs {
    /// Prints the counts once.
    #[arg(long)]
    once: bool,
    /// Prints the counts once, as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    setup: SetupPlace,
}

impl MonitorArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let client = self.setup.place.client()?;
        let url = self.setup.url("/api/queues")?;
        let repeated = for_a_person() && !self.once && !self.json;
        loop {
            // Read each time: the host writes a new token when it starts anew.
            let token = self.setup.place.operator_token()?;
            let queues: Vec<Value> = client
                .json(Ask::new(Method::GET, &url).token(&token))
                .await?;
            if self.json {
                return print_json(&queues);
            }
            if repeated {
                clear_screen();
            }
            print(&render(&queues, Style::stdout()));
            if !repeated {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }
}

/// The counts of a queue, in the order of the columns.
const COUNTS: [&str; 6] = [
    "waiting",
    "delayed",
    "prioritized",
    "active",
    "completed",
    "failed",
];

fn render(queues: &[Value], style: Style) -> String {
    let headings = [
        "QUEUE",
        "WORKER",
        "WAITING",
        "DELAYED",
        "PRIORITY",
        "ACTIVE",
        "COMPLETED",
        "FAILED",
        "",
    ];
    let mut table = Table::new(&headings, &[2, 3, 4, 5, 6, 7], style);
    for queue in queues {
        let text = |name: &str| queue[name].as_str().unwrap_or_default().to_owned();
        let mut cells = vec![text("name"), text("service")];
        for name in COUNTS {
            let count = queue[name].as_u64().unwrap_or_default();
            let shown = count.to_string();
            cells.push(if name == "failed" && count > 0 {
                style.red(&shown)
            } else {
                shown
            });
        }
        cells.push(if queue["paused"] == true {
            style.yellow("paused")
        } else {
            String::new()
        });
        table.row(cells);
    }
    if queues.is_empty() {
        "no queue has jobs or a worker".to_owned()
    } else {
        table.render()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_counts_in_columns() {
        let queues = [
            json!({ "name": "timeline-fanout", "service": "exprsn-timeline", "waiting": 12, "active": 4, "failed": 1, "paused": true }),
        ];
        let text = render(&queues, Style::stdout());
        let line: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            line,
            [
                "timeline-fanout",
                "exprsn-timeline",
                "12",
                "0",
                "0",
                "4",
                "0",
                "1",
                "paused"
            ]
        );
        assert_eq!(
            render(&[], Style::stdout()),
            "no queue has jobs or a worker"
        );
    }
}
