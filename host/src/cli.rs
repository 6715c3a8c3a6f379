//! The command line: arguments → one command → exit code.

mod backup;
pub mod client;
mod compile;
mod completions;
pub mod component;
mod db;
pub mod deliver;
pub mod demo;
mod dev;
mod health;
mod host;
mod logs;
mod new;
pub mod output;
pub mod pack;
pub mod place;
mod publisher;
mod queue;
mod restore;
mod services;
mod swap;
mod token;
mod up;
mod wit;

pub use backup::files::RESTORING;
use clap::{Parser, Subcommand};
use output::{EXIT_CODES, Result};
use std::process::ExitCode;

const FIRST_STEPS: &str = "The first steps:
  exprsn up                        run the platform (from a checkout: cargo xtask up)
  exprsn demo                      a tour: users, posts, timelines, notifications, analytics
  exprsn health --watch            how all services are
  exprsn help <command>            more on each, with examples";

/// The Exprsn platform: services as WebAssembly components, sandboxed, with no more rights than they were given.
///
/// `exprsn up` runs the platform; the other commands speak to a running one.
#[derive(Parser, Debug)]
#[command(
    name = "exprsn",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
#[command(after_help = FIRST_STEPS, after_long_help = format!("{FIRST_STEPS}\n\n{EXIT_CODES}"))]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Up(up::UpArgs),
    Health(health::HealthArgs),
    Services(services::ServicesArgs),
    #[command(subcommand)]
    New(new::NewCommand),
    Dev(dev::DevArgs),
    #[command(subcommand)]
    Host(host::HostCommand),
    Logs(logs::LogsArgs),
    Trace(logs::TraceArgs),
    Levels(logs::LevelsArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    #[command(subcommand)]
    Db(db::DbCommand),
    #[command(subcommand)]
    Token(token::TokenCommand),
    #[command(subcommand)]
    Component(component::ComponentCommand),
    #[command(subcommand)]
    Publisher(publisher::PublisherCommand),
    Swap(swap::SwapArgs),
    Rollback(swap::RollbackArgs),
    #[command(subcommand)]
    Canary(swap::CanaryCommand),
    History(swap::HistoryArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Demo(demo::DemoArgs),
    Wit(wit::WitArgs),
    #[command(hide = true)]
    Compile(compile::CompileArgs),
}

/// The program.
pub fn main() -> ExitCode {
    // Before anything else runs: the environment is changed while there is one thread.
    let env_file = load_env_file();
    let cli = Cli::parse();
    match env_file.and_then(|()| cli.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.tell();
            ExitCode::from(error.failure as u8)
        }
    }
}

/// Reads `.env` of the working directory, as the specification's platform does. What is set already stays.
fn load_env_file() -> Result {
    match dotenvy::from_path(".env") {
        Ok(_) => Ok(()),
        Err(error) if error.not_found() => Ok(()),
        Err(error) => Err(
            output::CliError::failed(format!("cannot read `.env`: {error}"))
                .remedy("write lines of the form NAME=value"),
        ),
    }
}

impl Cli {
    fn run(self) -> Result {
        match self.command {
            Command::Up(command) => command.run(),
            Command::Compile(command) => command.run(),
            Command::Completions(command) => command.run(),
            Command::Man(command) => command.run(),
            Command::Wit(command) => command.run(),
            command => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let runtime = runtime.map_err(|error| {
                    output::CliError::failed(format!("cannot start a runtime: {error}"))
                })?;
                runtime.block_on(command.ask())
            }
        }
    }
}

impl Command {
    /// Runs a command that speaks to a platform.
    async fn ask(self) -> Result {
        match self {
            Self::Health(command) => command.run().await,
            Self::Services(command) => command.run().await,
            Self::New(command) => command.run(),
            Self::Dev(command) => command.run().await,
            Self::Host(command) => command.run().await,
            Self::Logs(command) => command.run().await,
            Self::Trace(command) => command.run().await,
            Self::Levels(command) => command.run().await,
            Self::Queue(command) => command.run().await,
            Self::Db(command) => command.run().await,
            Self::Token(command) => command.run().await,
            Self::Component(command) => command.run().await,
            Self::Publisher(command) => command.run().await,
            Self::Swap(command) => command.run().await,
            Self::Rollback(command) => command.run().await,
            Self::Canary(command) => command.run().await,
            Self::History(command) => command.run().await,
            Self::Backup(command) => command.run(),
            Self::Restore(command) => command.run(),
            Self::Demo(command) => command.run().await,
            Self::Up(_) | Self::Compile(_) | Self::Wit(_) | Self::Completions(_) | Self::Man(_) => {
                unreachable!("run without a runtime of ours")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_teaches_by_example() {
        fn check(command: &clap::Command) {
            if command.is_hide_set() || command.get_name() == "help" {
                return;
            }
            if command.has_subcommands() {
                command.get_subcommands().for_each(check);
            } else {
                let help = command
                    .get_after_long_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                assert!(
                    help.contains("Examples:"),
                    "`{}` has no examples: write after_long_help",
                    command.get_name()
                );
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn commands_parse() {
        for line in [
            "exprsn up --services ca,auth --stop-with-stdin",
            "exprsn health --watch --json",
            "exprsn services --json",
            "exprsn dev src/x --build make --component x.wasm --json --once",
            "exprsn dev --built a.wasm 15 12",
            "exprsn new extension notes --language python --port 3040 --into x",
            "exprsn component pack a.wasm --manifest component.toml --migrations migrations -o b.wasm --json",
            "exprsn up --join exprsn-join.x",
            "exprsn host invite --services ca,auth --uses 3 --valid 15m --json",
            "exprsn host list --json",
            "exprsn host remove host-1 --json",
            "exprsn completions bash",
            "exprsn man --out man1",
            "exprsn logs -f timeline --json",
            "exprsn trace 0af7651916cd43dd8448eb211c80319c",
            "exprsn levels info",
            "exprsn queue monitor --once",
            "exprsn queue list a --state waiting --limit 3 --json",
            "exprsn queue show a 1 --json",
            "exprsn queue retry a --all",
            "exprsn queue remove a 1",
            "exprsn queue pause a",
            "exprsn queue resume a --json",
            "exprsn queue drain a --yes",
            "exprsn db status --json",
            "exprsn token issue --subject user:a --permissions read,write",
            "exprsn token validate -",
            "exprsn swap timeline new.wasm --percent 10 --restart --allow-unsigned --json",
            "exprsn rollback timeline --json",
            "exprsn canary promote timeline",
            "exprsn canary abort timeline --json",
            "exprsn history timeline --json",
            "exprsn component inspect a.wasm --json",
            "exprsn component sign a.wasm --key k.pem --output b.wasm",
            "exprsn component install a.wasm --yes --allow-unsigned --refuse http --grant queue={produce=[\"a\"]} --json",
            "exprsn component approve 00 --answers answers.toml --yes",
            "exprsn component revoke stranger --grant queue:a --reason why",
            "exprsn component restore stranger --grant queue:a",
            "exprsn publisher trust acme 00",
            "exprsn demo --users 5 --posts 7 --concurrency 2 --seed 1 --json",
            "exprsn backup copy --data x --config y --json",
            "exprsn restore copy --data x --config y --json",
            "exprsn wit",
            "exprsn wit sql --json",
            "exprsn wit --out wit",
            "exprsn wit --check wit --json",
            "exprsn compile --memory-bytes-max 1 --cpu-s-max 1",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        assert!(Cli::try_parse_from(["exprsn", "demo", "--users", "0"]).is_err());
    }
}
