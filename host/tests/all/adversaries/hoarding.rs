//! Guests and clients that take and never give back: handles, arguments, transactions, bodies, statements.

use super::{hostile, platform, resident_bytes, while_innocents_are_served};
use serde_json::{Value, json};
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

#[test]
fn a_million_handles_are_refused_at_the_limit_of_resources() {
    while_innocents_are_served(|platform| {
        platform
            .call("hostile", "GET", "/handles/1000000")
            .send()
            .expect_problem(500, "resources_max");
    });
}

#[test]
fn a_call_with_more_bytes_than_it_may_hand_over_is_stopped() {
    while_innocents_are_served(|platform| {
        platform
            .call("hostile", "GET", "/hand-over/9000000")
            .send()
            .expect_problem(500, "hostcall_bytes_max");
    });
}

#[test]
fn calls_that_are_never_awaited_do_not_fill_the_hosts_memory() {
    while_innocents_are_served(|_| {
        let before = resident_bytes();
        let told = hostile("GET", "/never-await/24", &Value::Null);
        let refused = told["refused"].as_u64().expect("a count");
        assert!((14..=20).contains(&refused), "{told}");
        assert!(
            told["said"].to_string().contains("hostcall_bytes_max"),
            "{told}"
        );
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 128 << 20, "the host's memory grew by {grown} bytes");
    });
}

#[test]
fn randomness_by_the_gigabyte_is_given_by_the_mebibyte() {
    while_innocents_are_served(|platform| {
        let answer = platform.call("hostile", "GET", "/random/4000000000").send();
        // As many as one call gives, which is fewer than were asked for.
        assert_eq!(answer.expect_status(200).text(), (1 << 20).to_string());
    });
}

#[test]
fn a_transaction_held_for_ever_is_rolled_back_and_others_get_theirs() {
    while_innocents_are_served(|platform| {
        std::thread::scope(|scope| {
            let held = scope.spawn(|| platform.call("hostile", "GET", "/transaction").send());
            // It waits for the writer, which gives the idle transaction up after `transaction_ms_max`.
            let other = hostile(
                "POST",
                "/sql",
                &json!("UPDATE loot SET text = 'mine' WHERE id = 1"),
            );
            assert_eq!(other, "[]");
            held.join().expect("an answer").expect_status(504);
        });
        let text = hostile("POST", "/sql", &json!("SELECT text FROM loot WHERE id = 1"));
        assert!(text.to_string().contains("mine"), "{text}");
    });
}

#[test]
fn transactions_beyond_their_limit_are_refused() {
    while_innocents_are_served(|_| {
        let told = hostile("GET", "/transactions/40", &Value::Null);
        assert_eq!(told["refused"], 40 - 16, "{told}");
        assert!(
            told["said"].to_string().contains("16 transactions"),
            "{told}"
        );
    });
}

/// What is said to each statement, which must reach neither another database nor the host's own.
#[test]
fn statements_reach_the_services_own_rows_and_nothing_else() {
    let attempts = [
        "ATTACH DATABASE 'exprsn-broker.db' AS other",
        "ATTACH DATABASE '../broker.db' AS other",
        "DETACH DATABASE main",
        "PRAGMA journal_mode = OFF",
        "PRAGMA writable_schema = ON",
        "PRAGMA database_list",
        "VACUUM",
        "VACUUM INTO '/tmp/stolen.db'",
        "SELECT load_extension('/tmp/evil.so')",
        "SELECT readfile('/etc/passwd')",
        "SELECT writefile('/tmp/evil', 'x')",
        "SELECT fts3_tokenizer('simple')",
        "CREATE TABLE more (id INTEGER)",
        "CREATE TEMP TABLE more (id INTEGER)",
        "CREATE VIRTUAL TABLE files USING fsdir",
        "DROP TABLE loot",
        "SELECT * FROM sqlite_master",
        "UPDATE sqlite_master SET sql = ''",
        "DELETE FROM sqlite_schema",
        "SELECT * FROM _exprsn_outbox",
        "INSERT INTO _exprsn_outbox (id, kind, payload, created_at) VALUES ('x', 'job', '{}', 0)",
        "SELECT * FROM _exprsn_migrations",
        "SELECT * FROM dbstat",
        "SELECT * FROM sqlite_dbpage",
        "SELECT * FROM pragma_database_list",
        "BEGIN",
        "COMMIT",
        "SELECT 1; DROP TABLE loot",
        "SELECT * FROM exprsn_broker.jobs",
        "SELECT * FROM jobs",
    ];
    while_innocents_are_served(|_| {
        for attempt in attempts {
            let said = hostile("POST", "/sql", &json!(attempt)).to_string();
            let denied = said.starts_with("\"AccessDenied") || said.starts_with("\"Invalid");
            assert!(denied, "{attempt}: {said}");
        }
        let own = hostile("POST", "/sql", &json!("SELECT text FROM loot WHERE id = 1"));
        assert!(own.to_string().contains("Text"), "{own}");
    });
}

#[test]
fn statements_that_never_end_are_interrupted() {
    let bombs = [
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c a, c b, c d",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) INSERT INTO loot SELECT n + 1000, hex(randomblob(1000)) FROM c",
    ];
    while_innocents_are_served(|_| {
        for bomb in bombs {
            let said = hostile("POST", "/sql", &json!(bomb)).to_string();
            assert!(said.starts_with("\"LimitExceeded"), "{bomb}: {said}");
        }
    });
    let large = "SELECT hex(zeroblob(1000000000))";
    let said = hostile("POST", "/sql", &json!(large)).to_string();
    assert!(said.starts_with("\"LimitExceeded"), "{said}");
}

#[test]
fn a_body_that_is_never_read_is_not_taken_and_its_request_ends_in_time() {
    while_innocents_are_served(|platform| {
        let before = resident_bytes();
        let origin = platform.origin("hostile");
        let mut stream =
            TcpStream::connect(origin.trim_start_matches("http://")).expect("connected");
        let timeout = Some(Duration::from_millis(200));
        stream.set_write_timeout(timeout).expect("a timeout");
        let head = "POST /unread HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("the head is sent");
        let mut chunk = b"10000\r\n".to_vec();
        chunk.extend(vec![b'x'; 0x10000]);
        chunk.extend(b"\r\n");
        // As long as somebody takes it: what is in the buffers of both sides is all that goes.
        let mut sent = 0;
        while sent < 64 << 20 && stream.write_all(&chunk).is_ok() {
            sent += chunk.len();
        }
        assert!(sent < 32 << 20, "{sent} bytes were taken that nobody reads");
        let mut answer = Vec::new();
        stream
            .set_read_timeout(Some(crate::harness::PATIENCE))
            .expect("a timeout");
        let mut some = [0; 4096];
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let count = stream.read(&mut some).expect("an answer");
            assert!(count > 0, "no answer: {}", String::from_utf8_lossy(&answer));
            answer.extend(&some[..count]);
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 504"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 64 << 20, "the host's memory grew by {grown} bytes");
    });
    // Clients that go away while they wait leave no trace in the queue: the service answers as before.
    platform()
        .call("hostile", "GET", "/calm")
        .send()
        .expect_status(200);
}
