//! `exprsn component install` and `approve`: the operator's decision.

use super::inspect::{publishers, render};
use crate::{
    cli::{
        client::{Ask, Client},
        deliver::{Answers, Delivered, Steps, admit, upload},
        output::{CliError, Result, Style, for_a_person, print, print_json},
        place::CaPlace,
    },
    component::ComponentFile,
    inspection::Inspection,
};
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};

/// How long a swap may take: compilation, migrations and a health check are in it.
const SWAP_MAX: Duration = Duration::from_secs(180);

/// Has exprsn-ca admit a component file, and starts it or swaps it in.
///
/// On a terminal it shows what the component asks for and asks you. Elsewhere the decision must be made beforehand: --yes.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn component install notes.wasm
  exprsn component install notes.wasm --yes --refuse http
  exprsn component install notes.wasm --yes --grant 'queue={produce=[\"notes-index\"]}' --json
  exprsn component install notes.wasm --yes --answers notes-answers.toml --allow-unsigned")]
pub struct InstallArgs {
    /// The component file.
    file: PathBuf,
    #[command(flatten)]
    decision: Decision,
    /// The address of exprsn-setup, where it is not the one that the configuration says.
    #[arg(long, value_name = "URL", env = "EXPRSN_SETUP_URL")]
    setup: Option<String>,
    #[command(flatten)]
    ca: CaPlace,
}

/// Admits a component again that was sent before, with other answers. What runs of it goes on as it was until it is swapped.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn component approve 3b1f…
  exprsn component approve 3b1f… --yes --grant 'queue={produce=[\"notes-index\"]}'")]
pub struct ApproveArgs {
    /// The component's digest, as `exprsn component list` shows it.
    digest: String,
    #[command(flatten)]
    decision: Decision,
    #[command(flatten)]
    ca: CaPlace,
}

/// What is decided beforehand.
#[derive(Args, Debug)]
struct Decision {
    #[command(flatten)]
    answers: Answers,
    /// Does not ask.
    #[arg(long)]
    yes: bool,
    /// Prints the outcome as JSON.
    #[arg(long)]
    json: bool,
}

impl InstallArgs {
    pub(super) async fn run(self) -> Result {
        let client = self.ca.place.client()?;
        let local = Inspection::of(&ComponentFile::read(&self.file)?)?;
        self.decision
            .confirm(&client, &self.ca, &local, "Install it with these grants?")
            .await?;
        let answers = self.decision.answers.complete(&local)?;
        let steps = Steps::new();
        steps.next("sending the component");
        let sent = upload(&client, &self.ca, &self.file).await?;
        if sent.digest != local.digest {
            return Err(CliError::failed(format!(
                "`{}` was changed while it was sent",
                self.file.display()
            ))
            .remedy("look at it anew and repeat the command"));
        }
        steps.next("admitting it");
        let allow_unsigned = self.decision.answers.allow_unsigned;
        let admitted = admit(
            &client,
            &self.ca,
            &sent.digest,
            Some(answers),
            allow_unsigned,
        )
        .await?;
        steps.next("starting it: compiled, migrated, checked, swapped in");
        let swapped = self.swap(&client, &admitted).await?;
        drop(steps);
        if self.decision.json {
            return print_json(&json!({ "admitted": admitted.admitted, "swap": swapped }));
        }
        let style = Style::stdout();
        print(&format!(
            "{} {} {} {}",
            style.green("live"),
            admitted.name,
            admitted.version,
            style.dim(&format!("sha256:{}", admitted.digest))
        ));
        Ok(())
    }

    async fn swap(&self, client: &Client, admitted: &Delivered) -> Result<Value> {
        let path = format!("/api/services/{}/swap", admitted.name);
        let url = self.ca.place.setup_url(self.setup.as_deref(), &path)?;
        let token = self.ca.place.operator_token()?;
        let ask = Ask::new(Method::POST, &url)
            .token(&token)
            .json(json!({ "digest": admitted.digest }))
            .patience(SWAP_MAX);
        let swapped: Result<Value> = client.json(ask).await;
        swapped.map_err(|error| CliError {
            cause: format!(
                "{} was admitted, but not started: {}",
                admitted.name, error.cause
            ),
            ..error
        })
    }
}

impl ApproveArgs {
    pub(super) async fn run(self) -> Result {
        let client = self.ca.place.client()?;
        let digest = self.digest.trim_start_matches("sha256:");
        let url = self.ca.url(&format!("/api/components/files/{digest}"))?;
        let token = self.ca.place.operator_token()?;
        let inspection: Inspection = client
            .json(Ask::new(Method::GET, &url).token(&token))
            .await?;
        self.decision
            .confirm(
                &client,
                &self.ca,
                &inspection,
                "Admit it with these grants?",
            )
            .await?;
        let answers = self.decision.answers.complete(&inspection)?;
        let allow_unsigned = self.decision.answers.allow_unsigned;
        let admitted = admit(
            &client,
            &self.ca,
            &inspection.digest,
            Some(answers),
            allow_unsigned,
        )
        .await?;
        if self.decision.json {
            return print_json(&admitted.admitted);
        }
        print(&format!(
            "admitted {} {} sha256:{}",
            admitted.name, admitted.version, admitted.digest
        ));
        print(&format!(
            "it runs so after `exprsn swap {} {}`",
            admitted.name, admitted.digest
        ));
        Ok(())
    }
}

impl Decision {
    /// Shows what is to be decided and asks, where there is somebody to ask.
    async fn confirm(
        &self,
        client: &Client,
        ca: &CaPlace,
        inspection: &Inspection,
        question: &str,
    ) -> Result {
        // Wrong answers are told before anybody is asked.
        let answers = self.answers.given(inspection)?;
        if self.yes {
            return Ok(());
        }
        if !for_a_person() || !std::io::stdin().is_terminal() {
            return Err(CliError::failed("nobody can be asked here, and nothing was decided")
                .remedy("look at it with `exprsn component inspect`, then repeat the command with --yes"));
        }
        let publishers = publishers(client, ca).await;
        let style = Style::stdout();
        print(&render(inspection, publishers.as_deref(), style));
        if let Some(answers) = answers {
            print(&format!("\n{}", style.bold("You answer")));
            for (capability, answer) in answers {
                print(&format!("  {capability}: {}", json!(answer)));
            }
        }
        let _ = write!(std::io::stdout(), "\n{question} [y/N] ");
        let _ = std::io::stdout().flush();
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        match (read, line.trim()) {
            (Ok(_), "y" | "Y" | "yes") => Ok(()),
            _ => Err(CliError::failed("not done: you did not say yes")),
        }
    }
}
