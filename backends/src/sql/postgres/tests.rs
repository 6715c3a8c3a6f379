//! PostgreSQL alone: what the server enforces, what values become, and what happens when it is busy or away.

use super::*;
use crate::{
    sql::{
        conformance::{ENDLESS, call, statement, text, unique_service},
        error::{BoxError, chain},
        migrate::MigrationFile,
        outbox::{Content, OutboxItem, Sink},
        relay::Relay,
        value::Value,
    },
    testing::postgres::Cluster,
    trace::TraceContext,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, atomic::AtomicBool},
};
use tokio_postgres::Client;

async fn open(limits: Limits) -> PostgresDatabase {
    let server = Cluster::shared().server().await;
    server.open(&unique_service(), limits).await.unwrap()
}

/// As one of a service's roles would connect by itself, outside of the host.
async fn connect(
    database: &PostgresDatabase,
    role: &str,
    into: &str,
) -> Result<Client, tokio_postgres::Error> {
    let mut connector = provision::as_role(&database.inner.inside, role, &database.inner.secrets);
    connector.config.dbname(into);
    connector
        .connect()
        .await
        .map(|connection| connection.client)
}

async fn admin() -> Client {
    let server = Cluster::shared().server().await;
    server.admin.connect().await.unwrap().client
}

async fn execute(database: &PostgresDatabase, text: &str) -> Result<u64> {
    database
        .execute(call(Rights::Rows), statement(text, &[]))
        .await
}

async fn define(database: &PostgresDatabase, text: &str) {
    database
        .execute(call(Rights::Schema), statement(text, &[]))
        .await
        .unwrap();
}

