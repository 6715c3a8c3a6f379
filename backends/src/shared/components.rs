//! Component files by their digest.
//!
//! Each goes over a connection of its own, so that no heartbeat waits behind megabytes.

use super::{Error, Shared, line::Open, line::Parameters, statements::Say};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::Row;

/// How long a component may take.
pub(super) const COMPONENT_MAX: Duration = Duration::from_secs(30);

impl Shared {
    /// Keeps a component file under its digest, which the caller has reckoned. Another of the same digest is the same.
    pub async fn put_component(&self, digest: &str, bytes: &[u8]) -> Result<(), Error> {
        let max = self.0.limits.component_bytes_max;
        if bytes.len() > max {
            return Err(Error::too_large("bytes: the component", bytes.len(), max));
        }
        let text = "INSERT INTO components (digest, bytes) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING";
        self.ask_apart(text, &[&digest, &bytes]).await.map(drop)
    }

    /// The component file of a digest. Whether it is the digest's, the caller checks.
    pub async fn component(&self, digest: &str) -> Result<Option<Vec<u8>>, Error> {
        let max = self.0.limits.component_bytes_max;
        let bytes_max = i64::try_from(max).unwrap_or(i64::MAX);
        let text =
            "SELECT octet_length(bytes), CASE WHEN octet_length(bytes) <= $2::bigint THEN bytes END
            FROM components WHERE digest = $1";
        let rows = self.ask_apart(text, &[&digest, &bytes_max]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let size = usize::try_from(row.get::<_, i32>(0)).unwrap_or_default();
        let bytes: Option<Vec<u8>> = row.get(1);
        bytes
            .map(Some)
            .ok_or_else(|| Error::too_large("bytes: the component", size, max))
    }

    /// Whether there is a component file of a digest.
    pub async fn has_component(&self, digest: &str) -> Result<bool, Error> {
        let facts = &self.0.facts;
        let found = facts
            .ask_again(facts.deadline(), Say::HasComponent, &[&digest])
            .await?;
        Ok(!found.is_empty())
    }

    async fn ask_apart(&self, text: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        self.0.facts.ensure_open()?;
        let (now, limits) = (Instant::now(), &self.0.limits);
        let connecting = Open::connect(&self.0.apart, &[]);
        let open = timeout_at(now + limits.call_max, connecting)
            .await
            .map_err(|_| Error::late())??;
        let asked = timeout_at(now + COMPONENT_MAX, open.client.query(text, parameters)).await;
        asked
            .map_err(|_| Error::late())?
            .map_err(|error| Error::of(&error))
    }
}
