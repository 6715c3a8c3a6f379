//! Interactive transactions.

use super::*;
use futures::FutureExt as _;

fn insert(k: i64) -> Statement {
    statement("INSERT INTO t (k) VALUES ($1)", &[Value::Integer(k)])
}

fn event(id: &str) -> Content {
    Content::Event {
        id: id.to_owned(),
        topic: "note.created".to_owned(),
        subject: None,
        data: "{}".to_owned(),
    }
}

pub async fn commits_make_it_so_and_rollbacks_do_not(engine: Engine) {
    let bench = Bench::new(engine).await;
    let call = call(Rights::Rows);
    let tx = bench.database.begin(call).await.unwrap();
    assert_eq!(tx.execute(call, insert(1)).await.unwrap(), 1);
    assert_eq!(
        tx.query(call, statement("SELECT k FROM t", &[]))
            .await
            .unwrap()
            .rows
            .len(),
        1
    );
    let failed = tx.execute(call, insert(1)).await;
    assert!(matches!(failed, Err(Error::Constraint(_))), "{failed:?}");
    assert_eq!(
        bench.count().await,
        0,
        "others do not see it before the commit"
    );
    tx.commit().await.unwrap();
    assert_eq!(bench.count().await, 1);
    let ended = tx.execute(call, insert(2)).await;
    assert!(
        matches!(&ended, Err(Error::Invalid(text)) if text.contains("ended")),
        "{ended:?}"
    );
    assert!(matches!(tx.commit().await, Err(Error::Invalid(_))));

    let tx = bench.database.begin(call).await.unwrap();
    tx.execute(call, insert(2)).await.unwrap();
    tx.roll_back().await.unwrap();
    let tx = bench.database.begin(call).await.unwrap();
    tx.execute(call, insert(3)).await.unwrap();
    drop(tx);
    bench
        .execute("INSERT INTO t (k) VALUES (4)", &[])
        .await
        .unwrap();
    assert_eq!(bench.count().await, 2);
}

pub async fn guests_cannot_end_a_transaction_by_words(engine: Engine) {
    let bench = Bench::new(engine).await;
    let call = call(Rights::Rows);
    let tx = bench.database.begin(call).await.unwrap();
    for sql in ["COMMIT", "END", "ROLLBACK", "SAVEPOINT a"] {
        let refused = tx.execute(call, statement(sql, &[])).await;
        assert!(
            matches!(refused, Err(Error::Denied(_))),
            "{sql}: {refused:?}"
        );
    }
    tx.commit().await.unwrap();
}

pub async fn one_that_idles_is_rolled_back(engine: Engine) {
    let bench = Bench::with(
        engine,
        Limits {
            transaction_idle_max: Duration::from_millis(100),
            ..Limits::default()
        },
    )
    .await;
    let call = call(Rights::Rows);
    let tx = bench.database.begin(call).await.unwrap();
    tx.execute(call, insert(1)).await.unwrap();
    // On SQLite its turn comes when the idle one has been given up.
    bench
        .execute("INSERT INTO t (k) VALUES (2)", &[])
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let expired = tx.execute(call, insert(3)).await;
    assert!(
        matches!(&expired, Err(Error::Limit(text)) if text.contains("sql_transaction_ms_max")),
        "{expired:?}"
    );
    assert!(matches!(tx.commit().await, Err(Error::Limit(_))));
    assert_eq!(bench.count().await, 1);
}

pub async fn one_that_is_interrupted_is_lost_as_a_whole(engine: Engine) {
    let bench = Bench::with(
        engine,
        Limits {
            statement_max: Duration::from_millis(100),
            ..Limits::default()
        },
    )
    .await;
    let call = call(Rights::Rows);
    let tx = bench.database.begin(call).await.unwrap();
    tx.execute(call, insert(1)).await.unwrap();
    let endless = format!("{ENDLESS} INSERT INTO t (k) SELECT i + 1 FROM n");
    assert!(matches!(
        tx.execute(call, statement(&endless, &[])).await,
        Err(Error::Limit(_))
    ));
    let after = tx.execute(call, insert(5)).await;
    assert!(matches!(after, Err(Error::Conflict(_))), "{after:?}");
    assert!(matches!(tx.commit().await, Err(Error::Conflict(_))));
    assert_eq!(bench.count().await, 0);
}

pub async fn only_so_many_wait(engine: Engine) {
    let bench = Bench::with(
        engine,
        Limits {
            transactions_max: 2,
            ..Limits::default()
        },
    )
    .await;
    let call = call(Rights::Rows);
    let first = bench.database.begin(call).await.unwrap();
    let mut second = Box::pin(bench.database.begin(call));
    assert!(
        (&mut second).now_or_never().is_none(),
        "it waits for the first, or for the server"
    );
    let third = bench.database.begin(call).await.map(drop);
    assert!(matches!(third, Err(Error::Limit(_))), "{third:?}");
    first.commit().await.unwrap();
    second.await.unwrap().commit().await.unwrap();
    bench.database.begin(call).await.unwrap();
}

pub async fn announcements_are_rows_of_the_transaction(engine: Engine) {
    let bench = Bench::new(engine).await;
    let call = call(Rights::Rows);
    let outbox = bench.database.outbox();
    let tx = bench.database.begin(call).await.unwrap();
    tx.announce(event("1"), TraceContext::new_root(), 5)
        .await
        .unwrap();
    tx.roll_back().await.unwrap();
    assert_eq!(bench.waiting().await, 0);
    let tx = bench.database.begin(call).await.unwrap();
    for id in ["1", "2", "1"] {
        tx.announce(event(id), TraceContext::new_root(), 5)
            .await
            .unwrap();
    }
    assert!(
        outbox.wake().notified().now_or_never().is_none(),
        "nothing is announced before the commit"
    );
    tx.commit().await.unwrap();
    outbox.wake().notified().await;
    assert_eq!(bench.waiting().await, 2, "an id is announced once");
}

pub async fn they_come_one_after_the_other(engine: Engine) {
    let bench = Bench::new(engine).await;
    bench
        .execute("INSERT INTO t (k, v) VALUES (1, '0')", &[])
        .await
        .unwrap();
    let call = call(Rights::Rows);
    let add = async |_| {
        let tx = bench.database.begin(call).await?;
        let read = tx.query(call, statement("SELECT v FROM t WHERE k = 1", &[]));
        let Value::Text(v) = &read.await?.rows[0][0] else {
            panic!("v is a text");
        };
        let next = (v.parse::<i64>().unwrap() + 1).to_string();
        let update = statement("UPDATE t SET v = $1 WHERE k = 1", &[text(&next)]);
        tx.execute(call, update).await?;
        tx.commit().await
    };
    let single = bench.execute("INSERT INTO t (k, v) VALUES (2, 'x')", &[]);
    let all = futures::future::join_all((0..12).map(add));
    let (all, single) = tokio::join!(all, single);
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(single, Ok(1));
    let set = bench
        .query("SELECT v FROM t WHERE k = 1", &[])
        .await
        .unwrap();
    assert_eq!(set.rows, [[text("12")]]);
}
