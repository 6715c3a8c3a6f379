//! What operators see of several hosts: who is there, since when nothing was heard, and how calls between hosts end.

use super::Cluster;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use std::{
    fmt,
    sync::{Arc, Weak},
};

/// How calls to other hosts end.
#[derive(Clone, Debug, Default)]
pub struct Calls(Family<Ended, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    host: String,
    outcome: &'static str,
}

impl Calls {
    /// Counts the end of one: `answered`, `untouched` or `lost`.
    pub fn count(&self, host: &str, outcome: &'static str) {
        let ended = Ended {
            host: host.to_owned(),
            outcome,
        };
        self.0.get_or_create(&ended).inc();
    }
}

/// This host's view of the others, looked at when metrics are asked for.
struct View(Weak<Cluster>);

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("View")
    }
}

impl Collector for View {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(cluster) = self.0.upgrade() else {
            return Ok(());
        };
        let hosts = i64::try_from(cluster.directory().hosts().len()).unwrap_or(i64::MAX);
        let heard = ConstGauge::new(cluster.since_heard().as_secs_f64());
        let revision = cluster.revision();
        for (name, help, value) in [
            ("cluster_hosts", "Hosts that have a lease", hosts),
            (
                "cluster_revision",
                "The last change that this host has taken in",
                revision,
            ),
            (
                "cluster_deaf",
                "Whether this host trusts nothing it knows",
                i64::from(cluster.is_deaf()),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let help = "Time since this host heard from the platform";
        let metric = encoder.encode_descriptor(
            "cluster_heard",
            help,
            Some(&Unit::Seconds),
            heard.metric_type(),
        )?;
        heard.encode(metric)
    }
}

/// Shows what is known of the cluster in the host's metrics.
pub fn register(cluster: &Arc<Cluster>, registry: &mut Registry) {
    registry.register(
        "cluster_calls",
        "Calls to other hosts, by how they ended",
        cluster.calls.0.clone(),
    );
    registry.register_collector(Box::new(View(Arc::downgrade(cluster))));
}
