//! What operators see of databases: work done, and how far each outbox is behind.

use crate::{clock, name::ServiceName};
use exprsn_backends::sql::{Database, backend::PoolStatistics, relay::Lag};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use std::{
    fmt,
    sync::{Arc, Mutex},
};

/// The open databases, looked at when metrics are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauges {
    watched: Arc<Mutex<Vec<Watched>>>,
}

#[derive(Clone, Debug)]
struct Watched {
    service: ServiceName,
    lag: Arc<Lag>,
    database: Arc<dyn Database>,
}

impl Gauges {
    pub fn add(&self, service: &ServiceName, lag: &Arc<Lag>, database: &Arc<dyn Database>) {
        let watched = Watched {
            service: service.clone(),
            lag: lag.clone(),
            database: database.clone(),
        };
        self.watched
            .lock()
            .expect("no holder of this lock panics")
            .push(watched);
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let watched = self
            .watched
            .lock()
            .expect("no holder of this lock panics")
            .clone();
        let now_ms = clock::now_ms();
        gauge(
            &mut encoder,
            "sql_outbox_rows",
            "Rows that wait in the outbox",
            &watched,
            |watched| watched.lag.rows(),
        )?;
        seconds(
            &mut encoder,
            "sql_outbox_age_seconds",
            "How long the oldest row of the outbox waits",
            &watched,
            |watched| watched.lag.age_ms(now_ms),
        )?;
        counter(
            &mut encoder,
            "sql_commits",
            "Transactions written to disk",
            &watched,
            |watched| watched.database.statistics().commits,
        )?;
        counter(
            &mut encoder,
            "sql_writes",
            "Writes that are durable; several share a commit",
            &watched,
            |watched| watched.database.statistics().writes,
        )?;
        pools(&mut encoder, &watched)
    }
}

/// A metric of a pool: its name, what it says, and where it stands.
type OfPool = (&'static str, &'static str, fn(&PoolStatistics) -> u64);

/// The connections of databases that have a pool of them, in the words of Sequelize's pool.
fn pools(encoder: &mut DescriptorEncoder<'_>, watched: &[Watched]) -> fmt::Result {
    let pooled: Vec<(Watched, PoolStatistics)> = watched
        .iter()
        .filter_map(|one| Some((one.clone(), one.database.statistics().pool?)))
        .collect();
    if pooled.is_empty() {
        return Ok(());
    }
    let (ones, pools): (Vec<Watched>, Vec<PoolStatistics>) = pooled.into_iter().unzip();
    let of = |one: &Watched, read: fn(&PoolStatistics) -> u64| {
        let index = ones.iter().position(|other| other.service == one.service);
        index.map_or(0, |index| read(&pools[index]))
    };
    let gauges: [OfPool; 4] = [
        (
            "sql_pool_max",
            "Database connections that may be open",
            |pool| pool.max,
        ),
        (
            "sql_pool_size",
            "Database connections that are open",
            |pool| pool.size,
        ),
        (
            "sql_pool_available",
            "Open database connections that nobody uses",
            |pool| pool.available,
        ),
        (
            "sql_pool_waiting",
            "Calls that wait for a database connection",
            |pool| pool.waiting,
        ),
    ];
    for (name, help, read) in gauges {
        gauge(encoder, name, help, &ones, |one| of(one, read))?;
    }
    let counters: [OfPool; 3] = [
        ("sql_pool_opened", "Database connections opened", |pool| {
            pool.opened
        }),
        (
            "sql_pool_timeouts",
            "Calls that waited for a database connection in vain",
            |pool| pool.timeouts,
        ),
        (
            "sql_cancelled",
            "Statements cancelled on the database server",
            |pool| pool.cancelled,
        ),
    ];
    for (name, help, read) in counters {
        counter(encoder, name, help, &ones, |one| of(one, read))?;
    }
    Ok(())
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    watched: &[Watched],
    value: impl Fn(&Watched) -> u64,
) -> fmt::Result {
    let kind = ConstGauge::new(0_i64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for one in watched {
        let gauge = ConstGauge::new(i64::try_from(value(one)).unwrap_or(i64::MAX));
        gauge.encode(family.encode_family(&[("service", one.service.as_str())])?)?;
    }
    Ok(())
}

/// A gauge of milliseconds, shown in the unit that Prometheus asks for.
fn seconds(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    watched: &[Watched],
    value_ms: impl Fn(&Watched) -> u64,
) -> fmt::Result {
    let kind = ConstGauge::new(0_f64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for one in watched {
        let gauge = ConstGauge::new(value_ms(one) as f64 / 1e3);
        gauge.encode(family.encode_family(&[("service", one.service.as_str())])?)?;
    }
    Ok(())
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    watched: &[Watched],
    value: impl Fn(&Watched) -> u64,
) -> fmt::Result {
    let kind = ConstCounter::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for one in watched {
        ConstCounter::new(value(one))
            .encode(family.encode_family(&[("service", one.service.as_str())])?)?;
    }
    Ok(())
}
