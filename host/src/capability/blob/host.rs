//! `exprsn:blob` as guests call it. Every wait is a host task of its own: sibling tasks of the guest go on.

use super::{
    Need,
    caller::{Caller, lent},
    containers, convert,
    name::ContainerName,
    objects,
    stream::{Incoming, Outgoing, Verdict},
    streams,
    types::{self, ByteRange, ObjectInfo, ObjectPage, WriteOptions},
};
use crate::store::StoreState;
use futures::{StreamExt as _, TryStreamExt as _, channel::mpsc};
use tokio::sync::oneshot;
use wasmtime::{
    Result,
    component::{Accessor, FutureReader, HasSelf, StreamReader},
};

type Own = HasSelf<StoreState>;
type Answer<T> = Result<Result<T, types::Error>>;
type Streamed = (
    ObjectInfo,
    StreamReader<u8>,
    FutureReader<Result<(), types::Error>>,
);

impl types::Host for StoreState {}
impl containers::Host for StoreState {}
impl objects::Host for StoreState {}
impl streams::Host for StoreState {}

impl<T: Send + 'static> containers::HostWithStore<T> for Own {
    async fn create(accessor: &Accessor<T, Self>, name: String) -> Answer<()> {
        let caller = match Caller::of(accessor, Need::Write, &name) {
            Ok(caller) => caller,
            Err(error) => return Ok(Err(error)),
        };
        let created = caller.backend().create_container(&caller.container).await;
        Ok(created.map_err(|error| caller.told(error)))
    }

    async fn delete(accessor: &Accessor<T, Self>, name: String) -> Answer<()> {
        let caller = match Caller::of(accessor, Need::Write, &name) {
            Ok(caller) => caller,
            Err(error) => return Ok(Err(error)),
        };
        let deleted = caller.backend().delete_container(&caller.container).await;
        Ok(deleted.map_err(|error| caller.told(error)))
    }

    async fn exists(accessor: &Accessor<T, Self>, name: String) -> Answer<bool> {
        let caller = match Caller::of(accessor, Need::Either, &name) {
            Ok(caller) => caller,
            Err(error) => return Ok(Err(error)),
        };
        let all = caller.backend().containers().await;
        Ok(all
            .map(|all| all.contains(&caller.container))
            .map_err(|error| caller.told(error)))
    }

    async fn list(accessor: &Accessor<T, Self>) -> Answer<Vec<String>> {
        let context = accessor.with(|mut access| access.get().service.clone());
        let lent = match lent(&context, "*") {
            Ok(lent) => lent,
            Err(error) => return Ok(Err(error)),
        };
        let all = match lent.open.backend.containers().await {
            Ok(all) => all,
            Err(error) => return Ok(Err(convert::told(&lent.service, error))),
        };
        let may = |name: &&ContainerName| {
            lent.grant.covers(Need::Either, name.as_str())
                && context.check("blob", name.as_str()).is_ok()
        };
        Ok(Ok(all
            .iter()
            .filter(may)
            .map(ToString::to_string)
            .collect()))
    }
}

impl<T: Send + 'static> objects::HostWithStore<T> for Own {
    async fn info(
        accessor: &Accessor<T, Self>,
        container: String,
        name: String,
    ) -> Answer<ObjectInfo> {
        match Caller::of(accessor, Need::Read, &container) {
            Ok(caller) => Ok(caller.info(&name).await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        container: String,
        name: String,
        range: Option<ByteRange>,
    ) -> Answer<(ObjectInfo, Vec<u8>)> {
        match Caller::of(accessor, Need::Read, &container) {
            Ok(caller) => Ok(caller.get(&name, convert::range(range)).await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn put(
        accessor: &Accessor<T, Self>,
        container: String,
        name: String,
        options: WriteOptions,
        content: Vec<u8>,
    ) -> Answer<ObjectInfo> {
        match Caller::of(accessor, Need::Write, &container) {
            Ok(caller) => Ok(caller.put(&name, options, content).await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn list(
        accessor: &Accessor<T, Self>,
        container: String,
        prefix: String,
        cursor: Option<String>,
        limit: Option<u32>,
    ) -> Answer<ObjectPage> {
        match Caller::of(accessor, Need::Read, &container) {
            Ok(caller) => Ok(caller.list(&prefix, cursor.as_deref(), limit).await),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn delete(accessor: &Accessor<T, Self>, container: String, name: String) -> Answer<()> {
        let caller = Caller::of(accessor, Need::Write, &container);
        let (caller, place) = match caller.and_then(|caller| {
            let place = caller.place(&name)?;
            Ok((caller, place))
        }) {
            Ok(both) => both,
            Err(error) => return Ok(Err(error)),
        };
        let deleted = caller.backend().delete(&place).await;
        Ok(deleted.map_err(|error| caller.told(error)))
    }

    async fn copy(
        accessor: &Accessor<T, Self>,
        from_container: String,
        from_name: String,
        to_container: String,
        to_name: String,
    ) -> Answer<ObjectInfo> {
        let places = || {
            let from = Caller::of(accessor, Need::Read, &from_container)?;
            let to = Caller::of(accessor, Need::Write, &to_container)?;
            let permit = to.stream()?;
            Ok((from.place(&from_name)?, to.place(&to_name)?, to, permit))
        };
        let (from, to, caller, _permit) = match places() {
            Ok(places) => places,
            Err(error) => return Ok(Err(error)),
        };
        let copied = caller.backend().copy(&from, &to).await;
        Ok(copied
            .map(convert::info)
            .map_err(|error| caller.told(error)))
    }
}

impl<T: Send + 'static> streams::HostWithStore<T> for Own {
    async fn read(
        accessor: &Accessor<T, Self>,
        container: String,
        name: String,
        range: Option<ByteRange>,
    ) -> Answer<Streamed> {
        let caller = match Caller::of(accessor, Need::Read, &container) {
            Ok(caller) => caller,
            Err(error) => return Ok(Err(error)),
        };
        let permit = match caller.stream() {
            Ok(permit) => permit,
            Err(error) => return Ok(Err(error)),
        };
        let (info, content) = match caller.open(&name, convert::range(range)).await {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        let service = caller.lent.service.clone();
        let (end, ended) = oneshot::channel();
        let outgoing = Outgoing {
            chunks: content
                .map_err(move |error| convert::told(&service, error))
                .boxed(),
            end: Some(end),
            context: caller.context.clone(),
            container,
            _permit: permit,
        };
        // A guest that drops the stream early has what it wants.
        let ended = async move { Ok::<_, wasmtime::Error>(ended.await.unwrap_or(Ok(()))) };
        accessor.with(|mut store| {
            let chunks = StreamReader::new(&mut store, outgoing)?;
            let ended = FutureReader::new(&mut store, ended)?;
            Ok(Ok((convert::info(info), chunks, ended)))
        })
    }

    async fn write(
        accessor: &Accessor<T, Self>,
        container: String,
        name: String,
        options: WriteOptions,
        content: StreamReader<u8>,
        complete: FutureReader<bool>,
    ) -> Answer<ObjectInfo> {
        let (sender, chunks) = mpsc::channel(0);
        let (verdict, completed) = oneshot::channel();
        accessor.with(|mut store| {
            content.pipe(&mut store, Incoming(sender))?;
            complete.pipe(&mut store, Verdict(Some(verdict)))
        })?;
        match Caller::of(accessor, Need::Write, &container) {
            Ok(caller) => Ok(caller.write(&name, options, chunks, completed).await),
            Err(error) => Ok(Err(error)),
        }
    }
}
