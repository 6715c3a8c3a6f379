//! `exprsn dev`: from a saved source to the running platform.
//!
//! Each round builds, packs and installs; whatever fails is told, and the version before it goes on serving.

mod project;
mod watch;

use super::{
    output::{CliError, Result, Style, print},
    place::Place,
};
use clap::Args;
use project::Project;
use serde::Serialize;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};
use tokio::{process::Command, signal};
use watch::Watch;

/// Digits of a digest that are shown.
const DIGEST_DIGITS: usize = 12;

/// Builds an extension whenever its sources are saved, and swaps it into the running platform.
///
/// Each time one line says what came of it and how long it took from the save: `live in 1.8 s (build 1.6 s, swap 21 ms)`. An
/// error of the build, of the manifest or of the new version's health is shown, and the version before it goes on serving.
/// What the component asks for is granted as asked, signed or not: this is for a platform of your own.
///
/// The build is the language's usual one: cargo where there is a Cargo.toml, `npm run build` where there is a package.json,
/// componentize-py where there is a requirements.txt.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn dev
  exprsn dev ~/src/guestbook --data ~/src/exprsn/data
  exprsn dev --build 'make component' --component build/component.wasm
  exprsn dev --json | jq .event")]
pub struct DevArgs {
    /// The project's folder, with its component.toml.
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Builds the component; run by `sh` in the folder.
    #[arg(long, value_name = "COMMAND")]
    build: Option<String>,
    /// The component that the build writes, relative to the folder.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// Prints a line of JSON for each event: `watching`, `live`, `unchanged`, `failed`.
    #[arg(long)]
    json: bool,
    /// Builds and installs once, and fails where that fails.
    #[arg(long)]
    once: bool,
    /// Swaps in a component that has been built already, once: for `cargo xtask dev`. How long ago its source was saved and
    /// how long the build took, in milliseconds.
    #[arg(long, hide = true, value_names = ["FILE", "SAVED_MS", "BUILD_MS"], num_args = 3)]
    built: Option<Vec<String>>,
    #[command(flatten)]
    place: Place,
}

/// What a round came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(
    tag = "event",
    rename_all = "lowercase",
    rename_all_fields = "camelCase"
)]
enum Event {
    Watching {
        folder: PathBuf,
        build: String,
    },
    Live {
        name: String,
        version: String,
        digest: String,
        /// From the save to the answer that it is live.
        total_ms: u64,
        build_ms: u64,
        /// From the request to the host until the new version answers.
        swap_ms: u64,
        /// Whether its code was compiled before.
        cached: bool,
    },
    /// The build made what runs already.
    Unchanged {
        name: String,
        digest: String,
        build_ms: u64,
    },
    Failed {
        stage: &'static str,
        cause: String,
    },
}

impl DevArgs {
    /// Runs the command.
    pub async fn run(self) -> Result {
        if let Some(built) = &self.built {
            let (saved, build) = (number(&built[1])?, number(&built[2])?);
            return self.swap_built(Path::new(&built[0]), saved, build).await;
        }
        let project = Project::open(&self.folder, self.build.clone(), self.component.clone())?;
        project.provide_interfaces()?;
        // Before the first build: what is saved while it runs counts.
        let mut watch = Watch::begin(&project.folder)?;
        self.tell(&Event::Watching {
            folder: project.folder.clone(),
            build: project.build.clone(),
        });
        let rounds = async {
            let (mut saved, mut live) = (Instant::now(), None);
            loop {
                let event = self.round(&project, saved, &mut live).await;
                self.tell(&event);
                if self.once {
                    return match event {
                        Event::Failed { stage, cause } => {
                            Err(CliError::failed(format!("{stage}: {cause}")))
                        }
                        _ => Ok(()),
                    };
                }
                saved = watch.changed().await?;
            }
        };
        tokio::select! {
            ended = rounds => ended,
            // What is under way is dropped; a build in the terminal's group has the signal too.
            _ = signal::ctrl_c() => Ok(()),
        }
    }

    /// Builds, packs, installs. `live` is the digest that went live last.
    async fn round(&self, project: &Project, saved: Instant, live: &mut Option<String>) -> Event {
        let failed = |stage| {
            move |error: CliError| Event::Failed {
                stage,
                cause: error.to_string(),
            }
        };
        let round = async {
            let begun = Instant::now();
            self.build(project).await.map_err(failed("build"))?;
            let build_ms = milliseconds(begun.elapsed());
            let packed = project.pack().map_err(failed("pack"))?;
            if live.as_ref() == Some(&packed.digest) {
                return Ok(Event::Unchanged {
                    name: packed.name,
                    digest: packed.digest,
                    build_ms,
                });
            }
            let mut install = self.exprsn(&["component", "install"]);
            install
                .arg(&packed.file)
                .args(["--yes", "--allow-unsigned"]);
            let answer = ask(&mut install).await.map_err(failed("install"))?;
            *live = Some(packed.digest.clone());
            Ok(went_live(
                &answer["swap"],
                build_ms,
                milliseconds(saved.elapsed()),
            ))
        };
        round.await.unwrap_or_else(|event| event)
    }