/// The server's word for why it refused.
async fn refused(client: &Client, text: &str) -> String {
    match client.batch_execute(text).await {
        Err(error) => error
            .as_db_error()
            .map_or_else(|| error.to_string(), |told| told.code().code().to_owned()),
        Ok(()) => panic!("the server did it: {text}"),
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_enters_its_own_database_only() {
    let (one, other) = (open(Limits::default()).await, open(Limits::default()).await);
    for role in one.inner.roles.all() {
        assert!(
            connect(&one, role, &one.inner.roles.database).await.is_ok(),
            "{role}"
        );
        for database in [other.inner.roles.database.as_str(), "postgres", "template1"] {
            let error = connect(&one, role, database)
                .await
                .expect_err("another database is closed");
            let told = error
                .as_db_error()
                .expect("the server says so")
                .code()
                .code();
            assert_eq!(told, "42501", "{role} into {database}");
        }
    }
    // Nor with the password of another service's role.
    let mut wrong = one.inner.inside.clone();
    wrong
        .config
        .user(&other.inner.roles.rows)
        .password(one.inner.secrets.password(&one.inner.roles.rows));
    wrong.config.dbname(&other.inner.roles.database);
    assert!(wrong.connect().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_itself_keeps_a_role_within_its_rows() {
    let (one, other) = (open(Limits::default()).await, open(Limits::default()).await);
    define(&one, "CREATE TABLE t (k BIGINT)").await;
    let roles = &one.inner.roles;
    let client = connect(&one, &roles.rows, &roles.database).await.unwrap();
    for text in [
        "CREATE TABLE x (a INT)".to_owned(),
        "CREATE TEMP TABLE x (a INT)".to_owned(),
        "CREATE SCHEMA x".to_owned(),
        "CREATE FUNCTION f() RETURNS INT LANGUAGE sql AS 'SELECT 1'".to_owned(),
        "DROP TABLE t".to_owned(),
        "TRUNCATE t".to_owned(),
        "ALTER TABLE t ADD COLUMN x INT".to_owned(),
        "COPY t TO PROGRAM 'id'".to_owned(),
        "COPY t FROM '/etc/passwd'".to_owned(),
        "SELECT pg_read_file('/etc/passwd')".to_owned(),
        "SELECT pg_ls_dir('/')".to_owned(),
        "SELECT lo_import('/etc/passwd')".to_owned(),
        "SELECT set_config('statement_timeout', '0', false)".to_owned(),
        "UPDATE pg_settings SET setting = '0' WHERE name = 'statement_timeout'".to_owned(),
        "SELECT pg_sleep(1)".to_owned(),
        "SELECT pg_advisory_lock(7012023)".to_owned(),
        "SELECT pg_notify('a', 'b')".to_owned(),
        "SELECT pg_terminate_backend(1)".to_owned(),
        "SELECT * FROM pg_database".to_owned(),
        "SELECT * FROM pg_roles".to_owned(),
        "SELECT * FROM pg_authid".to_owned(),
        "SELECT * FROM pg_stat_activity".to_owned(),
        "DO 'BEGIN END'".to_owned(),
        "CREATE ROLE x".to_owned(),
        "CREATE DATABASE x".to_owned(),
        "SET ROLE cluster_admin".to_owned(),
        format!("SET ROLE \"{}\"", roles.owner),
        format!("SET ROLE \"{}\"", roles.host),
        format!("SET SESSION AUTHORIZATION \"{}\"", other.inner.roles.rows),
        "SELECT * FROM exprsn_host.outbox".to_owned(),
        "SELECT * FROM exprsn_host.keys".to_owned(),
        "INSERT INTO exprsn_host.outbox (id, kind, payload, created_at) VALUES ('1', 'job', '{}', 0)".to_owned(),
        "SELECT exprsn_host.announce('guessed', '1', 'job', '{}', 0)".to_owned(),
        "SELECT exprsn_host.record('guessed', '0009_x', '', 0)".to_owned(),
        "SELECT exprsn_host.check_key('guessed')".to_owned(),
    ] {
        assert_eq!(refused(&client, &text).await, "42501", "{text}");
    }
    // Other databases have no name here.
    let elsewhere = format!("SELECT * FROM {}.public.t", other.inner.roles.database);
    assert_eq!(refused(&client, &elsewhere).await, "0A000");
    client
        .batch_execute("INSERT INTO t VALUES (1); UPDATE t SET k = 2; DELETE FROM t")
        .await
        .unwrap();
    // The owner is no more powerful outside of its tables.
    let owner = connect(&one, &roles.owner, &roles.database).await.unwrap();
    for text in [
        "DROP TABLE exprsn_host.outbox",
        "CREATE ROLE x",
        "SELECT set_config('role', 'postgres', false)",
        "COPY t TO PROGRAM 'id'",
        "CREATE EXTENSION dblink",
    ] {
        let told = refused(&owner, text).await;
        assert!(
            ["42501", "0A000", "58P01"].contains(&told.as_str()),
            "{text}: {told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_its_limits_and_its_schema_from_the_host() {
    let database = open(Limits::default()).await;
    let settings = "SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'),
        current_setting('lock_timeout'), current_setting('search_path'), current_setting('default_transaction_isolation')";
    let set = database
        .query(call(Rights::Rows), statement(settings, &[]))
        .await
        .unwrap();
    assert_eq!(
        set.rows,
        [["5500ms", "5500ms", "2750ms", "public", "read committed"].map(text)]
    );
}

/// What a value comes back as from a column of some type.
async fn echo(database: &PostgresDatabase, kind: &str, given: &Value) -> Result<Value> {
    let echo = format!("SELECT CAST($1 AS {kind})");
    let asked = database.query(
        call(Rights::Rows),
        statement(&echo, std::slice::from_ref(given)),
    );
    asked.await.map(|set| set.rows[0][0].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_become_what_the_column_demands() {
    let database = open(Limits::default()).await;
    let uuid = "0190b6b2-6d6b-7c3e-9a1b-2f3c4d5e6f70";
    let uuid = (text(uuid), Value::Uuid(uuid.to_owned()));
    let json = |text: &str| Value::Json(text.to_owned());
    let instant = Value::Timestamp(1_700_000_000_123);
    for (kind, given, stored) in [
        ("UUID", uuid.0, uuid.1.clone()),
        ("UUID", uuid.1.clone(), uuid.1),
        ("JSONB", text(r#"{"a": 1}"#), json(r#"{"a": 1}"#)),
        ("JSON", json("[1]"), json("[1]")),
        ("JSONB", Value::Integer(7), json("7")),
        ("TIMESTAMPTZ", instant.clone(), instant.clone()),
        (
            "TIMESTAMPTZ",
            text("2023-11-14T22:13:20.123Z"),
            instant.clone(),
        ),
        ("TIMESTAMPTZ", Value::Timestamp(-1), Value::Timestamp(-1)),
        ("TIMESTAMP", instant.clone(), instant),
        ("VARCHAR(10)", text("a"), text("a")),
        ("BYTEA", Value::Blob(vec![0, 1]), Value::Blob(vec![0, 1])),
        ("INET", Value::Null, Value::Null),
    ] {
        assert_eq!(
            echo(&database, kind, &given).await,
            Ok(stored),
            "{given:?} as {kind}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_become_what_the_column_demands() {
    let database = open(Limits::default()).await;
    for (kind, given, stored) in [
        ("BOOLEAN", Value::Boolean(true), Value::Boolean(true)),
        ("BOOLEAN", Value::Integer(0), Value::Boolean(false)),
        (
            "NUMERIC",
            Value::Integer(i64::MAX),
            Value::Integer(i64::MAX),
        ),
        ("NUMERIC(12, 2)", text("12.34"), Value::Real(12.34)),
        ("NUMERIC(12, 4)", Value::Real(-0.0625), Value::Real(-0.0625)),
        ("SMALLINT", Value::Integer(-3), Value::Integer(-3)),
        ("REAL", Value::Real(0.5), Value::Real(0.5)),
    ] {
        assert_eq!(
            echo(&database, kind, &given).await,
            Ok(stored),
            "{given:?} as {kind}"
        );
    }
    let sum = "SELECT sum(x), avg(x) FROM (VALUES (CAST(1 AS BIGINT)), (2)) v (x)";
    let set = database
        .query(call(Rights::Rows), statement(sum, &[]))
        .await
        .unwrap();
    assert_eq!(set.rows, [[Value::Integer(3), Value::Real(1.5)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_fit_no_column_are_refused_in_words() {
    let database = open(Limits::default()).await;
    for (kind, given, told) in [
        ("UUID", text("x"), "invalid input syntax for type uuid"),
        ("JSONB", text("{"), "invalid input syntax for type json"),
        (
            "TIMESTAMPTZ",
            text("soon"),
            "invalid input syntax for type timestamp",
        ),
        (
            "INTEGER",
            Value::Integer(1 << 31),
            "$1 is 2147483648, which is out of the range of int4",
        ),
        (
            "BOOLEAN",
            Value::Integer(2),
            "$1 is an integer, where the statement takes bool",
        ),
        (
            "BYTEA",
            text("x"),
            "$1 is a text, where the statement takes bytea",
        ),
        ("TEXT", text("a\0b"), "invalid byte sequence"),
        (
            "INET",
            text("127.0.0.1"),
            "which services cannot read: cast it",
        ),
        ("NUMERIC", text("1e30"), "beyond the range of s64"),
    ] {
        match echo(&database, kind, &given).await {
            Err(Error::Invalid(text)) => {
                assert!(text.contains(told), "{given:?} as {kind}: {text}")
            }
            other => panic!("{given:?} as {kind}: {other:?}"),
        }
    }
}

/// Statements of the database's roles that the server is running.
async fn running(admin: &Client, database: &PostgresDatabase) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND state = 'active'";
    admin
        .query_one(count, &[&database.inner.roles.database])
        .await
        .unwrap()
        .get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_is_cancelled_on_the_server() {
    let database = open(Limits {
        statement_max: Duration::from_secs(60),
        ..Limits::default()
    })
    .await;
    let admin = admin().await;
    let endless = statement(&format!("{ENDLESS} SELECT count(*) FROM n"), &[]);
    let transaction = database.begin(call(Rights::Rows)).await.unwrap();
    {
        let alone = database.query(call(Rights::Rows), endless.clone());
        let within = transaction.query(call(Rights::Rows), endless.clone());
        let both = futures::future::join(alone, within);
        let both = tokio::time::timeout(Duration::from_millis(500), both);
        let seen = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            running(&admin, &database).await
        };
        let (ended, seen) = tokio::join!(both, seen);
        assert!(ended.is_err());
        assert_eq!(seen, 2);
    }
    let lost = transaction.commit().await;
    assert!(matches!(lost, Err(Error::Conflict(_))), "{lost:?}");
    eventually("both are cancelled", async || {
        running(&admin, &database).await == 0
    })
    .await;
    let cancelled = || database.statistics().pool.unwrap().cancelled;
    eventually("both are counted", async || cancelled() == 2).await;
    // What comes next is not met by a late cancellation.
    for _ in 0..20 {
        database
            .query(call(Rights::Rows), statement("SELECT 1", &[]))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_pool_says_so_and_recovers() {
    let mut settings = Cluster::shared().settings();
    settings.pool = PoolLimits {
        max: 2,
        min: 0,
        acquire: Duration::from_millis(200),
        idle: Duration::from_millis(100),
    };
    settings.isolation = Isolation::ReadCommitted;
    let server = Cluster::shared().server_with(settings).await;
    let database = server
        .open(&unique_service(), Limits::default())
        .await
        .unwrap();
    let held = (
        database.begin(call(Rights::Rows)).await.unwrap(),
        database.begin(call(Rights::Rows)).await.unwrap(),
    );
    let refused = execute(&database, "SELECT 1").await;
    assert!(
        matches!(&refused, Err(Error::Limit(text)) if text.contains("all 2 database connections") && text.contains("pool_max")),
        "{refused:?}"
    );
    let pool = database.statistics().pool.unwrap();
    assert_eq!(
        (pool.max, pool.size, pool.available, pool.timeouts),
        (2, 2, 0, 1)
    );
    let waiting = execute(&database, "SELECT 1");
    let (waited, committed) = tokio::join!(waiting, held.0.commit());
    assert_eq!((waited, committed), (Ok(0), Ok(())));
    drop(held.1);
    eventually("unused connections are closed", async || {
        database.statistics().pool.unwrap().size == 0
    })
    .await;
    assert_eq!(execute(&database, "SELECT 1").await, Ok(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_unavailable_until_it_is_back() {
    let cluster = Cluster::start();
    let server = cluster.server().await;
    let database = server
        .open(&unique_service(), Limits::default())
        .await
        .unwrap();
    define(&database, "CREATE TABLE t (k BIGINT PRIMARY KEY)").await;
    execute(&database, "INSERT INTO t VALUES (1)")
        .await
        .unwrap();
    let inbox = Arc::new(Inbox::default());
    let relay = Relay::start(
        &Handle::current(),
        database.inner.service.clone(),
        database.outbox(),
        inbox.clone(),
    );
    announce(&database, 0).await;
    let transaction = database.begin(call(Rights::Rows)).await.unwrap();
    transaction
        .execute(
            call(Rights::Rows),
            statement("INSERT INTO t VALUES (2)", &[]),
        )
        .await
        .unwrap();
    cluster.kill();
    for _ in 0..3 {
        let away = execute(&database, "SELECT 1").await;
        assert_eq!(
            away,
            Err(Error::Unavailable("the database is away".to_owned()))
        );
    }
    assert!(matches!(database.ping().await, Err(Error::Unavailable(_))));
    assert!(matches!(
        transaction.commit().await,
        Err(Error::Unavailable(_))
    ));
    cluster.resume();
    eventually("it is well again", async || database.ping().await.is_ok()).await;
    let count = database
        .query(call(Rights::Rows), statement("SELECT k FROM t", &[]))
        .await
        .unwrap();
    assert_eq!(count.rows, [[Value::Integer(1)]]);
    announce(&database, 1).await;
    eventually("the relay goes on", async || inbox.ids().len() == 2).await;
    drop(relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_lost_are_replaced() {
    let database = open(Limits::default()).await;
    assert_eq!(execute(&database, "SELECT 1").await, Ok(0));
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    admin()
        .await
        .query(kill, &[&database.inner.roles.database])
        .await
        .unwrap();
    eventually("a new one is made", async || {
        execute(&database, "SELECT 1").await.is_ok()
    })
    .await;
    assert_eq!(database.statistics().pool.unwrap().opened, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_idles_beyond_the_hosts_patience_is_ended_by_the_server() {
    let database = open(Limits {
        transaction_idle_max: Duration::from_millis(100),
        ..Limits::default()
    })
    .await;
    let mut lease = database.lend(call(Rights::Rows)).await.unwrap();
    lease
        .connection()
        .client
        .batch_execute("BEGIN")
        .await
        .unwrap();
    // Nobody of the host's looks at this one.
    eventually("the server ended it", async || {
        lease.connection().client.is_closed()
    })
    .await;
    let lock = database.lend(call(Rights::Rows)).await.unwrap();
    drop((lease, lock));
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_cannot_be_one_after_the_other_conflict() {
    let mut settings = Cluster::shared().settings();
    settings.isolation = Isolation::Serializable;
    let server = Cluster::shared().server_with(settings).await;
    let database = server
        .open(&unique_service(), Limits::default())
        .await
        .unwrap();
    define(&database, "CREATE TABLE t (k BIGINT PRIMARY KEY, v BIGINT)").await;
    execute(&database, "INSERT INTO t VALUES (1, 0), (2, 0)")
        .await
        .unwrap();
    let call = call(Rights::Rows);
    let (one, other) = (
        database.begin(call).await.unwrap(),
        database.begin(call).await.unwrap(),
    );
    for transaction in [&one, &other] {
        transaction
            .query(call, statement("SELECT sum(v) FROM t", &[]))
            .await
            .unwrap();
    }
    one.execute(call, statement("UPDATE t SET v = 1 WHERE k = 1", &[]))
        .await
        .unwrap();
    one.commit().await.unwrap();
    let skewed = match other
        .execute(call, statement("UPDATE t SET v = 1 WHERE k = 2", &[]))
        .await
    {
        Ok(_) => other.commit().await,
        Err(error) => Err(error),
    };
    assert!(matches!(skewed, Err(Error::Conflict(_))), "{skewed:?}");
    // Single statements and batches are run again by the host.
    let add = statement("UPDATE t SET v = v + 1 WHERE k = 1", &[]);
    let adding = (0..24).map(|number| {
        let (database, add) = (&database, add.clone());
        async move {
            if number % 2 == 0 {
                database.execute(call, add).await.map(drop)
            } else {
                database
                    .batch(call, vec![statement("SELECT v FROM t", &[]), add])
                    .await
                    .map(drop)
            }
        }
    });
    let done = futures::future::join_all(adding).await;
    let added = done.iter().filter(|done| done.is_ok()).count();
    assert!(
        done.iter()
            .all(|done| matches!(done, Ok(()) | Err(Error::Conflict(_)))),
        "{done:?}"
    );
    assert!(added >= 12, "{done:?}");
    let set = database
        .query(call, statement("SELECT v FROM t WHERE k = 1", &[]))
        .await
        .unwrap();
    assert_eq!(
        set.rows,
        [[Value::Integer(1 + i64::try_from(added).unwrap())]]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_migrate_at_once_apply_each_migration_once() {
    let server = Cluster::shared().server().await;
    let service = unique_service();
    let files: Vec<MigrationFile> = (1..=5)
        .map(|number| MigrationFile {
            name: format!("{number:04}_step.sql"),
            sql: format!("CREATE TABLE t{number} (k BIGINT, v TEXT DEFAULT 'it''s \\ here'); INSERT INTO t{number} VALUES (1)"),
        })
        .collect();
    let hosts = (0..4).map(|_| {
        let (server, service, files) = (server.clone(), service.clone(), files.clone());
        async move {
            let database = server.open(&service, Limits::default()).await.unwrap();
            database
                .migrate(&files, 0..=0)
                .await
                .unwrap_or_else(|error| panic!("{}", chain(&error)))
                .len()
        }
    });
    let applied = futures::future::join_all(hosts).await;
    assert_eq!(applied.iter().sum::<usize>(), 5, "{applied:?}");
    let database = server.open_existing(&service, Limits::default());
    let set = database
        .query(call(Rights::Rows), statement("SELECT v FROM t5", &[]))
        .await
        .unwrap();
    assert_eq!(set.rows, [[text("it's \\ here")]]);
}

/// Takes every id once and counts deliveries.
#[derive(Debug, Default)]
struct Inbox(Mutex<BTreeMap<String, u32>>);

impl Inbox {
    fn ids(&self) -> BTreeMap<String, u32> {
        self.0.lock().unwrap().clone()
    }
}

impl Sink for Inbox {
    async fn deliver(&self, batch: Vec<OutboxItem>) -> Result<(), BoxError> {
        tokio::time::sleep(Duration::from_millis(2)).await;
        for item in batch {
            *self
                .0
                .lock()
                .unwrap()
                .entry(item.content.id().to_owned())
                .or_default() += 1;
        }
        Ok(())
    }
}

fn event(id: &str) -> Content {
    Content::Event {
        id: id.to_owned(),
        topic: "a".to_owned(),
        subject: None,
        data: "{}".to_owned(),
    }
}

async fn announce(database: &PostgresDatabase, number: usize) {
    let transaction = database.begin(call(Rights::Rows)).await.unwrap();
    let event = event(&number.to_string());
    transaction
        .announce(event, TraceContext::new_root(), 1)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_relays_lose_nothing_and_double_nothing() {
    let server = Cluster::shared().server().await;
    let service = unique_service();
    let hosts = [
        server.open(&service, Limits::default()).await.unwrap(),
        server.open(&service, Limits::default()).await.unwrap(),
    ];
    let inbox = Arc::new(Inbox::default());
    let relay = |host: &PostgresDatabase| {
        Relay::start(
            &Handle::current(),
            service.clone(),
            host.outbox(),
            inbox.clone(),
        )
    };
    let (first, second) = (relay(&hosts[0]), relay(&hosts[1]));
    for number in 0..120 {
        announce(&hosts[number % 2], number).await;
    }
    // The first host dies; what it committed and did not deliver is the other's.
    drop(first);
    for number in 120..140 {
        announce(&hosts[0], number).await;
    }
    eventually("all are delivered", async || inbox.ids().len() == 140).await;
    let doubled: Vec<_> = inbox
        .ids()
        .into_iter()
        .filter(|(_, times)| *times > 1)
        .collect();
    // One that was under way when its relay ended comes again, under its id.
    assert!(doubled.len() <= 2, "{doubled:?}");
    drop(second);
}

/// Writes a row and its announcement, again and again; answers what was acknowledged.
async fn write_until(database: PostgresDatabase, writer: i64, stop: Arc<AtomicBool>) -> Vec<i64> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        let k = writer * 1_000_000 + number;
        let written = async {
            let transaction = database.begin(call(Rights::Rows)).await?;
            let insert = statement("INSERT INTO t (k) VALUES ($1)", &[Value::Integer(k)]);
            transaction.execute(call(Rights::Rows), insert).await?;
            let event = event(&k.to_string());
            transaction
                .announce(event, TraceContext::new_root(), 1)
                .await?;
            transaction.commit().await
        };
        match written.await {
            Ok(()) => acknowledged.push(k),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_kills_and_is_announced() {
    let cluster = Arc::new(Cluster::start());
    let server = cluster.server().await;
    let database = server
        .open(&unique_service(), Limits::default())
        .await
        .unwrap();
    define(&database, "CREATE TABLE t (k BIGINT PRIMARY KEY)").await;
    let inbox = Arc::new(Inbox::default());
    let service = database.inner.service.clone();
    let relay = Relay::start(
        &Handle::current(),
        service,
        database.outbox(),
        inbox.clone(),
    );
    let stop = Arc::new(AtomicBool::new(false));
    let writers =
        (1..=4).map(|writer| tokio::spawn(write_until(database.clone(), writer, stop.clone())));
    let writers: Vec<_> = writers.collect();
    for _ in 0..3 {
        let before = inbox.ids().len();
        eventually("writes are announced", async || {
            inbox.ids().len() > before + 30
        })
        .await;
        let cluster = cluster.clone();
        let killed = tokio::task::spawn_blocking(move || {
            cluster.kill();
            cluster.resume();
        });
        killed.await.unwrap();
    }
    stop.store(true, Relaxed);
    let acknowledged: Vec<Vec<i64>> = futures::future::try_join_all(writers).await.unwrap();
    let acknowledged: BTreeSet<i64> = acknowledged.into_iter().flatten().collect();
    assert!(acknowledged.len() > 90, "{}", acknowledged.len());
    eventually("it is well again", async || database.ping().await.is_ok()).await;
    let all = database
        .query(call(Rights::Rows), statement("SELECT k FROM t", &[]))
        .await
        .unwrap();
    let stored: BTreeSet<i64> = all
        .rows
        .iter()
        .map(|row| match row[0] {
            Value::Integer(k) => k,
            ref other => panic!("{other:?}"),
        })
        .collect();
    assert!(
        acknowledged.is_subset(&stored),
        "lost: {:?}",
        acknowledged.difference(&stored)
    );
    let announced = || {
        inbox
            .ids()
            .into_keys()
            .map(|id| id.parse().unwrap())
            .collect::<BTreeSet<i64>>()
    };
    eventually(
        "all that happened is announced, and nothing else",
        async || announced() == stored,
    )
    .await;
    drop(relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_what_it_is_told_to() {
    let cluster = Cluster::start();
    let [authority, certificate, key] = crate::redis::tests::certificates();
    cluster.speak_tls(&certificate, &key);
    let folder = tempfile::tempdir().unwrap();
    let connect = async |trusted: Option<&str>| {
        let mut settings = Settings::new(cluster.tls_url());
        settings.ca_file = trusted.map(|pem| {
            let path = folder.path().join("ca.pem");
            std::fs::write(&path, pem).unwrap();
            path
        });
        Server::connect(settings, b"", Handle::current()).await
    };
    let server = connect(Some(&authority)).await.unwrap();
    let database = server
        .open(&unique_service(), Limits::default())
        .await
        .unwrap();
    assert_eq!(execute(&database, "SELECT 1").await, Ok(0));
    let admin = server.admin.connect().await.unwrap().client;
    let encrypted = "SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity USING (pid) WHERE usename = $1";
    let rows = &database.inner.roles.rows;
    assert!(
        admin
            .query_one(encrypted, &[rows])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );
    let [stranger, ..] = crate::redis::tests::certificates();
    for trusted in [Some(stranger.as_str()), None] {
        assert!(connect(trusted).await.is_err(), "a stranger's certificate");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_need_not_be_a_superuser() {
    let cluster = Cluster::start();
    let superuser = cluster.server().await.admin.connect().await.unwrap().client;
    let create = "CREATE ROLE plain_admin LOGIN CREATEDB CREATEROLE PASSWORD 'plain';
        GRANT CONNECT ON DATABASE postgres TO plain_admin";
    superuser.batch_execute(create).await.unwrap();
    let url = cluster.url();
    let (_, place) = url.split_once('@').unwrap();
    let settings = Settings::new(format!("postgres://plain_admin:plain@{place}"));
    let server = cluster.server_with(settings).await;
    for _ in 0..2 {
        let service = unique_service();
        let database = server.open(&service, Limits::default()).await.unwrap();
        define(&database, "CREATE TABLE t (k BIGINT)").await;
        assert_eq!(execute(&database, "INSERT INTO t VALUES (1)").await, Ok(1));
        announce(&database, 1).await;
        // Again, as the next start of a host does.
        let database = server.open(&service, Limits::default()).await.unwrap();
        assert_eq!(execute(&database, "DELETE FROM t").await, Ok(1));
        for text in [
            "DROP TABLE t",
            "SELECT * FROM exprsn_host.outbox",
            "SET ROLE postgres",
        ] {
            assert!(
                matches!(execute(&database, text).await, Err(Error::Denied(_))),
                "{text}"
            );
        }
    }
}

#[test]
fn settings_do_not_show_their_passwords() {
    let settings = Settings::new("postgres://admin:geheim@db/postgres".to_owned());
    assert!(!format!("{settings:?}").contains("geheim"));
    let wrong = Settings::new("postgres://admin:geheim@db:port/x".to_owned());
    let error = wrong.admin().unwrap_err();
    assert!(!chain(&error).contains("geheim"), "{error:?}");
}
