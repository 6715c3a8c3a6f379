//! The yardstick: the same answer from hyper alone, one current-thread runtime per core, no component.

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, net::SocketAddr};

/// Serves `/hello` until the process ends; answers where.
pub fn serve() -> SocketAddr {
    let first = listen(SocketAddr::from(([127, 0, 0, 1], 0)));
    let address = first.local_addr().expect("it listens");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let rest = (1..cores).map(|_| listen(address));
    for listener in std::iter::once(first).chain(rest) {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(accept(listener));
        });
    }
    address
}

fn listen(address: SocketAddr) -> std::net::TcpListener {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("SO_REUSEPORT");
    socket.set_nonblocking(true).expect("non-blocking");
    socket.bind(&address.into()).expect("a port");
    socket.listen(1_024).expect("listening");
    socket.into()
}

async fn accept(listener: std::net::TcpListener) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("TCP");
        let answer = hyper::service::service_fn(|_request| async {
            let body = Full::new(Bytes::from_static(b"{\"message\":\"hello\"}"));
            let response = http::Response::builder()
                .header("content-type", "application/json")
                .body(body);
            Ok::<_, Infallible>(response.expect("a response"))
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(connection);
    }
}
