//! `exprsn queue`: what the queues hold, and what an operator does about it.

mod jobs;
mod monitor;

use super::output::Result;
use clap::Subcommand;

/// Job queues.
#[derive(Subcommand, Debug)]
pub enum QueueCommand {
    Monitor(monitor::MonitorArgs),
    List(jobs::ListArgs),
    Show(jobs::ShowArgs),
    Retry(jobs::RetryArgs),
    Remove(jobs::RemoveArgs),
    Pause(jobs::PauseArgs),
    Resume(jobs::ResumeArgs),
    Drain(jobs::DrainArgs),
}

impl QueueCommand {
    /// Runs the command.
    pub async fn run(self) -> Result {
        match self {
            Self::Monitor(command) => command.run().await,
            Self::List(command) => command.run().await,
            Self::Show(command) => command.run().await,
            Self::Retry(command) => command.run().await,
            Self::Remove(command) => command.run().await,
            Self::Pause(command) => command.run().await,
            Self::Resume(command) => command.run().await,
            Self::Drain(command) => command.run().await,
        }
    }
}
