//! `exprsn component`: component files, and what the platform lets them do.

mod decide;
mod inspect;
mod list;
mod sign;
mod withhold;

use super::{
    client::{Ask, Client},
    output::{CliError, Result},
    place::CaPlace,
};
use crate::name::SERVICE_PREFIX;
use clap::Subcommand;
use http::Method;
use serde_json::Value;

/// Component files: look into one, sign it, admit it, and take back what it was granted.
#[derive(Subcommand, Debug)]
pub enum ComponentCommand {
    Inspect(inspect::InspectArgs),
    Keygen(sign::KeygenArgs),
    Pack(super::pack::PackArgs),
    Sign(sign::SignArgs),
    Install(decide::InstallArgs),
    Approve(decide::ApproveArgs),
    List(list::ListArgs),
    Revoke(withhold::RevokeArgs),
    Restore(withhold::RestoreArgs),
}

impl ComponentCommand {
    /// Runs the command.
    pub async fn run(self) -> Result {
        match self {
            Self::Inspect(command) => command.run().await,
            Self::Keygen(command) => command.run(),
            Self::Pack(command) => command.run(),
            Self::Sign(command) => command.run(),
            Self::Install(command) => command.run().await,
            Self::Approve(command) => command.run().await,
            Self::List(command) => command.run().await,
            Self::Revoke(command) => command.run().await,
            Self::Restore(command) => command.run().await,
        }
    }
}

/// All components that exprsn-ca knows, newest first.
async fn all(client: &Client, ca: &CaPlace) -> Result<Vec<Value>> {
    let (url, token) = (ca.url("/api/components")?, ca.place.operator_token()?);
    let answer: Value = client
        .json(Ask::new(Method::GET, &url).token(&token))
        .await?;
    match answer["items"].as_array() {
        Some(items) => Ok(items.clone()),
        None => Err(CliError::failed(format!(
            "the answer of {url} has no items"
        ))),
    }
}

/// The admitted components of a service, by its full name or the one without `exprsn-`; newest first.
async fn of_service(client: &Client, ca: &CaPlace, name: &str) -> Result<(String, Vec<Value>)> {
    let all = all(client, ca).await?;
    let known = |name: &str| all.iter().any(|one| one["service"] == name);
    let prefixed = format!("{SERVICE_PREFIX}{name}");
    let full = [name, prefixed.as_str()]
        .into_iter()
        .find(|name| known(name));
    let full = full.ok_or_else(|| {
        CliError::failed(format!("no component was admitted as `{name}`"))
            .remedy("`exprsn component list` shows those that were")
    })?;
    let own = all.iter().filter(|one| one["service"] == full).cloned();
    Ok((full.to_owned(), own.collect()))
}
