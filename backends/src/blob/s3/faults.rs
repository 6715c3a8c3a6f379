//! What servers and networks do that moto does not: a server of these tests' own words.

use super::{
    super::backend::Condition,
    super::conformance::{collect, name, new, place, write},
    super::s3::tests::{ROOMY, open_with},
    *,
};
use bytes::Bytes;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 69\r\n\r\n\
    <ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult";
const FOUND: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\netag: \"e\"\r\n\
    last-modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n";
const MISSING: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

/// A server that answers as `answer` says to the head of a request, then closes; none is not answered at all.
struct Fake {
    settings: Settings,
    heads: Arc<Mutex<Vec<String>>>,
}

type Answer = fn(&str) -> Option<String>;

impl Fake {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer, seen.clone()));
            }
        });
        let limits = Limits {
            attempts_max: 3,
            backoff: Duration::from_millis(1),
            answer: Duration::from_millis(500),
            idle: Duration::from_millis(500),
            ..Limits::default()
        };
        let settings = Settings {
            endpoint,
            region: "eu".to_owned(),
            bucket: "objects".to_owned(),
            prefix: String::new(),
            path_style: true,
            access_key: "key".to_owned(),
            secret_key: "secret".to_owned(),
            session_token: None,
            ca_file: None,
            limits,
        };
        Self { settings, heads }
    }

    fn seen(&self, what: &str) -> usize {
        let heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        heads.iter().filter(|head| head.starts_with(what)).count()
    }
}

async fn serve(mut stream: TcpStream, answer: Answer, seen: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let answer = answer(&head);
    seen.lock().unwrap().push(head);
    if let Some(answer) = answer {
        // Otherwise the client may send its next request into a connection that is about to close.
        let answer = answer.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }
    // What the client still sends is read, so that the answer is not lost with it.
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

/// A container without objects; objects cannot be read.
fn quiet(head: &str) -> Option<String> {
    if head.starts_with("HEAD") && head.contains("/_containers/") {
        return Some(FOUND.to_owned());
    }
    if head.starts_with("HEAD") {
        return Some(MISSING.to_owned());
    }
    head.contains("list-type=2").then(|| format!("{EMPTY}>"))
}

fn absent() -> New {
    New {
        condition: Some(Condition::Absent),
        ..new()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_know_conditions_is_told_of() {
    let fake = Fake::start(|head| {
        let refuses = || "HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\n\r\n".to_owned();
        head.starts_with("PUT")
            .then(refuses)
            .or_else(|| quiet(head))
    });
    let fake = fake.await;
    let s3 = open_with(&fake.settings, ROOMY).await.unwrap();
    let refused = write(&s3, &place("a", "x"), absent(), b"1").await;
    let told =
        |error: &Error| matches!(error, Error::Invalid(text) if text.contains("conditional"));
    assert!(refused.as_ref().is_err_and(told), "{refused:?}");
    assert_eq!((fake.seen("PUT"), s3.usage()), (1, Usage::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_bears_it_is_sent_again() {
    let fake = Fake::start(quiet).await;
    let s3 = open_with(&fake.settings, ROOMY).await.unwrap();
    let lost = write(&s3, &place("a", "x"), absent(), b"1").await;
    assert!(matches!(lost, Err(Error::Away { .. })), "{lost:?}");
    assert_eq!(fake.seen("PUT"), 1, "it may have been written");
    let lost = write(&s3, &place("a", "x"), new(), b"1").await;
    assert!(matches!(lost, Err(Error::Away { .. })), "{lost:?}");
    assert_eq!(fake.seen("PUT"), 1 + 3, "written twice is written once");
    let busy = Fake::start(|head| {
        let busy = "HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\n\r\n";
        let put = head.starts_with("PUT").then(|| busy.to_owned());
        put.or_else(|| quiet(head))
    });
    let busy = busy.await;
    let s3 = open_with(&busy.settings, ROOMY).await.unwrap();
    let refused = write(&s3, &place("a", "x"), absent(), b"1").await;
    assert!(matches!(refused, Err(Error::Away { .. })), "{refused:?}");
    assert_eq!(busy.seen("PUT"), 3, "refused before anything was done");
    assert_eq!(s3.usage(), Usage::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_goes_on_where_its_connection_was_lost() {
    let fake = Fake::start(|head| {
        if !head.starts_with("GET /objects/exprsn-a/a/") {
            return quiet(head);
        }
        if head.contains("range: bytes=4-9") && head.contains("if-match: \"e\"") {
            let part = FOUND.replace("200 OK", "206 Partial Content");
            let part = part.replace("length: 10", "length: 6\r\ncontent-range: bytes 4-9/10");
            return Some(part + "456789");
        }
        // Four of ten bytes.
        Some(format!("{FOUND}0123"))
    });
    let fake = fake.await;
    let s3 = open_with(&fake.settings, ROOMY).await.unwrap();
    let (info, content) = s3.read(&place("a", "x"), Range::default()).await.unwrap();
    assert_eq!((info.size, info.etag.as_str()), (10, "e"));
    assert_eq!(collect(content).await.unwrap(), b"0123456789");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_does_not_go_on_in_another_object() {
    let fake = Fake::start(|head| {
        let changed = "HTTP/1.1 412 Precondition Failed\r\ncontent-length: 0\r\n\r\n";
        match head.contains("range: ") {
            true => Some(changed.to_owned()),
            false if head.contains("list-type=2") => quiet(head),
            false => Some(format!("{FOUND}0123")),
        }
    });
    let fake = fake.await;
    let s3 = open_with(&fake.settings, ROOMY).await.unwrap();
    let (_, content) = s3.read(&place("a", "x"), Range::default()).await.unwrap();
    let read = collect(content).await;
    assert!(matches!(read, Err(Error::Away { .. })), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_is_away_and_comes_to_no_harm() {
    let answers: [Answer; 4] = [
        |_| Some("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>".to_owned()),
        |_| {
            Some(
                "HTTP/1.1 301 Moved\r\nlocation: http://x/\r\ncontent-length: 0\r\n\r\n".to_owned(),
            )
        },
        |_| Some("220 smtp.example.org\r\n".to_owned()),
        |_| None,
    ];
    for answer in answers {
        let fake = Fake::start(answer).await;
        let refused = open_with(&fake.settings, ROOMY).await;
        assert!(matches!(refused, Err(Error::Away { .. })), "{refused:?}");
    }
    let fake = Fake::start(quiet).await;
    let s3 = open_with(&fake.settings, ROOMY).await.unwrap();
    let mut writer = s3.write(&place("a", "x"), new()).await.unwrap();
    let failed = writer.write(Bytes::from(vec![1; 9 << 20])).await;
    assert!(matches!(failed, Err(Error::Away { .. })), "{failed:?}");
    drop(writer);
    assert_eq!(s3.usage(), Usage::default());
    let failed = s3.delete_container(&name("a")).await;
    assert!(matches!(failed, Err(Error::Away { .. })), "{failed:?}");
}
