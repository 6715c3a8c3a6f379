//! A guest's statements on a connection: how long, and what they answer.

use super::{
    decode, encode, fault,
    pool::{Connection, Lease},
};
use crate::{
    name::ServiceName,
    sql::{
        Call, Error, Limits, Result,
        limits::Budget,
        value::{Row, RowSet, Statement},
    },
};
use futures::{TryStreamExt as _, future::join};
use std::{pin::pin, time::Instant};
use tokio::time::timeout_at;
use tokio_postgres::{Error as Fault, RowStream, Statement as Prepared};

/// Rows that are read past a limit, so that the connection can be used again.
const ROWS_DRAINED_MAX: usize = 100_000;

/// Why a statement ended before its end.
pub enum Stop {
    /// The server refused it.
    Server(Fault),
    /// It was refused here, before it was sent.
    Refused(Error),
    /// It is done, and must be undone.
    Undo(Error),
    /// It is under way, and must be cancelled.
    Cancel(Error),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Server(fault)
    }
}

/// How a statement that failed leaves its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// As it was.
    Same,
    /// The statement is to be undone.
    Undo,
    /// It is lost as a whole.
    Lost,
}

/// What one call of a guest is bounded by.
pub struct Run<'a> {
    pub service: &'a ServiceName,
    pub limits: &'a Limits,
    pub deadline: Instant,
}

impl<'a> Run<'a> {
    pub fn new(service: &'a ServiceName, limits: &'a Limits, call: Call) -> Self {
        let total = Instant::now() + limits.transaction_total_max;
        Self {
            service,
            limits,
            deadline: call.deadline.min(total),
        }
    }

    /// When a statement that begins now has taken too long.
    fn statement_deadline(&self) -> tokio::time::Instant {
        self.deadline
            .min(Instant::now() + self.limits.statement_max)
            .into()
    }

    /// Until when the host waits for a statement with these words before it. Those that begin a transaction may have to
    /// wait for their turn; the statement after them is ended by the server.
    fn patience(&self, prelude: &str) -> tokio::time::Instant {
        if prelude.starts_with("BEGIN") {
            self.deadline.into()
        } else {
            self.statement_deadline()
        }
    }

    /// Runs a statement that returns rows, after the words of `prelude` in the same message.
    pub async fn query(
        &self,
        lease: &mut Lease,
        prelude: &str,
        statement: &Statement,
        budget: &mut Budget,
    ) -> Result<RowSet, (Error, After)> {
        lease.unfinished = true;
        let answering = self.answer(lease.connection(), prelude, statement, budget);
        let done = timeout_at(self.patience(prelude), answering).await;
        self.settle(
            lease,
            &statement.text,
            done.unwrap_or(Err(Stop::Cancel(Error::timeout()))),
        )
    }

    /// Runs a statement and counts the rows that it changed.
    pub async fn execute(
        &self,
        lease: &mut Lease,
        prelude: &str,
        statement: &Statement,
    ) -> Result<u64, (Error, After)> {
        lease.unfinished = true;
        let counting = self.count(lease.connection(), prelude, statement);
        let done = timeout_at(self.patience(prelude), counting).await;
        self.settle(
            lease,
            &statement.text,
            done.unwrap_or(Err(Stop::Cancel(Error::timeout()))),
        )
    }

    /// Says the host's own words.
    pub async fn say(&self, lease: &mut Lease, words: &str) -> Result<(), (Error, After)> {
        lease.unfinished = true;
        let said = timeout_at(
            self.patience(words),
            lease.connection().client.batch_execute(words),
        )
        .await;
        let said = said.map_or(Err(Stop::Cancel(Error::timeout())), |said| {
            said.map_err(Stop::Server)
        });
        self.settle(lease, "", said)
    }

    /// What became of a statement, and of the connection under it.
    pub fn settle<T>(
        &self,
        lease: &mut Lease,
        text: &str,
        done: Result<T, Stop>,
    ) -> Result<T, (Error, After)> {
        lease.unfinished = matches!(done, Err(Stop::Cancel(_)));
        done.map_err(|stop| match stop {
            Stop::Refused(error) => (error, After::Same),
            Stop::Undo(error) => (error, After::Undo),
            Stop::Cancel(error) => (error, After::Lost),
            Stop::Server(fault) => {
                lease.connection().forget(text);
                let error = fault::of_statement(self.service, &fault);
                let lost = fault::ends_transaction(&error);
                (error, if lost { After::Lost } else { After::Undo })
            }
        })
    }

