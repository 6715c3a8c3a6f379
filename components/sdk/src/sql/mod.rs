//! The service's own database.
//!
//! ```no_run
//! # use exprsn_sdk::prelude::*;
//! # async fn example(author: String) -> Result<()> {
//! #[derive(Deserialize)]
//! struct Note { id: String, text: String }
//! let notes: Vec<Note> = sql::query_as("SELECT id, text FROM notes WHERE author_id = $1", params![author]).await?;
//! # Ok(()) }
//! ```

mod cell;
mod error;
mod row;
mod transaction;
mod value;

use futures_core::Stream;
use futures_util::{StreamExt, stream};
use serde::de::DeserializeOwned;

use crate::bindings::exprsn::sql::database as host;
use crate::bindings::exprsn::sql::types;

pub use cell::json;
pub use error::{ConstraintKind, Error};
pub use row::Rows;
pub use transaction::{INBOX_TABLE, Tx, begin};
pub use types::{Statement, Value};
pub use value::ToValue;

/// The result of a database call.
pub type Result<T> = std::result::Result<T, Error>;

/// Values for `$1`, `$2`, … in their order: `params![id, count, Some("x")]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        ::std::vec![$($crate::sql::ToValue::to_value(&$value)),*]
    };
}

/// A statement with its values, for [`batch`].
pub fn stmt(text: impl Into<String>, parameters: Vec<Value>) -> Statement {
    Statement {
        text: text.into(),
        parameters,
    }
}

/// Runs a statement that returns rows.
pub async fn query(text: &str, parameters: Vec<Value>) -> Result<Rows> {
    Ok(Rows::from(host::query(text.to_owned(), parameters).await?))
}

/// Runs a statement and makes a `T` of every row: a struct by column names, a tuple by position, or a single value.
///
/// Columns match fields without regard to case and underscores: `author_id` fills `authorId`.
pub async fn query_as<T: DeserializeOwned>(text: &str, parameters: Vec<Value>) -> Result<Vec<T>> {
    query(text, parameters).await?.into_typed()
}

/// As [`query_as`], of the first row.
pub async fn query_one_as<T: DeserializeOwned>(
    text: &str,
    parameters: Vec<Value>,
) -> Result<Option<T>> {
    query(text, parameters).await?.into_one()
}

/// The first column of the first row. No row counts as NULL, so `T` is an `Option` where there may be none.
pub async fn scalar<T: DeserializeOwned>(text: &str, parameters: Vec<Value>) -> Result<T> {
    query(text, parameters).await?.into_scalar()
}

/// Runs a statement and says how many rows it changed. It is durable when this returns.
pub async fn execute(text: &str, parameters: Vec<Value>) -> Result<u64> {
    Ok(host::execute(text.to_owned(), parameters).await?)
}

/// Runs statements one after the other in one transaction, in one host call: the cheapest transaction.
pub async fn batch(statements: Vec<Statement>) -> Result<Vec<Rows>> {
    Ok(host::batch(statements)
        .await?
        .into_iter()
        .map(Rows::from)
        .collect())
}

/// Runs a statement and streams a `T` of each row, however many; an error ends the stream.
pub async fn stream_as<T: DeserializeOwned + 'static>(
    text: &str,
    parameters: Vec<Value>,
) -> Result<impl Stream<Item = Result<T>> + Unpin + 'static> {
    /// Rows read from the host at a time.
    const ROWS: usize = 64;
    let (columns, rows, end) = host::query_stream(text.to_owned(), parameters).await?;
    let columns = row::Columns::new(columns);
    let chunks = stream::unfold(Some((rows, end, columns)), |state| async move {
        let (mut rows, end, columns) = state?;
        let (status, chunk) = rows.read(Vec::with_capacity(ROWS)).await;
        if matches!(status, wit_bindgen::StreamResult::Complete(_)) {
            let typed: Vec<Result<T>> = chunk.into_iter().map(|row| columns.typed(row)).collect();
            return Some((typed, Some((rows, end, columns))));
        }
        end.await
            .err()
            .map(|error| (vec![Err(Error::from(error))], None))
    });
    Ok(Box::pin(chunks.flat_map(stream::iter)))
}
