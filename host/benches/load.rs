//! A closed-loop load generator: each connection sends its next request when it has its answer.

use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use std::time::{Duration, Instant};

/// A load on one path.
pub struct Load<'a> {
    pub address: String,
    pub path: &'a str,
    pub connections: usize,
    pub duration: Duration,
}

/// What came of it.
pub struct Outcome {
    latency_us: Histogram<u64>,
    elapsed: Duration,
}

impl Load<'_> {
    /// Runs the load on one thread. Panics when an answer is not 200: a benchmark of errors says nothing.
    pub fn run(&self) -> Outcome {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let begun = Instant::now();
            let until = begun + self.duration;
            let connections =
                (0..self.connections).map(|_| connection(&self.address, self.path, until));
            let mut latency_us = Histogram::new(3).expect("a histogram");
            for each in futures::future::join_all(connections).await {
                latency_us.add(each).expect("the same precision");
            }
            Outcome {
                latency_us,
                elapsed: begun.elapsed(),
            }
        })
    }
}

async fn connection(address: &str, path: &str, until: Instant) -> Histogram<u64> {
    let stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("the subject listens");
    stream.set_nodelay(true).expect("TCP");
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP/1.1");
    tokio::spawn(driver);
    let mut latency_us = Histogram::new(3).expect("a histogram");
    while Instant::now() < until {
        let begun = Instant::now();
        let request = http::Request::get(path)
            .header("host", address)
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        response
            .into_body()
            .collect()
            .await
            .expect("the whole answer");
        let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        latency_us.record(us.max(1)).expect("in range");
    }
    latency_us
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.latency_us.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub fn median_us(&self) -> f64 {
        self.latency_us.value_at_quantile(0.5) as f64
    }
}

/// The median of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
