//! The `telemetry` capability: logs and metrics of a service, and what the host knows of its health.
//!
//! Also what stands behind WASI's baseline for every store: nothing, but that stdout and stderr go to the service's log.

mod stdio;
mod twin;

use super::{Boot, Borrower, Capability, queue::Broker};
use crate::{
    clock,
    name::ServiceName,
    store::{ServiceContext, StoreState},
    telemetry::Metrics,
};
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};
use wasmtime::{
    Result,
    component::{Accessor, HasSelf, Linker},
};
use wasmtime_wasi::WasiCtx;

wasmtime::component::bindgen!({
    path: "../wit",
    world: "exprsn:telemetry/imports",
    imports: {
        "exprsn:telemetry/service.status": store | trappable,
        default: trappable,
    },
});

use exprsn::telemetry::{logging, metrics, service, types};

/// Bytes of one log message that are kept.
const MESSAGE_BYTES_MAX: usize = 8 << 10;
/// Fields of one log record that are kept.
const FIELDS_MAX: usize = 32;

/// `[capability.telemetry]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long a backend may take to answer a health check, in milliseconds.
    pub health_ms_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { health_ms_max: 1_000 }
    }
}

/// `[grants.telemetry]`: no scope.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {}

/// The capability.
pub struct Telemetry {
    metrics: Arc<Metrics>,
    broker: Arc<Broker>,
    health_max: Duration,
}

/// What one service version holds.
pub struct Lent {
    metrics: Arc<Metrics>,
    /// None where the service uses neither queue nor events nor cache.
    broker: Option<Arc<Broker>>,
    health_max: Duration,
    rate: LogRate,
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent").field("rate", &self.rate).finish_non_exhaustive()
    }
}

/// A count of log records in the present second.
#[derive(Debug, Default)]
struct LogRate {
    second: AtomicI64,
    count: AtomicU32,
}

impl LogRate {
    /// Whether one more record at `now_s` is within `max`; says once a second that records are dropped.
    fn admit(&self, service: &ServiceName, now_s: i64, max: u32) -> bool {
        if self.second.swap(now_s, Relaxed) != now_s {
            let before = self.count.swap(0, Relaxed);
            if before > max {
                tracing::warn!(%service, dropped = before - max, "log records were dropped: over log_records_per_second_max");
            }
        }
        self.count.fetch_add(1, Relaxed) < max
    }
}

impl Capability for Telemetry {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(boot: &Boot, config: Config) -> Result<Self> {
        Ok(Self {
            metrics: boot.metrics.clone(),
            broker: boot.broker.clone(),
            health_max: Duration::from_millis(config.health_ms_max),
        })
    }

    fn link(linker: &mut Linker<StoreState>, _grant: &Grant) -> Result<()> {
        logging::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        metrics::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        types::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        service::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        twin::link(linker)
    }

    async fn lend(&self, borrower: &Borrower<'_>, _grant: &Grant) -> Result<Lent> {
        let grants = borrower.grants;
        let uses_broker = grants.queue.is_some() || grants.events.is_some() || grants.cache.is_some();
        Ok(Lent {
            metrics: self.metrics.clone(),
            broker: uses_broker.then(|| self.broker.clone()),
            health_max: self.health_max,
            rate: LogRate::default(),
        })
    }
}

/// What the grant lends; none while it is withheld. The interfaces know no error, so what is said then is dropped.
fn lent(context: &ServiceContext) -> Option<&Lent> {
    context.check("telemetry", "").ok()?;
    context.lent.telemetry.as_ref()
}

fn shorten(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
}

/// Writes a guest's record to the log. Its text is data: control characters are escaped by the formatter's quoting.
fn write_record(state: &StoreState, level: logging::Level, message: &str, fields: &str) {
    let service = state.service.name.as_str();
    let trace_id = format!("{:032x}", state.invocation.trace.trace_id);
    match level {
        logging::Level::Trace => tracing::trace!(target: "guest", service, trace_id, fields, ?message),
        logging::Level::Debug => tracing::debug!(target: "guest", service, trace_id, fields, ?message),
        logging::Level::Info => tracing::info!(target: "guest", service, trace_id, fields, ?message),
        logging::Level::Warn => tracing::warn!(target: "guest", service, trace_id, fields, ?message),
        logging::Level::Error => tracing::error!(target: "guest", service, trace_id, fields, ?message),
    }
}

impl logging::Host for StoreState {
    fn log(&mut self, level: logging::Level, mut message: String, mut fields: Vec<(String, String)>) -> Result<()> {
        let max = self.service.limits.log_records_per_second_max;
        let admitted = lent(&self.service).is_some_and(|lent| lent.rate.admit(&self.service.name, clock::now_s(), max));
        if !admitted {
            return Ok(());
        }
        shorten(&mut message, MESSAGE_BYTES_MAX);
        fields.truncate(FIELDS_MAX);
        let fields: serde_json::Map<_, _> = fields.into_iter().map(|(name, value)| (name, value.into())).collect();
        let mut fields = serde_json::Value::Object(fields).to_string();
        shorten(&mut fields, MESSAGE_BYTES_MAX);
        write_record(self, level, &message, &fields);
        Ok(())
    }
}

impl metrics::Host for StoreState {
    fn counter_add(&mut self, name: String, by: u64, attributes: Vec<(String, String)>) -> Result<()> {
        if let Some(lent) = lent(&self.service) {
            lent.metrics.guest_count(&self.service.name, &name, by, &attributes);
        }
        Ok(())
    }

    fn histogram_record(&mut self, name: String, value: f64, attributes: Vec<(String, String)>) -> Result<()> {
        if let Some(lent) = lent(&self.service) {
            lent.metrics.guest_observe(&self.service.name, &name, value, &attributes);
        }
        Ok(())
    }
}

impl types::Host for StoreState {}
impl service::Host for StoreState {}

impl<T: Send + 'static> service::HostWithStore<T> for HasSelf<StoreState> {
    async fn status(accessor: &Accessor<T, Self>) -> Result<service::Health> {
        let context = accessor.with(|mut access| access.get().service.clone());
        Ok(context.status().await)
    }
}

impl ServiceContext {
    /// The service as the host sees it; asks the backends.
    async fn status(&self) -> types::Health {
        let held = lent(self);
        let database = async {
            match (held, &self.lent.sql) {
                (Some(held), Some(sql)) => Some(tokio::time::timeout(held.health_max, sql.is_healthy()).await.unwrap_or(false)),
                _ => None,
            }
        };
        let broker = async {
            match held.and_then(|held| Some((held, held.broker.as_ref()?))) {
                Some((held, broker)) => Some(tokio::time::timeout(held.health_max, broker.ping()).await.unwrap_or(false)),
                None => None,
            }
        };
        let (database, broker) = tokio::join!(database, broker);
        types::Health {
            name: self.name.to_string(),
            version: self.version.clone(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            database,
            broker,
        }
    }
}

/// WASI's baseline for a store: no directory, environment, argument or socket; output goes to the log.
pub fn baseline(service: &ServiceName) -> WasiCtx {
    WasiCtx::builder()
        .stdout(stdio::LogStream::new(service.clone(), "stdout"))
        .stderr(stdio::LogStream::new(service.clone(), "stderr"))
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_rate_starts_anew_each_second() {
        let (rate, service) = (LogRate::default(), ServiceName::parse("a").unwrap());
        let admitted = |second| (0..5).filter(|_| rate.admit(&service, second, 3)).count();
        assert_eq!((admitted(1), admitted(2)), (3, 3));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let mut text = "ü".repeat(10);
        shorten(&mut text, 5);
        assert_eq!(text, "üü…");
    }
}
