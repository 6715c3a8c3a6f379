//! Interactive transactions: a connection that belongs to one guest until it commits, or somebody loses patience.

use super::{
    PostgresDatabase,
    pool::Lease,
    run::{After, Run},
    words,
};
use crate::{
    sql::{
        Call, Error, Result, Transaction,
        limits::Budget,
        outbox::{Content, NewRow},
        value::{RowSet, Statement, Value},
    },
    trace::TraceContext,
};
use futures::{FutureExt as _, future::BoxFuture};
use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit};

/// Said before each statement: what came before is kept, and this one can be undone alone.
const NEXT: &str = "RELEASE SAVEPOINT s; SAVEPOINT s";
/// Said instead after a statement that failed.
const UNDO: &str = "ROLLBACK TO SAVEPOINT s";

/// A transaction of one guest. Dropped, it rolls back.
pub struct PostgresTransaction {
    inner: Arc<Inner>,
    /// The deadline that the beginning of the transaction set.
    call: Call,
    announces: AtomicBool,
}

struct Inner {
    database: PostgresDatabase,
    state: Mutex<State>,
}

enum State {
    Open(Box<Open>),
    Ended(fn() -> Error),
}

struct Open {
    lease: Lease,
    /// Whether the last statement failed and is not yet undone.
    failed: bool,
    used_at: Instant,
    _permit: OwnedSemaphorePermit,
}

/// Begins a transaction.
pub async fn begin(database: &PostgresDatabase, call: Call) -> Result<PostgresTransaction> {
    let permit = database
        .inner
        .transactions
        .clone()
        .try_acquire_owned()
        .map_err(|_| {
            let max = database.inner.limits.transactions_max;
            Error::limit(format!("{max} transactions are open or waiting"))
        })?;
    let mut lease = database.lend(call).await?;
    let run = Run::new(&database.inner.service, &database.inner.limits, call);
    lease.in_transaction = true;
    run.say(
        &mut lease,
        &format!("{}; SAVEPOINT s", database.inner.alone),
    )
    .await
    .map_err(|(error, _)| error)?;
    let total = Call {
        deadline: run.deadline,
        ..call
    };
    let open = Open {
        lease,
        failed: false,
        used_at: Instant::now(),
        _permit: permit,
    };
    let inner = Arc::new(Inner {
        database: database.clone(),
        state: Mutex::new(State::Open(Box::new(open))),
    });
    database.inner.background.spawn(watch(
        Arc::downgrade(&inner),
        database.clone(),
        run.deadline,
    ));
    Ok(PostgresTransaction {
        inner,
        call: total,
        announces: AtomicBool::new(false),
    })
}

/// Rolls the transaction back when no call comes for too long, or all of it takes too long.
async fn watch(inner: Weak<Inner>, database: PostgresDatabase, total: Instant) {
    let idle_max = database.inner.limits.transaction_idle_max;
    let mut due = total.min(Instant::now() + idle_max);
    loop {
        tokio::time::sleep_until(due.into()).await;
        let Some(inner) = inner.upgrade() else { return };
        let mut state = inner.state.lock().await;
        let State::Open(open) = &*state else { return };
        due = total.min(open.used_at + idle_max);
        if due <= Instant::now() {
            *state = State::Ended(Error::expired);
            return;
        }
    }
}

/// What a step needs.
struct Step<'a> {
    state: MutexGuard<'a, State>,
    run: Run<'a>,
}

