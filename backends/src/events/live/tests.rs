//! Relays on a server, which is also killed.

use super::*;
use crate::{
    redis::{Tls, tests::certificates},
    testing::RedisServer,
};
use std::{collections::HashMap, sync::Mutex, time::Instant};

type Heard = Arc<Mutex<Vec<(String, String, String)>>>;

/// A relay and what it heard.
struct Host {
    relay: LiveRelay,
    heard: Heard,
}

impl Host {
    async fn on(redis: Redis) -> Self {
        let heard = Heard::default();
        let deliver: Deliver = {
            let heard = heard.clone();
            Arc::new(move |service: &ServiceName, channel: &str, data: &str| {
                let message = (service.to_string(), channel.to_owned(), data.to_owned());
                heard.lock().unwrap().push(message);
            })
        };
        let relay = LiveRelay::start(redis, &Handle::current(), deliver);
        eventually("it is connected", async || relay.is_connected()).await;
        Self { relay, heard }
    }

    async fn start(server: &RedisServer) -> Self {
        Self::on(Redis::new(server.url()).unwrap()).await
    }

    fn count(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    /// What was heard, once there is as much.
    async fn hear(&self, count: usize) -> Vec<(String, String, String)> {
        eventually("it heard all", async || self.count() >= count).await;
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_hear_each_other_and_themselves_in_order() {
    const MESSAGES: usize = 200;
    let server = RedisServer::start();
    let hosts = [Host::start(&server).await, Host::start(&server).await];
    let publish = async |host: usize| {
        let service = service(["exprsn-one", "exprsn-other"][host]);
        for number in 0..MESSAGES {
            let data = number.to_string();
            let sent = hosts[host].relay.publish(&service, "news", &data);
            assert_eq!(sent.await.unwrap(), 2, "both hosts got it");
        }
    };
    futures::join!(publish(0), publish(1));
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    for host in &hosts {
        let mut by_service: HashMap<String, Vec<String>> = HashMap::new();
        for (service, channel, data) in host.hear(2 * MESSAGES).await {
            assert_eq!(channel, "news");
            by_service.entry(service).or_default().push(data);
        }
        for service in ["exprsn-one", "exprsn-other"] {
            assert_eq!(by_service[service], expected, "of {service}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_channel_and_any_data_arrive_as_they_are() {
    let server = RedisServer::start();
    let host = Host::start(&server).await;
    let longest = "ü".repeat(CHANNEL_BYTES_MAX / 2);
    let channels = [
        "",
        "*",
        "a\nb\r\nc",
        "5:x",
        ":",
        "\0",
        "exprsn:live:b",
        "[a-z]?",
        &longest,
    ];
    let data = ["", "\r\n", "{\"a\":1}", "1:b", "ü\0"];
    let (a, b) = (service("a"), service("b"));
    let mut sent = Vec::new();
    for channel in channels {
        for data in data {
            for service in [&a, &b] {
                assert_eq!(host.relay.publish(service, channel, data).await.unwrap(), 1);
                sent.push((service.to_string(), channel.to_owned(), data.to_owned()));
            }
        }
    }
    assert_eq!(host.hear(sent.len()).await, sent);
    let largest = "x".repeat(DATA_BYTES_MAX);
    host.relay.publish(&a, "c", &largest).await.unwrap();
    assert_eq!(host.hear(1).await[0].2.len(), DATA_BYTES_MAX);
    for (channel, data) in [
        (format!("{longest}x"), "x".to_owned()),
        ("x".to_owned(), largest + "x"),
    ] {
        let refused = host.relay.publish(&a, &channel, &data).await;
        assert!(matches!(refused, Err(Error::LimitExceeded(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_host_has_sent_is_passed_over() {
    let server = RedisServer::start();
    let host = Host::start(&server).await;
    let stranger = Redis::new(server.url()).unwrap();
    let payloads: [&[u8]; 8] = [
        b"",
        b"x",
        b":x",
        b"9:x",
        b"-1:x",
        b"1:\xc3\xbc",
        b"1:\xff",
        b"99999999999999999999:x",
    ];
    for payload in payloads {
        let mut command = redis::cmd("PUBLISH");
        command.arg("exprsn:live:a").arg(payload);
        stranger.query::<usize>(&command).await.unwrap();
    }
    for channel in ["exprsn:live:", "exprsn:live:A b", "exprsn:live", "other"] {
        let mut command = redis::cmd("PUBLISH");
        command.arg(channel).arg("1:xy");
        stranger.query::<usize>(&command).await.unwrap();
    }
    host.relay.publish(&service("a"), "c", "d").await.unwrap();
    let heard = host.hear(1).await;
    assert_eq!(heard, [("a".to_owned(), "c".to_owned(), "d".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_heard_again_when_it_is_back() {
    let mut server = RedisServer::start();
    let hosts = [Host::start(&server).await, Host::start(&server).await];
    let a = service("a");
    assert_eq!(hosts[0].relay.publish(&a, "c", "before").await.unwrap(), 2);
    for host in &hosts {
        host.hear(1).await;
    }
    server.kill();
    for host in &hosts {
        let sent = host.relay.publish(&a, "c", "meanwhile").await;
        assert!(matches!(sent, Err(Error::Unavailable(_))), "{sent:?}");
        eventually("it notices", async || !host.relay.is_connected()).await;
    }
    server.restart();
    for host in &hosts {
        eventually("it is back", async || host.relay.is_connected()).await;
    }
    for host in &hosts {
        assert_eq!(host.relay.publish(&a, "c", "after").await.unwrap(), 2);
    }
    for host in &hosts {
        let heard = host.hear(2).await;
        assert!(
            heard.iter().all(|(_, _, data)| data == "after"),
            "{heard:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_dropped_stops() {
    let server = RedisServer::start();
    let (host, gone) = (Host::start(&server).await, Host::start(&server).await);
    let Host { relay, heard } = gone;
    drop(relay);
    let a = service("a");
    eventually("its subscription ends", async || {
        host.relay.publish(&a, "c", "x").await.unwrap() == 1
    })
    .await;
    heard.lock().unwrap().clear();
    eventually("its callback goes", async || Arc::strong_count(&heard) == 1).await;
    host.relay.publish(&a, "c", "x").await.unwrap();
    assert!(heard.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_by_tls_as_the_rest() {
    let pem = certificates();
    let server = RedisServer::start_with_tls(&pem);
    let [trusted, certificate, key] = pem.map(String::into_bytes);
    let tls = Tls {
        trusted: Some(trusted),
        identity: Some((certificate, key)),
    };
    let host = Host::on(Redis::with_tls(server.tls_url(), tls).unwrap()).await;
    assert_eq!(
        host.relay.publish(&service("a"), "c", "d").await.unwrap(),
        1
    );
    assert_eq!(host.hear(1).await[0].2, "d");
}
