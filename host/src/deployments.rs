//! Deployments: what each service has run as, and what it runs as after a restart. Kept in `<data>/deployments.db`.
//!
//! **Invariant:** a swap that was acknowledged is what a restart starts, until the operator puts another file in the
//! folder of components: the later word counts.
//! **Invariant:** where several hosts form a platform, they know it before it is acknowledged.

use crate::{
    cluster::{Kind, Memory},
    name::ServiceName,
    platform::{Change, Changed},
    sqlite::{Database, Error, Options},
};
use exprsn_backends::shared::Fact;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};
use wasmtime::{Result, error::Context as _};

/// The file in the data directory.
pub const DEPLOYMENTS_FILE: &str = "deployments.db";
/// Entries of one service's history that are kept.
pub const HISTORY_MAX: u32 = 200;
/// How long an entry is told to hosts that join, in seconds.
const HISTORY_S_MAX: i64 = 90 * 86_400;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS deployments (
    id INTEGER PRIMARY KEY,
    service TEXT NOT NULL,
    action TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('live', 'trial', 'failed', 'removed')),
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    former TEXT,
    reason TEXT,
    by TEXT NOT NULL,
    at INTEGER NOT NULL,
    took_ms INTEGER NOT NULL CHECK (took_ms >= 0)
) STRICT;
CREATE INDEX IF NOT EXISTS deployments_service ON deployments (service, id);

CREATE TABLE IF NOT EXISTS targets (
    service TEXT PRIMARY KEY,
    target TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS current (
    service TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    configured TEXT
) STRICT, WITHOUT ROWID;
";

/// What changed a service's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Start,
    Swap,
    Canary,
    Promote,
    Abort,
    Rollback,
    /// The host's own doing, inside the watch window.
    AutoRollback,
    Remove,
}

impl Action {
    /// The name on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Swap => "swap",
            Self::Canary => "canary",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
            Self::AutoRollback => "auto-rollback",
            Self::Remove => "remove",
        }
    }
}

/// An entry of a service's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    pub action: String,
    /// `live`, `trial`, `failed` or `removed`.
    pub outcome: String,
    pub version: String,
    /// SHA-256 of the component, lower-case hex.
    pub digest: String,
    /// What ran before.
    pub former: Option<String>,
    /// Why it failed or was rolled back.
    pub reason: Option<String>,
    /// Who did it: `operator:local`, `user:<id>`, or `host`.
    pub by: String,
    /// Milliseconds since the Unix epoch.
    pub at: i64,
    pub took_ms: i64,
}

/// What a service runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Current {
    pub digest: String,
    /// The digest of the configured file when it was swapped; none where the service was installed.
    pub configured: Option<String>,
}

/// What a service is to run as on every host that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Of the change that led here.
    pub id: String,
    pub digest: String,
    pub configured: Option<String>,
    /// The version on trial, and its share in percent.
    pub trial: Option<(String, u8)>,
    pub restart: bool,
    pub by: String,
}

impl Target {
    /// Everything for one version.
    pub fn live(digest: &str, configured: Option<String>, change: &Change) -> Self {
        Self {
            id: uuid::Uuid::now_v7().to_string(),
            digest: digest.to_owned(),
            configured,
            trial: None,
            restart: change.restart,
            by: change.by.clone(),
        }
    }

    /// A share for a version on trial.
    pub fn trial(live: &str, trial: &str, percent: u8, change: &Change) -> Self {
        Self {
            trial: Some((trial.to_owned(), percent)),
            ..Self::live(live, None, change)
        }
    }

    /// What another host has written; none where the service was removed.
    pub fn of(fact: &Fact) -> Result<Option<Self>> {
        let parse = |value: &Vec<u8>| serde_json::from_slice(value).context("reading a deployment");
        fact.value.as_ref().map(parse).transpose()
    }
}

