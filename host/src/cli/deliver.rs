//! From a component file to an admitted component: sent to exprsn-ca, answered, admitted. `install` and `swap` begin so.

use super::{
    client::{Ask, Client},
    output::{CliError, Result},
    place::CaPlace,
};
use crate::{
    approval::{Approval, Approvals},
    component::COMPONENT_BYTES_MAX,
    inspection::Inspection,
};
use clap::Args;
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::{
    fs,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long sending a component may take.
const UPLOAD_MAX: Duration = Duration::from_secs(120);

/// The operator's answers to what a component asks for.
#[derive(Args, Clone, Debug, Default)]
pub struct Answers {
    /// Refuses a capability. May be given several times.
    #[arg(long, value_name = "CAPABILITY")]
    refuse: Vec<String>,
    /// Grants less of a capability than it asks for: `queue={produce=["a"]}`. May be given several times.
    #[arg(long = "grant", value_name = "CAPABILITY={…}", value_parser = narrowed)]
    grants: Vec<(String, Approval)>,
    /// A file of answers, as `grants` in platform.toml: `sql = "as-requested"`, `http = "refused"`, `queue = { … }`.
    #[arg(long, value_name = "FILE")]
    answers: Option<PathBuf>,
    /// Admits a component that no trusted publisher has signed. It is on record.
    #[arg(long)]
    pub allow_unsigned: bool,
}

/// `queue={produce=["a"]}`; a bare name grants what is asked for.
fn narrowed(text: &str) -> std::result::Result<(String, Approval), String> {
    if !text.contains('=') {
        return Ok((text.to_owned(), Approval::AsRequested));
    }
    let answers: Approvals = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let mut answers = answers.into_iter();
    match (answers.next(), answers.next()) {
        (Some(answer), None) => Ok(answer),
        _ => Err("name one capability; --grant may be given several times".to_owned()),
    }
}

impl Answers {
    /// What was answered, checked against what is asked. None where nothing was.
    pub fn given(&self, asked: &Inspection) -> Result<Option<Approvals>> {
        let mut answers = match &self.answers {
            Some(path) => from_file(path)?,
            None => Approvals::new(),
        };
        answers.extend(self.grants.iter().cloned());
        answers.extend(
            self.refuse
                .iter()
                .map(|name| (name.clone(), Approval::Refused)),
        );
        let names: Vec<_> = asked
            .grants
            .iter()
            .map(|grant| grant.capability.as_str())
            .collect();
        if let Some(unasked) = answers.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(
                CliError::failed(format!("{} does not ask for `{unasked}`", asked.name))
                    .remedy(format!("it asks for: {}", names.join(", "))),
            );
        }
        Ok((!answers.is_empty()).then_some(answers))
    }

    /// What was answered, and everything else as it is asked for.
    pub fn complete(&self, asked: &Inspection) -> Result<Approvals> {
        let mut answers = self.given(asked)?.unwrap_or_default();
        for grant in &asked.grants {
            answers
                .entry(grant.capability.clone())
                .or_insert(Approval::AsRequested);
        }
        Ok(answers)
    }
}

fn from_file(path: &Path) -> Result<Approvals> {
    let text = fs::read_to_string(path).map_err(|error| {
        CliError::failed(format!("cannot read `{}`: {error}", path.display()))
            .remedy("name a file of answers: sql = \"as-requested\"")
    })?;
    toml::from_str(&text).map_err(|error| {
        CliError::failed(format!(
            "the answers in `{}` cannot be read: {}",
            path.display(),
            error.to_string().trim_end()
        ))
    })
}

/// A component that exprsn-ca has admitted.
#[derive(Clone, Debug)]
pub struct Delivered {
    pub name: String,
    pub version: String,
    pub digest: String,
    /// exprsn-ca's whole answer.
    pub admitted: Value,
}

/// Sends a file and has it admitted. Where nothing is answered, platform.toml or the service's last admission is to.
pub async fn deliver(ca: &CaPlace, file: &Path, answers: &Answers) -> Result<Delivered> {
    let client = ca.place.client()?;
    let inspection = upload(&client, ca, file).await?;
    let given = match answers.given(&inspection)? {
        Some(_) => Some(answers.complete(&inspection)?),
        None => None,
    };
    admit(
        &client,
        ca,
        &inspection.digest,
        given,
        answers.allow_unsigned,
    )
    .await
}

