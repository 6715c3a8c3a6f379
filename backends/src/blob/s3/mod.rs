//! The S3 backend: one bucket of any server that speaks S3 (AWS, MinIO, Garage, Ceph), a prefix for each service.
//!
//! `key.rs` says how names become keys.
//!
//! **Invariants**
//! - Every key that is asked for begins with the service's prefix: no name leaves it.
//! - An object shows whole or not at all, and nothing that was given up stays behind: uploads are aborted.
//! - Requests are sent again only where doing them twice is doing them once.
//!
//! **What several hosts on one bucket share and what not.** Objects, conditions and containers are the server's, so all hosts
//! agree on them. Quotas are each host's own count of what it has read and written, made anew every
//! [`Limits::recount`](settings::Limits): S3 counts nothing itself, so hosts that write at once may exceed one together
//! until then. Likewise only the host that deletes a container keeps its own writes out of it meanwhile; what another host
//! writes into it at that moment shows again when the container is created again.
//!
//! **Conditions** are checked before each write and stand in it (`If-None-Match: *`, `If-Match`) for the server to keep
//! them against other hosts. A server that does not know them must say so (501), which is [`Error::Invalid`]; one that
//! ignores them leaves only the check before.
//!
//! aws-sigv4 signs (Apache-2.0, kept by AWS for its own SDK); hyper and rustls, which the host has anyway, carry.
//! object_store would bring a second HTTP client, encode keys once more, and cannot make the completion of an upload
//! conditional (0.14: `PutMultipartOptions` has no mode).

mod client;
mod key;
mod list;
mod object;
mod read;
mod settings;
mod shared;
mod writer;
mod xml;

pub use settings::{Limits, Settings};

use super::{
    backend::{
        Backend, Content, Error, Info, Listing, New, Place, Quota, Range, Result, Usage, Writer,
        away, copy_through,
    },
    name::{ContainerName, ObjectName},
};
use crate::name::ServiceName;
use client::{Client, Fault, Request};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use read::{Part, Reader};
use shared::{Reserved, Shared};
use std::{fmt, io, sync::Arc};
use tokio::runtime::Handle;
use writer::Partial;

/// Largest object that S3 copies by one request, in bytes.
const COPY_BYTES_MAX: u64 = 5 << 30;
/// How often a copy begins anew because its source has changed meanwhile.
const COPIES_MAX: usize = 5;
const READING: &str = "reading an object";
const COPYING: &str = "copying an object";

/// A bucket, for the objects of all services. Clones are the same.
#[derive(Clone, Debug)]
pub struct Server {
    client: Arc<Client>,
    prefix: String,
}

impl Server {
    /// A bucket; connects when it is first asked. An error names the key of `[backends.s3]` that is wrong.
    pub fn new(settings: &Settings) -> Result<Self> {
        Ok(Self {
            client: Arc::new(Client::new(settings)?),
            prefix: settings.prefix.clone(),
        })
    }

    /// A service's objects, counted. What goes on after a call has been given up does so on `threads`.
    pub async fn open(&self, service: &ServiceName, quota: Quota, threads: Handle) -> Result<S3> {
        let opened = Shared::open(self.client.clone(), &self.prefix, service, quota, threads).await;
        let shared = opened.map_err(|fault| fault.into_error("opening the service's objects"))?;
        Ok(S3(Arc::new(shared)))
    }
}

/// The objects of one service. Clones are the same.
#[derive(Clone)]
pub struct S3(Arc<Shared>);

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3")
            .field("service", &self.0.service)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

impl S3 {
    async fn create(&self, container: &ContainerName) -> Result<()> {
        let doing = "creating a container";
        let shared = &self.0;
        let _alone = shared.containers.write().await;
        let there = self.all_containers(doing).await?;
        if there.contains(container) {
            return Ok(());
        }
        let max = shared.quota.containers_max;
        if there.len() >= max {
            return Err(Error::LimitExceeded(format!(
                "the service has {max} containers, and containers_max is {max}"
            )));
        }
        let marker = Request {
            method: Method::PUT,
            key: shared.marker(container),
            repeatable: true,
            ..Request::default()
        };
        self.ask(&marker, doing).await
    }

    async fn remove(&self, container: &ContainerName) -> Result<()> {
        let doing = "deleting a container";
        let shared = &self.0;
        let _alone = shared.containers.write().await;
        shared.require(container, doing).await?;
        let folder = shared.folder(container);
        let held = shared::page(&shared.client, &folder, "", None, 1).await;
        let held = held.map_err(|fault| fault.into_error(doing))?;
        if !held.contents.is_empty() {
            return Err(Error::Conflict(format!(
                "container `{container}` is not empty; delete its objects first"
            )));
        }
        self.delete_key(shared.marker(container), doing).await
    }

