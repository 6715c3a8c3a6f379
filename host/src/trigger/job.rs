//! Jobs: each gets a fresh store, so that one bad job harms nobody.

use super::run_fresh;
use crate::{
    capability::queue::Failure,
    invocation::{Invocation, Trigger},
    service::Version,
    store::StoreState,
};
use std::sync::Arc;
use wasmtime::{Store, component::InstancePre, format_err};

wasmtime::component::bindgen!({
    path: "../wit",
    world: "exprsn:queue/guest",
    imports: { default: trappable },
    exports: { default: async | store },
});

/// The world of components that cannot export async functions.
mod sync {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "exprsn:queue/guest-sync",
        exports: { default: async },
        with: { "exprsn:queue/types": super::exprsn::queue::types },
    });
}

use exprsn::queue::types;

pub use types::{Job as GuestJob, State};

/// The worker that a component exports, in either form.
pub enum WorkerPre {
    Async(GuestPre<StoreState>),
    Sync(sync::GuestSyncPre<StoreState>),
}

/// The worker that `pre` exports; none where it exports none. One that exports both forms is called asynchronously.
pub fn worker(
    pre: &InstancePre<StoreState>,
    exports: &[String],
) -> wasmtime::Result<Option<WorkerPre>> {
    let exported = |prefix| exports.iter().any(|export| export.starts_with(prefix));
    if exported("exprsn:queue/worker@") {
        return GuestPre::new(pre.clone()).map(WorkerPre::Async).map(Some);
    }
    if exported("exprsn:queue/worker-sync@") {
        let worker = sync::GuestSyncPre::new(pre.clone())?;
        return Ok(Some(WorkerPre::Sync(worker)));
    }
    Ok(None)
}

impl WorkerPre {
    /// Does the job with a fresh instance in `store`.
    async fn handle(
        &self,
        store: &mut Store<StoreState>,
        job: GuestJob,
    ) -> wasmtime::Result<Result<Option<String>, types::Failure>> {
        match self {
            Self::Async(pre) => {
                let guest = pre.instantiate_async(&mut *store).await?;
                let handle = async |accessor: &_| {
                    guest.exprsn_queue_worker().call_handle(accessor, job).await
                };
                store.run_concurrent(handle).await?
            }
            Self::Sync(pre) => {
                let guest = pre.instantiate_async(&mut *store).await?;
                guest
                    .exprsn_queue_worker_sync()
                    .call_handle(store, &job)
                    .await
            }
        }
    }
}

/// Runs one attempt of a job. The answer is the job's return value, or why it failed.
pub async fn run(
    version: &Arc<Version>,
    invocation: Arc<Invocation>,
    job: GuestJob,
) -> Result<Option<String>, Failure> {
    run_fresh(version, Trigger::Job, invocation, async |store| {
        let worker = version
            .worker
            .as_ref()
            .ok_or_else(|| format_err!("the component exports no exprsn:queue/worker"))?;
        let answer = worker.handle(store, job).await?;
        Ok(answer.map_err(|failure| Failure {
            reason: failure.reason,
            retry: failure.retry,
        }))
    })
    .await
}
