//! `component.toml`: the developer's half of a service's configuration, embedded in the component.

use crate::{capability::Grants, invocation::Permission, name::ServiceName};
use serde::{Deserialize, Deserializer, Serialize};
use std::{collections::BTreeMap, ops::RangeInclusive};

pub use exprsn_backends::{queue::Backoff, sql::migrate::MigrationFile};

/// The custom section that holds `component.toml`.
pub const MANIFEST_SECTION: &str = "exprsn:manifest";
/// The custom section that holds the migrations, as JSON: `{"files":[{"name":…,"sql":…}]}`.
pub const MIGRATIONS_SECTION: &str = "exprsn:migrations";

/// A parsed `component.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub name: ServiceName,
    pub version: String,
    #[serde(default)]
    pub description: String,
    pub port: u16,
    /// Services that must be live before this one starts.
    #[serde(default)]
    pub depends_on: Vec<ServiceName>,
    #[serde(default, rename = "route")]
    pub routes: Vec<Route>,
    #[serde(default)]
    pub grants: Grants,
    /// Capabilities asked for that the component can do without: refused, they answer `access-denied`.
    #[serde(default)]
    pub optional: Vec<String>,
    #[serde(default, rename = "queue")]
    pub queues: Vec<Queue>,
    #[serde(default, rename = "subscription")]
    pub subscriptions: Vec<Subscription>,
    #[serde(default, rename = "schedule")]
    pub schedules: Vec<Schedule>,
    /// Defaults of `wasi:config` values.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// The schemas that this version works with; by default that of its own last migration only.
    pub schema: Option<SchemaRange>,
    /// Limits that differ from the host's defaults; the operator's word goes before it.
    #[serde(default)]
    pub limits: toml::Table,
}

/// Numbers of migrations: a database whose last one lies between them can be worked with. A `max` beyond the version's own
/// last migration promises to bear the next ones, which lets a later version be swapped in beside this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchemaRange {
    pub min: u32,
    pub max: u32,
}

/// A route and the permission it needs. What no route declares is denied.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// `["*"]` is any method.
    pub methods: Vec<String>,
    /// `{name}` matches one segment, `{*rest}` all that follow.
    pub path: String,
    pub access: Access,
    /// The response may go on past the wall-clock deadline (Server-Sent Events, downloads).
    #[serde(default)]
    pub stream: bool,
    /// Replaces the service's `body_bytes_max` for this route.
    pub body_bytes_max: Option<u64>,
}

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Public,
    Needs(Permission),
}

impl<'de> Deserialize<'de> for Access {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "public" {
            return Ok(Self::Public);
        }
        Permission::parse(&text).map(Self::Needs).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "access `{text}` is none of: public, read, write, append, update, delete, admin"
            ))
        })
    }
}

/// A queue that this service works on, with the defaults of its jobs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub name: String,
    /// Jobs of this queue under way at once, on this host.
    #[serde(default = "defaults::concurrency")]
    pub concurrency: u32,
    /// Times a job is tried before it counts as failed.
    #[serde(default = "defaults::attempts")]
    pub attempts: u32,
    #[serde(default)]
    pub backoff: Backoff,
    /// How long a claim on a job lasts without renewal, in milliseconds.
    #[serde(default = "defaults::lease_ms")]
    pub lease_ms: u64,
    /// How long one attempt may take, in milliseconds.
    #[serde(default = "defaults::timeout_ms")]
    pub timeout_ms: u64,
    /// Completed jobs kept.
    #[serde(default = "defaults::keep_completed")]
    pub keep_completed: u64,
    /// Failed jobs (dead letters) kept.
    #[serde(default = "defaults::keep_failed")]
    pub keep_failed: u64,
}

/// Events that this service takes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// A topic, or a prefix that ends in `*`.
    pub topic: String,
    #[serde(default = "defaults::event_attempts")]
    pub attempts: u32,
    #[serde(default = "defaults::concurrency")]
    pub concurrency: u32,
}

