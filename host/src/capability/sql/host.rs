//! `exprsn:sql/database` as guests call it. Every wait is a host task of its own: sibling tasks of the guest go on.

use super::{
    Lent,
    database::{Host, HostTransaction, HostTransactionWithStore, HostWithStore},
    outbox::Content,
    types::{self, Error, OutboxEvent, OutboxJob, Row, RowSet, Statement, Value},
    value::{row, row_set, statement},
};
use crate::{
    clock,
    invocation::Invocation,
    store::{Handed, Handover, ServiceContext, StoreState},
    telemetry::spans::sending,
};
use exprsn_backends::sql::{Call, Database, RowStream, Transaction, value};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use wasmtime::{
    Result, StoreContextMut,
    component::{
        Accessor, Destination, FutureReader, HasSelf, Resource, StreamProducer, StreamReader,
        StreamResult, VecBuffer,
    },
};

/// The host's half of a `transaction` resource.
pub struct OpenTransaction(Arc<dyn Transaction>);

type Own = HasSelf<StoreState>;
pub(super) type Answer<T> = Result<Result<T, Error>>;
type Streamed = (
    Vec<String>,
    StreamReader<Row>,
    FutureReader<Result<(), Error>>,
);

/// The state and the present invocation of the store that calls. Its functions are the interface's and its twin's.
pub(super) struct Caller {
    context: Arc<ServiceContext>,
    invocation: Arc<Invocation>,
    handover: Handover,
}

impl Caller {
    fn of<U: 'static>(accessor: &Accessor<U, Own>) -> Self {
        accessor.with(|mut store| Self::in_store(store.get()))
    }

    pub(super) fn in_store(state: &StoreState) -> Self {
        Self {
            context: state.service.clone(),
            invocation: state.invocation.clone(),
            handover: state.handover.clone(),
        }
    }

    /// What the grant lends, while it is in force.
    fn lent(&self) -> Result<&Lent, Error> {
        self.context.check("sql", "").map_err(Error::AccessDenied)?;
        let lent = self.context.lent.sql.as_ref();
        Ok(lent.expect("a grant in force is lent"))
    }

    /// The database, and how one call of it is bounded.
    fn database(&self) -> Result<(&dyn Database, Call), Error> {
        let lent = self.lent()?;
        let call = Call {
            rights: lent.rights,
            deadline: self.invocation.deadline,
        };
        Ok((&*lent.database, call))
    }

    /// Counts what the call holds while it waits.
    fn hold(&self, bytes: usize) -> Result<Handed, Error> {
        self.handover.take(bytes).map_err(Error::LimitExceeded)
    }

    pub(super) async fn query(
        &self,
        text: String,
        parameters: Vec<Value>,
    ) -> Result<RowSet, Error> {
        let (database, call) = self.database()?;
        let _handed = self.hold(bytes_of(&text, &parameters))?;
        let rows = database.query(call, statement(text, parameters)).await;
        Ok(row_set(rows?))
    }

    pub(super) async fn execute(&self, text: String, parameters: Vec<Value>) -> Result<u64, Error> {
        let (database, call) = self.database()?;
        let _handed = self.hold(bytes_of(&text, &parameters))?;
        Ok(database.execute(call, statement(text, parameters)).await?)
    }

    pub(super) async fn batch(&self, statements: Vec<Statement>) -> Result<Vec<RowSet>, Error> {
        let (database, call) = self.database()?;
        let sizes = statements.iter();
        let sizes = sizes.map(|statement| bytes_of(&statement.text, &statement.parameters));
        let _handed = self.hold(sizes.sum())?;
        let statements = statements.into_iter();
        let statements = statements.map(|one| statement(one.text, one.parameters));
        let sets = database.batch(call, statements.collect()).await?;
        Ok(sets.into_iter().map(row_set).collect())
    }

    async fn stream(&self, text: String, parameters: Vec<Value>) -> Result<RowStream, Error> {
        let (database, call) = self.database()?;
        let _handed = self.hold(bytes_of(&text, &parameters))?;
        Ok(database.stream(call, statement(text, parameters)).await?)
    }

    pub(super) async fn begin(&self) -> Result<Box<dyn Transaction>, Error> {
        let (database, call) = self.database()?;
        Ok(database.begin(call).await?)
    }
}

