//! `exprsn completions` and `exprsn man`: what shells and `man` know of the commands, generated from their definition.

use super::{
    Cli,
    output::{CliError, Result, print},
};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use std::path::PathBuf;

/// Prints what a shell needs to complete commands and options.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn completions bash > /etc/bash_completion.d/exprsn
  exprsn completions zsh > \"${fpath[1]}/_exprsn\"
  exprsn completions fish > ~/.config/fish/completions/exprsn.fish")]
pub struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell.
    shell: Shell,
}

/// Writes a manual page for each command.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn man --out /usr/local/share/man/man1")]
pub struct ManArgs {
    /// The folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl CompletionsArgs {
    /// Runs the command.
    pub fn run(self) -> Result {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "exprsn", &mut script);
        print(String::from_utf8_lossy(&script).trim_end());
        Ok(())
    }
}

impl ManArgs {
    /// Runs the command.
    pub fn run(self) -> Result {
        let failed = |error: std::io::Error| {
            CliError::failed(format!(
                "cannot write manual pages to `{}`: {error}",
                self.out.display()
            ))
            .remedy("name a folder that can be written")
        };
        std::fs::create_dir_all(&self.out).map_err(failed)?;
        clap_mangen::generate_to(Cli::command(), &self.out).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("man1");
        ManArgs { out: out.clone() }.run().unwrap();
        let page = std::fs::read_to_string(out.join("exprsn-queue-retry.1")).unwrap();
        assert!(page.contains("failed job"), "{page}");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "exprsn", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("canary"));
        }
    }
}
