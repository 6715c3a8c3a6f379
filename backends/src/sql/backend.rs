//! What keeps a service's rows: the traits that SQLite and PostgreSQL stand behind.

use super::{
    Failure, Result,
    migrate::{MigrationFile, Status},
    outbox::{Content, Outbox},
    value::{Row, RowSet, Statement},
};
use crate::trace::TraceContext;
use futures::future::BoxFuture;
use std::{fmt, ops::RangeInclusive, sync::Arc, time::Instant};

/// What a guest's statement may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Reading and changing rows.
    Rows,
    /// Also creating, changing and dropping tables: services granted `ddl`.
    Schema,
}

/// A call of a guest: what it may do and until when.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub rights: Rights,
    /// When its invocation's time is over.
    pub deadline: Instant,
}

/// The rows of a stream, and how they ended.
pub struct RowStream {
    pub columns: Vec<String>,
    pub rows: flume::Receiver<Vec<Row>>,
    /// Resolves after the last row.
    pub end: BoxFuture<'static, Result<()>>,
}

/// The database of one service, as its guests and its host reach it.
///
/// A future that is dropped gives its statement up: it is cancelled, or has no effect once it is done.
pub trait Database: Send + Sync + fmt::Debug {
    /// Runs a statement that returns rows.
    fn query(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<RowSet>>;

    /// Runs a statement and counts the rows that it changed.
    fn execute(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<u64>>;

    /// Runs statements in one transaction; the results are in their order.
    fn batch(&self, call: Call, statements: Vec<Statement>) -> BoxFuture<'_, Result<Vec<RowSet>>>;

    /// Runs a statement whose rows are taken some at a time.
    fn stream(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<RowStream>>;

    /// Begins a transaction. It may wait for others.
    fn begin(&self, call: Call) -> BoxFuture<'_, Result<Box<dyn Transaction>>>;

    /// What is announced in this database's transactions and not yet passed on.
    fn outbox(&self) -> Arc<dyn Outbox>;

    /// Which migrations it has and lacks, of `files`. Changes nothing.
    fn status<'a>(
        &'a self,
        files: &'a [MigrationFile],
        bears: RangeInclusive<u32>,
    ) -> BoxFuture<'a, Result<Status, Failure>>;

    /// Applies what is pending, each migration in a transaction of its own. Answers their names.
    ///
    /// Several hosts may do so at once: each migration is applied by one of them.
    fn migrate<'a>(
        &'a self,
        files: &'a [MigrationFile],
        bears: RangeInclusive<u32>,
    ) -> BoxFuture<'a, Result<Vec<String>, Failure>>;

    /// Whether it can be read now.
    fn ping(&self) -> BoxFuture<'_, Result<()>>;

    /// Makes everything durable and lets go of it: calls fail as unavailable from then on.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// What has been done since it was opened.
    fn statistics(&self) -> Statistics;
}

/// An open transaction. Dropped, it rolls back.
///
/// An error undoes the failing statement only. One that idles or lasts too long, or loses against another, ends as a whole.
pub trait Transaction: Send + Sync + fmt::Debug {
    /// Runs a statement that returns rows.
    fn query(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<RowSet>>;

    /// Runs a statement and counts the rows that it changed.
    fn execute(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<u64>>;

    /// Announces a job or an event, if and when this commits. An id that waits already is not added again.
    fn announce(
        &self,
        content: Content,
        trace: TraceContext,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<()>>;

    /// Makes all of it durable. After an error nothing of it has happened.
    fn commit(&self) -> BoxFuture<'_, Result<()>>;

    /// Undoes all of it.
    fn roll_back(&self) -> BoxFuture<'_, Result<()>>;
}

/// Work done since a database was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Transactions made durable.
    pub commits: u64,
    /// Writes that are durable; on SQLite several share a commit.
    pub writes: u64,
    /// The connections, where the engine has a pool of them.
    pub pool: Option<PoolStatistics>,
}

/// How a pool of connections stands, as Sequelize tells it: size, available, using, waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStatistics {
    /// Connections that may be open.
    pub max: u64,
    /// Connections that are open.
    pub size: u64,
    /// Open ones that nobody uses.
    pub available: u64,
    /// Calls that wait for one.
    pub waiting: u64,
    /// Connections opened since the start.
    pub opened: u64,
    /// Calls that waited for one in vain.
    pub timeouts: u64,
    /// Statements that were cancelled on the server.
    pub cancelled: u64,
}
