//! `exprsn:platform/control` as guests call it: who may change which version of a service runs.

use super::{
    Lent, held, lent,
    exprsn::platform::{
        control::{self, Canary, Change, Changed, Deployment, Outcome},
        types::Error,
    },
};
use crate::{
    deployments,
    name::ServiceName,
    platform::{self, ChangeError, Platform},
    store::StoreState,
    telemetry::chain,
};
use std::sync::Arc;
use wasmtime::{
    Result,
    component::{Accessor, HasSelf},
};

/// Longest name of who asks, in bytes.
const BY_BYTES_MAX: usize = 256;

type Answer<T> = Result<Result<T, Error>>;
type Own = HasSelf<StoreState>;

impl control::Host for StoreState {}

impl<T: Send + 'static> control::HostWithStore<T> for Own {
    async fn swap(
        accessor: &Accessor<T, Self>,
        service: String,
        digest: String,
        change: Change,
    ) -> Answer<Changed> {
        let act = move |platform: Arc<Platform>, name: ServiceName, change: platform::Change| async move {
            platform.swap(&name, &digest, &change).await
        };
        Ok(perform(accessor, &service, change, act).await)
    }

    async fn rollback(
        accessor: &Accessor<T, Self>,
        service: String,
        change: Change,
    ) -> Answer<Changed> {
        let act = move |platform: Arc<Platform>, name: ServiceName, change: platform::Change| async move {
            platform.rollback(&name, &change).await
        };
        Ok(perform(accessor, &service, change, act).await)
    }

    async fn promote(
        accessor: &Accessor<T, Self>,
        service: String,
        change: Change,
    ) -> Answer<Changed> {
        let act = move |platform: Arc<Platform>, name: ServiceName, change: platform::Change| async move {
            platform.promote(&name, &change).await
        };
        Ok(perform(accessor, &service, change, act).await)
    }

    async fn abort(
        accessor: &Accessor<T, Self>,
        service: String,
        change: Change,
    ) -> Answer<Changed> {
        let act = move |platform: Arc<Platform>, name: ServiceName, change: platform::Change| async move {
            platform.abort(&name, &change).await
        };
        Ok(perform(accessor, &service, change, act).await)
    }

    async fn remove(
        accessor: &Accessor<T, Self>,
        service: String,
        change: Change,
    ) -> Answer<Changed> {
        let act = move |platform: Arc<Platform>, name: ServiceName, change: platform::Change| async move {
            platform.remove(&name, &change).await
        };
        Ok(perform(accessor, &service, change, act).await)
    }

    async fn history(accessor: &Accessor<T, Self>, service: String) -> Answer<Vec<Deployment>> {
        let history = async {
            let (platform, name) = named(accessor, &service)?;
            let entries = platform.history(&name).await.map_err(told)?;
            Ok(entries.into_iter().map(entry).collect())
        };
        Ok(history.await)
    }

    async fn trial(accessor: &Accessor<T, Self>, service: String) -> Answer<Option<Canary>> {
        let trial = || {
            let (platform, name) = named(accessor, &service)?;
            let canary = platform.trial(&name).map_err(told)?;
            Ok(canary.map(|(version, percent)| Canary {
                version: version.context.version.clone(),
                digest: version.digest.clone(),
                percent,
            }))
        };
        Ok(trial())
    }
}

/// Makes a change in a task of its own: it goes on when the guest that asked for it goes, be it by this very change.
async fn perform<T, F>(
    accessor: &Accessor<T, Own>,
    service: &str,
    change: Change,
    act: impl FnOnce(Arc<Platform>, ServiceName, platform::Change) -> F,
) -> Result<Changed, Error>
where
    T: 'static,
    F: Future<Output = Result<platform::Changed, ChangeError>> + Send + 'static,
{
    let (platform, name) = named(accessor, service)?;
    if change.by.len() > BY_BYTES_MAX {
        return Err(Error::Refused(format!("`by` is longer than {BY_BYTES_MAX} bytes")));
    }
    let change = platform::Change {
        by: change.by,
        percent: change.percent,
        restart: change.restart,
    };
    let background = platform.background().clone();
    let done = background.spawn(act(platform, name, change)).await;
    match done {
        Ok(outcome) => outcome.map(shown).map_err(told),
        Err(error) => {
            tracing::error!(%error, "a change of a service failed");
            Err(Error::Unavailable("the change failed on the host".to_owned()))
        }
    }
}

/// The platform, where the grant allows to control it, and the service that is meant by a full or a short name.
fn named<T: 'static>(
    accessor: &Accessor<T, Own>,
    service: &str,
) -> Result<(Arc<Platform>, ServiceName), Error> {
    let context = held(accessor);
    let lent: &Lent = lent(&context, "control", |grant| grant.control)?;
    let platform = lent.control.platform();
    let platform = platform
        .ok_or_else(|| Error::Unavailable("the platform is starting or stopping".to_owned()))?;
    let name = platform.name(service).map_err(Error::Refused)?;
    Ok((platform, name))
}

fn told(error: ChangeError) -> Error {
    match error {
        ChangeError::NotFound(_) => Error::NotFound,
        ChangeError::Conflict(text) => Error::Conflict(text),
        ChangeError::Refused(error) => Error::Refused(chain(&error)),
        ChangeError::Fault(error) => {
            tracing::error!(error = chain(&error), "a service could not be changed");
            Error::Unavailable("the change failed on the host".to_owned())
        }
    }
}

fn shown(changed: platform::Changed) -> Changed {
    Changed {
        service: changed.service,
        action: changed.action.to_owned(),
        outcome: match changed.outcome {
            "trial" => Outcome::Trial,
            "removed" => Outcome::Removed,
            _ => Outcome::Live,
        },
        version: changed.version,
        digest: changed.digest,
        former: changed.former,
        cached: changed.cached,
        took_ms: changed.took_ms,
    }
}

fn entry(entry: deployments::Deployment) -> Deployment {
    Deployment {
        action: entry.action,
        outcome: entry.outcome,
        version: entry.version,
        digest: entry.digest,
        former: entry.former,
        reason: entry.reason,
        by: entry.by,
        at: entry.at,
        took_ms: entry.took_ms,
    }
}
