//! Who sends: the attributes that all records of one source share.

use crate::{
    config::{Config, resource_attributes},
    otlp::text,
    record::Source,
};
use opentelemetry_proto::tonic::{common::v1::KeyValue, resource::v1::Resource};

/// What all sources of this process have in common.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    namespace: String,
    instance: String,
    host: String,
    more: Vec<(String, String)>,
}

impl Process {
    pub fn new(config: &Config) -> Self {
        Self {
            namespace: config.service_namespace.clone(),
            instance: uuid::Uuid::new_v4().to_string(),
            host: host_name(),
            more: resource_attributes(),
        }
    }

    /// The resource of one source.
    pub fn resource(&self, source: &Source) -> Resource {
        let own = [
            ("service.name", &*source.name),
            ("service.namespace", &self.namespace),
            ("service.version", &*source.version),
            ("service.instance.id", &self.instance),
            ("host.name", &self.host),
            ("telemetry.sdk.name", "exprsn"),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ];
        let own = own.iter().filter(|(_, value)| !value.is_empty());
        let mut attributes: Vec<KeyValue> = own.map(|(key, value)| text(key, value)).collect();
        let more = self.more.iter();
        let known = |key: &str| matches!(key, "service.name" | "service.version");
        attributes.extend(
            more.filter(|(key, _)| !known(key))
                .map(|(key, value)| text(key, value)),
        );
        Resource {
            attributes,
            ..Resource::default()
        }
    }
}

fn host_name() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = read.or_else(|_| std::env::var("HOSTNAME").map_err(std::io::Error::other));
    name.map(|name| name.trim().to_owned()).unwrap_or_default()
}