    async fn all_containers(&self, doing: &'static str) -> Result<Vec<ContainerName>> {
        let shared = &self.0;
        let markers = shared.markers();
        let (mut found, mut token) = (Vec::new(), None);
        loop {
            let keys = shared::PAGE_KEYS;
            let asked = shared::page(&shared.client, &markers, "", token.as_deref(), keys).await;
            let page = asked.map_err(|fault| fault.into_error(doing))?;
            let names = page
                .contents
                .iter()
                .filter_map(|entry| ContainerName::parse(entry.key.strip_prefix(&markers)?).ok());
            found.extend(names);
            token = page.next_continuation_token;
            if !page.is_truncated || token.is_none() {
                return Ok(found);
            }
        }
    }

    async fn ask(&self, request: &Request, doing: &'static str) -> Result<()> {
        let asked = self.0.client.ask(request).await;
        asked.map(|_| ()).map_err(|fault| fault.into_error(doing))
    }

    async fn delete_key(&self, key: String, doing: &'static str) -> Result<()> {
        let request = Request {
            method: Method::DELETE,
            key,
            repeatable: true,
            ..Request::default()
        };
        self.ask(&request, doing).await
    }

    async fn remove_object(self, place: Place) -> Result<()> {
        let doing = "deleting an object";
        let shared = &self.0;
        let key = shared.key(&place);
        let _alone = shared.lock(&key).await;
        let Some(info) = shared.now(&place, doing).await? else {
            return Ok(());
        };
        self.delete_key(key, doing).await?;
        shared.removed(info.size);
        Ok(())
    }

    async fn stat(&self, place: &Place) -> Result<Info> {
        let stat = self.0.stat(place).await;
        stat.map_err(|fault| fault.into_error(READING))?
            .ok_or_else(|| place.missing())
    }

    async fn open(&self, place: &Place, range: Range) -> Result<(Info, Content)> {
        if range.length == Some(0) {
            return self.open_nothing(place, range).await;
        }
        let end = range.length.and_then(|n| range.offset.checked_add(n));
        let whole = range.offset == 0 && end.is_none();
        let asked = Part {
            key: self.0.key(place),
            at: range.offset,
            end,
            etag: None,
        };
        match asked.ask(&self.0.client, !whole).await {
            Ok(answer) => self.opened(place, range, asked, answer),
            Err(fault) if fault.is(StatusCode::NOT_FOUND) => Err(place.missing()),
            Err(fault) if fault.is(StatusCode::RANGE_NOT_SATISFIABLE) => {
                self.open_nothing(place, range).await
            }
            Err(fault) => Err(fault.into_error(READING)),
        }
    }

    /// A range without bytes: it has to be within the object all the same.
    async fn open_nothing(&self, place: &Place, range: Range) -> Result<(Info, Content)> {
        let info = self.stat(place).await?;
        let (at, end) = range.within(info.size)?;
        if at < end {
            let what = "the server refuses a range of the object";
            return Err(away(READING)(io::Error::other(what)));
        }
        Ok((info, stream::empty().boxed()))
    }

    fn opened(
        &self,
        place: &Place,
        range: Range,
        mut part: Part,
        answer: Response<Incoming>,
    ) -> Result<(Info, Content)> {
        let unsaid = |what: &str| away(READING)(io::Error::other(what.to_owned()));
        let (head, body) = answer.into_parts();
        let info = object::info(place.name.clone(), &head.headers)
            .ok_or_else(|| unsaid("what the server says is no object"))?;
        let (at, end) = range.within(info.size)?;
        if (at, end) != (0, info.size) && head.status != StatusCode::PARTIAL_CONTENT {
            return Err(unsaid("the server does not keep to ranges"));
        }
        part.end = Some(end);
        part.etag = Some(info.etag.clone());
        let reader = Reader::new(self.0.client.clone(), part, body);
        Ok((info, reader.content()))
    }

    async fn begin(&self, place: Place, new: New) -> Result<Box<dyn Writer>> {
        let shared = &self.0;
        shared.recount();
        shared.check_bytes(new.size.unwrap_or_default())?;
        let now = shared.now(&place, "beginning an object").await?;
        shared.check_objects(now.as_ref())?;
        if let Some(condition) = &new.condition {
            condition.check(&place, now.as_ref())?;
        }
        Ok(Box::new(Partial::new(shared.clone(), place, new)))
    }

