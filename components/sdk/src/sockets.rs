//! Connections by TCP, with or without TLS, to hosts outside that `[grants.sockets]` names.
//!
//! ```no_run
//! # async fn greet() -> Result<(), exprsn_sdk::sockets::Error> {
//! use exprsn_sdk::sockets::Connection;
//!
//! let smtp = Connection::connect("smtp.example.com", 587).await?;
//! smtp.set_timeout_ms(10_000);
//! let greeting = smtp.receive_line(1_000).await?;
//! smtp.send("STARTTLS\r\n").await?;
//! let agreed = smtp.receive_line(1_000).await?;
//! smtp.start_tls().await?;
//! smtp.send("EHLO example.org\r\n").await?;
//! # Ok(())
//! # }
//! ```

use std::cell::RefCell;

use crate::bindings::exprsn::sockets::{tcp, types};
use crate::problem::Problem;

pub use types::{Address, Error};

/// Bytes that are asked for at once.
const CHUNK_BYTES: u32 = 16 * 1024;

/// A connection; closed when dropped. Sending and receiving may go on at the same time.
pub struct Connection {
    host: tcp::Connection,
    /// Received, and not asked for yet.
    ahead: RefCell<Vec<u8>>,
}

impl Connection {
    /// Connects without TLS, which [`start_tls`](Self::start_tls) may begin later. Needs a grant `tcp://host:port`.
    pub async fn connect(host: &str, port: u16) -> Result<Self, Error> {
        Self::open(host, port, types::TlsMode::None, None).await
    }

    /// Connects with TLS. Needs a grant `tls://host:port`.
    pub async fn connect_tls(host: &str, port: u16) -> Result<Self, Error> {
        Self::open(host, port, types::TlsMode::Tls, None).await
    }

    /// Connects with or without TLS, for at most `timeout_ms`.
    pub async fn open(
        host: &str,
        port: u16,
        tls: types::TlsMode,
        timeout_ms: Option<u64>,
    ) -> Result<Self, Error> {
        let host = tcp::Connection::connect(host.to_owned(), port, tls, timeout_ms).await?;
        Ok(Self {
            host,
            ahead: RefCell::default(),
        })
    }

    /// Bounds how long each call from now on waits for the peer.
    pub fn set_timeout_ms(&self, ms: u64) {
        self.host.set_timeout(Some(ms));
    }

    /// Sends all of the bytes.
    pub async fn send(&self, bytes: impl Into<Vec<u8>>) -> Result<(), Error> {
        self.host.send(bytes.into()).await
    }

    /// Bytes as they come, up to `bytes_max`; none when the peer sends no more.
    pub async fn receive(&self, bytes_max: u32) -> Result<Option<Vec<u8>>, Error> {
        let ahead = self.ahead(bytes_max as usize);
        if !ahead.is_empty() {
            return Ok(Some(ahead));
        }
        self.host.receive(bytes_max).await
    }

    /// Exactly `bytes` bytes; unavailable where the peer ends before.
    pub async fn receive_exact(&self, bytes: usize) -> Result<Vec<u8>, Error> {
        let mut whole = self.ahead(bytes);
        while whole.len() < bytes {
            let missing = u32::try_from(bytes - whole.len()).unwrap_or(u32::MAX);
            let more = self.host.receive(missing.min(CHUNK_BYTES)).await?;
            whole.extend(more.ok_or_else(ended)?);
        }
        Ok(whole)
    }

    /// A line without its end (LF or CR LF); none when the peer sends no more. A line longer than `bytes_max` is an error.
    pub async fn receive_line(&self, bytes_max: usize) -> Result<Option<String>, Error> {
        loop {
            if let Some(line) = self.line_ahead(bytes_max)? {
                return Ok(Some(line));
            }
            match self.host.receive(CHUNK_BYTES).await? {
                Some(more) => self.ahead.borrow_mut().extend(more),
                None if self.ahead.borrow().is_empty() => return Ok(None),
                None => return Err(ended()),
            }
        }
    }

    /// Begins TLS after the peer has agreed. What it sent before in the clear and was not received is an error: it would pass
    /// for secured.
    pub async fn start_tls(&self) -> Result<(), Error> {
        if !self.ahead.borrow().is_empty() {
            return Err(Error::Invalid(
                "the peer sent more in the clear before TLS".to_owned(),
            ));
        }
        self.host.start_tls().await
    }

    /// Says that nothing more is sent.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.host.shutdown().await
    }

    /// Closes the connection, telling the peer.
    pub async fn close(self) {
        self.host.close().await;
    }

    /// This end.
    pub fn local_address(&self) -> Address {
        self.host.local_address()
    }

    /// The other end.
    pub fn peer_address(&self) -> Address {
        self.host.peer_address()
    }

    /// Whether TLS is spoken.
    pub fn is_secure(&self) -> bool {
        self.host.is_secure()
    }

    /// Takes up to `bytes_max` of what was received and not asked for.
    fn ahead(&self, bytes_max: usize) -> Vec<u8> {
        let mut ahead = self.ahead.borrow_mut();
        let taken = ahead.len().min(bytes_max);
        ahead.drain(..taken).collect()
    }

    fn line_ahead(&self, bytes_max: usize) -> Result<Option<String>, Error> {
        let mut ahead = self.ahead.borrow_mut();
        take_line(&mut ahead, bytes_max)
    }
}

/// The first line of `bytes`, taken out of them; none when it has no end yet.
fn take_line(bytes: &mut Vec<u8>, bytes_max: usize) -> Result<Option<String>, Error> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let so_far = &bytes[..end.unwrap_or(bytes.len())];
    if so_far.strip_suffix(b"\r").unwrap_or(so_far).len() > bytes_max {
        return Err(Error::LimitExceeded(format!(
            "the line is longer than {bytes_max} bytes"
        )));
    }
    let Some(end) = end else { return Ok(None) };
    let mut line: Vec<u8> = bytes.drain(..=end).collect();
    line.truncate(end);
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    let text = String::from_utf8(line);
    text.map(Some)
        .map_err(|_| Error::Invalid("the line is no text in UTF-8".to_owned()))
}

fn ended() -> Error {
    Error::Unavailable("the peer ended before it had sent all".to_owned())
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(_) | Error::LimitExceeded(_) | Error::Timeout(_) => {
                crate::log::warn!("a host outside could not be asked", error = error);
                Problem::unavailable(1)
            }
            Error::AccessDenied(what) | Error::Invalid(what) => {
                Problem::fault("a connection failed", what)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_one_by_one() {
        let mut bytes = b"220 a\r\n250-b\n25".to_vec();
        let line = |bytes: &mut Vec<u8>| take_line(bytes, 5).unwrap();
        assert_eq!(line(&mut bytes).as_deref(), Some("220 a"));
        assert_eq!(line(&mut bytes).as_deref(), Some("250-b"));
        assert_eq!(line(&mut bytes), None);
        assert_eq!(bytes, b"25");
    }

    #[test]
    fn a_line_is_bounded_before_its_end_has_come() {
        assert!(matches!(
            take_line(&mut vec![b'a'; 11], 10),
            Err(Error::LimitExceeded(_))
        ));
        assert!(matches!(
            take_line(&mut b"\xff\n".to_vec(), 10),
            Err(Error::Invalid(_))
        ));
    }
}
