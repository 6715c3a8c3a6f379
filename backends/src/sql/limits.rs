//! How much one service, one call or one transaction may take.

use std::time::Duration;

/// The limits that each backend keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows of one result.
    pub rows_max: usize,
    /// One result, in bytes.
    pub result_bytes_max: usize,
    /// One value or row, in bytes.
    pub value_bytes_max: usize,
    /// One service's database, in bytes.
    pub database_bytes_max: u64,
    /// How long one statement may compute.
    pub statement_max: Duration,
    /// How long a transaction may wait for its next call.
    pub transaction_idle_max: Duration,
    /// How long a transaction may last in all.
    pub transaction_total_max: Duration,
    /// Transactions of one service that are open or waiting.
    pub transactions_max: usize,
    /// Threads for one service's reads.
    pub readers: usize,
    /// Streams of rows that one service reads at once; further ones wait.
    pub streams_max: usize,
    /// How long a stream waits for its reader.
    pub stream_idle_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rows_max: 10_000,
            result_bytes_max: 8 << 20,
            value_bytes_max: 4 << 20,
            database_bytes_max: 64 << 30,
            statement_max: Duration::from_secs(5),
            transaction_idle_max: Duration::from_secs(5),
            transaction_total_max: Duration::from_secs(30),
            transactions_max: 64,
            readers: 2,
            streams_max: 4,
            stream_idle_max: Duration::from_secs(30),
        }
    }
}

/// What a statement may still answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub rows: usize,
    pub bytes: usize,
}

impl Budget {
    /// For the results of one call.
    pub fn of(limits: &Limits) -> Self {
        Self {
            rows: limits.rows_max,
            bytes: limits.result_bytes_max,
        }
    }

    /// Takes one row.
    pub fn row(&mut self) -> super::Result<()> {
        self.rows = self.rows.checked_sub(1).ok_or_else(|| {
            super::Error::limit(
                "the result has more rows than sql_rows_max: add LIMIT, or use query-stream",
            )
        })?;
        Ok(())
    }

    /// Takes some bytes.
    pub fn take(&mut self, bytes: usize) -> super::Result<()> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or_else(|| {
            super::Error::limit(
                "the result is larger than sql_result_bytes_max: select less, or use query-stream",
            )
        })?;
        Ok(())
    }
}
