//! A guest's statements on a connection: what they may do, how long, and what they answer.

use super::{
    fault::{Fault, invalid},
    guard::{self, Entered},
    value,
};
use crate::sql::{
    Call, Limits,
    limits::Budget,
    value::{Row, RowSet, Statement},
};
use rusqlite::{CachedStatement, Connection};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Rows of a stream that are handed over at once.
const STREAM_ROWS: usize = 64;

/// A guest's turn on a connection.
pub(super) struct Run {
    entered: Entered,
    limits: Limits,
    deadline: Instant,
}

impl Run {
    pub fn enter(call: Call, limits: Limits) -> Self {
        let deadline = call
            .deadline
            .min(Instant::now() + limits.transaction_total_max);
        Self {
            entered: guard::enter(call.rights.into(), Some(deadline)),
            limits,
            deadline,
        }
    }

    pub fn budget(&self) -> Budget {
        Budget::of(&self.limits)
    }

    pub fn explain<T>(&self, done: Result<T, Fault>) -> Result<T, Fault> {
        done.map_err(|fault| fault.explained(&self.entered))
    }

    /// The next statement's time begins.
    fn restart_clock(&self) {
        self.entered.set_deadline(Some(
            self.deadline
                .min(Instant::now() + self.limits.statement_max),
        ));
    }

    pub fn batch(
        &self,
        connection: &Connection,
        statements: &[Statement],
        reader: bool,
    ) -> Result<Vec<RowSet>, Fault> {
        let mut budget = self.budget();
        let run = |statement| self.query(connection, statement, &mut budget, reader);
        self.explain(statements.iter().map(run).collect())
    }

    fn prepare<'c>(
        &self,
        connection: &'c Connection,
        statement: &Statement,
    ) -> Result<CachedStatement<'c>, Fault> {
        self.restart_clock();
        let mut prepared = connection.prepare_cached(&statement.text)?;
        value::bind(&mut prepared, &statement.parameters)?;
        Ok(prepared)
    }

    pub fn query(
        &self,
        connection: &Connection,
        statement: &Statement,
        budget: &mut Budget,
        reader: bool,
    ) -> Result<RowSet, Fault> {
        let mut prepared = self.prepare(connection, statement)?;
        if reader && !prepared.readonly() {
            return Err(Fault::Writes);
        }
        let columns: Vec<String> = prepared
            .column_names()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let mut rows = prepared.raw_query();
        let mut collected = Vec::new();
        while let Some(row) = rows.next()? {
            budget.row()?;
            collected.push(value::row(row, columns.len(), budget)?);
        }
        Ok(RowSet {
            columns,
            rows: collected,
        })
    }

    pub fn execute(&self, connection: &Connection, statement: &Statement) -> Result<u64, Fault> {
        let mut prepared = self.prepare(connection, statement)?;
        let before = connection.total_changes();
        let mut rows = prepared.raw_query();
        while rows.next()?.is_some() {}
        // SQLite's count stays that of the last statement that changed rows.
        Ok(if connection.total_changes() == before {
            0
        } else {
            connection.changes()
        })
    }

    pub fn stream(
        &self,
        connection: &Connection,
        statement: &Statement,
        head: oneshot::Sender<Vec<String>>,
        sender: &flume::Sender<Vec<Row>>,
    ) -> Result<(), Fault> {
        let columns = |prepared: &CachedStatement<'_>| {
            prepared
                .column_names()
                .into_iter()
                .map(str::to_owned)
                .collect()
        };
        let mut prepared = self.explain(self.prepare(connection, statement))?;
        if !prepared.readonly() {
            return Err(invalid(
                "query-stream only reads: use query for a statement that writes",
            ));
        }
        if head.send(columns(&prepared)).is_err() {
            return Ok(());
        }
        let width = prepared.column_count();
        let mut rows = prepared.raw_query();
        loop {
            self.restart_clock();
            let (batch, more) = next_rows(&mut rows, width, self.limits.result_bytes_max)?;
            match sender.send_timeout(batch, self.patience()) {
                Ok(()) if more => {}
                // The guest has what it wants.
                Ok(()) | Err(flume::SendTimeoutError::Disconnected(_)) => return Ok(()),
                Err(flume::SendTimeoutError::Timeout(_)) => {
                    return Err(Fault::limit(
                        "the stream was not read for longer than sql_stream_idle_ms_max",
                    ));
                }
            }
        }
    }

    /// How long a stream waits for its reader.
    fn patience(&self) -> Duration {
        self.limits.stream_idle_max
    }
}

/// Some rows, and whether there may be more.
fn next_rows(
    rows: &mut rusqlite::Rows<'_>,
    width: usize,
    bytes_max: usize,
) -> Result<(Vec<Row>, bool), Fault> {
    let mut batch = Vec::with_capacity(STREAM_ROWS);
    let mut budget = Budget {
        rows: STREAM_ROWS,
        bytes: bytes_max,
    };
    let enough = bytes_max - bytes_max / 8;
    while batch.len() < STREAM_ROWS && budget.bytes >= enough {
        match rows.next()? {
            Some(row) => batch.push(value::row(row, width, &mut budget)?),
            None => return Ok((batch, false)),
        }
    }
    Ok((batch, true))
}
