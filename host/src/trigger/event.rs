//! Events: each delivery gets a fresh store, like a job, which in the broker it is.

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
    world: "exprsn:events/guest",
    imports: { default: trappable },
    exports: { default: async | store },
});

pub use self::{
    GuestPre as SubscriberPre, exports::exprsn::events::subscriber::Event as GuestEvent,
};

/// The subscriber that `pre` exports; none where it exports none.
pub fn subscriber(
    pre: &InstancePre<StoreState>,
    exports: &[String],
) -> wasmtime::Result<Option<SubscriberPre<StoreState>>> {
    let exported = exports
        .iter()
        .any(|export| export.starts_with("exprsn:events/subscriber@"));
    exported
        .then(|| SubscriberPre::new(pre.clone()))
        .transpose()
}

/// Delivers an event once.
pub async fn deliver(
    version: &Arc<Version>,
    invocation: Arc<Invocation>,
    event: GuestEvent,
) -> Result<(), Failure> {
    run_fresh(version, Trigger::Event, invocation, async |mut store| {
        let pre = version
            .subscriber
            .as_ref()
            .ok_or_else(|| format_err!("the component exports no exprsn:events/subscriber"))?;
        let guest = pre.instantiate_async(&mut store).await?;
        let answer = store
            .run_concurrent(async |accessor| {
                guest
                    .exprsn_events_subscriber()
                    .call_receive(accessor, event)
                    .await
            })
            .await??;
        Ok(answer.map_err(|failure| Failure {
            reason: failure.reason,
            retry: failure.retry,
        }))
    })
    .await
}