/// An entry as other hosts hear it.
#[derive(Serialize, Deserialize)]
struct Told {
    service: String,
    entry: Deployment,
}

impl Deployment {
    /// The entry of a change.
    pub fn of(changed: &Changed, change: &Change, reason: Option<String>) -> Self {
        Self {
            action: changed.action.to_owned(),
            outcome: changed.outcome.to_owned(),
            version: changed.version.clone(),
            digest: changed.digest.clone(),
            former: changed.former.clone(),
            reason,
            by: change.by.clone(),
            at: crate::clock::now_ms(),
            took_ms: i64::try_from(changed.took_ms).unwrap_or(i64::MAX),
        }
    }

    /// The entry of a return to what ran before.
    pub fn returned(digest: &str, change: &Change, reason: &str) -> Self {
        Self {
            action: Action::AutoRollback.as_str().to_owned(),
            outcome: "live".to_owned(),
            version: String::new(),
            digest: digest.to_owned(),
            former: None,
            reason: Some(reason.to_owned()),
            by: change.by.clone(),
            at: crate::clock::now_ms(),
            took_ms: 0,
        }
    }
}

/// The tables.
#[derive(Clone, Debug)]
pub struct Deployments {
    database: Database,
    /// None where one host is alone.
    memory: Option<Memory>,
}

