//! The authority's tables in `<data>/host.db`.

use crate::sqlite::Error;
use rusqlite::Connection;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS revoked_tokens (
    id TEXT PRIMARY KEY CHECK (length(id) > 0),
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS revoked_tokens_expiry ON revoked_tokens (expires_at);

CREATE TABLE IF NOT EXISTS token_uses (
    id TEXT PRIMARY KEY CHECK (length(id) > 0),
    uses INTEGER NOT NULL CHECK (uses BETWEEN 1 AND uses_max),
    uses_max INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS token_uses_expiry ON token_uses (expires_at);

CREATE TABLE IF NOT EXISTS admissions (
    serial TEXT PRIMARY KEY,
    service TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL CHECK (length(digest) = 64),
    grants TEXT NOT NULL,
    subject TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL CHECK (not_after > not_before),
    pem TEXT NOT NULL,
    live INTEGER NOT NULL CHECK (live IN (0, 1)),
    admitted_at INTEGER NOT NULL,
    decided TEXT NOT NULL DEFAULT 'configuration',
    refused TEXT NOT NULL DEFAULT '[]',
    signer TEXT
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS admissions_live ON admissions (service) WHERE live = 1;
CREATE INDEX IF NOT EXISTS admissions_age ON admissions (admitted_at);

CREATE TABLE IF NOT EXISTS revoked_certificates (
    serial TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS revocation_list (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    number INTEGER NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS pins (
    service TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS withheld_grants (
    service TEXT NOT NULL,
    grant TEXT NOT NULL,
    at INTEGER NOT NULL,
    by TEXT NOT NULL,
    reason TEXT,
    PRIMARY KEY (service, grant)
) STRICT, WITHOUT ROWID;
";

/// Columns that `admissions` lacks in a file of an earlier version.
const ADDED: [(&str, &str); 3] = [
    ("decided", "TEXT NOT NULL DEFAULT 'configuration'"),
    ("refused", "TEXT NOT NULL DEFAULT '[]'"),
    ("signer", "TEXT"),
];

/// Makes what is not there, and brings a file of an earlier version up to date.
pub(super) fn apply(connection: &Connection) -> Result<(), Error> {
    connection.execute_batch(SCHEMA)?;
    for (name, definition) in ADDED {
        let text = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('admissions') WHERE name = ?1)";
        if !connection.query_row(text, [name], |row| row.get::<_, bool>(0))? {
            let text = format!("ALTER TABLE admissions ADD COLUMN {name} {definition}");
            connection.execute_batch(&text)?;
        }
    }
    Ok(())
}