impl PostgresTransaction {
    /// Waits for the steps before, and for the transaction to be open.
    async fn step(&self, call: Call) -> Result<Step<'_>> {
        let call = Call {
            deadline: call.deadline.min(self.call.deadline),
            ..call
        };
        let database = &self.inner.database.inner;
        let mut state = self.inner.state.lock().await;
        match &*state {
            State::Ended(fate) => return Err(fate()),
            // A call before was given up in the middle of its statement.
            State::Open(open) if open.lease.unfinished => {
                *state = State::Ended(Error::lost);
                return Err(Error::lost());
            }
            State::Open(_) => {}
        }
        let run = Run::new(&database.service, &database.limits, call);
        Ok(Step { state, run })
    }

    async fn run_query(&self, call: Call, statement: Statement) -> Result<RowSet> {
        words::judge(&statement.text, call.rights)?;
        let mut step = self.step(call).await?;
        let mut budget = Budget::of(step.run.limits);
        let open = step.state.open();
        let prelude = open.prelude();
        let done = step
            .run
            .query(&mut open.lease, prelude, &statement, &mut budget)
            .await;
        step.state.settle(done)
    }

    async fn run_execute(&self, call: Call, statement: Statement) -> Result<u64> {
        let kind = words::judge(&statement.text, call.rights)?;
        let count = self.run_unjudged(call, statement).await?;
        Ok(if kind.counts() { count } else { 0 })
    }

    async fn run_unjudged(&self, call: Call, statement: Statement) -> Result<u64> {
        let mut step = self.step(call).await?;
        let open = step.state.open();
        let prelude = open.prelude();
        let done = step.run.execute(&mut open.lease, prelude, &statement).await;
        step.state.settle(done)
    }

    async fn end(&self, commits: bool) -> Result<()> {
        let mut step = self.step(self.call).await?;
        let open = step.state.open();
        let words = match (commits, open.failed) {
            (true, true) => "ROLLBACK TO SAVEPOINT s; COMMIT",
            (true, false) => "COMMIT",
            (false, _) => "ROLLBACK",
        };
        let done = step.run.say(&mut open.lease, words).await;
        if done.is_ok() {
            open.lease.in_transaction = false;
        }
        *step.state = State::Ended(if done.is_ok() {
            Error::ended
        } else {
            Error::lost
        });
        done.map_err(|(error, _)| error)
    }

    async fn make_durable(&self) -> Result<()> {
        self.end(true).await?;
        self.inner.database.inner.committed(1);
        if self.announces.load(Relaxed) {
            self.inner.database.inner.wake.notify_one();
        }
        Ok(())
    }

    async fn add(&self, content: Content, trace: TraceContext, now_ms: i64) -> Result<()> {
        self.announces.store(true, Relaxed);
        let NewRow { kind, id, payload } = NewRow::new(&content, trace);
        let key = self.inner.database.inner.key.clone();
        let texts = [key, id, kind.to_owned(), payload];
        let mut parameters: Vec<Value> = texts.into_iter().map(Value::Text).collect();
        parameters.push(Value::Integer(now_ms));
        let statement = Statement {
            text: "SELECT exprsn_host.announce($1, $2, $3, $4, $5)".to_owned(),
            parameters,
        };
        self.run_unjudged(self.call, statement).await.map(drop)
    }
}

impl State {
    fn open(&mut self) -> &mut Open {
        match self {
            Self::Open(open) => open,
            Self::Ended(_) => unreachable!("a step begins in an open transaction"),
        }
    }

    /// What a statement leaves behind.
    fn settle<T>(&mut self, done: Result<T, (Error, After)>) -> Result<T> {
        let open = self.open();
        open.used_at = Instant::now();
        match &done {
            Ok(_) => open.failed = false,
            Err((_, After::Same)) => {}
            Err((_, After::Undo)) => open.failed = true,
            Err((_, After::Lost)) => *self = Self::Ended(Error::lost),
        }
        done.map_err(|(error, _)| error)
    }
}

impl Open {
    fn prelude(&self) -> &'static str {
        if self.failed { UNDO } else { NEXT }
    }
}

impl Transaction for PostgresTransaction {
    fn query(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<RowSet>> {
        self.run_query(call, statement).boxed()
    }

    fn execute(&self, call: Call, statement: Statement) -> BoxFuture<'_, Result<u64>> {
        self.run_execute(call, statement).boxed()
    }

    fn announce(
        &self,
        content: Content,
        trace: TraceContext,
        now_ms: i64,
    ) -> BoxFuture<'_, Result<()>> {
        self.add(content, trace, now_ms).boxed()
    }

    fn commit(&self) -> BoxFuture<'_, Result<()>> {
        self.make_durable().boxed()
    }

    fn roll_back(&self) -> BoxFuture<'_, Result<()>> {
        self.end(false).boxed()
    }
}

impl fmt::Debug for PostgresTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresTransaction")
            .finish_non_exhaustive()
    }
}
