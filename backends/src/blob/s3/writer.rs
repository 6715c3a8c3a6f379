//! An object on its way into the bucket: gathered in memory while it is small, an upload of parts beyond that.

use super::{
    client::{Answer, Fault, Request},
    object,
    shared::{Reserved, Shared},
    xml,
};
use crate::{
    blob::{
        backend::{Condition, Error, Info, New, Place, Result, Writer, away},
        name::hex,
    },
    clock,
};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, Method, StatusCode};
use std::{io, sync::Arc};

/// Parts that S3 takes for one object.
const PARTS_MAX: usize = 10_000;
/// After so many parts the next ones are twice as large.
const PARTS_ALIKE: usize = 2_000;
const WRITING: &str = "writing an object";
const COMMITTING: &str = "committing an object";

/// What a write has come to.
pub(super) struct Partial {
    shared: Arc<Shared>,
    place: Place,
    new: New,
    /// Content taken so far, in bytes.
    taken: u64,
    /// Not sent yet.
    gathered: BytesMut,
    sha256: Context,
    reserved: Reserved,
    upload: Option<Upload>,
}

/// An upload of parts. Dropped before it is complete it is aborted.
struct Upload {
    shared: Arc<Shared>,
    key: String,
    /// Empty once it is complete.
    id: String,
    etags: Vec<String>,
}

impl Partial {
    pub fn new(shared: Arc<Shared>, place: Place, new: New) -> Self {
        Self {
            reserved: Reserved::new(shared.clone()),
            shared,
            place,
            new,
            taken: 0,
            gathered: BytesMut::new(),
            sha256: Context::new(&SHA256),
            upload: None,
        }
    }

    /// Counts the chunk in before it is kept anywhere.
    fn take(&mut self, chunk: &[u8]) -> Result<()> {
        let bytes = chunk.len() as u64;
        let size = self.taken.saturating_add(bytes);
        if self.new.size.is_some_and(|told| size > told) {
            return Err(wrong_size(self.new.size, "more"));
        }
        self.shared.check_bytes(size)?;
        self.reserved.add(bytes)?;
        self.taken = size;
        self.gathered.extend_from_slice(chunk);
        Ok(())
    }

    /// Bytes of the next part.
    fn part_bytes(&self) -> usize {
        let sent = self.upload.as_ref().map_or(0, |upload| upload.etags.len());
        self.shared.client.limits.part_bytes << (sent / PARTS_ALIKE)
    }

    async fn send_part(&mut self, bytes: usize) -> Result<()> {
        let part = self.gathered.split_to(bytes).freeze();
        if self.upload.is_none() {
            self.upload = Some(self.begin().await?);
        }
        let upload = self.upload.as_mut().expect("it has begun");
        upload.send(part).await
    }

    /// Begins in a task of its own: what has begun is known, and aborted, even where nobody waits for it.
    async fn begin(&self) -> Result<Upload> {
        let shared = self.shared.clone();
        let request = Request {
            method: Method::POST,
            key: shared.key(&self.place),
            query: vec![("uploads", String::new())],
            headers: object::describing(&self.place.name, &self.new.content_type, None),
            ..Request::default()
        };
        let begun = self.shared.threads.spawn(async move {
            let (_, document) = shared.client.ask(&request).await?;
            let unsaid =
                || Fault::Lost(io::Error::other("the server does not say the upload's id"));
            let id = xml::upload_id(&document).ok_or_else(unsaid)?;
            Ok(Upload {
                shared,
                key: request.key,
                id,
                etags: Vec::new(),
            })
        });
        let begun: Answer<Upload> = begun
            .await
            .unwrap_or_else(|gone| Err(Fault::Lost(io::Error::other(gone))));
        begun.map_err(|fault| fault.into_error(WRITING))
    }

    async fn finish(mut self) -> Result<Info> {
        if self.new.size.is_some_and(|told| told != self.taken) {
            return Err(wrong_size(self.new.size, "less"));
        }
        if self.upload.is_some() && !self.gathered.is_empty() {
            self.send_part(self.gathered.len()).await?;
        }
        let shared = self.shared.clone();
        let key = shared.key(&self.place);
        let _stays = shared.containers.read().await;
        let _alone = shared.lock(&key).await;
        let now = shared.now(&self.place, COMMITTING).await?;
        shared.check_objects(now.as_ref())?;
        if let Some(condition) = &self.new.condition {
            condition.check(&self.place, now.as_ref())?;
        }
        let sha256 = hex(self.sha256.clone().finish());
        let etag = match self.upload.take() {
            Some(upload) => self.complete(upload).await,
            None => self.put(key, &sha256).await,
        }
        .map_err(|fault| self.refused(fault))?;
        let size = self.taken;
        self.reserved.settle(now.as_ref());
        committed(&shared, self.place, &etag, size, self.new.content_type).await
    }

    async fn put(&mut self, key: String, sha256: &str) -> Answer<String> {
        let mut headers =
            object::describing(&self.place.name, &self.new.content_type, Some(sha256));
        headers.extend(self.condition());
        let request = Request {
            method: Method::PUT,
            key,
            headers,
            body: self.gathered.split().freeze(),
            repeatable: self.new.condition.is_none(),
            ..Request::default()
        };
        let (headers, _) = self.shared.client.ask(&request).await?;
        Ok(etag(&headers))
    }