/// A job added whenever a cron expression is due (UTC).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub cron: String,
    pub queue: String,
    pub name: String,
    /// JSON.
    #[serde(default = "defaults::data")]
    pub data: String,
}

mod defaults {
    pub fn concurrency() -> u32 {
        4
    }
    pub fn attempts() -> u32 {
        3
    }
    pub fn event_attempts() -> u32 {
        8
    }
    pub fn lease_ms() -> u64 {
        30_000
    }
    pub fn timeout_ms() -> u64 {
        30_000
    }
    pub fn keep_completed() -> u64 {
        1_000
    }
    pub fn keep_failed() -> u64 {
        10_000
    }
    pub fn data() -> String {
        "{}".to_owned()
    }
}

/// The migrations embedded in a component, in order of their names.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Migrations {
    pub files: Vec<MigrationFile>,
    /// The manifest's `[schema]`.
    #[serde(skip)]
    pub schema: Option<SchemaRange>,
}

impl Migrations {
    /// The number of the last migration; 0 where there is none.
    pub fn newest(&self) -> u32 {
        let number = |name: &str| name.get(..4).and_then(|digits| digits.parse().ok());
        let numbers = self.files.iter().filter_map(|file| number(&file.name));
        numbers.max().unwrap_or(0)
    }

    /// The schemas that this version works with: `[schema]`, or that of its own last migration only.
    pub fn range(&self) -> RangeInclusive<u32> {
        match self.schema {
            Some(SchemaRange { min, max }) => min..=max,
            None => self.newest()..=self.newest(),
        }
    }
}

impl Manifest {
    /// Parses and checks the text of a `component.toml`. The error names the line or the key at fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if let Some(SchemaRange { min, max }) = manifest.schema
            && min > max
        {
            return Err(format!("[schema] min = {min} is beyond max = {max}"));
        }
        manifest.check_routes()?;
        manifest.check_triggers()?;
        manifest.check_optional()?;
        Ok(manifest)
    }

    /// Whether the component says that it can do without a capability that it asks for.
    pub fn is_optional(&self, capability: &str) -> bool {
        self.optional.iter().any(|optional| optional == capability)
    }

    fn check_optional(&self) -> Result<(), String> {
        let asked = self.grants.names();
        match self
            .optional
            .iter()
            .find(|optional| !asked.contains(&optional.as_str()))
        {
            Some(unasked) => Err(format!(
                "`optional` names `{unasked}`, which is not asked for: write [grants.{unasked}], or take it out"
            )),
            None => Ok(()),
        }
    }

    fn check_routes(&self) -> Result<(), String> {
        for route in &self.routes {
            if !route.path.starts_with('/') {
                return Err(format!("route path `{}` must begin with `/`", route.path));
            }
            if route.methods.is_empty() {
                return Err(format!(
                    "route `{}` names no methods; write methods = [\"GET\"] or [\"*\"]",
                    route.path
                ));
            }
        }
        RouteTable::new(&self.routes).map(|_| ())
    }

    fn check_triggers(&self) -> Result<(), String> {
        let consumes = self
            .grants
            .queue
            .as_ref()
            .map(|grant| grant.consume.as_slice())
            .unwrap_or_default();
        if let Some(queue) = self
            .queues
            .iter()
            .find(|queue| !covers(consumes, &queue.name))
        {
            return Err(format!(
                "[[queue]] `{0}` is not in [grants.queue] consume; add \"{0}\" there",
                queue.name
            ));
        }
        let subscribes = self
            .grants
            .events
            .as_ref()
            .map(|grant| grant.subscribe.as_slice())
            .unwrap_or_default();
        if let Some(wanted) = self
            .subscriptions
            .iter()
            .find(|wanted| !covers(subscribes, &wanted.topic))
        {
            return Err(format!(
                "[[subscription]] `{0}` is not in [grants.events] subscribe; add \"{0}\" there",
                wanted.topic
            ));
        }
        match self
            .schedules
            .iter()
            .find(|schedule| !self.queues.iter().any(|queue| queue.name == schedule.queue))
        {
            Some(schedule) => Err(format!(
                "[[schedule]] names queue `{}`, which no [[queue]] declares",
                schedule.queue
            )),
            None => Ok(()),
        }
    }
}

