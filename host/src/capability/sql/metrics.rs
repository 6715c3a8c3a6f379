//! What operators see of databases: work done, and how far each outbox is behind.

use super::outbox::Lag;
use crate::{clock, name::ServiceName, sqlite::Database};
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
    database: Database,
}

impl Gauges {
    pub fn add(&self, service: &ServiceName, lag: &Arc<Lag>, database: &Database) {
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
        gauge(
            &mut encoder,
            "sql_outbox_age_ms",
            "How long the oldest row of the outbox waits",
            &watched,
            |watched| watched.lag.age_ms(now_ms),
        )?;
        counter(
            &mut encoder,
            "sql_commits",
            "Transactions written to disk",
            &watched,
            |watched| watched.database.statistics().commits(),
        )?;
        counter(
            &mut encoder,
            "sql_writes",
            "Writes that are durable; several share a commit",
            &watched,
            |watched| watched.database.statistics().writes(),
        )
    }
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
