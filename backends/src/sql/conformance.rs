//! The capability's contracts, without a guest.

mod access;
mod migrations;
mod relay;
mod statements;
mod transactions;

use super::{
    Config, Limits,
    guard::Rights,
    sqlite::{self, Call, ServiceDatabase},
    types::{Error, RowSet, Statement, Value},
};
use crate::name::ServiceName;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(60);

struct Bench {
    folder: TempDir,
    database: Arc<ServiceDatabase>,
    relay: Arc<Notify>,
}

fn service() -> ServiceName {
    ServiceName::parse("exprsn-notes").unwrap()
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn statement(text: &str, parameters: &[Value]) -> Statement {
    Statement {
        text: text.to_owned(),
        parameters: parameters.to_vec(),
    }
}

fn call(rights: Rights) -> Call {
    Call {
        rights,
        deadline: Instant::now() + LONG,
    }
}

impl Bench {
    async fn new() -> Self {
        Self::with(Config::default()).await
    }

    /// A database with a table `t (k INTEGER PRIMARY KEY, v TEXT)`.
    async fn with(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits::from(&config);
        let database = sqlite::open(&folder.path().join("notes.db"), &limits).unwrap();
        let relay = Arc::new(Notify::new());
        let database = Arc::new(ServiceDatabase::new(
            service(),
            database,
            limits,
            relay.clone(),
        ));
        let bench = Self {
            folder,
            database,
            relay,
        };
        bench
            .define("CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT)")
            .await;
        bench
    }

    async fn define(&self, text: &str) {
        self.database
            .execute(call(Rights::Schema), statement(text, &[]))
            .await
            .unwrap();
    }

    async fn query(&self, text: &str, parameters: &[Value]) -> Result<RowSet, Error> {
        self.database
            .query(call(Rights::Rows), statement(text, parameters))
            .await
    }

    async fn execute(&self, text: &str, parameters: &[Value]) -> Result<u64, Error> {
        self.database
            .execute(call(Rights::Rows), statement(text, parameters))
            .await
    }

    async fn count(&self) -> i64 {
        let rows = self
            .query("SELECT count(*) FROM t", &[])
            .await
            .unwrap()
            .rows;
        match rows[0][0] {
            Value::Integer(count) => count,
            ref other => panic!("a count is an integer, not {other:?}"),
        }
    }
}
