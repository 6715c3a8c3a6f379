//! Transactions, with the outbox: jobs and events that exist if and only if the transaction commits.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Result, Rows, Value, host, types};
use crate::events::NewEvent;
use crate::queue::{Backoff, JobOptions};
use crate::time::now_ms;

/// The table that [`Tx::once`] needs; part of the service's migrations.
pub const INBOX_TABLE: &str = "CREATE TABLE inbox (id TEXT PRIMARY KEY, at BIGINT NOT NULL)";

/// A transaction; dropped without [`commit`](Tx::commit), it is rolled back.
pub struct Tx(host::Transaction);

/// Begins a transaction.
pub async fn begin() -> Result<Tx> {
    Ok(Tx(host::Transaction::begin().await?))
}

impl Tx {
    /// Runs a statement that returns rows.
    pub async fn query(&self, text: &str, parameters: Vec<Value>) -> Result<Rows> {
        Ok(Rows::from(self.0.query(text.to_owned(), parameters).await?))
    }

    /// As [`sql::query_as`](super::query_as).
    pub async fn query_as<T: DeserializeOwned>(
        &self,
        text: &str,
        parameters: Vec<Value>,
    ) -> Result<Vec<T>> {
        self.query(text, parameters).await?.into_typed()
    }

    /// As [`sql::query_one_as`](super::query_one_as).
    pub async fn query_one_as<T: DeserializeOwned>(
        &self,
        text: &str,
        parameters: Vec<Value>,
    ) -> Result<Option<T>> {
        self.query(text, parameters).await?.into_one()
    }

    /// As [`sql::scalar`](super::scalar).
    pub async fn scalar<T: DeserializeOwned>(
        &self,
        text: &str,
        parameters: Vec<Value>,
    ) -> Result<T> {
        self.query(text, parameters).await?.into_scalar()
    }

    /// Runs a statement and says how many rows it changed.
    pub async fn execute(&self, text: &str, parameters: Vec<Value>) -> Result<u64> {
        Ok(self.0.execute(text.to_owned(), parameters).await?)
    }

    /// Adds a job if and when the transaction commits; answers its id. `timeout_ms` of the options is the queue's.
    pub async fn add_job<T: Serialize + ?Sized>(
        &self,
        queue: &str,
        name: &str,
        data: &T,
        options: JobOptions,
    ) -> Result<String> {
        let job = types::OutboxJob {
            queue: queue.to_owned(),
            name: name.to_owned(),
            data: to_json(data)?,
            id: options.id,
            attempts: options.attempts,
            backoff: options.backoff.map(|backoff| match backoff {
                Backoff::Fixed(ms) => types::OutboxBackoff::Fixed(ms),
                Backoff::Exponential(ms) => types::OutboxBackoff::Exponential(ms),
            }),
            delay_ms: options.delay_ms,
            priority: options.priority,
        };
        Ok(self.0.add_job(job).await?)
    }

    /// Publishes an event if and when the transaction commits; answers its id.
    pub async fn publish(&self, event: NewEvent) -> Result<String> {
        let event = event
            .encode()
            .map_err(|error| super::Error::Invalid(error.to_string()))?;
        let event = types::OutboxEvent {
            id: event.id,
            topic: event.topic,
            subject: event.subject,
            data: event.data,
        };
        Ok(self.0.publish(event).await?)
    }

    /// Remembers a message's id; false when it was remembered before, and there is nothing left to do.
    ///
    /// Needs [`INBOX_TABLE`]. With the effects in the same transaction, a message delivered twice takes effect once.
    pub async fn once(&self, inbox_id: &str) -> Result<bool> {
        let statement = "INSERT INTO inbox (id, at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
        Ok(self
            .execute(statement, crate::params![inbox_id, now_ms()])
            .await?
            == 1)
    }

    /// Makes all of it durable.
    pub async fn commit(self) -> Result<()> {
        Ok(self.0.commit().await?)
    }

    /// Undoes all of it at once; dropping the transaction does so too.
    pub async fn rollback(self) -> Result<()> {
        Ok(self.0.rollback().await?)
    }
}

fn to_json<T: Serialize + ?Sized>(data: &T) -> Result<String> {
    serde_json::to_string(data).map_err(|error| super::Error::Invalid(error.to_string()))
}
