//! `platform.toml`: the operator's half of the configuration.
//!
//! Every key has a default, every limit a name with its unit; an unknown key or a wrong type stops the start with the
//! line at fault.

use crate::{
    approval::Approvals,
    capability::{Configs, blob::S3Server, sql::PostgresServer},
    name::ServiceName,
};
use exprsn_backends::redis::{Redis, Tls};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr, path::Path};
use wasmtime::{Result, error::Context as _, format_err};

/// A parsed `platform.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub platform: PlatformConfig,
    /// What listeners speak.
    pub tls: crate::tls::Config,
    /// How this host meets others.
    pub cluster: crate::cluster::Config,
    /// What each capability is backed by.
    pub capability: Configs,
    /// Servers that keep data for several hosts.
    pub backends: Backends,
    /// Policies of calls between services.
    pub mesh: toml::Table,
    /// Where traces, metrics and logs go.
    pub telemetry: exprsn_telemetry::Config,
    /// Limits of every service, unless its own say otherwise.
    pub limits: toml::Table,
    /// Services to run, by full name.
    pub service: BTreeMap<ServiceName, ServiceConfig>,
    /// What is answered to services' requests, to those too that do not run on this host.
    #[serde(skip)]
    pub answers: BTreeMap<ServiceName, Approvals>,
}

/// Servers that a capability's `backend` may name.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backends {
    pub postgres: PostgresServer,
    pub redis: RedisServer,
    pub s3: S3Server,
}

/// `[backends.redis]`. Not printable, because a URL may hold a password.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisServer {
    /// `redis://[user:password@]host[:port][/database]`, or `$NAME`: what the environment's variable of that name holds.
    pub url: String,
    /// A PEM file of certificates that a server of `rediss://` is trusted by; empty is the system's.
    pub ca_file: String,
    /// A PEM file of the certificate shown to the server; empty is none.
    pub certificate_file: String,
    /// A PEM file of its key.
    pub key_file: String,
}

/// What a key of `[section]` says: its value, or for `$NAME` what the environment's variable of that name holds.
pub fn or_environment(section: &str, key: &str, value: &str) -> Result<String> {
    match value.strip_prefix('$') {
        Some(name) => std::env::var(name).map_err(|_| {
            format_err!("[{section}] {key} names the variable {name}, which is not set")
        }),
        None => Ok(value.to_owned()),
    }
}

impl RedisServer {
    /// The server, not yet asked anything. Each capability has a connection of its own, so that none waits for another's.
    pub fn open(&self, wanted_by: &str) -> Result<Redis> {
        if self.url.is_empty() {
            return Err(format_err!(
                "[{wanted_by}] backend is \"redis\", and there is no server: write its url into [backends.redis] in \
                 platform.toml"
            ));
        }
        let url = or_environment("backends.redis", "url", &self.url)?;
        let opened = match self.tls()? {
            Some(tls) => Redis::with_tls(url.as_str(), tls),
            None => Redis::new(url.as_str()),
        };
        opened.map_err(|error| {
            format_err!(
                "[backends.redis] url must be like redis://user:password@host:6379/0: {error}"
            )
        })
    }

    /// The certificates, where any are named.
    fn tls(&self) -> Result<Option<Tls>> {
        let named = [&self.ca_file, &self.certificate_file, &self.key_file];
        if named.iter().all(|file| file.is_empty()) {
            return Ok(None);
        }
        let read = |key: &str, file: &str| {
            std::fs::read(file)
                .map_err(|error| format_err!("[backends.redis] {key} `{file}`: {error}"))
        };
        let trusted = match self.ca_file.as_str() {
            "" => None,
            file => Some(read("ca_file", file)?),
        };
        let identity = match (self.certificate_file.as_str(), self.key_file.as_str()) {
            ("", "") => None,
            (certificate, key) => Some((
                read("certificate_file", certificate)?,
                read("key_file", key)?,
            )),
        };
        Ok(Some(Tls { trusted, identity }))
    }
}