/// A transaction with the state of the store that calls it. Its functions are the resource's and its twin's.
pub(super) struct Within {
    transaction: Arc<dyn Transaction>,
    caller: Caller,
}

impl Within {
    pub(super) fn in_store(
        state: &StoreState,
        transaction: &Resource<OpenTransaction>,
    ) -> Result<Self> {
        Ok(Self {
            transaction: state.table.get(transaction)?.0.clone(),
            caller: Caller::in_store(state),
        })
    }

    pub(super) async fn query(
        &self,
        text: String,
        parameters: Vec<Value>,
    ) -> Result<RowSet, Error> {
        let (_, call) = self.caller.database()?;
        let _handed = self.caller.hold(bytes_of(&text, &parameters))?;
        let rows = self
            .transaction
            .query(call, statement(text, parameters))
            .await;
        Ok(row_set(rows?))
    }

    pub(super) async fn execute(&self, text: String, parameters: Vec<Value>) -> Result<u64, Error> {
        let (_, call) = self.caller.database()?;
        let _handed = self.caller.hold(bytes_of(&text, &parameters))?;
        Ok(self
            .transaction
            .execute(call, statement(text, parameters))
            .await?)
    }

    pub(super) async fn add_job(&self, job: OutboxJob) -> Result<String, Error> {
        let context = &self.caller.context;
        context
            .check("queue", &job.queue)
            .map_err(Error::AccessDenied)?;
        let announcer = &self.caller.lent()?.announcer;
        announcer.check_room(&job.queue).await?;
        let bytes = job.data.len();
        self.announce(announcer.job(job)?, bytes).await
    }

    pub(super) async fn publish(&self, event: OutboxEvent) -> Result<String, Error> {
        let context = &self.caller.context;
        context
            .check("events", &event.topic)
            .map_err(Error::AccessDenied)?;
        let bytes = event.data.len();
        self.announce(self.caller.lent()?.announcer.event(event)?, bytes)
            .await
    }

    /// Adds to the outbox and answers the id.
    async fn announce(&self, content: Content, data_bytes: usize) -> Result<String, Error> {
        let _handed = self.caller.hold(data_bytes)?;
        let allowance = &self.caller.context.allowance;
        allowance
            .admit_messages(std::iter::once(data_bytes))
            .map_err(Error::LimitExceeded)?;
        let (id, trace) = (content.id().to_owned(), self.caller.invocation.trace.child());
        let sending = sending(&self.caller.context, trace, content.destination(), Some(&id));
        self.transaction
            .announce(content, trace, clock::now_ms())
            .await?;
        sending.end();
        Ok(id)
    }

    pub(super) async fn commit(&self) -> Result<(), Error> {
        self.caller.lent()?;
        Ok(self.transaction.commit().await?)
    }

    pub(super) async fn rollback(&self) -> Result<(), Error> {
        Ok(self.transaction.roll_back().await?)
    }
}

/// Bytes that a statement keeps while it waits for its turn.
fn bytes_of(text: &str, parameters: &[Value]) -> usize {
    let held = |value: &Value| match value {
        Value::Text(text) | Value::Json(text) | Value::Uuid(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        Value::Null
        | Value::Boolean(_)
        | Value::Integer(_)
        | Value::Real(_)
        | Value::Timestamp(_) => 0,
    };
    let own = std::mem::size_of_val(parameters);
    text.len() + own + parameters.iter().map(held).sum::<usize>()
}

fn open<U: 'static>(
    accessor: &Accessor<U, Own>,
    transaction: &Resource<OpenTransaction>,
) -> Result<Within> {
    accessor.with(|mut store| Within::in_store(store.get(), transaction))
}

impl types::Host for StoreState {}
impl Host for StoreState {}

