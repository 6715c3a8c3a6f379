//! `exprsn:sql/database` as guests call it. Every wait is a host task of its own: sibling tasks of the guest go on.

use super::{
    Lent,
    database::{Host, HostTransaction, HostTransactionWithStore, HostWithStore},
    outbox::Content,
    sqlite::{Call, RowStream, ServiceDatabase, Transaction},
    types::{self, Error, OutboxEvent, OutboxJob, Row, RowSet, Statement, Value},
};
use crate::{
    clock,
    invocation::Invocation,
    store::{ServiceContext, StoreState},
};
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
pub struct OpenTransaction(Arc<Transaction>);

type Own = HasSelf<StoreState>;
type Answer<T> = Result<Result<T, Error>>;
type Streamed = (
    Vec<String>,
    StreamReader<Row>,
    FutureReader<Result<(), Error>>,
);

/// The state and the present invocation of the store that calls.
struct Caller {
    context: Arc<ServiceContext>,
    invocation: Arc<Invocation>,
}

impl Caller {
    fn of<U: 'static>(accessor: &Accessor<U, Own>) -> Self {
        accessor.with(|mut store| Self::in_store(store.get()))
    }

    fn in_store(state: &StoreState) -> Self {
        Self {
            context: state.service.clone(),
            invocation: state.invocation.clone(),
        }
    }

    fn lent(&self) -> &Lent {
        self.context
            .lent
            .sql
            .as_ref()
            .expect("linked only where granted")
    }

    fn database(&self) -> &Arc<ServiceDatabase> {
        &self.lent().database
    }

    fn call(&self) -> Call {
        Call {
            rights: self.lent().rights,
            deadline: self.invocation.deadline,
        }
    }
}

fn open<U: 'static>(
    accessor: &Accessor<U, Own>,
    transaction: &Resource<OpenTransaction>,
) -> Result<(Arc<Transaction>, Caller)> {
    accessor.with(|mut store| {
        let state = store.get();
        Ok((
            state.table.get(transaction)?.0.clone(),
            Caller::in_store(state),
        ))
    })
}

impl types::Host for StoreState {}
impl Host for StoreState {}

impl<U: Send + 'static> HostWithStore<U> for Own {
    async fn query(
        accessor: &Accessor<U, Self>,
        text: String,
        parameters: Vec<Value>,
    ) -> Answer<RowSet> {
        let caller = Caller::of(accessor);
        Ok(caller
            .database()
            .query(caller.call(), Statement { text, parameters })
            .await)
    }

    async fn execute(
        accessor: &Accessor<U, Self>,
        text: String,
        parameters: Vec<Value>,
    ) -> Answer<u64> {
        let caller = Caller::of(accessor);
        Ok(caller
            .database()
            .execute(caller.call(), Statement { text, parameters })
            .await)
    }

    async fn batch(
        accessor: &Accessor<U, Self>,
        statements: Vec<Statement>,
    ) -> Answer<Vec<RowSet>> {
        let caller = Caller::of(accessor);
        Ok(caller.database().batch(caller.call(), statements).await)
    }

    async fn query_stream(
        accessor: &Accessor<U, Self>,
        text: String,
        parameters: Vec<Value>,
    ) -> Answer<Streamed> {
        let caller = Caller::of(accessor);
        let RowStream { columns, rows, end } = match caller
            .database()
            .stream(caller.call(), Statement { text, parameters })
            .await
        {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error)),
        };
        accessor.with(|mut store| {
            let rows = StreamReader::new(&mut store, Rows(rows.into_stream()))?;
            let end = async move { Ok::<_, wasmtime::Error>(end.await) };
            Ok(Ok((columns, rows, FutureReader::new(&mut store, end)?)))
        })
    }
}

/// Hands the database thread's rows to the guest, some at a time.
struct Rows(flume::r#async::RecvStream<'static, Vec<Row>>);

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
                        destination.set_buffer(rows.into());
                        return Poll::Ready(Ok(StreamResult::Completed));
                    }
                    None => return Poll::Ready(Ok(StreamResult::Dropped)),
                },
            }
        }
    }
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
        let caller = Caller::of(accessor);
        match caller.database().begin(caller.call()).await {
            Ok(transaction) => accessor.with(|mut store| {
                Ok(Ok(store
                    .get()
                    .table
                    .push(OpenTransaction(Arc::new(transaction)))?))
            }),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn query(
        accessor: &Accessor<U, Self>,
        this: Resource<OpenTransaction>,
        text: String,
        parameters: Vec<Value>,
    ) -> Answer<RowSet> {
        let (transaction, caller) = open(accessor, &this)?;
        Ok(transaction
            .query(caller.call(), Statement { text, parameters })
            .await)
    }

    async fn execute(
        accessor: &Accessor<U, Self>,
        this: Resource<OpenTransaction>,
        text: String,
        parameters: Vec<Value>,
    ) -> Answer<u64> {
        let (transaction, caller) = open(accessor, &this)?;
        Ok(transaction
            .execute(caller.call(), Statement { text, parameters })
            .await)
    }

    async fn add_job(
        accessor: &Accessor<U, Self>,
        this: Resource<OpenTransaction>,
        job: OutboxJob,
    ) -> Answer<String> {
        announce(accessor, &this, |lent| lent.announcer.job(job)).await
    }

    async fn publish(
        accessor: &Accessor<U, Self>,
        this: Resource<OpenTransaction>,
        event: OutboxEvent,
    ) -> Answer<String> {
        announce(accessor, &this, |lent| lent.announcer.event(event)).await
    }

    async fn commit(accessor: &Accessor<U, Self>, this: Resource<OpenTransaction>) -> Answer<()> {
        let (transaction, _) = open(accessor, &this)?;
        Ok(transaction.commit().await)
    }

    async fn rollback(accessor: &Accessor<U, Self>, this: Resource<OpenTransaction>) -> Answer<()> {
        let (transaction, _) = open(accessor, &this)?;
        Ok(transaction.roll_back().await)
    }
}

/// Adds to the outbox what `content` makes of the call, and answers its id.
async fn announce<U: 'static>(
    accessor: &Accessor<U, Own>,
    this: &Resource<OpenTransaction>,
    content: impl FnOnce(&Lent) -> Result<Content, Error>,
) -> Answer<String> {
    let (transaction, caller) = open(accessor, this)?;
    let content = match content(caller.lent()) {
        Ok(content) => content,
        Err(error) => return Ok(Err(error)),
    };
    let id = content.id().to_owned();
    Ok(transaction
        .announce(content, caller.invocation.trace, clock::now_ms())
        .await
        .map(|()| id))
}
