//! What guests see of events: `exprsn:events/publisher` and `exprsn:events/live`.

use super::{
    Event,
    live::{Hub, Listener},
};
use crate::{
    capability::{
        Boot, Borrower, Capability,
        queue::{self, Broker},
    },
    clock::now_ms,
    invocation::TraceContext,
    name::{ServiceName, matches},
    store::{Handover, ServiceContext, StoreState},
    telemetry::{chain, spans::sending},
};
use exprsn_backends::events::live::LiveRelay;
use serde::{Deserialize, Serialize};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use wasmtime::{
    Result, StoreContextMut,
    component::{
        Accessor, Destination, HasSelf, Linker, StreamProducer, StreamReader, StreamResult,
    },
};

wasmtime::component::bindgen!({
    path: "../wit",
    world: "exprsn:events/imports",
    imports: { default: trappable },
});

use exprsn::events::{live, publisher, types};

/// `[capability.events]`: limits of live channels; events' own are the broker's, in `[capability.queue]`. Each field's name carries its unit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A live message's data.
    pub live_bytes_max: usize,
    /// A live channel's name.
    pub channel_bytes_max: usize,
    /// Messages that a listener may be behind before its stream ends.
    pub live_buffered_max: usize,
    /// Listeners on all live channels of this host.
    pub listeners_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            live_bytes_max: 64 << 10,
            channel_bytes_max: 256,
            live_buffered_max: 256,
            listeners_max: 100_000,
        }
    }
}

/// `[grants.events]`: topics, or prefixes that end in `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grant {
    pub publish: Vec<String>,
    pub subscribe: Vec<String>,
    /// Whether live channels may be used.
    pub live: bool,
}

impl Grant {
    /// Whether `topic` may be published; the error says which grant is missing and where it is written.
    pub fn allow_publish(&self, topic: &str) -> Result<(), String> {
        if self.publish.iter().any(|pattern| matches(pattern, topic)) {
            return Ok(());
        }
        Err(format!(
            "topic `{topic}` is not granted: add \"{topic}\" to `publish` under [grants.events] in component.toml"
        ))
    }

    fn allow_live(&self) -> Result<(), types::Error> {
        if self.live {
            return Ok(());
        }
        let text = "live channels are not granted: write `live = true` under [grants.events] in component.toml";
        Err(types::Error::AccessDenied(text.to_owned()))
    }
}

/// The `events` capability.
pub struct Events {
    broker: Arc<Broker>,
    hub: Arc<Hub>,
    relay: Option<Arc<LiveRelay>>,
    config: Arc<Config>,
}

/// What one service version holds.
#[derive(Clone, Debug)]
pub struct Lent {
    broker: Arc<Broker>,
    hub: Arc<Hub>,
    /// To the other hosts; none where events are this host's alone.
    relay: Option<Arc<LiveRelay>>,
    config: Arc<Config>,
    service: ServiceName,
    grant: Arc<Grant>,
}

impl Capability for Events {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(boot: &Boot, config: Config) -> Result<Self> {
        let hub = Hub::new(config.listeners_max, config.live_buffered_max);
        Ok(Self {
            broker: boot.broker.clone(),
            relay: relay(boot, &hub)?,
            hub,
            config: Arc::new(config),
        })
    }

    fn link(linker: &mut Linker<StoreState>, _grant: &Grant) -> Result<()> {
        types::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        publisher::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        live::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        super::twin::link(linker)
    }

    async fn lend(&self, borrower: &Borrower<'_>, grant: &Grant) -> Result<Lent> {
        Ok(Lent {
            broker: self.broker.clone(),
            hub: self.hub.clone(),
            relay: self.relay.clone(),
            config: self.config.clone(),
            service: borrower.name.clone(),
            grant: Arc::new(grant.clone()),
        })
    }
}

impl Lent {
    /// The event that the guest asks for, with what the host knows of it.
    fn event(&self, new: publisher::NewEvent, trace: TraceContext) -> Result<Event, types::Error> {
        self.grant
            .allow_publish(&new.topic)
            .map_err(types::Error::AccessDenied)?;
        Ok(Event {
            id: new.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
            source: self.service.clone(),
            topic: new.topic,
            subject: new.subject,
            time: now_ms(),
            data: new.data,
            trace: Some(trace),
        })
    }

    fn check_channel(&self, channel: &str) -> Result<(), types::Error> {
        self.grant.allow_live()?;
        let (bytes, max) = (channel.len(), self.config.channel_bytes_max);
        if bytes > max {
            return Err(types::Error::LimitExceeded(format!(
                "the channel's name has {bytes} bytes, and channel_bytes_max is {max}"
            )));
        }
        Ok(())
    }

    async fn broadcast(&self, channel: &str, data: &str) -> Result<(), types::Error> {
        self.check_channel(channel)?;
        let (bytes, max) = (data.len(), self.config.live_bytes_max);
        if bytes > max {
            return Err(types::Error::LimitExceeded(format!(
                "the message has {bytes} bytes, and live_bytes_max is {max}"
            )));
        }
        let Some(relay) = &self.relay else {
            self.hub.broadcast(&self.service, channel, data);
            return Ok(());
        };
        // It comes back to this host as to the others; where it cannot leave, those here get it all the same.
        if let Err(error) = relay.publish(&self.service, channel, data).await {
            tracing::warn!(service = %self.service, %error, "a live message reaches this host's listeners only");
            self.hub.broadcast(&self.service, channel, data);
        }
        Ok(())
    }

