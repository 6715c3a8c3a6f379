//! Statements: values, parameters, limits, errors.

use super::*;
use crate::capability::sql::types::ConstraintKind;
use futures::StreamExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn every_value_comes_back_as_it_is_stored() {
    let bench = Bench::new().await;
    bench
        .define("CREATE TABLE v (i INTEGER PRIMARY KEY, x)")
        .await;
    let uuid = "0190b6b2-6d6b-7c3e-9a1b-2f3c4d5e6f70";
    let cases = [
        (Value::Null, Value::Null),
        (Value::Boolean(true), Value::Integer(1)),
        (Value::Integer(i64::MIN), Value::Integer(i64::MIN)),
        (Value::Real(-0.5), Value::Real(-0.5)),
        (Value::Real(f64::INFINITY), Value::Real(f64::INFINITY)),
        (text("héllo \u{0}\u{1F600}"), text("héllo \u{0}\u{1F600}")),
        (Value::Blob(vec![0, 255, 1]), Value::Blob(vec![0, 255, 1])),
        (
            Value::Json(r#"{"a":[1,null]}"#.to_owned()),
            text(r#"{"a":[1,null]}"#),
        ),
        (
            Value::Timestamp(1_700_000_000_000),
            Value::Integer(1_700_000_000_000),
        ),
        (Value::Uuid(uuid.to_owned()), text(uuid)),
    ];
    for (given, stored) in cases {
        let rows = bench
            .query(
                "INSERT INTO v (x) VALUES ($1) RETURNING x",
                std::slice::from_ref(&given),
            )
            .await
            .unwrap()
            .rows;
        assert_eq!(
            format!("{rows:?}"),
            format!("{:?}", [[stored]]),
            "{given:?}"
        );
    }
    for wrong in [
        Value::Real(f64::NAN),
        Value::Json("{".to_owned()),
        Value::Uuid(uuid.to_uppercase()),
        Value::Uuid("x".to_owned()),
    ] {
        let refused = bench
            .execute("INSERT INTO v (x) VALUES ($1)", &[wrong])
            .await;
        assert!(
            matches!(&refused, Err(Error::Invalid(text)) if text.starts_with("$1 is not")),
            "{refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_bound_by_number() {
    let bench = Bench::new().await;
    let check = async |sql: &str, values: &[i64]| {
        let values: Vec<_> = values.iter().map(|value| Value::Integer(*value)).collect();
        bench
            .query(sql, &values)
            .await
            .map(|set| format!("{:?}", set.rows))
    };
    assert_eq!(
        check("SELECT $2, $1, $2", &[1, 2]).await.unwrap(),
        "[[Value::Integer(2), Value::Integer(1), Value::Integer(2)]]"
    );
    let twelve: Vec<i64> = (1..=12).collect();
    assert_eq!(
        check("SELECT $12, $1, $2+$3+$4+$5+$6+$7+$8+$9+$10+$11", &twelve)
            .await
            .unwrap(),
        "[[Value::Integer(12), Value::Integer(1), Value::Integer(65)]]"
    );
    for (sql, values, expected) in [
        ("SELECT $1, $2", &[1][..], "$2 has no value: 1 were given"),
        (
            "SELECT $1",
            &[1, 2],
            "2 values were given, but the last parameter is $1",
        ),
        ("SELECT 1", &[1], "1 values were given"),
        ("SELECT ?", &[1], "parameters are written $1"),
        ("SELECT ?1", &[1], "not `?1`"),
        ("SELECT :a", &[1], "not `:a`"),
        ("SELECT $0", &[1], "not `$0`"),
        ("SELECT $1::text", &[1], "not `$1::text`"),
        ("SELECT 1; SELECT 2", &[], "one statement at a time"),
        ("SELEKT 1", &[], "syntax error"),
        ("SELECT \"nothing\"", &[], "no such column"),
        ("", &[], ""),
        ("-- nothing", &[], ""),
    ] {
        match check(sql, values).await {
            Err(Error::Invalid(text)) => assert!(text.contains(expected), "{sql}: {text}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_write_where_they_must_and_count_changes() {
    let bench = Bench::new().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_transaction() {
    let bench = Bench::new().await;
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
    assert_eq!(format!("{:?}", sets[2].rows), "[[Value::Integer(2)]]");
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

#[tokio::test(flavor = "multi_thread")]
async fn constraints_are_told_apart() {
    let bench = Bench::new().await;
    bench
        .define(
            "CREATE TABLE c (id TEXT PRIMARY KEY NOT NULL, n INTEGER UNIQUE CHECK (n > 0), k INTEGER REFERENCES t (k))",
        )
        .await;
    bench
        .execute("INSERT INTO c (id, n) VALUES ('a', 1)", &[])
        .await
        .unwrap();
    for (values, kind, message) in [
        ("('a', 2, NULL)", ConstraintKind::Unique, "c.id"),
        ("('b', 1, NULL)", ConstraintKind::Unique, "c.n"),
        ("(NULL, 2, NULL)", ConstraintKind::NotNull, "c.id"),
        ("('b', -1, NULL)", ConstraintKind::Check, "n > 0"),
        (
            "('b', 2, 99)",
            ConstraintKind::ForeignKey,
            "FOREIGN KEY constraint failed",
        ),
    ] {
        match bench
            .execute(&format!("INSERT INTO c (id, n, k) VALUES {values}"), &[])
            .await
        {
            Err(Error::Constraint(violation)) => {
                assert_eq!(
                    (violation.kind, violation.message.as_str()),
                    (kind, message),
                    "{values}"
                );
            }
            other => panic!("{values}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_and_values_have_limits() {
    let config = Config {
        rows_max: 3,
        result_bytes_max: 2_000,
        value_bytes_max: 10_000,
        ..Config::default()
    };
    let bench = Bench::with(config).await;
    let numbers = |count: u32| {
        format!("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {count}) ")
    };
    let limited = async |sql: &str, expected: &str| match bench.query(sql, &[]).await {
        Err(Error::LimitExceeded(text)) => assert!(text.contains(expected), "{sql}: {text}"),
        other => panic!("{sql}: {other:?}"),
    };
    assert_eq!(
        bench
            .query(&(numbers(3) + "SELECT i FROM n"), &[])
            .await
            .unwrap()
            .rows
            .len(),
        3
    );
    limited(&(numbers(4) + "SELECT i FROM n"), "sql_rows_max").await;
    limited("SELECT zeroblob(3000)", "sql_result_bytes_max").await;
    limited("SELECT zeroblob(20000)", "sql_value_bytes_max").await;
    // Too many rows undo the writing that answered them.
    limited(
        &(numbers(4) + "INSERT INTO t (k) SELECT i FROM n RETURNING k"),
        "sql_rows_max",
    )
    .await;
    assert_eq!(bench.count().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runaway_statement_is_interrupted_and_harms_nobody_else() {
    let bench = Bench::with(Config {
        statement_ms_max: 50,
        ..Config::default()
    })
    .await;
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) ";
    let reading = bench
        .query(&format!("{endless} SELECT count(*) FROM n"), &[])
        .await;
    assert!(
        matches!(&reading, Err(Error::LimitExceeded(text)) if text.contains("sql_statement_ms_max")),
        "{reading:?}"
    );
    let runaway_text = format!("{endless} INSERT INTO t (v) SELECT i FROM n");
    let runaway = bench.execute(&runaway_text, &[]);
    let others = futures::future::join_all(
        (0..20).map(|_| bench.execute("INSERT INTO t (v) VALUES ('x')", &[])),
    );
    let (runaway, others) = tokio::join!(runaway, others);
    assert!(
        matches!(runaway, Err(Error::LimitExceeded(_))),
        "{runaway:?}"
    );
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
            statement(&format!("{endless} SELECT count(*) FROM n"), &[]),
        )
        .await;
    assert!(matches!(late, Err(Error::LimitExceeded(_))), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_give_all_rows_and_tell_how_they_ended() {
    let bench = Bench::with(Config {
        rows_max: 10,
        statement_ms_max: 500,
        ..Config::default()
    })
    .await;
    let numbers =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT $1) SELECT i FROM n";
    let stream = async |sql: &str, parameters: &[Value]| {
        bench
            .database
            .stream(call(Rights::Rows), statement(sql, parameters))
            .await
    };
    let whole = stream(numbers, &[Value::Integer(100_000)]).await.unwrap();
    assert_eq!(whole.columns, ["i"]);
    let rows: Vec<_> = whole.rows.into_stream().collect().await;
    assert_eq!(rows.iter().map(Vec::len).sum::<usize>(), 100_000);
    whole.end.await.unwrap();

    // Whoever has enough drops the stream.
    let some = stream(numbers, &[Value::Integer(100_000)]).await.unwrap();
    assert!(some.rows.recv_async().await.is_ok());
    drop(some.rows);
    some.end.await.unwrap();

    let failing = format!("{numbers} WHERE i < 5 OR (SELECT abs(-9223372036854775808)) > 0");
    let failing = stream(&failing, &[Value::Integer(100)]).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_reads_ends() {
    let bench = Bench::with(Config {
        stream_idle_ms_max: 20,
        ..Config::default()
    })
    .await;
    let endless =
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let stream = bench
        .database
        .stream(call(Rights::Rows), statement(endless, &[]))
        .await
        .unwrap();
    let ended = stream.end.await;
    assert!(
        matches!(&ended, Err(Error::LimitExceeded(text)) if text.contains("sql_stream_idle_ms_max")),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn host_faults_are_told_without_their_text() {
    let bench = Bench::new().await;
    bench.database.database().close().await;
    for failed in [
        bench.query("SELECT 1", &[]).await.map(drop),
        bench.execute("DELETE FROM t", &[]).await.map(drop),
    ] {
        match failed {
            Err(Error::Unavailable(text)) => assert_eq!(text, "the database is away"),
            other => panic!("{other:?}"),
        }
    }
    assert!(bench.folder.path().exists());
}
