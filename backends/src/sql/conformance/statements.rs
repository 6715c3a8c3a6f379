//! Statements: values, parameters, limits, errors, rights.

use super::*;
use crate::sql::error::{ConstraintKind, Violation};
use futures::StreamExt as _;

pub async fn values_keep_their_type_through_a_column(engine: Engine) {
    let bench = Bench::new(engine).await;
    let uuid = "0190b6b2-6d6b-7c3e-9a1b-2f3c4d5e6f70";
    let cases = [
        ("BIGINT", Value::Integer(i64::MIN), Value::Integer(i64::MIN)),
        ("BIGINT", Value::Boolean(true), Value::Integer(1)),
        (
            "BIGINT",
            Value::Timestamp(1_700_000_000_000),
            Value::Integer(1_700_000_000_000),
        ),
        ("BIGINT", text("12"), Value::Integer(12)),
        ("BIGINT", Value::Null, Value::Null),
        ("INTEGER", Value::Integer(-5), Value::Integer(-5)),
        ("DOUBLE PRECISION", Value::Real(-0.5), Value::Real(-0.5)),
        (
            "DOUBLE PRECISION",
            Value::Real(f64::INFINITY),
            Value::Real(f64::INFINITY),
        ),
        ("DOUBLE PRECISION", Value::Integer(3), Value::Real(3.0)),
        (
            "TEXT",
            text("h\u{e9}llo \u{1F600}"),
            text("h\u{e9}llo \u{1F600}"),
        ),
        ("TEXT", Value::Integer(5), text("5")),
        (
            "TEXT",
            Value::Json(r#"{"a":[1,null]}"#.to_owned()),
            text(r#"{"a":[1,null]}"#),
        ),
        ("TEXT", Value::Uuid(uuid.to_owned()), text(uuid)),
    ];
    for (number, (kind, given, stored)) in cases.into_iter().enumerate() {
        bench
            .define(&format!("CREATE TABLE v{number} (x {kind})"))
            .await;
        let insert = format!("INSERT INTO v{number} (x) VALUES ($1) RETURNING x");
        let set = bench
            .query(&insert, std::slice::from_ref(&given))
            .await
            .unwrap();
        assert_eq!(set.rows, [[stored]], "{given:?} as {kind}");
    }
    let blob = match engine {
        Engine::Sqlite => "CREATE TABLE b (x BLOB)",
        Engine::Postgres => "CREATE TABLE b (x BYTEA)",
    };
    bench.define(blob).await;
    let bytes = Value::Blob(vec![0, 255, 1]);
    let insert = "INSERT INTO b (x) VALUES ($1) RETURNING x";
    let set = bench
        .query(insert, std::slice::from_ref(&bytes))
        .await
        .unwrap();
    assert_eq!(set.rows, [[bytes]]);
}

pub async fn what_no_engine_stores_is_refused(engine: Engine) {
    let bench = Bench::new(engine).await;
    let uuid = "0190b6b2-6d6b-7c3e-9a1b-2f3c4d5e6f70";
    for wrong in [
        Value::Real(f64::NAN),
        Value::Json("{".to_owned()),
        Value::Uuid(uuid.to_uppercase()),
        Value::Uuid("x".to_owned()),
    ] {
        let refused = bench
            .execute("INSERT INTO t (v) VALUES ($1)", &[wrong])
            .await;
        assert!(
            matches!(&refused, Err(Error::Invalid(text)) if text.starts_with("$1 is not")),
            "{refused:?}"
        );
    }
}

pub async fn parameters_are_bound_by_number(engine: Engine) {
    let bench = Bench::new(engine).await;
    let check = async |sql: &str, values: &[i64]| {
        let values: Vec<_> = values.iter().map(|value| Value::Integer(*value)).collect();
        bench
            .query(sql, &values)
            .await
            .map(|set| format!("{:?}", set.rows))
    };
    let twice = "SELECT CAST($2 AS BIGINT), CAST($1 AS BIGINT), CAST($2 AS BIGINT)";
    assert_eq!(
        check(twice, &[1, 2]).await.unwrap(),
        "[[Integer(2), Integer(1), Integer(2)]]"
    );
    let twelve: Vec<i64> = (1..=12).collect();
    assert_eq!(
        check(
            "SELECT CAST($12 AS BIGINT)+$2+$3+$4+$5+$6+$7+$8+$9+$10+$11+$1",
            &twelve
        )
        .await
        .unwrap(),
        "[[Integer(78)]]"
    );
    for (sql, values, expected) in [
        ("SELECT $1, $2", &[1][..], "$2 has no value: 1 were given"),
        (
            "SELECT $1",
            &[1, 2],
            "2 values were given, but the last parameter is $1",
        ),
        ("SELECT 1", &[1], "1 values were given"),
        ("SELECT ?", &[1], ""),
        ("SELECT :a", &[1], ""),
        ("SELECT 1; SELECT 2", &[], "one statement at a time"),
        ("SELECT \"nothing\"", &[], "nothing"),
        ("", &[], ""),
        ("-- nothing", &[], ""),
    ] {
        match check(sql, values).await {
            Err(Error::Invalid(text)) => assert!(text.contains(expected), "{sql}: {text}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

pub async fn queries_write_where_they_must_and_count_changes(engine: Engine) {
    let bench = Bench::new(engine).await;
    assert_eq!(
        bench
            .execute("INSERT INTO t (v) VALUES ($1), ($1)", &[text("a")])
            .await
            .unwrap(),
        2
    );
    assert_eq!(bench.execute("SELECT * FROM t", &[]).await.unwrap(), 0);
    assert_eq!(
        bench
            .execute("UPDATE t SET v = 'b' WHERE k = 99", &[])
            .await
            .unwrap(),
        0
    );
    let with =
        "WITH new (v) AS (SELECT 'c') INSERT INTO t (v) SELECT v FROM new RETURNING k AS number, v";
    let set = bench.query(with, &[]).await.unwrap();
    assert_eq!(set.columns, ["number", "v"]);
    assert_eq!(bench.count().await, 3);
    let upsert =
        "INSERT INTO t (k, v) VALUES (1, 'd') ON CONFLICT (k) DO UPDATE SET v = excluded.v";
    assert_eq!(bench.execute(upsert, &[]).await.unwrap(), 1);
    let window = "SELECT k, row_number() OVER (ORDER BY k DESC) FROM t WHERE (k, v) > ($1, $2)";
    assert_eq!(
        bench
            .query(window, &[Value::Integer(1), text("a")])
            .await
            .unwrap()
            .rows
            .len(),
        3
    );
}

pub async fn a_batch_is_one_transaction(engine: Engine) {
    let bench = Bench::new(engine).await;
    let insert = |k: i64| statement("INSERT INTO t (k) VALUES ($1)", &[Value::Integer(k)]);
    let batch = vec![
        insert(1),
        insert(2),
        statement("SELECT count(*) FROM t", &[]),
    ];
    let sets = bench
        .database
        .batch(call(Rights::Rows), batch)
        .await
        .unwrap();
    assert_eq!(format!("{:?}", sets[2].rows), "[[Integer(2)]]");
    let failed = bench
        .database
        .batch(call(Rights::Rows), vec![insert(3), insert(1)])
        .await;
    assert!(matches!(failed, Err(Error::Constraint(_))), "{failed:?}");
    assert_eq!(bench.count().await, 2);
    assert!(
        bench
            .database
            .batch(call(Rights::Rows), vec![])
            .await
            .unwrap()
            .is_empty()
    );
}

pub async fn constraints_are_told_apart(engine: Engine) {
    let bench = Bench::new(engine).await;
    bench
        .define(
            "CREATE TABLE c (id TEXT PRIMARY KEY NOT NULL, n INTEGER UNIQUE CONSTRAINT positive CHECK (n > 0),
             k BIGINT REFERENCES t (k), UNIQUE (id, n))",
        )
        .await;
    bench
        .execute("INSERT INTO c (id, n) VALUES ('a', 1)", &[])
        .await
        .unwrap();
    let (foreign, both) = match engine {
        Engine::Sqlite => ("FOREIGN KEY constraint failed", "c.id, c.n"),
        Engine::Postgres => ("c_k_fkey", "c.id"),
    };
    for (values, kind, message) in [
        ("('a', 2, NULL)", ConstraintKind::Unique, "c.id"),
        ("('b', 1, NULL)", ConstraintKind::Unique, "c.n"),
        ("('a', 1, NULL)", ConstraintKind::Unique, both),
        ("(NULL, 2, NULL)", ConstraintKind::NotNull, "c.id"),
        ("('b', -1, NULL)", ConstraintKind::Check, "positive"),
        ("('b', 2, 99)", ConstraintKind::ForeignKey, foreign),
    ] {
        let insert = format!("INSERT INTO c (id, n, k) VALUES {values}");
        let expected = Violation {
            kind,
            message: message.to_owned(),
        };
        let refused = bench.execute(&insert, &[]).await;
        assert_eq!(refused, Err(Error::Constraint(expected)), "{values}");
    }
}

pub async fn results_and_values_have_limits(engine: Engine) {
    let limits = Limits {
        rows_max: 3,
        result_bytes_max: 2_000,
        value_bytes_max: 10_000,
        ..Limits::default()
    };
    let bench = Bench::with(engine, limits).await;
    let limited =
        async |sql: &str, values: &[Value], expected: &str| match bench.query(sql, values).await {
            Err(Error::Limit(text)) => assert!(text.contains(expected), "{sql}: {text}"),
            other => panic!("{sql}: {other:?}"),
        };
    let three = numbers(3) + "SELECT i FROM n";
    assert_eq!(bench.query(&three, &[]).await.unwrap().rows.len(), 3);
    limited(&(numbers(4) + "SELECT i FROM n"), &[], "sql_rows_max").await;
    let echo = "SELECT CAST($1 AS TEXT)";
    limited(echo, &[text(&"x".repeat(3_000))], "sql_result_bytes_max").await;
    limited(echo, &[text(&"x".repeat(20_000))], "sql_value_bytes_max").await;
    // Too many rows undo the writing that answered them.
    let writing = numbers(4) + "INSERT INTO t (k) SELECT i FROM n RETURNING k";
    limited(&writing, &[], "sql_rows_max").await;
    assert_eq!(bench.count().await, 0);
}

pub async fn a_runaway_statement_is_interrupted_and_harms_nobody_else(engine: Engine) {
    let bench = Bench::with(
        engine,
        Limits {
            statement_max: Duration::from_millis(400),
            ..Limits::default()
        },
    )
    .await;
    let reading = bench
        .query(&format!("{ENDLESS} SELECT count(*) FROM n"), &[])
        .await;
    assert!(
        matches!(&reading, Err(Error::Limit(text)) if text.contains("sql_statement_ms_max")),
        "{reading:?}"
    );
    let runaway_text = format!("{ENDLESS} INSERT INTO t (v) SELECT i FROM n");
    let runaway = bench.execute(&runaway_text, &[]);
    let others = futures::future::join_all(
        (0..20).map(|_| bench.execute("INSERT INTO t (v) VALUES ('x')", &[])),
    );
    let (runaway, others) = tokio::join!(runaway, others);
    assert!(matches!(runaway, Err(Error::Limit(_))), "{runaway:?}");
    assert!(
        others.iter().all(|done| matches!(done, Ok(1))),
        "{others:?}"
    );
    assert_eq!(bench.count().await, 20);
    // The invocation's own deadline counts too.
    let call = Call {
        rights: Rights::Rows,
        deadline: Instant::now(),
    };
    let late = bench
        .database
        .query(
            call,
            statement(&format!("{ENDLESS} SELECT count(*) FROM n"), &[]),
        )
        .await;
    assert!(matches!(late, Err(Error::Limit(_))), "{late:?}");
}

pub async fn streams_give_all_rows_and_tell_how_they_ended(engine: Engine) {
    let bench = Bench::with(
        engine,
        Limits {
            rows_max: 10,
            statement_max: Duration::from_secs(2),
            ..Limits::default()
        },
    )
    .await;
    let all = numbers(100_000) + "SELECT i FROM n";
    let stream = async |sql: &str, parameters: &[Value]| {
        bench
            .database
            .stream(call(Rights::Rows), statement(sql, parameters))
            .await
    };
    let whole = stream(&all, &[]).await.unwrap();
    assert_eq!(whole.columns, ["i"]);
    let rows: Vec<_> = whole.rows.into_stream().collect().await;
    assert_eq!(rows.iter().map(Vec::len).sum::<usize>(), 100_000);
    whole.end.await.unwrap();

    // Whoever has enough drops the stream.
    let some = stream(&all, &[]).await.unwrap();
    assert!(some.rows.recv_async().await.is_ok());
    drop(some.rows);
    some.end.await.unwrap();

    let failing =
        numbers(200_000) + "SELECT 1 / (100000 - i), abs(i - 100000 - 9223372036854775807) FROM n";
    let failing = match engine {
        Engine::Sqlite => stream("SELECT abs(-9223372036854775808)", &[]).await,
        Engine::Postgres => stream(&failing, &[]).await,
    };
    match failing {
        Ok(stream) => {
            while stream.rows.recv_async().await.is_ok() {}
            assert!(matches!(stream.end.await, Err(Error::Invalid(_))));
        }
        Err(error) => assert!(matches!(error, Error::Invalid(_)), "{error:?}"),
    }
    let writing = stream("INSERT INTO t (v) VALUES ('x')", &[])
        .await
        .map(|_| ());
    assert!(
        matches!(&writing, Err(Error::Invalid(text)) if text.contains("only reads")),
        "{writing:?}"
    );
    let wrong = stream("SELECT nothing", &[]).await.map(|_| ());
    assert!(matches!(wrong, Err(Error::Invalid(_))), "{wrong:?}");
}

pub async fn a_stream_that_nobody_reads_ends(engine: Engine) {
    let bench = Bench::with(
        engine,
        Limits {
            stream_idle_max: Duration::from_millis(50),
            statement_max: Duration::from_secs(20),
            ..Limits::default()
        },
    )
    .await;
    let endless = format!("{ENDLESS} SELECT i FROM n");
    let stream = bench
        .database
        .stream(call(Rights::Rows), statement(&endless, &[]))
        .await
        .unwrap();
    let ended = stream.end.await;
    assert!(
        matches!(&ended, Err(Error::Limit(text)) if text.contains("sql_stream_idle_ms_max")),
        "{ended:?}"
    );
}

pub async fn only_so_many_streams_are_read_at_once(engine: Engine) {
    let limits = Limits {
        streams_max: 1,
        statement_max: Duration::from_secs(20),
        ..Limits::default()
    };
    let bench = Bench::with(engine, limits).await;
    let endless = statement(&format!("{ENDLESS} SELECT i FROM n"), &[]);
    let first = bench
        .database
        .stream(call(Rights::Rows), endless.clone())
        .await
        .unwrap();
    let second = bench.database.stream(call(Rights::Rows), endless);
    let second = async { second.await.map(|stream| stream.columns) };
    let mut second = std::pin::pin!(second);
    let waited = tokio::time::timeout(Duration::from_millis(100), &mut second).await;
    assert!(waited.is_err(), "it waits for the first");
    // Reads go on meanwhile.
    assert_eq!(bench.count().await, 0);
    drop(first.rows);
    first.end.await.unwrap();
    assert_eq!(second.await.unwrap(), ["i"]);
}

async fn denied(bench: &Bench, rights: Rights, sql: &str) -> String {
    let attempt = bench
        .database
        .execute(call(rights), statement(sql, &[]))
        .await;
    match attempt {
        Err(Error::Denied(text)) => text,
        other => panic!("{sql} with {rights:?}: {other:?}"),
    }
}

pub async fn the_schema_changes_only_with_the_grant(engine: Engine) {
    let bench = Bench::new(engine).await;
    for sql in [
        "CREATE TABLE x (a TEXT)",
        "ALTER TABLE t ADD COLUMN w TEXT",
        "CREATE INDEX i ON t (v)",
        "CREATE VIEW w AS SELECT 1",
        "DROP TABLE x",
    ] {
        let told = denied(&bench, Rights::Rows, sql).await;
        assert!(told.contains("ddl = true"), "{sql}: {told}");
        bench.define(sql).await;
    }
    bench
        .execute("INSERT INTO t (v, w) VALUES ('a', 'b')", &[])
        .await
        .unwrap();
    for sql in ["CREATE TEMP TABLE x (a TEXT)", "BEGIN", "COMMIT"] {
        denied(&bench, Rights::Schema, sql).await;
    }
}

pub async fn the_hosts_tables_do_not_exist_for_guests(engine: Engine) {
    let bench = Bench::new(engine).await;
    let tables = match engine {
        Engine::Sqlite => ["_exprsn_outbox", "_exprsn_migrations"],
        Engine::Postgres => ["exprsn_host.outbox", "exprsn_host.migrations"],
    };
    for table in tables {
        for rights in [Rights::Rows, Rights::Schema] {
            denied(&bench, rights, &format!("SELECT * FROM {table}")).await;
            denied(&bench, rights, &format!("DELETE FROM {table}")).await;
            denied(
                &bench,
                rights,
                &format!("INSERT INTO {table} DEFAULT VALUES"),
            )
            .await;
        }
        denied(&bench, Rights::Schema, &format!("DROP TABLE {table}")).await;
    }
}

pub async fn host_faults_are_told_without_their_text(engine: Engine) {
    let bench = Bench::new(engine).await;
    bench.database.close().await;
    for failed in [
        bench.query("SELECT 1", &[]).await.map(drop),
        bench.execute("DELETE FROM t", &[]).await.map(drop),
    ] {
        match failed {
            Err(Error::Unavailable(text)) => assert_eq!(text, "the database is away"),
            other => panic!("{other:?}"),
        }
    }
}