    fn listen(&self, channel: &str) -> Result<Listener, types::Error> {
        self.check_channel(channel)?;
        self.hub.listen(&self.service, channel).ok_or_else(|| {
            let max = self.config.listeners_max;
            types::Error::LimitExceeded(format!("{max} listen already, and listeners_max is {max}"))
        })
    }
}

/// Carries live messages between hosts, where these share their events.
fn relay(boot: &Boot, hub: &Arc<Hub>) -> Result<Option<Arc<LiveRelay>>> {
    if !boot.broker.is_shared() {
        return Ok(None);
    }
    let redis = boot.backends.redis.open("capability.events")?;
    let hub = hub.clone();
    let deliver = move |service: &ServiceName, channel: &str, data: &str| {
        hub.broadcast(service, channel, data);
    };
    let relay = LiveRelay::start(redis, &boot.background, Arc::new(deliver));
    Ok(Some(Arc::new(relay)))
}

/// What a guest is told: its own faults with their text, the host's without.
fn told(error: queue::Error) -> types::Error {
    match error {
        queue::Error::Invalid(text) => types::Error::Invalid(text),
        queue::Error::LimitExceeded(text) => types::Error::LimitExceeded(text),
        error @ (queue::Error::NotFound
        | queue::Error::Database(_)
        | queue::Error::Unavailable(_)) => {
            tracing::error!(error = chain(&error.into()), "the broker failed");
            types::Error::Unavailable("events cannot be published now".to_owned())
        }
    }
}

/// The state and the present invocation of the store that calls. Its functions are the interfaces' and their twins'.
pub(super) struct Caller {
    context: Arc<ServiceContext>,
    trace: TraceContext,
    handover: Handover,
}

impl Caller {
    fn of<T: 'static>(accessor: &Accessor<T, HasSelf<StoreState>>) -> Self {
        accessor.with(|mut access| Self::in_store(access.get()))
    }

    pub(super) fn in_store(state: &StoreState) -> Self {
        Self {
            context: state.service.clone(),
            trace: state.invocation.trace,
            handover: state.handover.clone(),
        }
    }

    /// What the grant lends, while it is in force for `topic`.
    fn lent(&self, topic: &str) -> Result<&Lent, types::Error> {
        self.context
            .check("events", topic)
            .map_err(types::Error::AccessDenied)?;
        let lent = self.context.lent.events.as_ref();
        Ok(lent.expect("a grant in force is lent"))
    }

    pub(super) async fn publish(&self, new: types::NewEvent) -> Result<String, types::Error> {
        let lent = self.lent(&new.topic)?;
        let bytes = new.data.len();
        let _handed = self
            .handover
            .take(bytes)
            .map_err(types::Error::LimitExceeded)?;
        let event = lent.event(new, self.trace.child())?;
        self.context
            .allowance
            .admit_messages(std::iter::once(bytes))
            .map_err(types::Error::LimitExceeded)?;
        let id = event.id.clone();
        let trace = event.trace.unwrap_or(self.trace);
        let sending = sending(&self.context, trace, &event.topic, Some(&id));
        lent.broker.publish(event).await.map_err(told)?;
        sending.end();
        Ok(id)
    }

    pub(super) async fn broadcast(
        &self,
        channel: String,
        data: String,
    ) -> Result<(), types::Error> {
        self.lent("")?.broadcast(&channel, &data).await
    }

    fn listen(&self, channel: &str) -> Result<Listener, types::Error> {
        self.lent("")?.listen(channel)
    }
}

impl types::Host for StoreState {}
impl publisher::Host for StoreState {}
impl live::Host for StoreState {}

impl<T: Send + 'static> publisher::HostWithStore<T> for HasSelf<StoreState> {
    async fn publish(
        accessor: &Accessor<T, Self>,
        new: publisher::NewEvent,
    ) -> Result<Result<String, types::Error>> {
        Ok(Caller::of(accessor).publish(new).await)
    }
}

impl<T: Send + 'static> live::HostWithStore<T> for HasSelf<StoreState> {
    async fn broadcast(
        accessor: &Accessor<T, Self>,
        channel: String,
        data: String,
    ) -> Result<Result<(), types::Error>> {
        Ok(Caller::of(accessor).broadcast(channel, data).await)
    }

    async fn listen(
        accessor: &Accessor<T, Self>,
        channel: String,
    ) -> Result<Result<StreamReader<String>, types::Error>> {
        match Caller::of(accessor).listen(&channel) {
            Ok(listener) => accessor
                .with(|access| StreamReader::new(access, Messages(listener)))
                .map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }
}

/// A listener as the host's end of a stream. It leaves its channel when the guest drops the stream or its store ends.
struct Messages(Listener);

impl<D> StreamProducer<D> for Messages {
    type Item = String;
    type Buffer = Option<String>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, String, Option<String>>,
        finish: bool,
    ) -> Poll<Result<StreamResult>> {
        if destination.remaining(store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let next = self.0.poll_next(context);
        if next.is_pending() && finish {
            return Poll::Ready(Ok(StreamResult::Cancelled));
        }
        Poll::Ready(Ok(match ready!(next) {
            Some(message) => {
                destination.set_buffer(Some((*message).to_owned()));
                StreamResult::Completed
            }
            None => StreamResult::Dropped,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_say_what_to_add_where() {
        let grant = Grant {
            publish: vec!["post.*".to_owned()],
            ..Grant::default()
        };
        assert_eq!(grant.allow_publish("post.created"), Ok(()));
        assert!(
            grant
                .allow_publish("user.created")
                .unwrap_err()
                .contains("add \"user.created\" to `publish`")
        );
        assert!(
            matches!(grant.allow_live(), Err(types::Error::AccessDenied(text)) if text.contains("live = true"))
        );
    }
}
