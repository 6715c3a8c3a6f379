//! A connection to the platform's database, made anew when it is lost.
//!
//! **Invariant:** whatever is asked is answered by its deadline; what was given up closes its connection, so that nobody
//! waits behind it.

use super::{Error, statements::Say};
use crate::sql::{
    error::chain,
    postgres::pool::{AbortOnDrop, Connector},
};
use futures::future::try_join_all;
use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, Error as Failed, Row, Statement, types::ToSql};

/// What a statement is told beside its text.
pub type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// One connection that calls share; none waits for another's answer to ask.
pub struct Line {
    connector: Connector,
    /// What is prepared on each connection.
    statements: Vec<(Say, String)>,
    call_max: Duration,
    slot: Mutex<Slot>,
    /// Whoever connects; the others wait for that one connection.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Slot {
    open: Option<Arc<Open>>,
    closed: bool,
}

/// A connection with what is prepared on it. It is closed when the last call that uses it ends.
pub struct Open {
    pub client: Client,
    statements: HashMap<Say, Statement>,
    _task: AbortOnDrop,
}

impl Open {
    /// Connects and prepares.
    pub async fn connect(
        connector: &Connector,
        statements: &[(Say, String)],
    ) -> Result<Self, Error> {
        let opened = connector.open().await;
        // Whatever the server says to that, nothing was done.
        let (client, task) = opened.map_err(|error| Error::Unavailable(chain(&error)))?;
        let task = AbortOnDrop(task);
        let preparing = statements.iter().map(async |(say, text)| {
            let statement = client.prepare(text).await?;
            Ok::<_, Failed>((*say, statement))
        });
        let prepared = try_join_all(preparing).await;
        let statements = prepared.map_err(|error| Error::of(&error))?;
        Ok(Self {
            statements: statements.into_iter().collect(),
            client,
            _task: task,
        })
    }

    /// Asks; what is asked before an answer came is on its way with it.
    pub async fn ask(&self, say: Say, parameters: Parameters<'_>) -> Result<Vec<Row>, Failed> {
        self.client.query(&self.statements[&say], parameters).await
    }
}

impl Line {
    /// Connects when it is first asked.
    pub fn new(connector: Connector, statements: Vec<(Say, String)>, call_max: Duration) -> Self {
        Self {
            connector,
            statements,
            call_max,
            slot: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// When a call that begins now must have ended.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.call_max
    }

    /// Asks once. Where that fails, it may have happened.
    pub async fn ask(
        &self,
        deadline: Instant,
        say: Say,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Error> {
        let open = self.open(deadline).await?;
        let asked = open.ask(say, parameters);
        self.within(deadline, &open, asked).await
    }

    /// Asks what may be asked twice: once more where the connection was lost.
    pub async fn ask_again(
        &self,
        deadline: Instant,
        say: Say,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Error> {
        match self.ask(deadline, say, parameters).await {
            Err(Error::Unavailable(_)) if Instant::now() < deadline => {
                self.ask(deadline, say, parameters).await
            }
            answer => answer,
        }
    }

    /// The connection.
    pub async fn open(&self, deadline: Instant) -> Result<Arc<Open>, Error> {
        if let Some(open) = self.current()? {
            return Ok(open);
        }
        let connecting = timeout_at(deadline, self.connect());
        connecting.await.unwrap_or_else(|_| Err(Error::late()))
    }

    /// What came of something asked on the connection, which is forgotten where it is of no more use.
    pub async fn within<T>(
        &self,
        deadline: Instant,
        open: &Arc<Open>,
        asked: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Error> {
        let answer = match timeout_at(deadline, asked).await {
            Ok(answer) => answer.map_err(|error| Error::of(&error)),
            Err(_) => Err(Error::late()),
        };
        if matches!(answer, Err(Error::Unavailable(_))) {
            self.forget(open);
        }
        answer
    }

    /// Lets the connection go; whatever is asked afterwards fails.
    pub fn close(&self) {
        *self.slot() = Slot {
            open: None,
            closed: true,
        };
    }

    /// An error where it was closed.
    pub fn ensure_open(&self) -> Result<(), Error> {
        self.current().map(drop)
    }

    async fn connect(&self) -> Result<Arc<Open>, Error> {
        let _turn = self.connecting.lock().await;
        if let Some(open) = self.current()? {
            return Ok(open);
        }
        let open = Arc::new(Open::connect(&self.connector, &self.statements).await?);
        let mut slot = self.slot();
        if slot.closed {
            return Err(Error::closed());
        }
        slot.open = Some(open.clone());
        Ok(open)
    }

    fn current(&self) -> Result<Option<Arc<Open>>, Error> {
        let slot = self.slot();
        if slot.closed {
            return Err(Error::closed());
        }
        let open = slot.open.as_ref();
        Ok(open.filter(|open| !open.client.is_closed()).cloned())
    }

    fn forget(&self, open: &Arc<Open>) {
        let mut slot = self.slot();
        // Somebody may have made another since.
        if slot
            .open
            .as_ref()
            .is_some_and(|kept| Arc::ptr_eq(kept, open))
        {
            slot.open = None;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