/// The host itself.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlatformConfig {
    /// The SPIFFE trust domain: `spiffe://<trust_domain>/service/<name>`.
    pub trust_domain: String,
    /// The address that listeners bind to.
    pub listen: IpAddr,
    /// Cores that serve requests, one runtime each; 0 is all of the machine's.
    pub cores: usize,
    /// Added to every service's port, so that two platforms fit on one machine.
    pub port_offset: u16,
    /// How long a stop waits for what is under way, in milliseconds.
    pub drain_ms_max: u64,
    /// How long a service may take to become healthy at start, in milliseconds.
    pub start_ms_max: u64,
    /// Instances alive at once in the whole host.
    pub instances_max: u32,
    /// Stack of one call into an instance, in bytes; deeper recursion is a trap.
    pub stack_bytes_max: usize,
    /// How many times the host's limit a manifest may ask for; beyond it the operator's word is needed.
    pub asked_limits_factor_max: u64,
    /// Largest `memory_bytes_max` that a service may ask for, in bytes. Address space that is not used costs nothing.
    pub pool_memory_bytes_max: usize,
    /// Largest `table_elements_max` that a service may ask for: 8 bytes of address space each, for every table of the pool.
    pub pool_table_elements_max: usize,
    /// Open connections per listener and core.
    pub connections_max: usize,
    /// How long a client may take to send a request's head, in milliseconds.
    pub header_read_ms_max: u64,
    /// Memory of the process that compiles a component, in bytes.
    pub compile_memory_bytes_max: u64,
    /// Processor time of the process that compiles a component, in seconds.
    pub compile_cpu_s_max: u64,
    /// Services that a request may pass, the first included; one more is refused with 508.
    pub hops_max: usize,
    /// How long a version is watched after a swap, in milliseconds: if it does worse than the one before, that returns.
    pub swap_watch_ms: u64,
    /// Invocations of a new version before it is compared with the old one.
    pub swap_invocations_min: u64,
    /// How many times the old version's share of failures is too much …
    pub swap_error_factor: f64,
    /// … and the share of failures that is never too much.
    pub swap_error_floor: f64,
    /// How many times the old version's 95th percentile of latency is too slow …
    pub swap_p95_factor: f64,
    /// … and the latency that is never too slow, in milliseconds.
    pub swap_p95_floor_ms: u64,
    /// Health checks in a row that a version on watch may fail before it goes.
    pub swap_unhealthy_max: u32,
    /// A PEM file of certificates that outgoing TLS trusts, beside the public ones; empty is none.
    pub egress_ca_file: String,
    /// `text` or `json`.
    pub log_format: LogFormat,
    /// A `tracing` filter: `info`, `exprsn=debug`.
    pub log_filter: String,
}

/// How log records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for PlatformConfig {
    fn default() -> Self {
        Self {
            trust_domain: "exprsn.local".to_owned(),
            listen: IpAddr::from([127, 0, 0, 1]),
            cores: 0,
            port_offset: 0,
            drain_ms_max: 20_000,
            start_ms_max: 60_000,
            instances_max: 2_000,
            stack_bytes_max: 512 << 10,
            asked_limits_factor_max: 4,
            pool_memory_bytes_max: 1 << 30,
            pool_table_elements_max: 100_000,
            connections_max: 10_000,
            header_read_ms_max: 10_000,
            compile_memory_bytes_max: 4 << 30,
            compile_cpu_s_max: 120,
            hops_max: 4,
            swap_watch_ms: 30_000,
            swap_invocations_min: 20,
            swap_error_factor: 2.0,
            swap_error_floor: 0.01,
            swap_p95_factor: 2.0,
            swap_p95_floor_ms: 50,
            swap_unhealthy_max: 2,
            egress_ca_file: String::new(),
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
        }
    }
}

/// One service as the operator runs it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// The component's file, relative to the folder of components; none for a service that was installed.
    #[serde(default)]
    pub component: String,
    /// False keeps it configured without running it.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// Answers to what the component asks for, by capability.
    #[serde(default)]
    pub grants: Approvals,
    /// Values of `wasi:config`, before the manifest's defaults.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// Limits, before the manifest's and the host's.
    #[serde(default)]
    pub limits: toml::Table,
}

fn enabled() -> bool {
    true
}

