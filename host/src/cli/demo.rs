//! `exprsn demo`: the newcomer's tour, and a load generator.

mod api;
mod plan;
mod report;
mod tour;

use super::{
    output::{CliError, Result, Style, print, print_json},
    place::{NEXUS_PORT, Place},
};
use crate::clock;
use api::Gateway;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plan::Plan;
use report::Figures;
use std::{io::IsTerminal as _, time::Duration};

/// Takes a tour of the running platform, or puts load on it.
///
/// Registers users, lets them follow each other, post, like and comment; waits until every post is in every home
/// timeline and every notification is there; shows some of it.
///
/// Popularity follows a Zipf distribution, as in real networks. The same seed does the same. Each run makes users of its
/// own, so it can be repeated on the same platform. Everything goes through the gateway, with each user's own token.
/// Registrations hash a password, which is slow on purpose: they are not in p50, p95 and p99.
///
/// Exit code 1 where a request failed, or where not exactly that arrived which had to.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn demo
  exprsn demo --users 200 --posts 1000 --concurrency 32
  exprsn demo --json | jq .p99_ms")]
pub struct DemoArgs {
    /// Users to register.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    users: u32,
    /// Posts to write.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    posts: u32,
    /// Requests under way at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    concurrency: u16,
    /// Decides who follows whom and who writes what.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Seconds to wait for deliveries and notifications after the last request.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
    /// Prints one JSON object instead: users, follows, posts, deliveries_expected, deliveries_seen,
    /// notifications_expected, notifications_seen, errors, p50_ms, p95_ms, p99_ms.
    #[arg(long)]
    json: bool,
    /// The gateway's address, where it is not the one that the configuration says.
    #[arg(long, value_name = "URL", env = "EXPRSN_GATEWAY_URL")]
    gateway: Option<String>,
    #[command(flatten)]
    place: Place,
}

impl DemoArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        let base = self
            .gateway
            .clone()
            .map_or_else(|| self.place.url(NEXUS_PORT), Ok)?;
        let gateway = Gateway::connect(self.place.client()?, &base).await?;
        let plan = Plan::new(self.users as usize, self.posts as usize, self.seed);
        let concurrency = usize::from(self.concurrency);
        let bar = progress();
        let done = tour::act(&gateway, &plan, &run_id(), concurrency, &bar).await?;
        let arrived = tour::wait(
            &gateway,
            &done,
            Duration::from_secs(self.wait),
            concurrency,
            &bar,
        )
        .await;
        bar.finish_and_clear();
        let figures = Figures::of(&done, arrived, &gateway.tally.borrow());
        if self.json {
            print_json(&figures)?;
        } else {
            let style = Style::stdout();
            let text = report::figures(&figures, &done, &gateway.tally.borrow(), style);
            print(&text);
            report::show(&gateway, &done, style).await;
        }
        match figures.fault() {
            None => Ok(()),
            Some(fault) => {
                let told = gateway.tally.borrow().told.join("\n  ");
                Err(CliError::failed(if told.is_empty() {
                    fault
                } else {
                    format!("{fault}:\n  {told}")
                }))
            }
        }
    }
}

/// What makes this run's users different from another's: the time in base 36.
fn run_id() -> String {
    base36(u64::try_from(clock::now_ms()).unwrap_or_default())
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while number > 0 || digits.is_empty() {
        digits.push(char::from_digit((number % 36) as u32, 36).expect("it is below 36"));
        number /= 36;
    }
    digits.into_iter().rev().collect()
}

/// A progress bar on a terminal, nothing elsewhere.
fn progress() -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(0), target);
    let style = ProgressStyle::with_template("{msg:10} {wide_bar} {pos}/{len} {elapsed}")
        .expect("the template is well-formed");
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_short_and_plain() {
        assert_eq!(
            (base36(0).as_str(), base36(35).as_str(), base36(36).as_str()),
            ("0", "z", "10")
        );
        assert_eq!(base36(1_795_400_000_000).len(), 8);
    }
}