impl Deployments {
    /// Opens or creates the file. Blocks for some disk accesses.
    pub fn open(data: &Path, memory: Option<Memory>) -> Result<Self, Error> {
        let options = Options {
            readers: 1,
            scanners: 1,
            ..Options::with_schema(|connection| {
                connection.execute_batch(SCHEMA)?;
                let text = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('deployments') WHERE name = 'told')";
                if !connection.query_row(text, [], |row| row.get::<_, bool>(0))? {
                    connection.execute_batch("ALTER TABLE deployments ADD COLUMN told TEXT")?;
                }
                connection.execute_batch(
                    "CREATE UNIQUE INDEX IF NOT EXISTS deployments_told ON deployments (told)",
                )?;
                Ok(())
            })
        };
        let database = Database::open(&data.join(DEPLOYMENTS_FILE), options)?;
        Ok(Self { database, memory })
    }

    /// What services run as, but for those that run as configured.
    pub async fn current(&self) -> Result<BTreeMap<String, Current>, Error> {
        self.database
            .read(|connection| {
                let mut statement =
                    connection.prepare("SELECT service, digest, configured FROM current")?;
                let rows = statement.query_map([], |row| {
                    let current = Current {
                        digest: row.get(1)?,
                        configured: row.get(2)?,
                    };
                    Ok((row.get(0)?, current))
                })?;
                Ok(rows.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Adds to the history of a service; where `target` is given, that is what it runs as from now on, on all hosts.
    pub async fn record(
        &self,
        service: &ServiceName,
        deployment: Deployment,
        target: Option<Target>,
    ) -> Result<()> {
        let removed = deployment.outcome == "removed";
        let told = uuid::Uuid::now_v7().to_string();
        if let Some(memory) = &self.memory {
            let entry = Told {
                service: service.to_string(),
                entry: deployment.clone(),
            };
            let mut history = Kind::History.change(&told, Some(&entry));
            history.expires_at = Some(crate::clock::now_s() + HISTORY_S_MAX);
            let mut changes = vec![history];
            if target.is_some() || removed {
                changes.push(Kind::Deployment.change(service.as_str(), target.as_ref()));
            }
            memory.tell_all(changes).await?;
        }
        self.keep_entry(service, told, deployment).await?;
        if target.is_some() || removed {
            self.keep(service, target.as_ref()).await?;
        }
        Ok(())
    }

    async fn keep_entry(
        &self,
        service: &ServiceName,
        told: String,
        entry: Deployment,
    ) -> Result<(), Error> {
        let service = service.to_string();
        self.database
            .write_again(move |connection| insert(connection, &service, &told, &entry))
            .await
    }

    /// Keeps what a service is to run as; with none it was removed.
    pub async fn keep(&self, service: &ServiceName, target: Option<&Target>) -> Result<(), Error> {
        let (service, target) = (service.to_string(), target.cloned());
        self.database
            .write_again(move |connection| {
                let Some(target) = &target else {
                    connection.execute("DELETE FROM current WHERE service = ?1", [&service])?;
                    connection.execute("DELETE FROM targets WHERE service = ?1", [&service])?;
                    return Ok(());
                };
                let whole = serde_json::to_string(target).unwrap_or_default();
                connection.execute(
                    "INSERT OR REPLACE INTO targets (service, target) VALUES (?1, ?2)",
                    params![service, whole],
                )?;
                // A trial changes nothing for a restart.
                if target.trial.is_none() {
                    let text = "INSERT OR REPLACE INTO current (service, digest, configured) VALUES (?1, ?2, ?3)";
                    connection.execute(text, params![service, target.digest, target.configured])?;
                }
                Ok(())
            })
            .await
    }

    /// What a service is to run as, with a version on trial; none where it was never changed.
    pub async fn target(&self, service: &ServiceName) -> Result<Option<Target>, Error> {
        let service = service.to_string();
        let found: Option<String> = self
            .database
            .read(move |connection| {
                let text = "SELECT target FROM targets WHERE service = ?1";
                Ok::<_, Error>(
                    connection
                        .query_row(text, [service], |row| row.get(0))
                        .optional()?,
                )
            })
            .await?;
        Ok(found.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Keeps what other hosts have changed while this one was not there.
    pub async fn remember(&self, facts: &[Fact]) -> Result<()> {
        for fact in facts {
            match Kind::parse(&fact.kind) {
                Some(Kind::History) => self.hear_history(fact).await?,
                Some(Kind::Deployment) => {
                    let service = ServiceName::parse(&fact.key)
                        .map_err(|error| wasmtime::format_err!("{error}"))?;
                    let (known, target) = (self.target(&service).await?, Target::of(fact)?);
                    // What it has followed already it keeps as it was then, with the file of then.
                    if known.map(|known| known.id)
                        != target.as_ref().map(|target| target.id.clone())
                    {
                        self.keep(&service, target.as_ref()).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Keeps an entry of another host's.
    pub async fn hear_history(&self, fact: &Fact) -> Result<()> {
        let Some(value) = &fact.value else {
            return Ok(());
        };
        let told: Told = serde_json::from_slice(value).context("reading a service's history")?;
        let service =
            ServiceName::parse(&told.service).map_err(|error| wasmtime::format_err!("{error}"))?;
        Ok(self
            .keep_entry(&service, fact.key.clone(), told.entry)
            .await?)
    }

    /// The history of a service, newest first.
    pub async fn history(&self, service: &ServiceName) -> Result<Vec<Deployment>, Error> {
        let service = service.to_string();
        self.database
            .read(move |connection| {
                let text = format!("SELECT {COLUMNS} FROM deployments WHERE service = ?1 ORDER BY id DESC LIMIT {HISTORY_MAX}");
                let mut statement = connection.prepare(&text)?;
                Ok(statement.query_map([&service], deployment)?.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// The digest that was live before `digest` came to be; none if there is none. What went by itself, or was on trial only,
    /// is not returned to.
    pub async fn before(
        &self,
        service: &ServiceName,
        digest: &str,
    ) -> Result<Option<String>, Error> {
        let (service, digest) = (service.to_string(), digest.to_owned());
        self.database
            .read(move |connection| {
                let text = "SELECT former FROM deployments
                    WHERE service = ?1 AND outcome = 'live' AND digest = ?2 AND former IS NOT NULL
                        AND former <> digest AND action NOT IN ('auto-rollback', 'abort')
                    ORDER BY id DESC LIMIT 1";
                Ok(connection
                    .query_row(text, [service, digest], |row| row.get(0))
                    .optional()?)
            })
            .await
    }

    /// Writes everything back and closes.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

const COLUMNS: &str = "action, outcome, version, digest, former, reason, by, at, took_ms";

fn deployment(row: &Row<'_>) -> rusqlite::Result<Deployment> {
    Ok(Deployment {
        action: row.get(0)?,
        outcome: row.get(1)?,
        version: row.get(2)?,
        digest: row.get(3)?,
        former: row.get(4)?,
        reason: row.get(5)?,
        by: row.get(6)?,
        at: row.get(7)?,
        took_ms: row.get(8)?,
    })
}

fn insert(
    connection: &Connection,
    service: &str,
    told: &str,
    entry: &Deployment,
) -> Result<(), Error> {
    // What this host has told comes back to it.
    let text = format!(
        "INSERT INTO deployments (service, {COLUMNS}, told) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
            ON CONFLICT (told) DO NOTHING"
    );
    connection.execute(
        &text,
        params![
            service,
            entry.action,
            entry.outcome,
            entry.version,
            entry.digest,
            entry.former,
            entry.reason,
            entry.by,
            entry.at,
            entry.took_ms,
            told
        ],
    )?;
    let surplus = "DELETE FROM deployments WHERE service = ?1 AND id NOT IN (
        SELECT id FROM deployments WHERE service = ?1 ORDER BY id DESC LIMIT ?2)";
    connection.execute(surplus, params![service, HISTORY_MAX])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(digest: &str, outcome: &str) -> Deployment {
        Deployment {
            action: Action::Swap.as_str().to_owned(),
            outcome: outcome.to_owned(),
            version: "1.0.0".to_owned(),
            digest: digest.to_owned(),
            former: None,
            reason: None,
            by: "operator:local".to_owned(),
            at: 1,
            took_ms: 2,
        }
    }

    fn running(digest: &str) -> Option<Target> {
        let change = Change {
            by: "operator:local".to_owned(),
            percent: None,
            restart: false,
        };
        Some(Target::live(digest, None, &change))
    }

    #[tokio::test]
    async fn history_survives_and_says_what_ran_before() {
        let folder = tempfile::tempdir().unwrap();
        let name = ServiceName::parse("exprsn-a").unwrap();
        let deployments = Deployments::open(folder.path(), None).unwrap();
        for (digest, former) in [("a", None), ("b", Some("a"))] {
            let entry = Deployment {
                former: former.map(str::to_owned),
                ..entry(digest, "live")
            };
            let recorded = deployments.record(&name, entry, running(digest));
            recorded.await.unwrap();
        }
        let failed = deployments.record(&name, entry("c", "failed"), None);
        failed.await.unwrap();
        deployments.close().await;
        let deployments = Deployments::open(folder.path(), None).unwrap();
        let current = deployments.current().await.unwrap();
        assert_eq!(current["exprsn-a"].digest, "b");
        let before = deployments.before(&name, "b").await.unwrap();
        assert_eq!(before.as_deref(), Some("a"));
        assert_eq!(deployments.before(&name, "a").await.unwrap(), None);
        let history = deployments.history(&name).await.unwrap();
        let digests: Vec<&str> = history.iter().map(|entry| entry.digest.as_str()).collect();
        assert_eq!(digests, ["c", "b", "a"]);
        deployments
            .record(&name, entry("b", "removed"), None)
            .await
            .unwrap();
        assert!(deployments.current().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn history_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let name = ServiceName::parse("exprsn-a").unwrap();
        let deployments = Deployments::open(folder.path(), None).unwrap();
        for _ in 0..HISTORY_MAX + 5 {
            deployments
                .record(&name, entry("a", "live"), None)
                .await
                .unwrap();
        }
        let history = deployments.history(&name).await.unwrap();
        assert_eq!(history.len(), HISTORY_MAX as usize);
    }
}
