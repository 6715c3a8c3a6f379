//! What guests ask of containers and of objects without streams: the one implementation behind the interfaces and their
//! synchronous twins.

use super::{
    Need,
    caller::{Caller, lent},
    convert,
    name::ContainerName,
    types::{ByteRange, Error, ObjectInfo, ObjectPage, WriteOptions},
};
use crate::store::{ServiceContext, StoreState};
use std::sync::Arc;
use wasmtime::component::{Accessor, HasSelf};

/// The service that asks.
pub(super) struct Asked(Arc<ServiceContext>);

/// What is asked of its containers.
pub(super) struct Containers(Asked);

/// What is asked of its objects.
pub(super) struct Objects(Asked);

impl Asked {
    pub fn in_store(state: &StoreState) -> Self {
        Self(state.service.clone())
    }

    pub fn of<T: 'static>(accessor: &Accessor<T, HasSelf<StoreState>>) -> Self {
        accessor.with(|mut access| Self::in_store(access.get()))
    }

    pub fn containers(self) -> Containers {
        Containers(self)
    }

    pub fn objects(self) -> Objects {
        Objects(self)
    }

    /// The container, where the service may use it as it wants to.
    pub fn caller(&self, need: Need, container: &str) -> Result<Caller, Error> {
        Caller::new(&self.0, need, container)
    }
}

impl Containers {
    pub async fn create(&self, name: String) -> Result<(), Error> {
        let caller = self.0.caller(Need::Write, &name)?;
        let created = caller.backend().create_container(&caller.container).await;
        created.map_err(|error| caller.told(error))
    }

    pub async fn delete(&self, name: String) -> Result<(), Error> {
        let caller = self.0.caller(Need::Write, &name)?;
        let deleted = caller.backend().delete_container(&caller.container).await;
        deleted.map_err(|error| caller.told(error))
    }

    pub async fn exists(&self, name: String) -> Result<bool, Error> {
        let caller = self.0.caller(Need::Either, &name)?;
        let all = caller.backend().containers().await;
        all.map(|all| all.contains(&caller.container))
            .map_err(|error| caller.told(error))
    }

    pub async fn list(&self) -> Result<Vec<String>, Error> {
        let Asked(context) = &self.0;
        let lent = lent(context, "*")?;
        let all = lent.open.backend.containers().await;
        let all = all.map_err(|error| convert::told(&lent.service, error))?;
        let may = |name: &&ContainerName| {
            lent.grant.covers(Need::Either, name.as_str())
                && context.check("blob", name.as_str()).is_ok()
        };
        Ok(all.iter().filter(may).map(ToString::to_string).collect())
    }
}

impl Objects {
    pub async fn info(&self, container: String, name: String) -> Result<ObjectInfo, Error> {
        let caller = self.0.caller(Need::Read, &container)?;
        caller.info(&name).await
    }

    pub async fn get(
        &self,
        container: String,
        name: String,
        range: Option<ByteRange>,
    ) -> Result<(ObjectInfo, Vec<u8>), Error> {
        let caller = self.0.caller(Need::Read, &container)?;
        caller.get(&name, convert::range(range)).await
    }

    pub async fn put(
        &self,
        container: String,
        name: String,
        options: WriteOptions,
        content: Vec<u8>,
    ) -> Result<ObjectInfo, Error> {
        let caller = self.0.caller(Need::Write, &container)?;
        caller.put(&name, options, content).await
    }

    pub async fn list(
        &self,
        container: String,
        prefix: String,
        cursor: Option<String>,
        limit: Option<u32>,
    ) -> Result<ObjectPage, Error> {
        let caller = self.0.caller(Need::Read, &container)?;
        caller.list(&prefix, cursor.as_deref(), limit).await
    }

    pub async fn delete(&self, container: String, name: String) -> Result<(), Error> {
        let caller = self.0.caller(Need::Write, &container)?;
        let place = caller.place(&name)?;
        let deleted = caller.backend().delete(&place).await;
        deleted.map_err(|error| caller.told(error))
    }

    pub async fn copy(
        &self,
        from_container: String,
        from_name: String,
        to_container: String,
        to_name: String,
    ) -> Result<ObjectInfo, Error> {
        let from = self.0.caller(Need::Read, &from_container)?;
        let to = self.0.caller(Need::Write, &to_container)?;
        let _permit = to.stream()?;
        let (source, target) = (from.place(&from_name)?, to.place(&to_name)?);
        let copied = to.backend().copy(&source, &target).await;
        copied
            .map(convert::info)
            .map_err(|error| to.told(error))
    }
}
