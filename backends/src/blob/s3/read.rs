//! An object's content on its way out.

use super::{
    READING,
    client::{Answer, Client, Request},
};
use crate::blob::backend::{Content, Result, away};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::{io, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How often a reader goes on after a connection is lost.
const RESUMED_MAX: u32 = 3;

/// What of an object is to be read.
pub(super) struct Part {
    pub key: String,
    pub at: u64,
    pub end: Option<u64>,
    /// What the object must still be.
    pub etag: Option<String>,
}

impl Part {
    pub async fn ask(&self, client: &Client, ranged: bool) -> Answer<Response<Incoming>> {
        let mut headers = Vec::new();
        if ranged {
            let last = self.end.map(|end| (end - 1).to_string());
            let last = last.unwrap_or_default();
            headers.push(("range", format!("bytes={}-{last}", self.at)));
        }
        if let Some(etag) = &self.etag {
            headers.push(("if-match", format!("\"{etag}\"")));
        }
        let request = Request {
            key: self.key.clone(),
            headers,
            repeatable: true,
            ..Request::default()
        };
        client.send(&request).await
    }
}

/// An answer that is being read. Where the connection is lost it goes on with another, if the object is what it was.
pub(super) struct Reader {
    client: Arc<Client>,
    part: Part,
    body: Incoming,
    resumed: u32,
}

impl Reader {
    pub fn new(client: Arc<Client>, part: Part, body: Incoming) -> Self {
        Self {
            client,
            part,
            body,
            resumed: 0,
        }
    }

    pub fn content(self) -> Content {
        stream::try_unfold(self, |mut reader| async move {
            let chunk = reader.next().await?;
            Ok(chunk.map(|chunk| (chunk, reader)))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let left = self.part.end.unwrap_or_default() - self.part.at;
            if left == 0 {
                return Ok(None);
            }
            match self.frame(self.client.limits.idle).await {
                Ok(chunk) if chunk.len() as u64 <= left => {
                    self.part.at += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Ok(_) => {
                    let what = "the server sends more than was asked for";
                    return Err(away(READING)(io::Error::other(what)));
                }
                Err(error) if self.resumed >= RESUMED_MAX => return Err(away(READING)(error)),
                Err(_) => self.resume().await?,
            }
        }
    }

    async fn frame(&mut self, idle: Duration) -> io::Result<Bytes> {
        loop {
            let frame = timeout(idle, self.body.frame()).await?;
            let frame = frame.ok_or(io::ErrorKind::UnexpectedEof)?;
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                return Ok(data);
            }
        }
    }

    async fn resume(&mut self) -> Result<()> {
        self.resumed += 1;
        let asked = self.part.ask(&self.client, true).await;
        let answer = asked.map_err(|fault| fault.into_error(READING))?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            let what = "the server does not keep to ranges";
            return Err(away(READING)(io::Error::other(what)));
        }
        self.body = answer.into_body();
        Ok(())
    }
}
