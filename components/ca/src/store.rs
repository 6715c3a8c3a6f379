//! The tables of tokens and certificates.

use crate::issue::TokenRecord;
use exprsn_sdk::{ca::authority::Certificate, prelude::*, sql::Tx};

/// How long a token that has expired stays listed, in seconds.
const TOKENS_KEPT_S: i64 = 30 * 86_400;

#[derive(Deserialize)]
struct TokenRow {
    id: String,
    subject: String,
    audience: String,
    resources: String,
    permissions: String,
    issued_at: i64,
    expires_at: i64,
    max_uses: Option<i64>,
    parent: Option<String>,
    issued_by: String,
    revoked_at: Option<i64>,
    revoked_by: Option<String>,
}

const TOKEN_COLUMNS: &str = "id, subject, audience, resources, permissions, issued_at, expires_at, max_uses, parent, \
                             issued_by, revoked_at, revoked_by";

impl From<TokenRow> for TokenRecord {
    fn from(row: TokenRow) -> Self {
        let texts = |json: &str| serde_json::from_str(json).unwrap_or_default();
        Self {
            audience: texts(&row.audience),
            resource: texts(&row.resources),
            permissions: texts(&row.permissions),
            id: row.id,
            subject: row.subject,
            issued_at: row.issued_at,
            expires_at: row.expires_at,
            max_uses: row.max_uses,
            parent: row.parent,
            issued_by: row.issued_by,
            revoked_at: row.revoked_at,
            revoked_by: row.revoked_by,
        }
    }
}

/// Writes a token's record.
pub async fn insert_token(tx: &Tx, record: &TokenRecord) -> Result<()> {
    let text = format!(
        "INSERT INTO tokens ({TOKEN_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULL, NULL)"
    );
    let values = params![
        record.id,
        record.subject,
        json!(record.audience).to_string(),
        json!(record.resource).to_string(),
        json!(record.permissions).to_string(),
        record.issued_at,
        record.expires_at,
        record.max_uses,
        record.parent,
        record.issued_by
    ];
    tx.execute(&text, values).await?;
    Ok(())
}

/// Records of tokens, newest first, from before an id on: ids are UUIDs of version 7, whose order is that of time.
pub async fn tokens(before: Option<&str>, limit: i64) -> Result<Vec<TokenRecord>> {
    // After every hexadecimal digit.
    let before = before.unwrap_or("g");
    let text =
        format!("SELECT {TOKEN_COLUMNS} FROM tokens WHERE id < $1 ORDER BY id DESC LIMIT $2");
    let rows: Vec<TokenRow> = sql::query_as(&text, params![before, limit]).await?;
    Ok(rows.into_iter().map(TokenRecord::from).collect())
}

/// One token's record.
pub async fn token(id: &str) -> Result<Option<TokenRecord>> {
    let text = format!("SELECT {TOKEN_COLUMNS} FROM tokens WHERE id = $1");
    Ok(sql::query_one_as::<TokenRow>(&text, params![id])
        .await?
        .map(TokenRecord::from))
}

/// A token that has just been revoked.
#[derive(Deserialize)]
pub struct Revoked {
    pub id: String,
    pub expires_at: i64,
}

/// Marks a token and all that were narrowed from it as revoked; returns those that were not before.
pub async fn revoke_tokens(tx: &Tx, id: &str, by: &str, now_s: i64) -> Result<Vec<Revoked>> {
    let text = "WITH RECURSIVE family (id) AS (
            SELECT id FROM tokens WHERE id = $1 OR parent = $1
            UNION SELECT tokens.id FROM tokens JOIN family ON tokens.parent = family.id
        )
        UPDATE tokens SET revoked_at = $2, revoked_by = $3
        WHERE id IN (SELECT id FROM family) AND revoked_at IS NULL RETURNING id, expires_at";
    Ok(tx.query_as(text, params![id, now_s, by]).await?)
}

/// Forgets tokens that expired long ago.
pub async fn forget_tokens(now_s: i64) -> Result<()> {
    sql::execute(
        "DELETE FROM tokens WHERE expires_at < $1",
        params![now_s - TOKENS_KEPT_S],
    )
    .await?;
    Ok(())
}

/// A certificate's record.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRecord {
    /// Lower-case hex.
    pub serial: String,
    /// `root`, `intermediate` or `component`.
    pub kind: String,
    pub subject: String,
    pub service: Option<String>,
    pub version: Option<String>,
    /// SHA-256 of the component, lower-case hex.
    pub digest: Option<String>,
    /// Seconds since the Unix epoch.
    pub not_before: i64,
    pub not_after: i64,
    pub pem: String,
    pub recorded_at: i64,
    pub revoked_at: Option<i64>,
    pub revoked_by: Option<String>,
    pub reason: Option<String>,
}

const CERTIFICATE_COLUMNS: &str = "serial, kind, subject, service, version, digest, not_before, not_after, pem, recorded_at, \
                                   revoked_at, revoked_by, reason";

/// A certificate that is not recorded yet.
pub struct NewCertificate<'a> {
    pub kind: &'a str,
    pub certificate: &'a Certificate,
    /// Service, version and digest of a component.
    pub component: Option<(&'a str, &'a str, &'a str)>,
}

/// Records a certificate; false if it is recorded already.
pub async fn record_certificate(tx: &Tx, new: &NewCertificate<'_>, now_s: i64) -> Result<bool> {
    let text = "INSERT INTO certificates (serial, kind, subject, service, version, digest, not_before, not_after, pem, recorded_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (serial) DO NOTHING";
    let certificate = new.certificate;
    let values = params![
        certificate.serial,
        new.kind,
        certificate.subject,
        new.component.map(|(service, _, _)| service),
        new.component.map(|(_, version, _)| version),
        new.component.map(|(_, _, digest)| digest),
        certificate.not_before,
        certificate.not_after,
        certificate.pem,
        now_s
    ];
    Ok(tx.execute(text, values).await? == 1)
}

/// Serial numbers of all recorded certificates.
pub async fn serials() -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Row {
        serial: String,
    }
    let rows: Vec<Row> = sql::query_as("SELECT serial FROM certificates", params![]).await?;
    Ok(rows.into_iter().map(|row| row.serial).collect())
}

/// Records of certificates, newest first, from before a place in that order on.
pub async fn certificates(
    before: Option<(i64, String)>,
    limit: i64,
) -> Result<Vec<CertificateRecord>> {
    let (at, serial) = before.unwrap_or((i64::MAX, String::new()));
    let text = format!(
        "SELECT {CERTIFICATE_COLUMNS} FROM certificates WHERE (recorded_at, serial) < ($1, $2)
         ORDER BY recorded_at DESC, serial DESC LIMIT $3"
    );
    Ok(sql::query_as(&text, params![at, serial, limit]).await?)
}

/// One certificate's record.
pub async fn certificate(tx: &Tx, serial: &str) -> Result<Option<CertificateRecord>> {
    let text = format!("SELECT {CERTIFICATE_COLUMNS} FROM certificates WHERE serial = $1");
    Ok(tx.query_one_as(&text, params![serial]).await?)
}

/// Marks a certificate as revoked; false if it was before.
pub async fn revoke_certificate(
    tx: &Tx,
    serial: &str,
    by: &str,
    reason: Option<&str>,
    now_s: i64,
) -> Result<bool> {
    let text = "UPDATE certificates SET revoked_at = $2, revoked_by = $3, reason = $4 WHERE serial = $1 AND revoked_at IS NULL";
    Ok(tx.execute(text, params![serial, now_s, by, reason]).await? == 1)
}
