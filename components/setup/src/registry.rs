//! `/api/registry`: registering, heartbeats, the list.

use crate::{
    changes::{CHANNEL, Change, Kind},
    graph::spell,
    registration::NewRegistration,
    store,
    view::{Registration, Running, ServiceView, Status, graph, merge},
};
use exprsn_sdk::{ca::Kind as PrincipalKind, openapi::Operation, prelude::*};

/// What the platform runs.
pub async fn running() -> Result<Vec<Running>> {
    let services = platform::services().await?;
    Ok(services.into_iter().map(Running::from).collect())
}

/// The whole registry, sorted by name.
pub async fn views() -> Result<Vec<ServiceView>> {
    Ok(merge(
        &running().await?,
        &store::registrations().await?,
        now_ms(),
    ))
}

/// `GET /api/registry/services`
pub async fn list() -> Result<Json<Vec<ServiceView>>> {
    Ok(Json(views().await?))
}

/// `GET /api/registry/services/{name}`
pub async fn show(Path(name): Path<String>) -> Result<Json<ServiceView>> {
    let found = views().await?.into_iter().find(|view| view.name == name);
    found
        .map(Json)
        .ok_or_else(|| Problem::not_found("service", &name))
}

/// `POST /api/registry/register`
pub async fn register(caller: Caller, Json(new): Json<NewRegistration>) -> Result<Registered> {
    let running = running().await?;
    let now = now_ms();
    let tx = sql::begin().await?;
    let registered = store::registrations_in(&tx).await?;
    let former = registered.iter().find(|known| known.name == new.name);
    permit(&caller, &new.name, &running, former)?;
    if former.is_none() && registered.len() >= store::REGISTRATIONS_MAX {
        return Err(Problem::unavailable(60).detail(format!(
            "the registry holds its {} registrations; deregister some",
            store::REGISTRATIONS_MAX
        )));
    }
    refuse_cycle(&new, &merge(&running, &registered, now))?;
    store::upsert(&tx, &new, &caller.principal().full_subject(), now).await?;
    let after = store::registrations_in(&tx).await?;
    let view = merge(&running, &after, now)
        .into_iter()
        .find(|view| view.name == new.name);
    let view = view.ok_or_else(|| {
        Problem::fault("a registration vanished within its transaction", &new.name)
    })?;
    let kind = if former.is_none() {
        Kind::Registered
    } else {
        Kind::Renewed
    };
    let change = Change::of(kind, &view, uuid_v7(), now);
    if former.is_none() {
        store::record(&tx, &change).await?;
    }
    tx.commit().await?;
    tell(&[change]).await;
    Ok(Registered {
        new: former.is_none(),
        view,
    })
}

/// `POST /api/registry/services/{name}/heartbeat`
pub async fn heartbeat(caller: Caller, Path(name): Path<String>) -> Result<Json<ServiceView>> {
    let running = running().await?;
    let now = now_ms();
    let tx = sql::begin().await?;
    let mut registration = find(&tx, &name).await?;
    permit(&caller, &name, &running, Some(&registration))?;
    let was_expired = registration.expires_at <= now;
    registration.expires_at = store::renew(&tx, &registration, now).await?;
    registration.renewed_at = now;
    let own = running.iter().find(|service| service.name == name);
    let view = own.map_or_else(
        || registration.view(now),
        |service| service.view(Some(&registration)),
    );
    let change = Change::of(Kind::Renewed, &view, uuid_v7(), now);
    // Heartbeats come every few seconds; only one that revives is worth remembering.
    if was_expired {
        store::record(&tx, &change).await?;
    }
    tx.commit().await?;
    tell(&[change]).await;
    Ok(Json(view))
}

/// `DELETE /api/registry/services/{name}`
pub async fn deregister(caller: Caller, Path(name): Path<String>) -> Result<NoContent> {
    let running = running().await?;
    let now = now_ms();
    let tx = sql::begin().await?;
    let registration = find(&tx, &name).await?;
    permit(&caller, &name, &running, Some(&registration))?;
    store::remove(&tx, &name).await?;
    let change = store::change(Kind::Removed, &registration, now);
    store::record(&tx, &change).await?;
    tx.commit().await?;
    tell(&[change]).await;
    Ok(NoContent)
}

