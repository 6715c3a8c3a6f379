//! `exprsn component revoke` and `restore`: grants taken back from a running service, and given again.

use super::of_service;
use crate::cli::{
    client::{Ask, Client},
    output::{CliError, Result, Style, print, print_json},
    place::CaPlace,
};
use clap::Args;
use http::Method;
use serde_json::{Value, json};

/// Takes a grant back from a service, or all of them. It counts from the next call on; nothing is restarted.
///
/// Without --grant everything is withheld, and requests to the service are answered 503 until it is restored.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn component revoke stranger --grant sql
  exprsn component revoke timeline --grant queue:timeline-fanout --reason 'floods the queue'
  exprsn component revoke stranger --grant egress:https://api.example.com:443
  exprsn component revoke stranger
  exprsn component revoke stranger --permanent --reason 'malicious'")]
pub struct RevokeArgs {
    /// The service.
    name: String,
    /// What is withheld: `sql`, `queue:<name>`, `events:<topic>`, `call:<service>`, `egress:<scheme>://<host>:<port>`.
    #[arg(long)]
    grant: Option<String>,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Revokes the certificates of what runs instead: it is taken off, and exactly these bytes never run again.
    #[arg(long, conflicts_with = "grant")]
    permanent: bool,
    /// Prints the outcome as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ca: CaPlace,
}

/// Gives back what `revoke` has withheld: one grant, or everything.
#[derive(Args, Debug)]
#[command(after_long_help = "Examples:
  exprsn component restore stranger --grant sql
  exprsn component restore stranger")]
pub struct RestoreArgs {
    /// The service.
    name: String,
    /// What is given back, as it was withheld; everything by default.
    #[arg(long)]
    grant: Option<String>,
    /// Prints the outcome as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    ca: CaPlace,
}

impl RevokeArgs {
    pub(super) async fn run(self) -> Result {
        let client = self.ca.place.client()?;
        let (service, components) = of_service(&client, &self.ca, &self.name).await?;
        if self.permanent {
            return self.end(&client, &service, &components).await;
        }
        let url = self
            .ca
            .url(&format!("/api/components/{service}/revocations"))?;
        let token = self.ca.place.operator_token()?;
        let mut body = json!({});
        for (name, value) in [("grant", &self.grant), ("reason", &self.reason)] {
            if let Some(value) = value {
                body[name] = value.as_str().into();
            }
        }
        let ask = Ask::new(Method::POST, &url).token(&token).json(body);
        let answer: Value = client.json(ask).await?;
        tell(&answer, self.json, &service)
    }

    /// Revokes the certificates of the component that runs; of the newest where none does.
    async fn end(&self, client: &Client, service: &str, components: &[Value]) -> Result {
        let live = components.iter().find(|one| one["live"] == true);
        let chosen = live.or(components.first());
        let digest = chosen.map(|one| one["digest"].clone()).unwrap_or_default();
        let token = self.ca.place.operator_token()?;
        let mut revoked = Vec::new();
        for one in components.iter().filter(|one| one["digest"] == digest) {
            let serial = one["certificate"]["serial"].as_str().unwrap_or_default();
            let url = self.ca.url(&format!("/api/certificates/{serial}/revoke"))?;
            let body = self
                .reason
                .as_ref()
                .map_or(json!({}), |reason| json!({ "reason": reason }));
            let ask = Ask::new(Method::POST, &url).token(&token).json(body);
            let answer = client.send(ask).await?;
            // One that was revoked before is as it should be.
            if answer.status != http::StatusCode::CONFLICT {
                revoked.push(answer.json::<Value>(&url)?);
            }
        }
        if self.json {
            return print_json(&revoked);
        }
        let digest = digest.as_str().unwrap_or_default();
        print(&format!(
            "{service} is taken off: sha256:{digest} never runs again"
        ));
        Ok(())
    }
}

impl RestoreArgs {
    pub(super) async fn run(self) -> Result {
        let client = self.ca.place.client()?;
        let (service, _) = of_service(&client, &self.ca, &self.name).await?;
        let mut path = format!("/api/components/{service}/revocations");
        if let Some(grant) = &self.grant {
            path.push_str(&format!("?grant={}", encoded(grant)));
        }
        let url = self.ca.url(&path)?;
        let token = self.ca.place.operator_token()?;
        let answer: Value = client
            .json(Ask::new(Method::DELETE, &url).token(&token))
            .await?;
        tell(&answer, self.json, &service)
    }
}

/// What is withheld from the service now.
fn tell(answer: &Value, as_json: bool, service: &str) -> Result {
    if as_json {
        return print_json(answer);
    }
    let withheld = answer["withheld"]
        .as_array()
        .ok_or_else(|| CliError::failed("the answer does not say what is withheld"))?;
    let names: Vec<_> = withheld
        .iter()
        .filter_map(|one| one["grant"].as_str())
        .collect();
    let style = Style::stdout();
    print(&match names.as_slice() {
        [] => format!("{service}: nothing is withheld"),
        names => format!("{service}: withheld {}", style.red(&names.join(" "))),
    });
    Ok(())
}

/// Percent-encoded for a query.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn grants_travel_in_a_query() {
        assert_eq!(
            encoded("egress:https://a:443"),
            "egress%3Ahttps%3A%2F%2Fa%3A443"
        );
    }
}
