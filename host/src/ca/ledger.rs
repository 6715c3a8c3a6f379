//! What the authority remembers in `<data>/host.db`: tokens that are good no longer, admissions, revocations, pins.
//!
//! Where several hosts form a platform, they remember together: what is written goes to the shared memory first, and what
//! others write there arrives by [`Ledger::hear`].

mod schema;

use super::{pki::Certificate, standing::Standing};
use crate::{
    cluster::{Kind, Memory},
    sqlite::{self, Database, Options},
};
use exprsn_backends::shared;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Most admissions listed and kept; the oldest that are not live leave.
pub const ADMISSIONS_MAX: u32 = 1_000;

/// Why nothing was remembered or found.
#[derive(Debug)]
pub enum Error {
    /// This host's own file.
    File(sqlite::Error),
    /// The memory that hosts share.
    Shared(shared::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Shared(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(error) => error.source(),
            Self::Shared(error) => error.source(),
        }
    }
}

impl From<sqlite::Error> for Error {
    fn from(error: sqlite::Error) -> Self {
        Self::File(error)
    }
}

impl From<shared::Error> for Error {
    fn from(error: shared::Error) -> Self {
        Self::Shared(error)
    }
}

/// By whose word a component was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decided {
    /// The operator's in platform.toml.
    Configuration,
    /// That of whoever asked exprsn-ca, which has it on record.
    Caller,
}

impl Decided {
    /// The name in JSON, in the file and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Caller => "caller",
        }
    }
}

/// A grant that a service was given and may not use at present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withholding {
    pub grant: String,
    /// Who withholds it: `operator:local`.
    pub by: String,
    pub reason: Option<String>,
}

/// An admission as remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    pub service: String,
    pub version: String,
    /// SHA-256, lower-case hex.
    pub digest: String,
    /// The approved grants, JSON.
    pub grants: String,
    pub certificate: Certificate,
    /// Whether this is what the service was last started as by platform.toml.
    pub live: bool,
    pub decided: Decided,
    /// Optional capabilities that were refused.
    pub refused: Vec<String>,
    /// The public key of whoever signed the component, hex.
    pub signer: Option<String>,
}

/// What an earlier run of the host has left.
#[derive(Debug, Default)]
pub struct Remembered {
    /// Tokens that are good no longer, with the second of their expiry.
    pub standings: Vec<(String, Standing, i64)>,
    /// Serial numbers of revoked certificates.
    pub revoked_certificates: Vec<String>,
    /// Services and the grants withheld from them.
    pub withheld: Vec<(String, String)>,
}

/// The authority's tables.
#[derive(Clone, Debug)]
pub struct Ledger {
    database: Database,
    /// None where one host is alone.
    memory: Option<Memory>,
}

