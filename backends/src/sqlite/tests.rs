//! The engine's contracts.

use super::*;
use futures::future::join_all;
use std::{sync::mpsc as std_mpsc, time::Instant};

const LONG: Duration = Duration::from_secs(30);

fn database() -> (tempfile::TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("nested/test.db"), options()).unwrap();
    (folder, database)
}

fn options() -> Options {
    Options::with_schema(|c| {
        Ok(c.execute_batch(
            "CREATE TABLE IF NOT EXISTS t (k INTEGER PRIMARY KEY, v TEXT);
             CREATE TABLE IF NOT EXISTS child (k INTEGER PRIMARY KEY, p INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED);",
        )?)
    })
}

fn insert(c: &Connection, k: i64) -> Result<(), Error> {
    c.prepare_cached("INSERT INTO t (k, v) VALUES (?1, 'x')")?
        .execute([k])?;
    Ok(())
}

async fn count(database: &Database) -> i64 {
    database
        .read(|c| Ok::<_, Error>(c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?))
        .await
        .unwrap()
}

/// Keeps the writer busy until the sender drops.
fn occupy(
    database: &Database,
) -> (
    std_mpsc::Sender<()>,
    tokio::task::JoinHandle<Result<(), Error>>,
) {
    let (release, wait) = std_mpsc::channel::<()>();
    let (began, begun) = std_mpsc::channel::<()>();
    let database = database.clone();
    let busy = tokio::spawn(async move {
        database
            .write(move |_| {
                drop(began);
                let _ = wait.recv();
                Ok::<_, Error>(())
            })
            .await
    });
    assert!(
        tokio::task::block_in_place(|| begun.recv()).is_err(),
        "the closure drops its end when it runs"
    );
    (release, busy)
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_wait_share_commits() {
    let (_folder, database) = database();
    let (release, busy) = occupy(&database);
    let before = database.statistics().commits();
    let writes = join_all((0..100).map(|k| database.write(move |c| insert(c, k))));
    let releasing = async { drop(release) };
    let (answers, ()) = tokio::join!(writes, releasing);
    busy.await.unwrap().unwrap();
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(count(&database).await, 100);
    let commits = database.statistics().commits() - before;
    assert!(commits <= 3, "100 writes took {commits} commits");
    assert_eq!(database.statistics().writes(), 101);
    let flushes = database.statistics().flushes();
    assert!(
        (1..=commits + 1).contains(&flushes),
        "{commits} commits were flushed {flushes} times"
    );
    database.flushed().await.unwrap();
    assert!(database.statistics().flushes() > flushes);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_or_panic_undoes_its_own_closure_only() {
    let (_folder, database) = database();
    let (release, busy) = occupy(&database);
    let failing = database.write(|c| {
        insert(c, 1)?;
        insert(c, 1)
    });
    let panicking = database.write(|c| {
        insert(c, 2)?;
        if count_now(c) > 0 {
            panic!("on purpose")
        }
        Ok::<_, Error>(())
    });
    let good = database.write(|c| insert(c, 3));
    let (failed, panicked, written, ()) =
        tokio::join!(failing, panicking, good, async { drop(release) });
    busy.await.unwrap().unwrap();
    assert_eq!(
        failed.unwrap_err().code(),
        Some(rusqlite::ErrorCode::ConstraintViolation)
    );
    assert!(matches!(panicked, Err(Error::Panicked)), "{panicked:?}");
    written.unwrap();
    assert_eq!(count(&database).await, 1);
}

fn count_now(c: &Connection) -> i64 {
    c.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_transaction_and_a_failed_commit_harm_only_their_cause() {
    let (_folder, database) = database();
    let (release, busy) = occupy(&database);
    let before = database.write_again(|c| insert(c, 1));
    let once = database.write(|c| insert(c, 2));
    let ending = database.write_again(|c| {
        insert(c, 3)?;
        // Stands for an interrupted write, which ends the transaction in the same way.
        c.execute_batch("ROLLBACK")?;
        Ok::<_, Error>(())
    });
    let orphan = database
        .write_again(|c| Ok::<_, Error>(c.execute("INSERT INTO child VALUES (1, 99)", [])?));
    let after = database.write_again(|c| insert(c, 4));
    let (before, once, ending, orphan, after, ()) =
        tokio::join!(before, once, ending, orphan, after, async { drop(release) });
    // The occupier ran once, was undone with the others and could not run again.
    assert!(matches!(busy.await.unwrap(), Err(Error::Lost)));
    before.unwrap();
    assert!(matches!(once, Err(Error::Lost)), "{once:?}");
    assert!(matches!(ending, Err(Error::Lost)), "{ending:?}");
    assert_eq!(
        orphan.unwrap_err().code(),
        Some(rusqlite::ErrorCode::ConstraintViolation)
    );
    after.unwrap();
    assert_eq!(count(&database).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_commit_roll_back_and_expire() {
    let (_folder, database) = database();
    let session = database.begin(LONG, LONG).await.unwrap();
    session.run(|c| insert(c, 1)).await.unwrap();
    assert_eq!(count(&database).await, 0, "not visible before the commit");
    let (told, hears) = std_mpsc::channel();
    session
        .commit_then(move || told.send(()).unwrap())
        .await
        .unwrap();
    assert!(matches!(
        session.run(|c| insert(c, 9)).await,
        Err(Error::Ended)
    ));
    hears.recv().unwrap();
    assert_eq!(count(&database).await, 1);

    let session = database.begin(LONG, LONG).await.unwrap();
    session.run(|c| insert(c, 2)).await.unwrap();
    drop(session);
    database.write(|c| insert(c, 3)).await.unwrap();
    assert_eq!(
        count(&database).await,
        2,
        "a dropped session is rolled back"
    );

    let session = database
        .begin(Duration::from_millis(1), LONG)
        .await
        .unwrap();
    // Runs only when the writer has given the session up.
    database.write(|c| insert(c, 4)).await.unwrap();
    assert!(matches!(
        session.run(|c| insert(c, 5)).await,
        Err(Error::Expired)
    ));
    assert!(matches!(session.commit().await, Err(Error::Expired)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_in_all_even_when_it_never_idles() {
    let (_folder, database) = database();
    let session = database
        .begin(LONG, Duration::from_millis(50))
        .await
        .unwrap();
    let begun = Instant::now();
    while session.run(|c| Ok::<_, Error>(count_now(c))).await.is_ok() {
        assert!(begun.elapsed() < LONG);
    }
    assert!(matches!(session.roll_back().await, Err(Error::Expired)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_sees_one_state_and_cannot_write() {
    let (_folder, database) = database();
    let (go, wait) = std_mpsc::channel::<()>();
    let (began, begun) = tokio::sync::oneshot::channel();
    let reading = database.scan(move |c| {
        let first = count_now(c);
        began.send(()).unwrap();
        wait.recv().unwrap();
        Ok::<_, Error>((first, count_now(c)))
    });
    let writing = async {
        begun.await.unwrap();
        database.write(|c| insert(c, 1)).await.unwrap();
        go.send(()).unwrap();
    };
    let (seen, ()) = tokio::join!(reading, writing);
    assert_eq!(seen.unwrap(), (0, 0));
    let refused = database.read(|c| insert(c, 2)).await.unwrap_err();
    assert_eq!(refused.code(), Some(rusqlite::ErrorCode::ReadOnly));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_answers_everybody_and_leaves_one_file() {
    let (_folder, database) = database();
    let (release, busy) = occupy(&database);
    let waiting = tokio::spawn({
        let database = database.clone();
        async move { database.write(|c| insert(c, 1)).await }
    });
    database.ping().await.unwrap();
    let closing = database.close();
    let (busy, (), ()) = tokio::join!(busy, closing, async { drop(release) });
    busy.unwrap().unwrap();
    // It came before or after the closing; either way it is answered.
    let _ = waiting.await.unwrap();
    assert!(matches!(
        database.write(|c| insert(c, 2)).await,
        Err(Error::Closed)
    ));
    assert!(matches!(database.ping().await, Err(Error::Closed)));
    assert!(matches!(
        database.begin(LONG, LONG).await,
        Err(Error::Closed)
    ));
    assert!(matches!(database.flushed().await, Err(Error::Closed)));
    let path = database.path();
    let log = std::fs::metadata(path.with_extension("db-wal"));
    assert_eq!(log.map_or(0, |log| log.len()), 0, "the log is written back");
    let reopened = Database::open(path, Options::default()).unwrap();
    reopened.write(|c| insert(c, 2)).await.unwrap();
    assert!(count(&reopened).await >= 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    std::fs::create_dir(&path).unwrap();
    let error = Database::open(&path, Options::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(path.to_str().unwrap()) && error.contains("write access"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_reopening() {
    let (folder, database) = database();
    database.write(|c| insert(c, 7)).await.unwrap();
    let path = folder.path().join("nested/test.db");
    // A second handle reads the log as a process after a kill would.
    let other = Database::open(&path, options()).unwrap();
    assert_eq!(count(&other).await, 1);
}