impl<U: Send + 'static> HostWithStore<U> for Own {
    async fn query(
        accessor: &Accessor<U, Self>,
        text: String,
        parameters: Vec<Value>,
    ) -> Answer<RowSet> {
        Ok(Caller::of(accessor).query(text, parameters).await)
    }

    async fn execute(
        accessor: &Accessor<U, Self>,
        text: String,
        parameters: Vec<Value>,
    ) -> Answer<u64> {
        Ok(Caller::of(accessor).execute(text, parameters).await)
    }

    async fn batch(
        accessor: &Accessor<U, Self>,
        statements: Vec<Statement>,
    ) -> Answer<Vec<RowSet>> {
        Ok(Caller::of(accessor).batch(statements).await)
    }

    async fn query_stream(
        accessor: &Accessor<U, Self>,
        text: String,
        parameters: Vec<Value>,
    ) -> Answer<Streamed> {
        let streamed = Caller::of(accessor).stream(text, parameters).await;
        let RowStream { columns, rows, end } = match streamed {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error)),
        };
        accessor.with(|mut store| {
            let rows = StreamReader::new(&mut store, Rows(rows.into_stream()))?;
            let end = async move { Ok::<_, wasmtime::Error>(end.await.map_err(Error::from)) };
            Ok(Ok((columns, rows, FutureReader::new(&mut store, end)?)))
        })
    }
}

/// Hands the database thread's rows to the guest, some at a time.
struct Rows(flume::r#async::RecvStream<'static, Vec<value::Row>>);

impl<D> StreamProducer<D> for Rows {
    type Item = Row;
    type Buffer = VecBuffer<Row>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, Row, VecBuffer<Row>>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        // The guest asks whether there is anything, without room for it: rows given now could be lost.
        if destination.remaining(store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        loop {
            match futures::Stream::poll_next(Pin::new(&mut self.0), context) {
                Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
                next => match ready!(next) {
                    Some(rows) if rows.is_empty() => {}
                    Some(rows) => {
                        let rows: Vec<Row> = rows.into_iter().map(row).collect();
                        destination.set_buffer(rows.into());
                        return Poll::Ready(Ok(StreamResult::Completed));
                    }
                    None => return Poll::Ready(Ok(StreamResult::Dropped)),
                },
            }
        }
    }
}

/// Hands a transaction to the guest.
pub(super) fn opened(
    state: &mut StoreState,
    transaction: Box<dyn Transaction>,
) -> Answer<Resource<OpenTransaction>> {
    let open = OpenTransaction(transaction.into());
    Ok(Ok(state.table.push(open)?))
}

impl HostTransaction for StoreState {
    /// Rolls back what is not committed, once calls under way have ended.
    fn drop(&mut self, transaction: Resource<OpenTransaction>) -> Result<()> {
        self.table.delete(transaction)?;
        Ok(())
    }
}

impl<U: Send + 'static> HostTransactionWithStore<U> for Own {
    async fn begin(accessor: &Accessor<U, Self>) -> Answer<Resource<OpenTransaction>> {
        match Caller::of(accessor).begin().await {
            Ok(transaction) => accessor.with(|mut store| opened(store.get(), transaction)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn query(
        accessor: &Accessor<U, Self>,
        this: Resource<OpenTransaction>,
        text: String,
        parameters: Vec<Value>,
    ) -> Answer<RowSet> {
        Ok(open(accessor, &this)?.query(text, parameters).await)
    }

    async fn execute(
        accessor: &Accessor<U, Self>,
        this: Resource<OpenTransaction>,
        text: String,
        parameters: Vec<Value>,
    ) -> Answer<u64> {
        Ok(open(accessor, &this)?.execute(text, parameters).await)
    }

    async fn add_job(
        accessor: &Accessor<U, Self>,
        this: Resource<OpenTransaction>,
        job: OutboxJob,
    ) -> Answer<String> {
        Ok(open(accessor, &this)?.add_job(job).await)
    }

    async fn publish(
        accessor: &Accessor<U, Self>,
        this: Resource<OpenTransaction>,
        event: OutboxEvent,
    ) -> Answer<String> {
        Ok(open(accessor, &this)?.publish(event).await)
    }

    async fn commit(accessor: &Accessor<U, Self>, this: Resource<OpenTransaction>) -> Answer<()> {
        Ok(open(accessor, &this)?.commit().await)
    }

    async fn rollback(accessor: &Accessor<U, Self>, this: Resource<OpenTransaction>) -> Answer<()> {
        Ok(open(accessor, &this)?.rollback().await)
    }
}
