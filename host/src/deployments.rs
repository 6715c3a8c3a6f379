//! Deployments: what each service has run as, and what it runs as after a restart. Kept in `<data>/deployments.db`.
//!
//! **Invariant:** a swap that was acknowledged is what a restart starts, until the operator puts another file in the
//! folder of components: the later word counts.

use crate::{
    name::ServiceName,
    sqlite::{Database, Error, Options},
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// The file in the data directory.
pub const DEPLOYMENTS_FILE: &str = "deployments.db";
/// Entries of one service's history that are kept.
pub const HISTORY_MAX: u32 = 200;

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

/// The tables.
#[derive(Clone, Debug)]
pub struct Deployments {
    database: Database,
}

impl Deployments {
    /// Opens or creates the file. Blocks for some disk accesses.
    pub fn open(data: &Path) -> Result<Self, Error> {
        let options = Options {
            readers: 1,
            scanners: 1,
            ..Options::with_schema(|connection| Ok(connection.execute_batch(SCHEMA)?))
        };
        let database = Database::open(&data.join(DEPLOYMENTS_FILE), options)?;
        Ok(Self { database })
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

    /// Adds to the history of a service; where `current` is given, that is what it runs as from now on.
    pub async fn record(
        &self,
        service: &ServiceName,
        deployment: Deployment,
        current: Option<Current>,
    ) -> Result<(), Error> {
        let service = service.to_string();
        self.database
            .write_again(move |connection| {
                insert(connection, &service, &deployment)?;
                if let Some(current) = &current {
                    let text = "INSERT INTO current (service, digest, configured) VALUES (?1, ?2, ?3)
                        ON CONFLICT (service) DO UPDATE SET digest = excluded.digest, configured = excluded.configured";
                    connection.execute(text, params![service, current.digest, current.configured])?;
                }
                if deployment.outcome == "removed" {
                    connection.execute("DELETE FROM current WHERE service = ?1", [&service])?;
                }
                Ok(())
            })
            .await
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

fn insert(connection: &Connection, service: &str, entry: &Deployment) -> Result<(), Error> {
    let text = format!(
        "INSERT INTO deployments (service, {COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
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
            entry.took_ms
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

    fn running(digest: &str) -> Option<Current> {
        Some(Current {
            digest: digest.to_owned(),
            configured: None,
        })
    }

    #[tokio::test]
    async fn history_survives_and_says_what_ran_before() {
        let folder = tempfile::tempdir().unwrap();
        let name = ServiceName::parse("exprsn-a").unwrap();
        let deployments = Deployments::open(folder.path()).unwrap();
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
        let deployments = Deployments::open(folder.path()).unwrap();
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
        let deployments = Deployments::open(folder.path()).unwrap();
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
