//! A guest's call once its container is known to be granted: what it asks of the backend, within the limits.

use super::{
    Lent, Need,
    backend::{Backend, Content, Error, Info, New, Place, Range, Writer},
    convert,
    name::{ContainerName, ObjectName},
    types::{self, ObjectInfo, ObjectPage, WriteOptions},
};
use crate::store::ServiceContext;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, channel::mpsc};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// A service that calls, with a container that it may use as it wants to.
pub(super) struct Caller {
    pub context: Arc<ServiceContext>,
    pub lent: Lent,
    pub container: ContainerName,
}

impl Caller {
    /// Checks what is withheld, then what is granted, before anything else is looked at.
    pub fn new(
        context: &Arc<ServiceContext>,
        need: Need,
        container: &str,
    ) -> Result<Self, types::Error> {
        let container = ContainerName::parse(container)
            .map_err(|error| types::Error::Invalid(error.to_string()))?;
        let lent = lent(context, container.as_str())?;
        lent.grant.allow(need, container.as_str())?;
        Ok(Self {
            context: context.clone(),
            lent,
            container,
        })
    }

    pub fn backend(&self) -> &dyn Backend {
        &*self.lent.open.backend
    }

    pub fn told(&self, error: Error) -> types::Error {
        convert::told(&self.lent.service, error)
    }

    pub fn place(&self, name: &str) -> Result<Place, types::Error> {
        let name = ObjectName::parse(name, self.lent.config.name_bytes_max)
            .map_err(|error| self.told(error))?;
        Ok(Place {
            container: self.container.clone(),
            name,
        })
    }

    /// The right to have one more stream open.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, types::Error> {
        let permit = self.lent.open.streams.clone().try_acquire_owned();
        permit.map_err(|_| {
            let max = self.lent.config.streams_max;
            types::Error::LimitExceeded(format!(
                "the service has {max} streams open, and streams_max is {max}"
            ))
        })
    }

    fn check_value(&self, bytes: u64, remedy: &str) -> Result<(), types::Error> {
        let max = self.lent.config.value_bytes_max;
        if bytes <= max {
            return Ok(());
        }
        Err(types::Error::LimitExceeded(format!(
            "the content has {bytes} bytes, and value_bytes_max is {max}: {remedy} it as a stream"
        )))
    }

    pub async fn info(&self, name: &str) -> Result<ObjectInfo, types::Error> {
        let place = self.place(name)?;
        let info = self.backend().info(&place).await;
        info.map(convert::info).map_err(|error| self.told(error))
    }

    pub async fn open(&self, name: &str, range: Range) -> Result<(Info, Content), types::Error> {
        let place = self.place(name)?;
        let opened = self.backend().read(&place, range).await;
        opened.map_err(|error| self.told(error))
    }

    pub async fn get(
        &self,
        name: &str,
        range: Range,
    ) -> Result<(ObjectInfo, Vec<u8>), types::Error> {
        let (info, content) = self.open(name, range).await?;
        let (at, end) = range.within(info.size).map_err(|error| self.told(error))?;
        self.check_value(end - at, "read")?;
        let gather = |mut all: Vec<u8>, chunk: Bytes| async move {
            all.extend_from_slice(&chunk);
            Ok(all)
        };
        let content = content.try_fold(Vec::new(), gather).await;
        content
            .map(|content| (convert::info(info), content))
            .map_err(|error| self.told(error))
    }

    async fn begin(
        &self,
        name: &str,
        new: Result<New, Error>,
    ) -> Result<Box<dyn Writer>, types::Error> {
        let place = self.place(name)?;
        let new = new.map_err(|error| self.told(error))?;
        let begun = self.backend().write(&place, new).await;
        begun.map_err(|error| self.told(error))
    }

    pub async fn put(
        &self,
        name: &str,
        options: WriteOptions,
        content: Vec<u8>,
    ) -> Result<ObjectInfo, types::Error> {
        let bytes = content.len() as u64;
        self.check_value(bytes, "write")?;
        let mut new = convert::new(options);
        if let Ok(new) = &mut new {
            new.size.get_or_insert(bytes);
        }
        let mut writer = self.begin(name, new).await?;
        let written = match writer.write(content.into()).await {
            Ok(()) => writer.commit().await,
            Err(error) => Err(error),
        };
        written.map(convert::info).map_err(|error| self.told(error))
    }

    /// Writes what arrives until it ends, and lets it show if the guest says that it was all.
    pub async fn write(
        &self,
        name: &str,
        options: WriteOptions,
        mut chunks: mpsc::Receiver<Bytes>,
        complete: oneshot::Receiver<bool>,
    ) -> Result<ObjectInfo, types::Error> {
        let _permit = self.stream()?;
        let mut writer = self.begin(name, convert::new(options)).await?;
        while let Some(chunk) = chunks.next().await {
            let written = writer.write(chunk).await;
            written.map_err(|error| self.told(error))?;
        }
        if complete.await != Ok(true) {
            return Err(types::Error::Invalid(
                "the write was given up before its content was complete".to_owned(),
            ));
        }
        // It may have been withheld meanwhile.
        let in_force = self.context.check("blob", self.container.as_str());
        in_force.map_err(types::Error::AccessDenied)?;
        let written = writer.commit().await;
        written.map(convert::info).map_err(|error| self.told(error))
    }

    pub async fn list(
        &self,
        prefix: &str,
        cursor: Option<&str>,
        limit: Option<u32>,
    ) -> Result<ObjectPage, types::Error> {
        let config = &self.lent.config;
        if prefix.len() > config.name_bytes_max {
            return Err(types::Error::LimitExceeded(format!(
                "the prefix has {} bytes, and name_bytes_max is {}",
                prefix.len(),
                config.name_bytes_max
            )));
        }
        if limit == Some(0) {
            return Err(types::Error::Invalid("limit must be 1 or more".to_owned()));
        }
        let limit = limit.map_or(config.list_max, |limit| {
            usize::try_from(limit)
                .unwrap_or(usize::MAX)
                .min(config.list_max)
        });
        let after = cursor
            .map(|cursor| ObjectName::of_cursor(cursor, config.name_bytes_max))
            .transpose()
            .map_err(|error| self.told(error))?;
        let listing = self
            .backend()
            .list(&self.container, prefix, after.as_ref(), limit)
            .await
            .map_err(|error| self.told(error))?;
        Ok(ObjectPage {
            objects: listing.objects.into_iter().map(convert::info).collect(),
            next: listing.next.map(|name| name.cursor()),
        })
    }
}

/// What the service holds, where the grant is in force for `container`.
pub(super) fn lent(context: &ServiceContext, container: &str) -> Result<Lent, types::Error> {
    context
        .check("blob", container)
        .map_err(types::Error::AccessDenied)?;
    context
        .lent
        .blob
        .clone()
        .ok_or_else(|| types::Error::AccessDenied("the operator has not granted `blob`".to_owned()))
}