    async fn copy_object(self, from: Place, to: Place) -> Result<Info> {
        let shared = &self.0;
        for _ in 0..COPIES_MAX {
            let source = self.stat(&from).await?;
            if source.size > COPY_BYTES_MAX {
                return copy_through(&self, &from, &to).await;
            }
            shared.require(&to.container, COPYING).await?;
            // S3 copies no object onto itself.
            if from == to {
                return Ok(source);
            }
            match self.copy_once(&from, &to, &source).await? {
                Some(info) => return Ok(info),
                None => continue,
            }
        }
        let name = from.name.as_str();
        Err(Error::Conflict(format!(
            "object {name:?} changes all the time"
        )))
    }

    /// Copies what `source` describes; none where that has changed.
    async fn copy_once(&self, from: &Place, to: &Place, source: &Info) -> Result<Option<Info>> {
        let shared = &self.0;
        let key = shared.key(to);
        let mut reserved = Reserved::new(shared.clone());
        reserved.add(source.size)?;
        let _stays = shared.containers.read().await;
        let _alone = shared.lock(&key).await;
        let now = shared.now(to, COPYING).await?;
        shared.check_objects(now.as_ref())?;
        let sha256 = source.sha256.as_deref();
        let mut headers = object::describing(&to.name, &source.content_type, sha256);
        headers.extend([
            ("x-amz-copy-source", shared.client.source(&shared.key(from))),
            ("x-amz-copy-source-if-match", format!("\"{}\"", source.etag)),
            ("x-amz-metadata-directive", "REPLACE".to_owned()),
        ]);
        let request = Request {
            method: Method::PUT,
            key,
            headers,
            repeatable: true,
            ..Request::default()
        };
        let document = match shared.client.ask(&request).await {
            Ok((_, document)) => document,
            Err(fault) if fault.is_condition() => return Ok(None),
            Err(fault) if fault.is(StatusCode::NOT_FOUND) => return Err(from.missing()),
            Err(fault) => return Err(fault.into_error(COPYING)),
        };
        // Servers begin their answer before they are done.
        if let Some((code, message)) = xml::fault(&document) {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let fault = Fault::Refused {
                status,
                code,
                message,
            };
            return Err(fault.into_error(COPYING));
        }
        reserved.settle(now.as_ref());
        let etag = xml::etag(&document).unwrap_or_default();
        let content_type = source.content_type.clone();
        writer::committed(shared, to.clone(), &etag, source.size, content_type)
            .await
            .map(Some)
    }

    /// Goes on to its end even where nobody waits for it, so that what is done is counted.
    async fn to_the_end<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let done = self.0.threads.spawn(work).await;
        done.unwrap_or_else(|gone| Err(away(doing)(io::Error::other(gone))))
    }
}

impl Backend for S3 {
    fn create_container(&self, container: &ContainerName) -> BoxFuture<'_, Result<()>> {
        let container = container.clone();
        async move { self.create(&container).await }.boxed()
    }

    fn delete_container(&self, container: &ContainerName) -> BoxFuture<'_, Result<()>> {
        let container = container.clone();
        async move { self.remove(&container).await }.boxed()
    }

    fn containers(&self) -> BoxFuture<'_, Result<Vec<ContainerName>>> {
        self.all_containers("listing containers").boxed()
    }

    fn info(&self, place: &Place) -> BoxFuture<'_, Result<Info>> {
        let place = place.clone();
        async move { self.stat(&place).await }.boxed()
    }

    fn read(&self, place: &Place, range: Range) -> BoxFuture<'_, Result<(Info, Content)>> {
        let place = place.clone();
        async move { self.open(&place, range).await }.boxed()
    }

    fn write(&self, place: &Place, new: New) -> BoxFuture<'_, Result<Box<dyn Writer>>> {
        self.begin(place.clone(), new).boxed()
    }

    fn list(
        &self,
        container: &ContainerName,
        prefix: &str,
        after: Option<&ObjectName>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Listing>> {
        let (container, prefix, after) = (container.clone(), prefix.to_owned(), after.cloned());
        async move { list::list(&self.0, &container, &prefix, after.as_ref(), limit).await }.boxed()
    }

    fn delete(&self, place: &Place) -> BoxFuture<'_, Result<()>> {
        let work = self.clone().remove_object(place.clone());
        self.to_the_end("deleting an object", work).boxed()
    }

    fn copy(&self, from: &Place, to: &Place) -> BoxFuture<'_, Result<Info>> {
        let work = self.clone().copy_object(from.clone(), to.clone());
        self.to_the_end(COPYING, work).boxed()
    }

    fn usage(&self) -> Usage {
        self.0.usage()
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