    async fn complete(&self, mut upload: Upload) -> Answer<String> {
        let request = Request {
            method: Method::POST,
            key: upload.key.clone(),
            query: vec![("uploadId", upload.id.clone())],
            headers: self.condition().into_iter().collect(),
            body: xml::parts(&upload.etags).into(),
            ..Request::default()
        };
        let (_, document) = self.shared.client.ask(&request).await?;
        // Some servers begin their answer before they are done.
        if let Some((code, message)) = xml::fault(&document) {
            let status = match code.as_str() {
                "PreconditionFailed" => StatusCode::PRECONDITION_FAILED,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            return Err(Fault::Refused {
                status,
                code,
                message,
            });
        }
        upload.id.clear();
        Ok(xml::etag(&document).unwrap_or_default())
    }

    fn condition(&self) -> Option<(&'static str, String)> {
        match self.new.condition.as_ref()? {
            Condition::Absent => Some(("if-none-match", "*".to_owned())),
            Condition::Etag(etag) => Some(("if-match", format!("\"{etag}\""))),
        }
    }

    /// What a refusal of the last step says of the condition, where there is one.
    fn refused(&self, fault: Fault) -> Error {
        let name = self.place.name.as_str();
        let conditional = self.new.condition.is_some();
        if conditional && (fault.is_condition() || fault.is(StatusCode::NOT_FOUND)) {
            return Error::Conflict(format!("object {name:?} was written or deleted meanwhile"));
        }
        if conditional && fault.is(StatusCode::NOT_IMPLEMENTED) {
            return Error::Invalid(
                "the S3 server does not know conditional writes; write without a condition, or use a server that does"
                    .to_owned(),
            );
        }
        fault.into_error(COMMITTING)
    }
}

/// Describes what has been written. It shows already, so another host may have replaced it.
pub(super) async fn committed(
    shared: &Shared,
    place: Place,
    etag: &str,
    size: u64,
    content_type: String,
) -> Result<Info> {
    match shared.stat(&place).await {
        Ok(Some(info)) if etag.is_empty() || info.etag == etag => Ok(info),
        Ok(_) => Ok(Info {
            name: place.name,
            size,
            content_type,
            etag: etag.to_owned(),
            sha256: None,
            modified_ms: clock::now_ms(),
        }),
        Err(fault) => Err(fault.into_error(COMMITTING)),
    }
}

/// An answer's etag, without its quotes.
pub(super) fn etag(headers: &HeaderMap) -> String {
    let etag = headers.get("etag").and_then(|etag| etag.to_str().ok());
    etag.unwrap_or_default().trim_matches('"').to_owned()
}

impl Upload {
    async fn send(&mut self, part: Bytes) -> Result<()> {
        let number = self.etags.len() + 1;
        if number > PARTS_MAX {
            return Err(Error::LimitExceeded(format!(
                "the object has more than {PARTS_MAX} parts; make part_bytes of [backends.s3] larger"
            )));
        }
        let request = Request {
            method: Method::PUT,
            key: self.key.clone(),
            query: vec![
                ("partNumber", number.to_string()),
                ("uploadId", self.id.clone()),
            ],
            body: part,
            repeatable: true,
            ..Request::default()
        };
        let sent = self.shared.client.ask(&request).await;
        let (headers, _) = sent.map_err(|fault| fault.into_error(WRITING))?;
        let etag = headers.get("etag").and_then(|etag| etag.to_str().ok());
        let etag = etag.ok_or_else(|| {
            away(WRITING)(io::Error::other("the server does not say a part's etag"))
        })?;
        self.etags.push(etag.to_owned());
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.id.is_empty() {
            return;
        }
        let (shared, service) = (self.shared.clone(), self.shared.service.clone());
        let request = Request {
            method: Method::DELETE,
            key: std::mem::take(&mut self.key),
            query: vec![("uploadId", std::mem::take(&mut self.id))],
            repeatable: true,
            ..Request::default()
        };
        self.shared.threads.spawn(async move {
            match shared.client.ask(&request).await {
                Err(fault) if !fault.is(StatusCode::NOT_FOUND) => {
                    // The bucket's lifecycle rule AbortIncompleteMultipartUpload removes it.
                    tracing::warn!(%service, %fault, "an upload stays behind");
                }
                _ => {}
            }
        });
    }
}

/// The content is longer or shorter than was told.
fn wrong_size(told: Option<u64>, how: &str) -> Error {
    Error::Invalid(format!(
        "the content has {how} than the {} bytes that were announced",
        told.unwrap_or_default()
    ))
}

impl Writer for Partial {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<()>> {
        async move {
            self.take(&chunk)?;
            self.sha256.update(&chunk);
            while self.gathered.len() > self.part_bytes() {
                self.send_part(self.part_bytes()).await?;
            }
            Ok(())
        }
        .boxed()
    }

    /// Goes on to its end even where nobody waits for it: what shows is counted.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<Info>> {
        let threads = self.shared.threads.clone();
        async move {
            let done = threads.spawn(self.finish());
            done.await
                .unwrap_or_else(|gone| Err(away(COMMITTING)(io::Error::other(gone))))
        }
        .boxed()
    }
}
