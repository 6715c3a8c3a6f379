//! What a component file is and asks for, for a person to judge before anything of it runs.

mod words;

use crate::{
    component::{ComponentFile, Signer},
    config::Limits,
    manifest::{Access, Manifest},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use wasmtime::{Result, error::Context as _};

/// A component as its file tells of it. Nothing in it is vouched for but by the signer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    pub name: String,
    pub version: String,
    pub description: String,
    pub port: u16,
    /// In bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub digest: String,
    pub signer: Option<Signer>,
    pub depends_on: Vec<String>,
    /// What it is called for: `http`, `jobs`, `events`.
    pub triggers: Vec<String>,
    pub grants: Vec<Asked>,
    /// Interfaces by full name.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    pub routes: Vec<AskedRoute>,
    pub queues: Vec<AskedQueue>,
    pub schedules: Vec<AskedSchedule>,
    /// Topics that it takes events of.
    pub subscriptions: Vec<String>,
    /// Names of the migrations that it brings.
    pub migrations: Vec<String>,
    /// Limits that differ from the host's defaults.
    pub limits: Vec<AskedLimit>,
    /// Defaults of its configuration.
    pub config: BTreeMap<String, String>,
}

/// A grant that a component asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    pub capability: String,
    /// Whether the component can do without.
    pub optional: bool,
    /// The scope as its manifest has it, with defaults filled in.
    pub scope: Value,
    /// The same in plain words.
    pub meaning: Vec<String>,
    /// Interfaces that need it.
    pub interfaces: Vec<String>,
}

/// A route and who may use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AskedRoute {
    pub methods: Vec<String>,
    pub path: String,
    /// `public`, or the permission that it needs.
    pub access: String,
    pub stream: bool,
    pub body_bytes_max: Option<u64>,
}

/// A queue that it works on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AskedQueue {
    pub name: String,
    pub concurrency: u32,
    pub attempts: u32,
    pub timeout_ms: u64,
}

/// Jobs that it has added by the clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AskedSchedule {
    pub cron: String,
    pub queue: String,
    pub name: String,
}

/// A limit that it asks to differ from the default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AskedLimit {
    pub name: String,
    pub asked: Value,
    pub default: Value,
    /// Whether it asks for more than the default.
    pub beyond: bool,
}

impl Inspection {
    /// Reads what a checked file says of itself.
    pub fn of(file: &ComponentFile) -> Result<Self> {
        let manifest = &file.manifest;
        Ok(Self {
            name: manifest.name.to_string(),
            version: manifest.version.clone(),
            description: manifest.description.clone(),
            port: manifest.port,
            size: file.bytes.len() as u64,
            digest: file.digest.clone(),
            signer: file.signer.clone(),
            depends_on: manifest
                .depends_on
                .iter()
                .map(ToString::to_string)
                .collect(),
            triggers: triggers(&file.exports),
            grants: grants(file)?,
            imports: file.imports.clone(),
            exports: file.exports.clone(),
            routes: routes(manifest),
            queues: queues(manifest),
            schedules: schedules(manifest),
            subscriptions: manifest
                .subscriptions
                .iter()
                .map(|subscription| subscription.topic.clone())
                .collect(),
            migrations: file
                .migrations
                .files
                .iter()
                .map(|migration| migration.name.clone())
                .collect(),
            limits: limits(&manifest.limits)?,
            config: manifest.config.clone(),
        })
    }
}

fn triggers(exports: &[String]) -> Vec<String> {
    let exported = |prefix: &str| exports.iter().any(|export| export.starts_with(prefix));
    let all = [
        (
            "http",
            exported("wasi:http/handler@") || exported("wasi:http/incoming-handler@"),
        ),
        ("jobs", exported("exprsn:queue/worker")),
        ("events", exported("exprsn:events/subscriber")),
    ];
    all.into_iter()
        .filter(|(_, is)| *is)
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn grants(file: &ComponentFile) -> Result<Vec<Asked>> {
    let all = serde_json::to_value(&file.manifest.grants).context("writing the grants down")?;
    let asked = file.manifest.grants.names().into_iter().map(|name| {
        let scope = all[name].clone();
        let interfaces = [file.imports_of(name), file.exports_of(name)].concat();
        Asked {
            capability: name.to_owned(),
            optional: file.manifest.is_optional(name),
            meaning: words::meaning(name, &scope),
            scope,
            interfaces: interfaces.into_iter().map(str::to_owned).collect(),
        }
    });
    Ok(asked.collect())
}

fn routes(manifest: &Manifest) -> Vec<AskedRoute> {
    let routes = manifest.routes.iter().map(|route| AskedRoute {
        methods: route.methods.clone(),
        path: route.path.clone(),
        access: match route.access {
            Access::Public => "public".to_owned(),
            Access::Needs(permission) => permission.as_str().to_owned(),
        },
        stream: route.stream,
        body_bytes_max: route.body_bytes_max,
    });
    routes.collect()
}

fn queues(manifest: &Manifest) -> Vec<AskedQueue> {
    let queues = manifest.queues.iter().map(|queue| AskedQueue {
        name: queue.name.clone(),
        concurrency: queue.concurrency,
        attempts: queue.attempts,
        timeout_ms: queue.timeout_ms,
    });
    queues.collect()
}

fn schedules(manifest: &Manifest) -> Vec<AskedSchedule> {
    let schedules = manifest.schedules.iter().map(|schedule| AskedSchedule {
        cron: schedule.cron.clone(),
        queue: schedule.queue.clone(),
        name: schedule.name.clone(),
    });
    schedules.collect()
}

/// The limits that a manifest sets to something else than the default.
fn limits(table: &toml::Table) -> Result<Vec<AskedLimit>> {
    let asked = Limits::layered(&[table]).map_err(|error| wasmtime::format_err!("{error}"))?;
    let told = |limits: &Limits| serde_json::to_value(limits).context("writing limits down");
    let (asked, default) = (told(&asked)?, told(&Limits::default())?);
    let differing = table
        .keys()
        .filter(|name| asked[*name] != default[*name])
        .map(|name| AskedLimit {
            name: name.clone(),
            beyond: asked[name].as_f64() > default[name].as_f64(),
            asked: asked[name].clone(),
            default: default[name].clone(),
        });
    Ok(differing.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_beyond_the_default_stand_out() {
        let table =
            toml::from_str("memory_bytes_max = 134217728\ncpu_ms_max = 10\nwall_ms_max = 30000");
        let limits = limits(&table.unwrap()).unwrap();
        let told: Vec<_> = limits
            .iter()
            .map(|limit| (limit.name.as_str(), limit.beyond))
            .collect();
        assert_eq!(told, [("cpu_ms_max", false), ("memory_bytes_max", true)]);
    }

    #[test]
    fn triggers_follow_from_exports() {
        let exports = [
            "wasi:http/incoming-handler@0.2.3",
            "exprsn:events/subscriber@1.0.0",
            "other:x/y",
        ];
        assert_eq!(triggers(&exports.map(str::to_owned)), ["http", "events"]);
    }
}