/// Sends a file to exprsn-ca, which looks into it and keeps it. Nothing is admitted by that.
pub async fn upload(client: &Client, ca: &CaPlace, file: &Path) -> Result<Inspection> {
    let unreadable = |error: std::io::Error| {
        CliError::failed(format!(
            "cannot read component `{}`: {error}",
            file.display()
        ))
        .remedy("name a component file; `cargo xtask build-components` makes some")
    };
    let size = fs::metadata(file).map_err(unreadable)?.len();
    if size > COMPONENT_BYTES_MAX {
        return Err(CliError::failed(format!(
            "component `{}` is larger than {COMPONENT_BYTES_MAX} bytes",
            file.display()
        )));
    }
    let bytes = fs::read(file).map_err(unreadable)?;
    let (url, token) = (ca.url("/api/components/files")?, ca.place.operator_token()?);
    let ask = Ask::new(Method::POST, &url)
        .token(&token)
        .bytes("application/wasm", bytes)
        .patience(UPLOAD_MAX);
    client.json(ask).await
}

/// Has a component admitted that was sent before.
pub async fn admit(
    client: &Client,
    ca: &CaPlace,
    digest: &str,
    approvals: Option<Approvals>,
    allow_unsigned: bool,
) -> Result<Delivered> {
    let (url, token) = (ca.url("/api/components")?, ca.place.operator_token()?);
    let mut body = json!({ "digest": digest, "allowUnsigned": allow_unsigned });
    if let Some(approvals) = approvals {
        body["approve"] = json!(approvals);
    }
    let ask = Ask::new(Method::POST, &url).token(&token).json(body);
    let admitted: Value = client.json(ask).await?;
    let text = |name: &str| admitted[name].as_str().unwrap_or_default().to_owned();
    Ok(Delivered {
        name: text("service"),
        version: text("version"),
        digest: text("digest"),
        admitted,
    })
}

/// Says on a terminal's stderr what is going on; elsewhere nothing.
#[derive(Debug)]
pub struct Steps(ProgressBar);

impl Steps {
    /// Nothing goes on yet.
    pub fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
        bar.set_style(style.expect("the template is well-formed"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// The next thing goes on.
    pub fn next(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Inspection {
        let grant = |name: &str| json!({ "capability": name, "optional": false, "scope": {}, "meaning": [], "interfaces": [] });
        serde_json::from_value(json!({
            "name": "exprsn-a", "version": "1", "description": "", "port": 1, "size": 1, "digest": "", "signer": null, "dependsOn": [],
            "triggers": [], "imports": [], "exports": [], "grants": [grant("queue"), grant("sql"), grant("http")], "routes": [],
            "queues": [], "schedules": [], "subscriptions": [], "migrations": [], "config": {}, "limits": [],
        }))
        .unwrap()
    }

    #[test]
    fn answers_are_read_and_completed() {
        let narrower = narrowed("queue={produce=[\"a\"]}").unwrap();
        let answers = Answers {
            refuse: vec!["http".to_owned()],
            grants: vec![narrower, narrowed("sql").unwrap()],
            ..Answers::default()
        };
        let told = json!(answers.given(&asked()).unwrap());
        assert_eq!(
            told,
            json!({ "http": "refused", "queue": { "produce": ["a"] }, "sql": "as-requested" })
        );
        assert_eq!(Answers::default().given(&asked()).unwrap(), None);
        let all = json!(Answers::default().complete(&asked()).unwrap());
        assert_eq!(
            all,
            json!({ "http": "as-requested", "queue": "as-requested", "sql": "as-requested" })
        );
    }

    #[test]
    fn wrong_answers_say_what_to_write() {
        assert!(
            narrowed("queue=\"yes\"")
                .unwrap_err()
                .contains("as-requested")
        );
        assert!(narrowed("queue=[").is_err());
        let answers = Answers {
            refuse: vec!["blob".to_owned()],
            ..Answers::default()
        };
        let error = answers.given(&asked()).unwrap_err();
        assert!(error.to_string().contains("`blob`") && error.remedy.contains("queue, sql, http"));
    }
}
