//! Connections outside: counted for each service, made to addresses that were checked, with or without TLS.

use super::{Refusal, destination::Host, tls};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::Instant,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Open connections of one service.
#[derive(Debug, Default)]
pub struct Count {
    open: AtomicUsize,
    released: Notify,
}

impl Count {
    /// Counts one more, up to `max`.
    pub fn take(self: &Arc<Self>, max: usize) -> Option<Permit> {
        let more = |open: usize| (open < max).then_some(open + 1);
        let taken = self.open.fetch_update(Relaxed, Relaxed, more).is_ok();
        taken.then(|| Permit(self.clone()))
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Resolves when a connection closes after this call.
    pub fn released(&self) -> tokio::sync::futures::Notified<'_> {
        self.released.notified()
    }
}

/// The right to one connection, given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Count>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        self.0.released.notify_waiters();
    }
}

/// An open connection.
pub struct Connection {
    stream: Stream,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    permit: Permit,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Connects to the first of `addresses` that answers. Each has an equal share of the time that is left.
    pub async fn open(
        addresses: &[IpAddr],
        port: u16,
        permit: Permit,
        until: Instant,
    ) -> Result<Self, Refusal> {
        let mut refusal = Refusal::Unknown;
        for (index, address) in addresses.iter().enumerate() {
            let left = until.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            match connect(SocketAddr::new(*address, port), share).await {
                Ok(stream) => return Self::of(stream, permit),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    fn of(stream: TcpStream, permit: Permit) -> Result<Self, Refusal> {
        let addresses = stream
            .set_nodelay(true)
            .and_then(|()| Ok((stream.local_addr()?, stream.peer_addr()?)));
        let (local, peer) = addresses.map_err(|error| Refusal::of(&error))?;
        Ok(Self {
            stream: Stream::Plain(stream),
            local,
            peer,
            permit,
        })
    }

    /// Begins TLS, in which the peer must prove that it is `host`.
    pub async fn secure(self, connector: &TlsConnector, host: &Host) -> Result<Self, Refusal> {
        let Stream::Plain(stream) = self.stream else {
            return Err(Refusal::Tls("it is secured already".to_owned()));
        };
        let stream = connector
            .connect(tls::server_name(host)?, stream)
            .await
            .map_err(|error| tls::refusal(&error))?;
        Ok(Self {
            stream: Stream::Tls(Box::new(stream)),
            local: self.local,
            peer: self.peer,
            permit: self.permit,
        })
    }

    pub fn is_secure(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Whether both sides have agreed on HTTP/2.
    pub fn speaks_http2(&self) -> bool {
        match &self.stream {
            Stream::Plain(_) => false,
            Stream::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(tls::HTTP2),
        }
    }
}

async fn connect(address: SocketAddr, within: Duration) -> Result<TcpStream, Refusal> {
    match tokio::time::timeout(within, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Refusal::of(&error)),
        Err(_) => Err(Refusal::TimedOut),
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
