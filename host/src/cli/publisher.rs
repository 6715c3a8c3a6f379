//! `exprsn publisher`: whose signature counts.

use super::{
    client::Ask,
    output::{CliError, Result, Style, Table, print, print_json},
    place::CaPlace,
};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

/// Publishers whose signature on a component is trusted.
#[derive(Subcommand, Debug)]
pub enum PublisherCommand {
    Trust(TrustArgs),
    List(ListArgs),
    Remove(RemoveArgs),
}

/// Trusts a publisher by the public key.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn publisher trust acme 6f1d3c…")]
pub struct TrustArgs {
    /// What you call the publisher.
    name: String,
    /// The public key (Ed25519, 64 hexadecimal digits), as `exprsn component keygen` prints it.
    key: String,
    #[command(flatten)]
    ca: CaPlace,
}

/// Lists trusted publishers.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn publisher list
  exprsn publisher list --json")]
pub struct ListArgs {
    /// Prints them as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ca: CaPlace,
}

/// Trusts a publisher no longer. What was admitted stays admitted.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn publisher remove 6f1d3c…")]
pub struct RemoveArgs {
    /// The public key.
    key: String,
    #[command(flatten)]
    ca: CaPlace,
}

impl PublisherCommand {
    /// Runs the command.
    pub async fn run(self) -> Result {
        match self {
            Self::Trust(command) => command.run().await,
            Self::List(command) => command.run().await,
            Self::Remove(command) => command.run().await,
        }
    }
}

impl TrustArgs {
    async fn run(self) -> Result {
        let (url, token) = (
            self.ca.url("/api/publishers")?,
            self.ca.place.operator_token()?,
        );
        let body = json!({ "name": self.name, "key": self.key });
        let _: Value = self
            .ca
            .place
            .client()?
            .json(Ask::new(Method::POST, &url).token(&token).json(body))
            .await?;
        print(&format!(
            "components signed by {} are trusted: {}",
            self.key, self.name
        ));
        Ok(())
    }
}

impl ListArgs {
    async fn run(self) -> Result {
        let (url, token) = (
            self.ca.url("/api/publishers")?,
            self.ca.place.operator_token()?,
        );
        let answer: Value = self
            .ca
            .place
            .client()?
            .json(Ask::new(Method::GET, &url).token(&token))
            .await?;
        let items = answer["items"]
            .as_array()
            .ok_or_else(|| CliError::failed(format!("the answer of {url} has no items")))?;
        if self.json {
            return print_json(items);
        }
        let mut table = Table::new(&["NAME", "KEY", "TRUSTED BY"], &[], Style::stdout());
        for one in items {
            let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
            table.row([text("name"), text("key"), text("trustedBy")]);
        }
        print(&table.render());
        Ok(())
    }
}

impl RemoveArgs {
    async fn run(self) -> Result {
        let url = self.ca.url(&format!("/api/publishers/{}", self.key))?;
        let token = self.ca.place.operator_token()?;
        let answer = self
            .ca
            .place
            .client()?
            .send(Ask::new(Method::DELETE, &url).token(&token))
            .await?;
        if !answer.status.is_success() {
            return Err(answer.refusal(&url));
        }
        print(&format!(
            "components signed by {} are trusted no longer",
            self.key
        ));
        Ok(())
    }
}
