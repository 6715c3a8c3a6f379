//! The way out as a whole, with a resolver whose answers the test chooses.

use super::*;
use bytes::Bytes;
use futures::future::{BoxFuture, pending, ready};
use http_body_util::{BodyExt as _, Empty};
use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use wasmtime_wasi_http::{Error as HttpError, handler::Request};

type Found = BoxFuture<'static, io::Result<Vec<IpAddr>>>;

fn egress(
    lookup: impl Fn(usize) -> Found + Send + Sync + 'static,
) -> (Arc<Egress>, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let resolver = Resolver::new(move |_| lookup(count.fetch_add(1, SeqCst)));
    (Egress::new(resolver, "").unwrap(), asked)
}

/// A resolver that answers these, one after the other, and the last one from then on.
fn answering(answers: &'static [&'static [&'static str]]) -> (Arc<Egress>, Arc<AtomicUsize>) {
    egress(move |turn| {
        let answer = answers[turn.min(answers.len() - 1)];
        let addresses = answer.iter().map(|text| text.parse().unwrap()).collect();
        Box::pin(ready(Ok(addresses)))
    })
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn permitted(scheme: Scheme, port: u16, reach: Reach) -> Permitted {
    Permitted {
        destination: Destination::new(scheme, "db.example", port).unwrap(),
        reach,
        connections_max: 2,
        connect_max: Duration::from_secs(10),
    }
}

fn request() -> Request {
    let body = Empty::<Bytes>::new()
        .map_err(HttpError::from)
        .boxed_unsync();
    http::Request::builder()
        .uri("http://db.example/")
        .body(body)
        .unwrap()
}

/// Answers requests, several on one connection, and counts connections. After `each` answers it closes a connection.
async fn server(address: &str, each: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, SeqCst);
            tokio::spawn(answer(stream, each));
        }
    });
    (port, accepted)
}

async fn answer(mut stream: TcpStream, each: usize) {
    for _ in 0..each {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
    }
}

/// Sends a request and reads its answer.
async fn get(outside: &Arc<ServiceEgress>, permitted: &Permitted) -> Result<Bytes, HttpError> {
    let response = outside.send(permitted, request()).await?;
    Ok(response.into_body().collect().await?.to_bytes())
}