impl Ledger {
    /// Opens or creates the file, forgets tokens that have expired, and returns what is remembered. Blocks.
    pub fn open(
        path: &Path,
        memory: Option<Memory>,
        now_s: i64,
    ) -> Result<(Self, Remembered), Error> {
        let remembered = Arc::new(Mutex::new(Remembered::default()));
        let filled = remembered.clone();
        let schema = move |connection: &Connection| {
            schema::apply(connection)?;
            *filled.lock().unwrap_or_else(PoisonError::into_inner) = recall(connection, now_s)?;
            Ok(())
        };
        let options = Options {
            readers: 1,
            scanners: 1,
            ..Options::with_schema(schema)
        };
        let ledger = Self {
            database: Database::open(path, options)?,
            memory,
        };
        let remembered =
            std::mem::take(&mut *remembered.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((ledger, remembered))
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> Result<T, sqlite::Error> + Send + 'static,
    ) -> Result<T, Error> {
        Ok(self.database.write_again(work).await?)
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, sqlite::Error> + Send + 'static,
    ) -> Result<T, Error> {
        Ok(self.database.read(work).await?)
    }

    /// Remembers a revoked token until it would have expired.
    pub async fn revoke_token(&self, id: &str, expires_at: i64) -> Result<(), Error> {
        if let Some(memory) = &self.memory {
            let mut change = Kind::RevokedToken.change(id, Some(&expires_at));
            change.expires_at = Some(expires_at);
            memory.tell(change).await?;
        }
        self.keep_revoked_token(id, expires_at).await
    }

    async fn keep_revoked_token(&self, id: &str, expires_at: i64) -> Result<(), Error> {
        let id = id.to_owned();
        self.write(move |connection| {
                let text = "INSERT INTO revoked_tokens (id, expires_at) VALUES (?1, ?2)
                    ON CONFLICT (id) DO UPDATE SET expires_at = max(expires_at, excluded.expires_at)";
                connection.prepare_cached(text)?.execute(params![id, expires_at])?;
                Ok(())
            })
            .await
    }

    /// Counts a use of a token, if it has one left; returns how many are left after it, or none if there was none.
    pub async fn count_use(
        &self,
        id: &str,
        uses_max: u32,
        expires_at: i64,
    ) -> Result<Option<u32>, Error> {
        if let Some(memory) = &self.memory {
            return Ok(memory.shared().count_use(id, uses_max, expires_at).await?);
        }
        let id = id.to_owned();
        self.write(move |connection| {
                let text = "INSERT INTO token_uses (id, uses, uses_max, expires_at) VALUES (?1, 1, ?2, ?3)
                    ON CONFLICT (id) DO UPDATE SET uses = uses + 1 WHERE uses < uses_max RETURNING uses_max - uses";
                Ok(connection.prepare_cached(text)?.query_row(params![id, uses_max, expires_at], |row| row.get(0)).optional()?)
            })
            .await
    }

    /// What the service was last admitted as.
    pub async fn live(&self, service: &str) -> Result<Option<Admission>, Error> {
        let service = service.to_owned();
        self.read(move |connection| {
            let text = format!("SELECT {COLUMNS} FROM admissions WHERE service = ?1 AND live = 1");
            Ok(connection
                .query_row(&text, [service], admission)
                .optional()?)
        })
        .await
    }

    /// The newest admission of a service: of the component with this digest, or of any.
    pub async fn latest(
        &self,
        service: &str,
        digest: Option<&str>,
    ) -> Result<Option<Admission>, Error> {
        let (service, digest) = (service.to_owned(), digest.map(str::to_owned));
        self.read(move |connection| {
                let text = format!(
                    "SELECT {COLUMNS} FROM admissions WHERE service = ?1 AND (?2 IS NULL OR digest = ?2)
                     ORDER BY admitted_at DESC LIMIT 1"
                );
                Ok(connection
                    .query_row(&text, params![service, digest], admission)
                    .optional()?)
            })
            .await
    }

    /// Replaces what is withheld from a service.
    pub async fn withhold(
        &self,
        service: &str,
        withheld: Vec<Withholding>,
        now_s: i64,
    ) -> Result<(), Error> {
        if let Some(memory) = &self.memory {
            memory
                .tell(Kind::Withheld.change(service, Some(&withheld)))
                .await?;
        }
        self.keep_withheld(service, withheld, now_s).await
    }

    async fn keep_withheld(
        &self,
        service: &str,
        withheld: Vec<Withholding>,
        now_s: i64,
    ) -> Result<(), Error> {
        let service = service.to_owned();
        self.write(move |connection| {
                connection.execute("DELETE FROM withheld_grants WHERE service = ?1", [&service])?;
                let text = "INSERT INTO withheld_grants (service, grant, at, by, reason) VALUES (?1, ?2, ?3, ?4, ?5)
                    ON CONFLICT DO NOTHING";
                let mut insert = connection.prepare(text)?;
                for one in &withheld {
                    insert.execute(params![service, one.grant, now_s, one.by, one.reason])?;
                }
                Ok(())
            })
            .await
    }

    /// Every grant that is withheld, by service.
    pub async fn withheld(&self) -> Result<Vec<(String, Withholding)>, Error> {
        self.read(|connection| {
            let text =
                "SELECT service, grant, by, reason FROM withheld_grants ORDER BY service, grant";
            let mut statement = connection.prepare(text)?;
            let rows = statement.query_map([], |row| {
                let one = Withholding {
                    grant: row.get(1)?,
                    by: row.get(2)?,
                    reason: row.get(3)?,
                };
                Ok((row.get(0)?, one))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Remembers an admission, as the service's live one where it says so.
    pub async fn admit(&self, admission: Admission, now_s: i64) -> Result<(), Error> {
        if let Some(memory) = &self.memory {
            let serial = &admission.certificate.serial;
            memory
                .tell(Kind::Admission.change(serial, Some(&admission)))
                .await?;
        }
        self.keep_admission(admission, now_s).await
    }

    /// Remembers an admission that other hosts know of.
    pub async fn keep_admission(&self, admission: Admission, now_s: i64) -> Result<(), Error> {
        self.write(move |connection| insert(connection, &admission, now_s))
            .await
    }

    /// All admissions, newest first.
    pub async fn admissions(&self) -> Result<Vec<Admission>, Error> {
        self.read(|connection| {
                let text = format!("SELECT {COLUMNS} FROM admissions ORDER BY admitted_at DESC, serial LIMIT {ADMISSIONS_MAX}");
                let mut statement = connection.prepare(&text)?;
                Ok(statement.query_map([], admission)?.collect::<Result<_, _>>()?)
            })
            .await
    }

    /// Whether a certificate of these bytes of this service was revoked.
    pub async fn was_revoked(&self, service: &str, digest: &str) -> Result<bool, Error> {
        let (service, digest) = (service.to_owned(), digest.to_owned());
        self.read(move |connection| {
            let text =
                "SELECT EXISTS (SELECT 1 FROM admissions JOIN revoked_certificates USING (serial)
                    WHERE service = ?1 AND digest = ?2)";
            Ok(connection.query_row(text, [service, digest], |row| row.get(0))?)
        })
        .await
    }

    /// Adopts a revocation list; false if its number does not exceed the last one's, and nothing changes.
    pub async fn revoke_certificates(
        &self,
        number: u64,
        revoked: Vec<(String, i64)>,
    ) -> Result<bool, Error> {
        if let Some(memory) = &self.memory {
            let change =
                |(serial, at): &(String, i64)| Kind::RevokedCertificate.change(serial, Some(at));
            memory
                .tell_all(revoked.iter().map(change).collect())
                .await?;
        }
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.write(move |connection| {
                let text = "INSERT INTO revocation_list (only, number) VALUES (1, ?1)
                    ON CONFLICT (only) DO UPDATE SET number = excluded.number WHERE excluded.number > number";
                if connection.execute(text, [number])? == 0 {
                    return Ok(false);
                }
                let mut insert = connection.prepare("INSERT INTO revoked_certificates (serial, at) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
                for (serial, at) in &revoked {
                    insert.execute(params![serial, at])?;
                }
                Ok(true)
            })
            .await
    }

    async fn keep_revoked_certificate(&self, serial: &str, at: i64) -> Result<(), Error> {
        let serial = serial.to_owned();
        let kept = self.write(move |connection| {
            let text = "INSERT INTO revoked_certificates (serial, at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            connection.execute(text, params![serial, at])?;
            Ok(())
        });
        kept.await
    }

    /// Keeps what another host has written.
    pub async fn hear(&self, heard: &Heard, now_s: i64) -> Result<(), Error> {
        match heard {
            Heard::RevokedToken { id, expires_at } => {
                self.keep_revoked_token(id, *expires_at).await
            }
            Heard::RevokedCertificate { serial, at } => {
                self.keep_revoked_certificate(serial, *at).await
            }
            Heard::Withheld { service, grants } => {
                self.keep_withheld(service, grants.clone(), now_s).await
            }
            Heard::Admission(admission) => {
                // Which of a service's admissions its configuration leads to is each host's own.
                let admission = Admission {
                    live: false,
                    ..(**admission).clone()
                };
                self.keep_admission(admission, now_s).await
            }
        }
    }

    /// Everything that other hosts should know, for a shared memory that is empty.
    pub async fn everything(&self) -> Result<Vec<shared::Change>, Error> {
        let (tokens, certificates) = self
            .read(|connection| {
                let pairs = |text: &str| -> Result<Vec<(String, i64)>, sqlite::Error> {
                    let mut statement = connection.prepare(text)?;
                    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                    Ok(rows.collect::<Result<_, _>>()?)
                };
                Ok((
                    pairs("SELECT id, expires_at FROM revoked_tokens")?,
                    pairs("SELECT serial, at FROM revoked_certificates")?,
                ))
            })
            .await?;
        let mut withheld: std::collections::BTreeMap<String, Vec<Withholding>> =
            std::collections::BTreeMap::new();
        for (service, one) in self.withheld().await? {
            withheld.entry(service).or_default().push(one);
        }
        let tokens = tokens.iter().map(|(id, expires_at)| shared::Change {
            expires_at: Some(*expires_at),
            ..Kind::RevokedToken.change(id, Some(expires_at))
        });
        let certificates = certificates
            .iter()
            .map(|(serial, at)| Kind::RevokedCertificate.change(serial, Some(at)));
        let withheld = withheld
            .iter()
            .map(|(service, grants)| Kind::Withheld.change(service, Some(grants)));
        let admissions = self.admissions().await?;
        let admissions = admissions
            .iter()
            .rev()
            .map(|one| Kind::Admission.change(&one.certificate.serial, Some(one)));
        Ok(tokens
            .chain(certificates)
            .chain(withheld)
            .chain(admissions)
            .collect())
    }

    /// The digest a service is pinned to, which becomes `digest` if there is none yet or `replace` says so.
    pub async fn pin(
        &self,
        service: &str,
        digest: &str,
        replace: bool,
        now_s: i64,
    ) -> Result<String, Error> {
        let (service, digest) = (service.to_owned(), digest.to_owned());
        self.write(move |connection| {
                let text = "INSERT INTO pins (service, digest, at) VALUES (?1, ?2, ?3)
                    ON CONFLICT (service) DO UPDATE SET digest = excluded.digest, at = excluded.at WHERE ?4";
                connection.execute(text, params![service, digest, now_s, replace])?;
                Ok(connection.query_row("SELECT digest FROM pins WHERE service = ?1", [&service], |row| row.get(0))?)
            })
            .await
    }
}

/// What another host has written, as far as it is the authority's.
#[derive(Clone, Debug)]
pub enum Heard {
    RevokedToken {
        id: String,
        expires_at: i64,
    },
    RevokedCertificate {
        serial: String,
        at: i64,
    },
    Withheld {
        service: String,
        grants: Vec<Withholding>,
    },
    Admission(Box<Admission>),
}

const COLUMNS: &str = "service, version, digest, grants, serial, subject, not_before, not_after, pem, live, decided, refused, signer";

fn admission(row: &Row<'_>) -> rusqlite::Result<Admission> {
    Ok(Admission {
        service: row.get(0)?,
        version: row.get(1)?,
        digest: row.get(2)?,
        grants: row.get(3)?,
        certificate: Certificate {
            serial: row.get(4)?,
            subject: row.get(5)?,
            not_before: row.get(6)?,
            not_after: row.get(7)?,
            pem: row.get(8)?,
        },
        live: row.get(9)?,
        decided: match row.get_ref(10)?.as_str()? {
            "configuration" => Decided::Configuration,
            _ => Decided::Caller,
        },
        refused: serde_json::from_str(row.get_ref(11)?.as_str()?).unwrap_or_default(),
        signer: row.get(12)?,
    })
}

fn insert(connection: &Connection, admission: &Admission, now_s: i64) -> Result<(), sqlite::Error> {
    if admission.live {
        connection.execute(
            "UPDATE admissions SET live = 0 WHERE service = ?1 AND live = 1",
            [&admission.service],
        )?;
    }
    let certificate = &admission.certificate;
    let refused = serde_json::Value::from(admission.refused.clone()).to_string();
    // Later than those of the same service, if by a second that has not passed: the newest one counts.
    connection.execute(
        &format!("INSERT INTO admissions ({COLUMNS}, admitted_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13,
            max(?14, coalesce((SELECT max(admitted_at) + 1 FROM admissions WHERE service = ?1), 0)))
            ON CONFLICT (serial) DO UPDATE SET live = 1 WHERE excluded.live = 1"),
        params![
            admission.service, admission.version, admission.digest, admission.grants, certificate.serial,
            certificate.subject, certificate.not_before, certificate.not_after, certificate.pem, admission.live,
            admission.decided.as_str(), refused, admission.signer, now_s
        ],
    )?;
    // A revoked one stays: it bars its bytes from being admitted again. So does each service's newest.
    let surplus = "DELETE FROM admissions WHERE serial IN (
        SELECT serial FROM admissions AS old WHERE live = 0 AND serial NOT IN (SELECT serial FROM revoked_certificates)
            AND EXISTS (SELECT 1 FROM admissions AS newer
                WHERE newer.service = old.service AND newer.admitted_at > old.admitted_at)
        ORDER BY admitted_at DESC LIMIT -1 OFFSET ?1)";
    connection.execute(surplus, [ADMISSIONS_MAX])?;
    Ok(())
}

fn recall(connection: &Connection, now_s: i64) -> Result<Remembered, sqlite::Error> {
    connection.execute("DELETE FROM revoked_tokens WHERE expires_at <= ?1", [now_s])?;
    connection.execute("DELETE FROM token_uses WHERE expires_at <= ?1", [now_s])?;
    let mut standings = pairs(
        connection,
        "SELECT id, expires_at FROM revoked_tokens",
        Standing::Revoked,
    )?;
    let exhausted = "SELECT id, expires_at FROM token_uses WHERE uses >= uses_max";
    standings.extend(pairs(connection, exhausted, Standing::Exhausted)?);
    let mut serials = connection.prepare("SELECT serial FROM revoked_certificates")?;
    let revoked_certificates = serials
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut withheld = connection.prepare("SELECT service, grant FROM withheld_grants")?;
    let withheld = withheld
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    Ok(Remembered {
        standings,
        revoked_certificates,
        withheld,
    })
}

fn pairs(
    connection: &Connection,
    text: &str,
    standing: Standing,
) -> Result<Vec<(String, Standing, i64)>, sqlite::Error> {
    let mut statement = connection.prepare(text)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, standing, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
