//! `exprsn compile`: the process in which the host compiles a component. Not for people.

use super::output::Result;
use crate::component;
use clap::Args;

/// Compiles the component on stdin and writes the code to stdout, within bounds.
#[derive(Args, Debug)]
pub struct CompileArgs {
    #[arg(long)]
    memory_bytes_max: u64,
    #[arg(long)]
    cpu_s_max: u64,
}

impl CompileArgs {
    /// Runs the command.
    pub fn run(self) -> Result {
        Ok(component::compile_stdin_to_stdout(
            self.memory_bytes_max,
            self.cpu_s_max,
        )?)
    }
}
