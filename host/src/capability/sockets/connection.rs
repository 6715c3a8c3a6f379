//! A connection as a guest holds it: its two directions are used independently, and TLS may begin in the middle.

use super::{
    Config,
    types::{Error, TlsMode},
};
use crate::mesh::{Connection, Destination, Permitted, Refusal, ServiceEgress};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    sync::Mutex as AsyncMutex,
    time::{Instant, timeout_at},
};

/// The host's half of a `connection` resource: shared with the calls that are under way on it.
pub type Socket = Arc<OpenSocket>;

/// An open connection. A direction that is none has ended.
pub struct OpenSocket {
    config: Config,
    outside: Arc<ServiceEgress>,
    pub destination: Destination,
    /// What grants and revocations are compared with.
    pub scope: String,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    secure: AtomicBool,
    timeout_ms: Mutex<Option<u64>>,
    receiver: AsyncMutex<Option<ReadHalf<Connection>>>,
    sender: AsyncMutex<Option<WriteHalf<Connection>>>,
}

impl OpenSocket {
    /// Connects to where `permitted` leads.
    pub async fn connect(
        config: Config,
        outside: Arc<ServiceEgress>,
        permitted: &Permitted,
    ) -> Result<Self, Error> {
        let connection = outside.connect(permitted).await?;
        let (local, peer) = (connection.local, connection.peer);
        let secure = AtomicBool::new(connection.is_secure());
        let (receiver, sender) = split(connection);
        Ok(Self {
            config,
            outside,
            destination: permitted.destination().clone(),
            scope: permitted.destination().to_string(),
            local,
            peer,
            secure,
            timeout_ms: Mutex::new(None),
            receiver: AsyncMutex::new(Some(receiver)),
            sender: AsyncMutex::new(Some(sender)),
        })
    }

    pub fn is_secure(&self) -> bool {
        self.secure.load(Relaxed)
    }

    pub fn set_timeout(&self, timeout_ms: Option<u64>) {
        *self.timeout_ms.lock().expect("no holder of this lock panics") = timeout_ms;
    }

    /// When a call that begins now must have ended.
    fn until(&self, deadline: Instant) -> Instant {
        let timeout_ms = *self.timeout_ms.lock().expect("no holder of this lock panics");
        deadline.min(Instant::now() + self.config.patience(timeout_ms))
    }

    /// Up to `bytes_max` bytes; none at the end.
    pub async fn receive(&self, bytes_max: u32, deadline: Instant) -> Result<Option<Vec<u8>>, Error> {
        if bytes_max == 0 {
            return Err(Error::Invalid("bytes-max is 0; ask for 1 or more".to_owned()));
        }
        let until = self.until(deadline);
        let max = self.config.receive_bytes_max.min(bytes_max as usize);
        let receive = async {
            let mut receiver = self.receiver.lock().await;
            let receiver = receiver.as_mut().ok_or_else(closed)?;
            let mut bytes = Vec::with_capacity(max);
            // Never waits once it has read: a call that is given up has taken nothing.
            receiver.take(max as u64).read_buf(&mut bytes).await.map_err(|error| broken(&error))?;
            Ok((!bytes.is_empty()).then_some(bytes))
        };
        timeout_at(until, receive).await.unwrap_or_else(|_| Err(late()))
    }

    /// Sends all of `bytes`. After a failure the stream has a gap, so that the connection is of no more use.
    pub async fn send(&self, bytes: &[u8], deadline: Instant) -> Result<(), Error> {
        let max = self.config.send_bytes_max;
        if bytes.len() > max {
            return Err(Error::LimitExceeded(format!(
                "{} bytes are more than send_bytes_max allows, {max}; send them in parts",
                bytes.len()
            )));
        }
        let until = self.until(deadline);
        let mut sender = timeout_at(until, self.sender.lock()).await.map_err(|_| late())?;
        // Taken out while it is at work: a guest that gives the call up leaves it closed.
        let mut working = sender.take().ok_or_else(closed)?;
        let sent = timeout_at(until, async {
            working.write_all(bytes).await?;
            working.flush().await
        });
        match sent.await {
            Ok(Ok(())) => {
                *sender = Some(working);
                Ok(())
            }
            Ok(Err(error)) => Err(broken(&error)),
            Err(_) => Err(late()),
        }
    }

    /// Begins TLS. No other call may be under way; after a failure the connection is closed.
    pub async fn start_tls(&self, deadline: Instant) -> Result<(), Error> {
        let busy = |_| Error::Invalid("another call on the connection is under way".to_owned());
        let mut receiver = self.receiver.try_lock().map_err(busy)?;
        let mut sender = self.sender.try_lock().map_err(busy)?;
        if self.is_secure() {
            return Err(Error::Invalid("the connection is secured already".to_owned()));
        }
        let (read, write) = (receiver.take(), sender.take());
        let (Some(read), Some(write)) = (read, write) else {
            return Err(closed());
        };
        let max: Duration = self.until(deadline).saturating_duration_since(Instant::now());
        let host = &self.destination.host;
        let secured = self.outside.secure(read.unsplit(write), host, max).await?;
        let (read, write) = split(secured);
        (*receiver, *sender) = (Some(read), Some(write));
        self.secure.store(true, Relaxed);
        Ok(())
    }

    /// Ends the sending direction.
    pub async fn shutdown(&self, deadline: Instant) -> Result<(), Error> {
        let until = self.until(deadline);
        let shutdown = async {
            let mut sender = self.sender.lock().await;
            let sender = sender.as_mut().ok_or_else(closed)?;
            sender.shutdown().await.map_err(|error| broken(&error))
        };
        timeout_at(until, shutdown).await.unwrap_or_else(|_| Err(late()))
    }

    /// Ends both directions. Waits for calls under way as long as a call may wait.
    pub async fn close(&self, deadline: Instant) {
        // What cannot be told to the peer is told by the connection's end.
        let _ = self.shutdown(deadline).await;
        let until = self.until(deadline);
        let _ = timeout_at(until, async {
            drop(self.sender.lock().await.take());
            drop(self.receiver.lock().await.take());
        })
        .await;
    }
}

/// The scheme of a grant that a connection of this mode needs.
pub fn scheme(mode: TlsMode) -> crate::mesh::Scheme {
    match mode {
        TlsMode::None => crate::mesh::Scheme::Tcp,
        TlsMode::Tls => crate::mesh::Scheme::Tls,
    }
}

fn closed() -> Error {
    Error::Unavailable("the connection is closed".to_owned())
}

fn late() -> Error {
    Error::Timeout("the peer took longer than the timeout".to_owned())
}

fn broken(error: &io::Error) -> Error {
    Error::Unavailable(match error.kind() {
        io::ErrorKind::UnexpectedEof => "the peer ended the connection without ending TLS".to_owned(),
        _ => format!("the connection broke: {}", error.kind()),
    })
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(_) | Refusal::Inside => Self::AccessDenied(refusal.to_string()),
            Refusal::Limit(_) => Self::LimitExceeded(refusal.to_string()),
            Refusal::TimedOut => Self::Timeout(refusal.to_string()),
            _ => Self::Unavailable(refusal.to_string()),
        }
    }
}