    async fn answer(
        &self,
        connection: &mut Connection,
        prelude: &str,
        statement: &Statement,
        budget: &mut Budget,
    ) -> Result<RowSet, Stop> {
        let (prepared, rows) = self.send(connection, prelude, statement).await?;
        let mut rows = pin!(rows);
        let mut collected = Vec::new();
        while let Some(answered) = rows.try_next().await? {
            match budget.row().and_then(|()| decode::row(&answered, budget)) {
                Ok(row) => collected.push(row),
                Err(error) => return Err(drain(rows, error).await),
            }
        }
        Ok(RowSet {
            columns: columns(&prepared),
            rows: collected,
        })
    }

    /// Sends a statement, prepared before if it is new to the connection.
    pub async fn send(
        &self,
        connection: &mut Connection,
        prelude: &str,
        statement: &Statement,
    ) -> Result<(Prepared, RowStream), Stop> {
        let (prepared, prelude) = ready(connection, prelude, &statement.text).await?;
        let values = encode::encode(
            &prepared,
            &statement.parameters,
            self.limits.value_bytes_max,
        );
        let values = values.map_err(Stop::Refused)?;
        let client = &connection.client;
        let rows = if prelude.is_empty() {
            client.query_raw(&prepared, values).await?
        } else {
            let (before, rows) = join(
                client.batch_execute(prelude),
                client.query_raw(&prepared, values),
            )
            .await;
            before?;
            rows?
        };
        Ok((prepared, rows))
    }

    async fn count(
        &self,
        connection: &mut Connection,
        prelude: &str,
        statement: &Statement,
    ) -> Result<u64, Stop> {
        let (prepared, prelude) = ready(connection, prelude, &statement.text).await?;
        let values = encode::encode(
            &prepared,
            &statement.parameters,
            self.limits.value_bytes_max,
        );
        let values = values.map_err(Stop::Refused)?;
        let client = &connection.client;
        if prelude.is_empty() {
            return Ok(client.execute_raw(&prepared, values).await?);
        }
        let (before, count) = join(
            client.batch_execute(prelude),
            client.execute_raw(&prepared, values),
        )
        .await;
        before?;
        Ok(count?)
    }
}

/// The prepared statement, and the words that are still to be said before it: preparing needs the transaction, too.
async fn ready<'a>(
    connection: &mut Connection,
    prelude: &'a str,
    text: &str,
) -> Result<(Prepared, &'a str), Fault> {
    if let Some(prepared) = connection.prepared(text) {
        return Ok((prepared, prelude));
    }
    if !prelude.is_empty() {
        connection.client.batch_execute(prelude).await?;
    }
    Ok((connection.prepare(text).await?, ""))
}

/// The names of a statement's columns.
pub fn columns(prepared: &Prepared) -> Vec<String> {
    prepared
        .columns()
        .iter()
        .map(|column| column.name().to_owned())
        .collect()
}

/// Reads the rest of an answer that is refused.
async fn drain(mut rows: std::pin::Pin<&mut RowStream>, refused: Error) -> Stop {
    for _ in 0..ROWS_DRAINED_MAX {
        match rows.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => return Stop::Undo(refused),
            Err(fault) => return Stop::Server(fault),
        }
    }
    Stop::Cancel(refused)
}

/// Some rows of a stream, and whether there may be more.
pub async fn next_rows(
    mut rows: std::pin::Pin<&mut RowStream>,
    rows_max: usize,
    bytes_max: usize,
) -> Result<(Vec<Row>, bool), Stop> {
    let mut batch = Vec::with_capacity(rows_max);
    let mut budget = Budget {
        rows: rows_max,
        bytes: bytes_max,
    };
    let enough = bytes_max - bytes_max / 8;
    while batch.len() < rows_max && budget.bytes >= enough {
        match rows.try_next().await? {
            Some(row) => batch.push(decode::row(&row, &mut budget).map_err(Stop::Cancel)?),
            None => return Ok((batch, false)),
        }
    }
    Ok((batch, true))
}