/// What a service may use. Each field's name carries its unit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Linear memories of one instance, all together.
    pub memory_bytes_max: usize,
    /// Linear memories of one instance.
    pub memories_max: usize,
    /// Elements of one instance's tables, all together.
    pub table_elements_max: usize,
    /// Tables of one instance.
    pub tables_max: usize,
    /// Core instances that one instance consists of.
    pub core_instances_max: usize,
    /// Host resources (requests, streams, transactions) and handles that one instance holds.
    pub resources_max: usize,
    /// Bytes that one call hands to the host, and that all calls under way of one instance hand to it together.
    pub hostcall_bytes_max: usize,
    /// Time that one invocation may compute.
    pub cpu_ms_max: u64,
    /// Time that one invocation by HTTP may take in all.
    pub wall_ms_max: u64,
    /// Time that one attempt of a job or a delivery of an event may take in all, whatever its queue says.
    pub job_ms_max: u64,
    /// Invocations by HTTP under way at once.
    pub invocations_max: usize,
    /// Invocations by HTTP that wait for their turn; one more is answered 503.
    pub waiting_max: usize,
    /// How long an invocation waits for its turn before it is answered 503.
    pub waiting_ms_max: u64,
    /// Jobs and deliveries of events under way at once, in all queues; further ones wait.
    pub jobs_max: usize,
    /// Calls of other services under way at once; one more fails.
    pub calls_max: usize,
    /// Body of one request.
    pub body_bytes_max: u64,
    /// Body of one response, unless its route is declared `stream`.
    pub response_bytes_max: u64,
    /// Headers, or trailers, that a service makes for one response or request.
    pub header_bytes_max: usize,
    /// Requests that one instance serves before it is replaced.
    pub reuse_max: u64,
    /// How long an unused instance is kept.
    pub idle_ms_max: u64,
    /// Connections to the world outside that are open at once, by HTTP and by TCP.
    pub egress_connections_max: usize,
    /// Jobs added and events published in one second; each 4 KiB of data begun count as one more.
    pub messages_per_second_max: u32,
    /// Log records in one second; each KiB begun counts as one. More are dropped and counted.
    pub log_records_per_second_max: u32,
    /// Message, and again fields, of one log record; the rest is cut off.
    pub log_record_bytes_max: usize,
    /// Series (a name with its attributes) of the metrics that a service makes; further ones are dropped.
    pub metric_series_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 << 20,
            memories_max: 4,
            table_elements_max: 20_000,
            tables_max: 20,
            core_instances_max: 32,
            resources_max: 2_000,
            hostcall_bytes_max: 16 << 20,
            cpu_ms_max: 5_000,
            wall_ms_max: 30_000,
            job_ms_max: 600_000,
            invocations_max: 256,
            waiting_max: 1_024,
            waiting_ms_max: 10_000,
            jobs_max: 64,
            calls_max: 128,
            body_bytes_max: 1 << 20,
            response_bytes_max: 64 << 20,
            header_bytes_max: 32 << 10,
            reuse_max: 10_000,
            idle_ms_max: 10_000,
            messages_per_second_max: 10_000,
            egress_connections_max: 64,
            log_records_per_second_max: 1_000,
            log_record_bytes_max: 8 << 10,
            metric_series_max: 1_000,
        }
    }
}

impl Limits {
    /// A service's limits: the host's, what its manifest asks for, and the operator's word for the service, which counts.
    ///
    /// A manifest comes from a stranger: it may ask for `factor_max` times the host's limit at most.
    pub fn of_service(
        host: &toml::Table,
        asked: &toml::Table,
        operators: &toml::Table,
        factor_max: u64,
    ) -> Result<Self, String> {
        let hosts = toml::Table::try_from(Self::layered(&[host])?)
            .map_err(|error| format!("[limits]: {error}"))?;
        for (key, value) in asked
            .iter()
            .filter(|(key, _)| !operators.contains_key(*key))
        {
            let (Some(asked), Some(allowed)) = (
                value.as_integer(),
                hosts.get(key).and_then(toml::Value::as_integer),
            ) else {
                continue;
            };
            let ceiling = allowed.saturating_mul(i64::try_from(factor_max).unwrap_or(i64::MAX));
            if asked > ceiling {
                return Err(format!(
                    "its manifest asks for {key} = {asked}, and without the operator's word it may ask for {ceiling} at \
                     most: write {key} into [service.<name>.limits] in platform.toml"
                ));
            }
        }
        Self::layered(&[host, asked, operators])
    }

    /// The defaults, overlaid by the tables in order; the last one counts.
    pub fn layered(layers: &[&toml::Table]) -> Result<Self, String> {
        let mut merged = toml::Table::new();
        for (key, value) in layers.iter().flat_map(|table| table.iter()) {
            merged.insert(key.clone(), value.clone());
        }
        merged
            .try_into()
            .map_err(|error: toml::de::Error| format!("[limits]: {}", error.message()))
    }
}