/// Waits until a connection that has answered is kept for the next request.
async fn kept(outside: &ServiceEgress, permitted: &Permitted) {
    loop {
        if let Some(sender) = outside.pool.take(&permitted.key()) {
            return outside.pool.keep(permitted.key(), sender);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_address_that_was_checked_is_connected_to() {
    // The second answer would lead elsewhere: nobody asks for it.
    let (port, first) = server("127.0.0.1:0", 1).await;
    let (_, second) = server(&format!("127.0.0.2:{port}"), 1).await;
    let (egress, asked) = answering(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let outside = egress.of(&service("exprsn-a"));
    let connection = outside
        .connect(&permitted(Scheme::Tcp, port, Reach::Named))
        .await
        .unwrap();
    assert_eq!(connection.peer, SocketAddr::from(([127, 0, 0, 1], port)));
    drop(connection);
    let permitted = permitted(Scheme::Http, port, Reach::Named);
    let egress = answering(&[&["127.0.0.1"], &["127.0.0.2"]]).0;
    assert_eq!(
        get(&egress.of(&service("exprsn-a")), &permitted)
            .await
            .unwrap(),
        "ok"
    );
    assert_eq!(
        (asked.load(SeqCst), first.load(SeqCst), second.load(SeqCst)),
        (1, 2, 0)
    );
}

#[tokio::test]
async fn a_name_that_turns_inside_is_refused_from_then_on() {
    let (egress, _) = answering(&[&["93.184.216.34"], &["169.254.169.254"]]);
    let host = Host::parse("rebind.example").unwrap();
    let first = egress.resolver.resolve(&host, Reach::Public).await;
    assert_eq!(first.unwrap(), ["93.184.216.34".parse::<IpAddr>().unwrap()]);
    for reach in [Reach::Public, Reach::Named] {
        assert_eq!(
            egress.resolver.resolve(&host, reach).await,
            Err(Refusal::Inside)
        );
    }
}

#[tokio::test]
async fn of_a_mixed_answer_only_what_the_grant_covers_is_used() {
    let (egress, _) = answering(&[&["127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1", "8.8.8.8"]]);
    let host = Host::parse("mixed.example").unwrap();
    let resolve = async |reach| {
        let found = egress.resolver.resolve(&host, reach).await.unwrap();
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(resolve(Reach::Public).await, ["8.8.8.8"]);
    assert_eq!(
        resolve(Reach::Named).await,
        ["127.0.0.1", "10.0.0.1", "8.8.8.8"]
    );
}

#[tokio::test]
async fn what_one_grant_let_through_serves_no_other() {
    let (port, accepted) = server("127.0.0.1:0", usize::MAX).await;
    let (egress, _) = answering(&[&["127.0.0.1"]]);
    let (a, b) = (
        egress.of(&service("exprsn-a")),
        egress.of(&service("exprsn-b")),
    );
    let named = permitted(Scheme::Http, port, Reach::Named);
    let covered = permitted(Scheme::Http, port, Reach::Public);
    for _ in 0..2 {
        assert_eq!(get(&a, &named).await.unwrap(), "ok");
        kept(&a, &named).await;
    }
    assert_eq!(
        accepted.load(SeqCst),
        1,
        "the service itself uses its connection again"
    );
    for outside in [&a, &b] {
        let refused = get(outside, &covered).await;
        assert!(
            matches!(refused, Err(HttpError::DestinationIpProhibited)),
            "{refused:?}"
        );
    }
    assert_eq!(get(&b, &named).await.unwrap(), "ok");
    assert_eq!(accepted.load(SeqCst), 2, "another service makes its own");
}

#[tokio::test]
async fn versions_of_a_service_share_their_connections() {
    let (egress, _) = answering(&[&["127.0.0.1"]]);
    let first = egress.of(&service("exprsn-a"));
    assert!(Arc::ptr_eq(&first, &egress.of(&service("exprsn-a"))));
    let weak = Arc::downgrade(&first);
    drop(first);
    assert!(
        weak.upgrade().is_none(),
        "nothing is kept of a service that has gone"
    );
}

#[tokio::test]
async fn connections_are_counted_and_unused_ones_make_room() {
    let (port, accepted) = server("127.0.0.1:0", usize::MAX).await;
    let (egress, _) = answering(&[&["127.0.0.1"]]);
    let outside = egress.of(&service("exprsn-a"));
    let tcp = permitted(Scheme::Tcp, port, Reach::Named);
    let web = permitted(Scheme::Http, port, Reach::Named);
    let held = outside.connect(&tcp).await.unwrap();
    assert_eq!(get(&outside, &web).await.unwrap(), "ok");
    kept(&outside, &web).await;
    assert_eq!(outside.count.open(), 2);
    let other = outside.connect(&tcp).await.unwrap();
    let refused = outside.connect(&tcp).await.map(drop);
    assert_eq!(refused, Err(Refusal::Limit(2)));
    let refused = get(&outside, &web).await;
    assert!(
        matches!(refused, Err(HttpError::ConnectionLimitReached)),
        "{refused:?}"
    );
    assert!(
        egress.of(&service("exprsn-b")).connect(&tcp).await.is_ok(),
        "others have their own"
    );
    drop((held, other));
    assert_eq!(get(&outside, &web).await.unwrap(), "ok");
    assert_eq!(accepted.load(SeqCst), 5);
}

#[tokio::test]
async fn a_connection_that_its_server_closed_is_not_used_again() {
    let (port, accepted) = server("127.0.0.1:0", 1).await;
    let (egress, _) = answering(&[&["127.0.0.1"]]);
    let outside = egress.of(&service("exprsn-a"));
    let web = permitted(Scheme::Http, port, Reach::Named);
    for _ in 0..3 {
        assert_eq!(get(&outside, &web).await.unwrap(), "ok");
    }
    assert_eq!(accepted.load(SeqCst), 3);
}

#[tokio::test]
async fn a_name_that_is_never_answered_ends_in_time_and_frees_its_place() {
    let (egress, _) = egress(|_| Box::pin(pending()));
    let outside = egress.of(&service("exprsn-a"));
    let slow = permitted(Scheme::Tcp, 1, Reach::Public).within(Duration::from_millis(20));
    for _ in 0..3 {
        assert_eq!(
            outside.connect(&slow).await.map(drop),
            Err(Refusal::TimedOut)
        );
    }
    assert_eq!(outside.count.open(), 0);
}

#[tokio::test]
async fn requests_that_would_say_something_else_are_refused() {
    let (port, accepted) = server("127.0.0.1:0", usize::MAX).await;
    let (egress, _) = answering(&[&["127.0.0.1"]]);
    let outside = egress.of(&service("exprsn-a"));
    let web = permitted(Scheme::Http, port, Reach::Named);
    let mut tunnel = request();
    *tunnel.method_mut() = http::Method::CONNECT;
    let refused = outside.send(&web, tunnel).await;
    assert!(matches!(refused, Err(HttpError::HttpRequestMethodInvalid)));
    let mut asterisk = request();
    *asterisk.uri_mut() = "*".parse().unwrap();
    let refused = outside.send(&web, asterisk).await;
    assert!(matches!(refused, Err(HttpError::HttpRequestUriInvalid)));
    assert_eq!(accepted.load(SeqCst), 0);
}
