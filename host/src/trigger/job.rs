//! Jobs: each gets a fresh store, so that one bad job harms nobody.

use super::run_fresh;
use crate::{
    capability::queue::Failure,
    invocation::{Invocation, Trigger},
    service::Version,
    store::StoreState,
};
use std::sync::Arc;
use wasmtime::{component::InstancePre, format_err};

wasmtime::component::bindgen!({
    path: "../wit",
    world: "exprsn:queue/guest",
    imports: { default: trappable },
    exports: { default: async | store },
});

pub use self::{
    GuestPre as WorkerPre, exports::exprsn::queue::worker::Job as GuestJob,
    exprsn::queue::types::State,
};

/// The worker that `pre` exports; none where it exports none.
pub fn worker(
    pre: &InstancePre<StoreState>,
    exports: &[String],
) -> wasmtime::Result<Option<WorkerPre<StoreState>>> {
    let exported = exports
        .iter()
        .any(|export| export.starts_with("exprsn:queue/worker@"));
    exported.then(|| WorkerPre::new(pre.clone())).transpose()
}

/// Runs one attempt of a job. The answer is the job's return value, or why it failed.
pub async fn run(
    version: &Arc<Version>,
    invocation: Arc<Invocation>,
    job: GuestJob,
) -> Result<Option<String>, Failure> {
    run_fresh(version, Trigger::Job, invocation, async |mut store| {
        let pre = version
            .worker
            .as_ref()
            .ok_or_else(|| format_err!("the component exports no exprsn:queue/worker"))?;
        let guest = pre.instantiate_async(&mut store).await?;
        let answer = store
            .run_concurrent(async |accessor| {
                guest.exprsn_queue_worker().call_handle(accessor, job).await
            })
            .await??;
        Ok(answer.map_err(|failure| Failure {
            reason: failure.reason,
            retry: failure.retry,
        }))
    })
    .await
}
