//! The `telemetry` capability: logs and metrics of a service, and what the host knows of its health.
//!
//! Also what stands behind WASI's baseline for every store: nothing, but that stdout and stderr go to the service's log.

mod stdio;
mod twin;

use super::{Boot, Borrower, Capability, queue::Broker};
use crate::{
    clock,
    store::{ServiceContext, StoreState},
    telemetry::{self, Metrics},
};
use exprsn_telemetry::{Attributes, GUEST, Line, Severity, now_ns};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
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
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
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

fn severity(level: logging::Level) -> Severity {
    match level {
        logging::Level::Trace => Severity::Trace,
        logging::Level::Debug => Severity::Debug,
        logging::Level::Info => Severity::Info,
        logging::Level::Warn => Severity::Warn,
        logging::Level::Error => Severity::Error,
    }
}

/// Fields as attributes, as long as they fit into `bytes_max` together.
fn kept(fields: &[(String, String)], bytes_max: usize) -> Attributes {
    let mut left = bytes_max;
    let fitting = fields.iter().map_while(|(name, value)| {
        left = left.checked_sub(name.len() + value.len())?;
        Some((name.clone().into(), value.clone().into()))
    });
    fitting.collect()
}

/// Records what [`write_record`] writes, for memory and collector.
fn record(state: &StoreState, level: logging::Level, message: String, attributes: Attributes) {
    let trace = state.invocation.trace;
    telemetry::telemetry().log(Line {
        time_ns: now_ns(),
        severity: severity(level),
        source: state.service.source.clone(),
        target: GUEST.into(),
        body: message,
        attributes,
        trace_id: trace.trace_id,
        span_id: trace.span_id,
    });
}

impl logging::Host for StoreState {
    fn log(&mut self, level: logging::Level, mut message: String, mut fields: Vec<(String, String)>) -> Result<()> {
        if lent(&self.service).is_none() {
            return Ok(());
        }
        if !telemetry::admits(&self.service.name, severity(level)) {
            return Ok(());
        }
        let bytes_max = self.service.limits.log_record_bytes_max;
        shorten(&mut message, bytes_max);
        fields.truncate(FIELDS_MAX);
        let attributes = kept(&fields, bytes_max);
        let fields: serde_json::Map<_, _> = fields.into_iter().map(|(name, value)| (name, value.into())).collect();
        let mut fields = serde_json::Value::Object(fields).to_string();
        shorten(&mut fields, bytes_max);
        let bytes = message.len() + fields.len();
        if !self.service.allowance.admit_record(&self.service.name, clock::now_s(), bytes) {
            return Ok(());
        }
        write_record(self, level, &message, &fields);
        record(self, level, message, attributes);
        Ok(())
    }
}

impl metrics::Host for StoreState {
    fn counter_add(&mut self, name: String, by: u64, attributes: Vec<(String, String)>) -> Result<()> {
        let (service, max) = (&self.service.name, self.service.limits.metric_series_max);
        if let Some(lent) = lent(&self.service) {
            lent.metrics.guest_count(service, max, &name, by, &attributes);
        }
        Ok(())
    }

    fn histogram_record(&mut self, name: String, value: f64, attributes: Vec<(String, String)>) -> Result<()> {
        let (service, max) = (&self.service.name, self.service.limits.metric_series_max);
        if let Some(lent) = lent(&self.service) {
            lent.metrics.guest_observe(service, max, &name, value, &attributes);
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
pub fn baseline(service: &Arc<ServiceContext>, random_bytes_max: u64) -> WasiCtx {
    WasiCtx::builder()
        .stdout(stdio::LogStream::new(service.clone(), "stdout"))
        .stderr(stdio::LogStream::new(service.clone(), "stderr"))
        .max_random_size(random_bytes_max)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_between_characters() {
        let mut text = "ü".repeat(10);
        shorten(&mut text, 5);
        assert_eq!(text, "üü…");
    }
}
