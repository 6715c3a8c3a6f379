//! `exprsn token`: CA tokens.

use super::{
    client::Ask,
    output::{CliError, Result, Style, print, print_json},
    place::CaPlace,
};
use crate::invocation::Permission;
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};
use std::io::Read as _;

/// Longest token that is read from stdin, in bytes.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// CA tokens.
#[derive(Subcommand, Debug)]
pub enum TokenCommand {
    Issue(IssueArgs),
    Validate(ValidateArgs),
}

/// Has exprsn-ca sign a token, with the operator's right.
///
/// The token is printed alone on stdout, so that it can go into a variable.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  TOKEN=$(exprsn token issue --subject user:alice --permissions read,write)
  curl -X POST http://localhost:3004/api/posts -H \"Authorization: Bearer $TOKEN\" \\
       -H 'Content-Type: application/json' -d '{\"content\": \"Test post\"}'
  exprsn token issue --subject service:exprsn-timeline --resource 'http://localhost:3014/api/notifications/*' \\
       --permissions write --lifetime 60 --uses 1 --json")]
pub struct IssueArgs {
    /// Whom it is for: `user:<id>`, `service:<name>` or `client:<id>`.
    #[arg(long, value_name = "SUBJECT")]
    subject: String,
    /// What it permits: read, write, append, update, delete, admin.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "read", value_parser = permission)]
    permissions: Vec<Permission>,
    /// On what: `*`, `exprsn-herald/api/*` or `http://localhost:3014/api/notifications/*`. May be given several times.
    #[arg(long = "resource", value_name = "PATTERN", default_value = "*")]
    resources: Vec<String>,
    /// Seconds until it expires.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    lifetime: u32,
    /// How many times it may be used; any number by default.
    #[arg(long, value_name = "COUNT")]
    uses: Option<u32>,
    /// Prints the whole answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ca: CaPlace,
}

/// Asks exprsn-ca whether a token is good, and says what it permits. Exit code 1 where it is not.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn token validate \"$TOKEN\"
  exprsn token issue --subject user:alice | exprsn token validate -")]
pub struct ValidateArgs {
    /// The token, or `-` to read it from stdin.
    token: String,
    /// Prints the whole answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ca: CaPlace,
}

fn permission(name: &str) -> std::result::Result<Permission, String> {
    Permission::parse(name).ok_or_else(|| {
        let known: Vec<&str> = Permission::ALL.iter().map(|known| known.as_str()).collect();
        format!("`{name}` is none of {}", known.join(", "))
    })
}

impl TokenCommand {
    /// Runs the command.
    pub async fn run(self) -> Result {
        match self {
            Self::Issue(command) => command.run().await,
            Self::Validate(command) => command.run().await,
        }
    }
}

impl IssueArgs {
    async fn run(self) -> Result {
        let url = self.ca.url("/api/tokens")?;
        let operator = self.ca.place.operator_token()?;
        let client = self.ca.place.client()?;
        let answer: Value = client
            .json(
                Ask::new(Method::POST, &url)
                    .token(&operator)
                    .json(self.body()),
            )
            .await?;
        if self.json {
            return print_json(&answer);
        }
        let token = answer["token"].as_str();
        print(token.ok_or_else(|| CliError::failed(format!("the answer of {url} has no token")))?);
        Ok(())
    }

    fn body(&self) -> Value {
        let permissions: Map<String, Value> = self
            .permissions
            .iter()
            .map(|permission| (permission.as_str().to_owned(), true.into()))
            .collect();
        let mut body = json!({
            "subject": self.subject,
            "permissions": permissions,
            "resources": self.resources,
            "expiresIn": self.lifetime,
        });
        if let Some(uses) = self.uses {
            body["maxUses"] = uses.into();
        }
        body
    }
}

impl ValidateArgs {
    async fn run(self) -> Result {
        let url = self.ca.url("/api/tokens/validate")?;
        let token = match self.token.as_str() {
            "-" => from_stdin()?,
            token => token.to_owned(),
        };
        let client = self.ca.place.client()?;
        let answer: Value = client
            .json(Ask::new(Method::POST, &url).json(json!({ "token": token })))
            .await?;
        if self.json {
            print_json(&answer)?;
        } else {
            print(&render(&answer, Style::stdout()));
        }
        match answer["valid"].as_bool() {
            Some(true) => Ok(()),
            _ => Err(CliError::failed("the token is not good")),
        }
    }
}

fn from_stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(TOKEN_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| CliError::failed(format!("cannot read a token from stdin: {error}")))?;
    Ok(text.trim().to_owned())
}

/// The members of the answer, one a line.
fn render(answer: &Value, style: Style) -> String {
    let valid = answer["valid"] == true;
    let mut lines = vec![style.status(if valid { "valid" } else { "not valid" })];
    for (name, value) in answer
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| *name != "valid" && !value.is_null())
    {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        lines.push(format!("{} {text}", style.dim(&format!("{name}:"))));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_checked() {
        assert_eq!(permission("append"), Ok(Permission::Append));
        assert!(
            permission("destroy")
                .unwrap_err()
                .contains("none of read, write")
        );
    }

    #[test]
    fn shows_why_a_token_is_not_good() {
        let text = render(
            &json!({ "valid": false, "reason": "expired", "claims": null }),
            Style::stdout(),
        );
        assert_eq!(text, "not valid\nreason: expired");
    }
}