impl Config {
    /// Reads a `platform.toml`. The error names the file, the line and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            format_err!(
                "cannot read `{}`: {error}; name another file with --config",
                path.display()
            )
        })?;
        Self::parse(&text)
            .with_context(|| format!("configuration `{}` is not valid", path.display()))
    }

    /// Parses the text of a `platform.toml`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut config: Self = toml::from_str(text)
            .map_err(|error| format_err!("{}", error.to_string().trim_end()))?;
        Limits::layered(&[&config.limits]).map_err(|error| format_err!("{error}"))?;
        crate::mesh::Rules::parse(&config.mesh).map_err(|error| format_err!("{error}"))?;
        for (name, service) in &config.service {
            if let Some(unknown) = service
                .grants
                .keys()
                .find(|key| !crate::capability::NAMES.contains(&key.as_str()))
            {
                return Err(format_err!(
                    "[service.{name}] grants: `{unknown}` is no capability; there are: {}",
                    crate::capability::NAMES.join(", ")
                ));
            }
            Limits::layered(&[&service.limits])
                .map_err(|error| format_err!("[service.{name}] {error}"))?;
        }
        let answer = |(name, service): (&ServiceName, &ServiceConfig)| {
            (name.clone(), service.grants.clone())
        };
        config.answers = config.service.iter().map(answer).collect();
        Ok(config)
    }

    /// Keeps only the services named, by full or short name. A name that is not configured is an error.
    pub fn select(&mut self, names: &[String]) -> Result<()> {
        let mut wanted = Vec::new();
        for name in names {
            let name =
                ServiceName::parse_short(name.trim()).map_err(|error| format_err!("{error}"))?;
            if !self.service.contains_key(&name) {
                let known: Vec<_> = self.service.keys().map(ServiceName::short).collect();
                return Err(format_err!(
                    "service `{name}` is not in platform.toml; there are: {}",
                    known.join(", ")
                ));
            }
            wanted.push(name);
        }
        self.service.retain(|name, _| wanted.contains(name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_key() {
        let check = |text: &str, expected: &str| {
            let error = format!("{:?}", Config::parse(text).err().expect(text));
            assert!(error.contains(expected), "{error}");
        };
        check("[platform]\nlisten_on = 1", "listen_on");
        check("[platform]\ncores = \"two\"", "cores");
        check("[limits]\nmemory = 1", "memory");
        check("[mesh.target.exprsn-a]\ntime = 1", "[mesh.target.exprsn-a]");
        check(
            "[service.exprsn-a]\ncomponent = \"a\"\ngrants = { sqll = \"as-requested\" }",
            "sqll",
        );
        check(
            "[service.exprsn-a]\ncomponent = \"a\"\ngrants = { sql = \"yes\" }",
            "as-requested",
        );
        check("[service.Bad]\ncomponent = \"a\"", "Bad");
    }

    #[test]
    fn a_redis_that_is_not_there_is_named_with_the_remedy() {
        let error = |url: &str| {
            let server = RedisServer {
                url: url.to_owned(),
                ..RedisServer::default()
            };
            let opened = server.open("capability.queue");
            opened
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert!(error("").contains("[capability.queue]") && error("").contains("[backends.redis]"));
        assert!(error("$EXPRSN_NO_SUCH_VARIABLE").contains("EXPRSN_NO_SUCH_VARIABLE"));
        assert!(error("http://localhost").contains("redis://"));
        assert_eq!(error("redis://localhost:6379/0"), "");
    }

    #[test]
    fn a_manifest_may_ask_for_little_more_than_the_hosts_limits() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let (host, none) = (table("memory_bytes_max = 100"), toml::Table::new());
        let of = |asked: &str, operators| {
            Limits::of_service(&host, &table(asked), operators, 4).map(|l| l.memory_bytes_max)
        };
        assert_eq!(of("memory_bytes_max = 400", &none), Ok(400));
        let refused = of("memory_bytes_max = 401", &none).unwrap_err();
        assert!(
            refused.contains("memory_bytes_max = 401") && refused.contains("400 at most"),
            "{refused}"
        );
        let operators = table("memory_bytes_max = 500");
        assert_eq!(of("memory_bytes_max = 401", &operators), Ok(500));
    }

    #[test]
    fn later_layers_of_limits_win() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let limits = Limits::layered(&[
            &table("wall_ms_max = 1\ncpu_ms_max = 2"),
            &table("wall_ms_max = 3"),
        ])
        .unwrap();
        assert_eq!((limits.wall_ms_max, limits.cpu_ms_max), (3, 2));
    }
}
