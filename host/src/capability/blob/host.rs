//! `exprsn:blob` as guests call it. Every wait is a host task of its own: sibling tasks of the guest go on.

use super::{
    Need,
    asked::Asked,
    containers, convert, objects,
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
        Ok(Asked::of(accessor).containers().create(name).await)
    }

    async fn delete(accessor: &Accessor<T, Self>, name: String) -> Answer<()> {
        Ok(Asked::of(accessor).containers().delete(name).await)
    }

    async fn exists(accessor: &Accessor<T, Self>, name: String) -> Answer<bool> {
        Ok(Asked::of(accessor).containers().exists(name).await)
    }

    async fn list(accessor: &Accessor<T, Self>) -> Answer<Vec<String>> {
        Ok(Asked::of(accessor).containers().list().await)
    }
}

impl<T: Send + 'static> objects::HostWithStore<T> for Own {
    async fn info(
        accessor: &Accessor<T, Self>,
        container: String,
        name: String,
    ) -> Answer<ObjectInfo> {
        let objects = Asked::of(accessor).objects();
        Ok(objects.info(container, name).await)
    }

    async fn get(
        accessor: &Accessor<T, Self>,
        container: String,
        name: String,
        range: Option<ByteRange>,
    ) -> Answer<(ObjectInfo, Vec<u8>)> {
        let objects = Asked::of(accessor).objects();
        Ok(objects.get(container, name, range).await)
    }

    async fn put(
        accessor: &Accessor<T, Self>,
        container: String,
        name: String,
        options: WriteOptions,
        content: Vec<u8>,
    ) -> Answer<ObjectInfo> {
        let objects = Asked::of(accessor).objects();
        Ok(objects.put(container, name, options, content).await)
    }

    async fn list(
        accessor: &Accessor<T, Self>,
        container: String,
        prefix: String,
        cursor: Option<String>,
        limit: Option<u32>,
    ) -> Answer<ObjectPage> {
        let objects = Asked::of(accessor).objects();
        Ok(objects.list(container, prefix, cursor, limit).await)
    }

    async fn delete(accessor: &Accessor<T, Self>, container: String, name: String) -> Answer<()> {
        Ok(Asked::of(accessor).objects().delete(container, name).await)
    }

    async fn copy(
        accessor: &Accessor<T, Self>,
        from_container: String,
        from_name: String,
        to_container: String,
        to_name: String,
    ) -> Answer<ObjectInfo> {
        let objects = Asked::of(accessor).objects();
        Ok(objects
            .copy(from_container, from_name, to_container, to_name)
            .await)
    }
}

impl<T: Send + 'static> streams::HostWithStore<T> for Own {
    async fn read(
        accessor: &Accessor<T, Self>,
        container: String,
        name: String,
        range: Option<ByteRange>,
    ) -> Answer<Streamed> {
        let caller = match Asked::of(accessor).caller(Need::Read, &container) {
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
        match Asked::of(accessor).caller(Need::Write, &container) {
            Ok(caller) => Ok(caller.write(&name, options, chunks, completed).await),
            Err(error) => Ok(Err(error)),
        }
    }
}