fn covers(patterns: &[String], name: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| crate::name::matches(pattern, name))
}

/// Routes by path, then by method.
#[derive(Clone, Debug)]
pub struct RouteTable {
    paths: matchit::Router<Vec<Route>>,
}

/// What a request's method and path lead to.
#[derive(Debug)]
pub enum RouteMatch<'a> {
    Found(&'a Route),
    /// The path exists, with these methods.
    OtherMethods(Vec<&'a str>),
    Nothing,
}

impl RouteTable {
    /// Builds the table; two routes that no path can tell apart are an error.
    pub fn new(routes: &[Route]) -> Result<Self, String> {
        let mut by_path: Vec<(String, Vec<Route>)> = Vec::new();
        for route in routes {
            match by_path.iter_mut().find(|(path, _)| *path == route.path) {
                Some((_, same)) => same.push(route.clone()),
                None => by_path.push((route.path.clone(), vec![route.clone()])),
            }
        }
        let mut paths = matchit::Router::new();
        for (path, routes) in by_path {
            paths
                .insert(&path, routes)
                .map_err(|error| format!("route `{path}`: {error}"))?;
        }
        Ok(Self { paths })
    }

    /// The route of a request. HEAD is answered where GET is, OPTIONS where anything is.
    pub fn find(&self, method: &str, path: &str) -> RouteMatch<'_> {
        let Ok(found) = self.paths.at(path) else {
            return RouteMatch::Nothing;
        };
        let wanted = |candidate: &str| {
            candidate == method || candidate == "*" || (method == "HEAD" && candidate == "GET")
        };
        match found
            .value
            .iter()
            .find(|route| route.methods.iter().any(|candidate| wanted(candidate)))
        {
            Some(route) => RouteMatch::Found(route),
            None => RouteMatch::OtherMethods(
                found
                    .value
                    .iter()
                    .flat_map(|route| route.methods.iter().map(String::as_str))
                    .collect(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"
        name = "exprsn-notes"
        version = "1.0.0"
        port = 3021
        [[route]]
        methods = ["GET"]
        path = "/api/notes/{id}"
        access = "read"
        [[route]]
        methods = ["DELETE"]
        path = "/api/notes/{id}"
        access = "delete"
        [grants.sql]
        [grants.queue]
        consume = ["notes-*"]
        [[queue]]
        name = "notes-index"
    "#;

    #[test]
    fn parses_a_manifest_and_finds_routes() {
        let manifest = Manifest::parse(MANIFEST).unwrap();
        assert_eq!(manifest.grants.names(), ["queue", "sql"]);
        let table = RouteTable::new(&manifest.routes).unwrap();
        assert!(
            matches!(table.find("HEAD", "/api/notes/7"), RouteMatch::Found(route) if route.methods == ["GET"])
        );
        assert!(
            matches!(table.find("PUT", "/api/notes/7"), RouteMatch::OtherMethods(methods) if methods == ["GET", "DELETE"])
        );
        assert!(matches!(
            table.find("GET", "/api/notes"),
            RouteMatch::Nothing
        ));
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let check = |change: (&str, &str), expected: &str| {
            let error = Manifest::parse(&MANIFEST.replace(change.0, change.1)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(("port = 3021", "prot = 3021"), "prot");
        check(("access = \"read\"", "access = \"reed\""), "reed");
        check(
            ("notes-*", "other"),
            "[[queue]] `notes-index` is not in [grants.queue] consume",
        );
        check(
            ("path = \"/api/notes/{id}\"", "path = \"api\""),
            "must begin with `/`",
        );
        check(
            (
                "version = \"1.0.0\"",
                "version = \"1.0.0\"\noptional = [\"http\"]",
            ),
            "[grants.http]",
        );
    }
}
