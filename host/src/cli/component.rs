//! `exprsn component`: one file of a component, from its tools' output to a running service.

use super::{output::Result, pack};
use clap::Subcommand;

/// Packs components.
#[derive(Subcommand, Debug)]
pub enum ComponentCommand {
    Pack(pack::PackArgs),
}

impl ComponentCommand {
    /// Runs the command.
    pub async fn run(self) -> Result {
        match self {
            Self::Pack(command) => command.run(),
        }
    }
}