async fn find(tx: &sql::Tx, name: &str) -> Result<Registration> {
    store::registration_in(tx, name).await?.ok_or_else(|| {
        Problem::not_found("registration", name).detail(format!(
            "{name} is not registered; register it at POST /api/registry/register"
        ))
    })
}

/// Tells listeners. They may be gone, and the registry is right without them.
pub async fn tell(changes: &[Change]) {
    for change in changes {
        if let Err(error) = events::live::broadcast(CHANNEL, change).await {
            log::warn!(
                "a change could not be told to listeners",
                error = format!("{error:?}")
            );
        }
    }
}

/// A record belongs to whoever made it; of a service that the platform runs, to that service. Operators and holders of
/// `admin` may change any.
fn permit(
    caller: &Caller,
    name: &str,
    running: &[Running],
    former: Option<&Registration>,
) -> Result<()> {
    let principal = caller.principal();
    if principal.kind == PrincipalKind::Operator
        || principal.permissions.contains(Permission::Admin.flag())
    {
        return Ok(());
    }
    let itself = principal.kind == PrincipalKind::Service && principal.subject == name;
    let ours = running.iter().any(|service| service.name == name);
    if itself {
        Ok(())
    } else if ours {
        Err(Problem::forbidden(format!(
            "{name} is run by this platform: only the service itself, an operator or a token with `admin` may change its record"
        )))
    } else if former.is_some_and(|former| former.owner != caller.principal().full_subject()) {
        Err(Problem::forbidden(format!(
            "{name} was registered by somebody else"
        )))
    } else {
        Ok(())
    }
}

/// A registration that would close a circle is refused with the circle spelled out.
fn refuse_cycle(new: &NewRegistration, views: &[ServiceView]) -> Result<()> {
    let mut graph = graph(views);
    let ours = views
        .iter()
        .find(|view| view.name == new.name && view.digest.is_some());
    match ours {
        // Declared dependencies of a running service stay, whatever its registration says.
        Some(_) => graph.add(&new.name, new.dependencies.iter().cloned()),
        None => graph.set(&new.name, new.dependencies.iter().cloned()),
    }
    match graph.cycle_through(&new.name) {
        None => Ok(()),
        Some(cycle) => Err(Problem::conflict(format!(
            "the services would depend on each other in a circle: {}",
            spell(&cycle)
        ))
        .kind("urn:exprsn:problem:dependency-cycle", "Dependency cycle")
        .field(
            "/dependencies",
            format!("closes the circle {}", spell(&cycle)),
        )
        .with("cycle", cycle)),
    }
}

/// 201 for a new registration, 200 for one that was there; both with the entry.
pub struct Registered {
    new: bool,
    view: ServiceView,
}

impl IntoResponse for Registered {
    fn into_response(self) -> Response {
        if self.new {
            Created::at(
                format!("/api/registry/services/{}", self.view.name),
                self.view,
            )
            .into_response()
        } else {
            Json(self.view).into_response()
        }
    }

    fn describe(operation: &mut Operation<'_>) {
        operation.json_response::<ServiceView>(StatusCode::CREATED);
        operation.json_response::<ServiceView>(StatusCode::OK);
    }
}

impl From<platform::Service> for Running {
    fn from(service: platform::Service) -> Self {
        use platform::ServiceState as State;
        Self {
            name: service.name,
            version: service.version,
            description: service.description,
            status: match service.state {
                State::Starting => Status::Starting,
                State::Live => Status::Healthy,
                State::Unhealthy => Status::Unhealthy,
                State::Draining => Status::Draining,
                State::Failed => Status::Failed,
                State::Stopped => Status::Stopped,
            },
            reason: service.reason,
            digest: service.digest,
            host: service.host,
            port: service.port,
            depends_on: service.depends_on,
            grants: service.grants,
            started_at_ms: service.started_at,
            instances: service.instances,
            invocations: service.invocations,
            failures: service.failures,
        }
    }
}
