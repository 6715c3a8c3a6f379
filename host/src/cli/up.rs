//! `exprsn up`: the platform itself.

use super::output::Result;
use crate::platform::{self, Options};
use clap::Args;
use std::path::PathBuf;

/// Services to start, as the specification has them in `.env`.
const AUTO_START_SERVICES: &str = "AUTO_START_SERVICES";

/// Runs the platform until Ctrl-C.
///
/// Ctrl-C finishes what is under way and then ends it with exit code 0; once more ends it at once. Services start in the order of their dependencies. When all are healthy, one line says so:
/// `ready in 1.2 s: 7 services, gateway http://127.0.0.1:3005`.
///
/// The environment is read from a file `.env` in the working directory too; what is set already goes before it.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn up
  exprsn up --services ca,setup,auth
  AUTO_START_SERVICES=ca,setup,auth,timeline exprsn up --data /var/lib/exprsn")]
pub struct UpArgs {
    /// The operator's configuration.
    #[arg(
        long,
        value_name = "FILE",
        env = "EXPRSN_CONFIG",
        default_value = "platform.toml"
    )]
    config: PathBuf,
    /// Where databases, keys and compiled code are kept. Made when absent.
    #[arg(long, value_name = "DIR", env = "EXPRSN_DATA", default_value = "data")]
    data: PathBuf,
    /// The folder of components.
    #[arg(
        long,
        value_name = "DIR",
        env = "EXPRSN_COMPONENTS",
        default_value = "target/components"
    )]
    components: PathBuf,
    /// Where compiled components are kept; `cache` in the data directory by default.
    #[arg(long, value_name = "DIR", env = "EXPRSN_CACHE")]
    cache: Option<PathBuf>,
    /// Services to start, by full or short name: `ca,setup,auth`. By default those of AUTO_START_SERVICES, or all that
    /// are configured.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    services: Option<Vec<String>>,
    /// An invitation that `exprsn host invite` printed on a platform's first host: this host becomes one of that platform.
    /// Needed at the first start only.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "EXPRSN_JOIN",
        hide_env_values = true
    )]
    join: Option<String>,
    /// Stops when stdin closes, which it does when whoever started this process ends.
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

impl UpArgs {
    /// Runs the command.
    pub fn run(self) -> Result {
        let from_env = std::env::var(AUTO_START_SERVICES)
            .ok()
            .map(|names| split(&names))
            .filter(|names| !names.is_empty());
        let services_from_env = self.services.is_none() && from_env.is_some();
        platform::run(Options {
            config: self.config,
            data: self.data,
            components: self.components,
            cache: self.cache,
            services: self.services.or(from_env),
            services_from_env,
            join: self.join.filter(|token| !token.is_empty()),
            stop_with_stdin: self.stop_with_stdin,
        })?;
        Ok(())
    }
}

fn split(names: &str) -> Vec<String> {
    names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_separated_by_commas() {
        assert_eq!(split(" ca, setup,,auth "), ["ca", "setup", "auth"]);
        assert!(split(" ").is_empty());
    }
}
