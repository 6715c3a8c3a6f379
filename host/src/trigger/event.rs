//! Events: each delivery gets a fresh store, like a job, which in the broker it is.

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
    world: "exprsn:events/guest",
    imports: { default: trappable },
    exports: { default: async | store },
});

/// The world of components that cannot export async functions.
mod sync {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "exprsn:events/guest-sync",
        exports: { default: async },
        with: { "exprsn:events/types": super::exprsn::events::types },
    });
}

use exprsn::events::types;

pub use types::Event as GuestEvent;

/// The subscriber that a component exports, in either form.
pub enum SubscriberPre {
    Async(GuestPre<StoreState>),
    Sync(sync::GuestSyncPre<StoreState>),
}

/// The subscriber that `pre` exports; none where it exports none. One that exports both forms is called asynchronously.
pub fn subscriber(
    pre: &InstancePre<StoreState>,
    exports: &[String],
) -> wasmtime::Result<Option<SubscriberPre>> {
    let exported = |prefix| exports.iter().any(|export| export.starts_with(prefix));
    if exported("exprsn:events/subscriber@") {
        let subscriber = GuestPre::new(pre.clone())?;
        return Ok(Some(SubscriberPre::Async(subscriber)));
    }
    if exported("exprsn:events/subscriber-sync@") {
        let subscriber = sync::GuestSyncPre::new(pre.clone())?;
        return Ok(Some(SubscriberPre::Sync(subscriber)));
    }
    Ok(None)
}

impl SubscriberPre {
    /// Takes the event with a fresh instance in `store`.
    async fn receive(
        &self,
        store: &mut Store<StoreState>,
        event: GuestEvent,
    ) -> wasmtime::Result<Result<(), types::Failure>> {
        match self {
            Self::Async(pre) => {
                let guest = pre.instantiate_async(&mut *store).await?;
                let subscriber = guest.exprsn_events_subscriber();
                let receive = async |accessor: &_| subscriber.call_receive(accessor, event).await;
                store.run_concurrent(receive).await?
            }
            Self::Sync(pre) => {
                let guest = pre.instantiate_async(&mut *store).await?;
                guest
                    .exprsn_events_subscriber_sync()
                    .call_receive(store, &event)
                    .await
            }
        }
    }
}

/// Delivers an event once.
pub async fn deliver(
    version: &Arc<Version>,
    invocation: Arc<Invocation>,
    event: GuestEvent,
) -> Result<(), Failure> {
    run_fresh(version, Trigger::Event, invocation, async |store| {
        let subscriber = version
            .subscriber
            .as_ref()
            .ok_or_else(|| format_err!("the component exports no exprsn:events/subscriber"))?;
        let answer = subscriber.receive(store, event).await?;
        Ok(answer.map_err(|failure| Failure {
            reason: failure.reason,
            retry: failure.retry,
        }))
    })
    .await
}