    async fn build(&self, project: &Project) -> Result {
        let mut command = Command::new("sh");
        command
            .args(["-c", &project.build])
            .current_dir(&project.folder)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let failed = |error| CliError::failed(format!("cannot start `{}`: {error}", project.build));
        let (status, said) = if self.json {
            let output = command.output().await.map_err(failed)?;
            (output.status, said(&output))
        } else {
            // The tools' own words, as they come, in their colours.
            command.stdout(std::io::stderr()).stderr(Stdio::inherit());
            (command.status().await.map_err(failed)?, String::new())
        };
        if status.success() {
            return Ok(());
        }
        let cause = format!("`{}` ended with {status}", project.build);
        Err(CliError::failed(format!("{cause}\n{said}").trim_end()))
    }

    /// A command of this program for the same platform.
    fn exprsn(&self, words: &[&str]) -> Command {
        let program = std::env::current_exe().unwrap_or_else(|_| "exprsn".into());
        let mut command = Command::new(program);
        command.args(words).arg("--json");
        command.arg("--config").arg(&self.place.config);
        command.arg("--data").arg(&self.place.data);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// One of the platform's own services, with the grants that platform.toml answers.
    async fn swap_built(&self, file: &Path, saved_ms: u64, build_ms: u64) -> Result {
        let begun = Instant::now();
        let name = crate::component::ComponentFile::read(file)?.manifest.name;
        let mut swap = self.exprsn(&["swap", name.as_str()]);
        let event = match ask(swap.arg(file).arg("--allow-unsigned")).await {
            Ok(answer) => went_live(&answer, build_ms, saved_ms + milliseconds(begun.elapsed())),
            Err(error) => Event::Failed {
                stage: "swap",
                cause: error.to_string(),
            },
        };
        self.tell(&event);
        match event {
            Event::Failed { .. } => Err(CliError::failed(format!("{name} is as it was"))),
            _ => Ok(()),
        }
    }

    fn tell(&self, event: &Event) {
        if self.json {
            print(&serde_json::to_string(event).unwrap_or_default());
        } else {
            print(&event.line(Style::stdout()));
        }
    }
}

/// Runs a command that answers JSON. Its error is what it said on stderr.
async fn ask(command: &mut Command) -> Result<Value> {
    let output = command
        .output()
        .await
        .map_err(|error| CliError::failed(format!("cannot start exprsn: {error}")))?;
    if !output.status.success() {
        let said = said(&output);
        let said = said.strip_prefix("error: ").unwrap_or(&said);
        return Err(CliError::failed(said));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| CliError::failed(format!("exprsn's answer is not JSON: {error}")))
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

fn went_live(swap: &Value, build_ms: u64, total_ms: u64) -> Event {
    let text = |name: &str| swap[name].as_str().unwrap_or_default().to_owned();
    Event::Live {
        name: text("service"),
        version: text("version"),
        digest: text("digest"),
        total_ms,
        build_ms,
        swap_ms: swap["tookMs"].as_u64().unwrap_or_default(),
        cached: swap["cached"].as_bool().unwrap_or_default(),
    }
}

fn number(text: &str) -> Result<u64> {
    text.parse()
        .map_err(|_| CliError::failed(format!("`{text}` is no number of milliseconds")))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `21 ms`, `1.8 s`.
fn time(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        _ => format!("{:.1} s", ms as f64 / 1_000.0),
    }
}

impl Event {
    fn line(&self, style: Style) -> String {
        let short = |digest: &str| style.dim(digest.get(..DIGEST_DIGITS).unwrap_or(digest));
        match self {
            Self::Watching { folder, build } => {
                format!("watching {}: {}", folder.display(), style.dim(build))
            }
            Self::Live {
                name,
                version,
                digest,
                total_ms,
                build_ms,
                swap_ms,
                cached,
            } => format!(
                "{} in {} (build {}, {} {}): {} {version} {}",
                style.green("live"),
                time(*total_ms),
                time(*build_ms),
                if *cached {
                    "swap"
                } else {
                    "compilation and swap"
                },
                time(*swap_ms),
                style.bold(name),
                short(digest)
            ),
            Self::Unchanged {
                name,
                digest,
                build_ms,
            } => format!(
                "unchanged (build {}): {} {}",
                time(*build_ms),
                style.bold(name),
                short(digest)
            ),
            Self::Failed { stage, cause } => format!(
                "{} {cause}\nwhat ran before goes on running",
                style.red(&format!("{stage} failed:"))
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn outcomes_read_well_and_are_json() {
        let swap = json!({ "service": "guestbook", "version": "1.0.0", "digest": "0123456789abcdef", "cached": true, "tookMs": 21 });
        let live = went_live(&swap, 1_600, 1_834);
        assert_eq!(
            live.line(Style::stdout()),
            "live in 1.8 s (build 1.6 s, swap 21 ms): guestbook 1.0.0 0123456789ab"
        );
        let value = serde_json::to_value(&live).unwrap();
        assert_eq!(
            (&value["event"], &value["swapMs"]),
            (&json!("live"), &json!(21))
        );
        let failed = Event::Failed {
            stage: "build",
            cause: "no".to_owned(),
        };
        assert!(
            failed
                .line(Style::stdout())
                .starts_with("build failed: no\n")
        );
    }
}
