//! `[mesh]`: the policies of calls, for all targets, for one, and for one route of it; the narrower one counts.

use crate::name::ServiceName;
use exprsn_policies::{Backoff, BreakerSettings, Bulkhead, Priority, Shedder};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};
use toml::{Table, Value};

/// Keys of `[mesh]` alone: what they bound belongs to the host.
const OF_THE_HOST: [&str; 1] = ["fallback_bytes_max"];
/// Keys that routes cannot have: what they bound belongs to the target.
const OF_THE_TARGET: [&str; 3] = ["capacity", "shed_low_percent", "shed_normal_percent"];

/// The policies of one target, or of one of its routes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long a call may take with all its attempts, in milliseconds.
    pub timeout_ms: u64,
    /// What of a caller's own time its calls leave it to answer in, in milliseconds; a quarter of what is left at most.
    pub reserve_ms: u64,
    /// Attempts of a call that may be repeated, the first included.
    pub attempts_max: u32,
    /// The most that the first repetition waits, in milliseconds; it doubles …
    pub backoff_ms: u64,
    /// … up to this.
    pub backoff_ms_max: u64,
    /// Repetitions for each hundred calls of one caller …
    pub retry_percent: u32,
    /// … and how many may be saved up.
    pub retry_burst: u32,
    /// Largest body that is kept so that its call can be repeated, in bytes.
    pub retry_bytes_max: usize,
    /// The share of failures that opens the breaker.
    pub breaker_percent: u32,
    /// Calls in the window before any share opens it.
    pub breaker_calls_min: u32,
    /// The window, in milliseconds.
    pub breaker_window_ms: u64,
    /// How long it stays open, in milliseconds.
    pub breaker_open_ms: u64,
    /// Trial calls half-open, all of which must succeed.
    pub breaker_trials: u32,
    /// Calls of one caller to one target under way at once; as many more wait …
    pub bulkhead_max: usize,
    /// … for so long, in milliseconds.
    pub bulkhead_wait_ms: u64,
    /// Calls of all callers to one target under way at once, on this host.
    pub capacity: usize,
    /// The share of `capacity` from which calls of low priority are turned away.
    pub shed_low_percent: u32,
    /// The share of `capacity` from which calls of normal priority are turned away.
    pub shed_normal_percent: u32,
    /// What a call counts for; what a job or an event causes counts for one less.
    pub priority: Priority,
    /// How old an answer may be that is given again when the target fails, in milliseconds; 0 is none.
    pub fallback_ms_max: u64,
    /// Memory for such answers, in bytes.
    pub fallback_bytes_max: usize,
    /// Whether the operator chose the timeout for just this: then it counts for gateways too.
    #[serde(skip)]
    pub has_own_timeout: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout_ms: 3_000,
            reserve_ms: 100,
            attempts_max: 3,
            backoff_ms: 25,
            backoff_ms_max: 250,
            retry_percent: 20,
            retry_burst: 10,
            retry_bytes_max: 64 << 10,
            breaker_percent: 50,
            breaker_calls_min: 20,
            breaker_window_ms: 10_000,
            breaker_open_ms: 30_000,
            breaker_trials: 3,
            bulkhead_max: 64,
            bulkhead_wait_ms: 100,
            capacity: 1_024,
            shed_low_percent: 50,
            shed_normal_percent: 80,
            priority: Priority::Normal,
            fallback_ms_max: 0,
            fallback_bytes_max: 16 << 20,
            has_own_timeout: false,
        }
    }
}

impl Settings {
    /// Names the first key that cannot be.
    fn check(&self) -> Result<(), String> {
        let numbers = [
            ("timeout_ms", self.timeout_ms),
            ("attempts_max", u64::from(self.attempts_max)),
            ("breaker_percent", u64::from(self.breaker_percent)),
            ("breaker_calls_min", u64::from(self.breaker_calls_min)),
            ("breaker_window_ms", self.breaker_window_ms),
            ("breaker_open_ms", self.breaker_open_ms),
            ("breaker_trials", u64::from(self.breaker_trials)),
            ("bulkhead_max", self.bulkhead_max as u64),
            ("capacity", self.capacity as u64),
        ];
        match numbers.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(format!("{key} is 0; it must be at least 1")),
            None => Ok(()),
        }
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub fn reserve(&self) -> Duration {
        Duration::from_millis(self.reserve_ms)
    }

    pub fn backoff(&self) -> Backoff {
        Backoff {
            base: Duration::from_millis(self.backoff_ms),
            max: Duration::from_millis(self.backoff_ms_max),
        }
    }

    pub fn breaker(&self) -> BreakerSettings {
        BreakerSettings {
            error_percent: self.breaker_percent,
            volume_min: self.breaker_calls_min,
            window: Duration::from_millis(self.breaker_window_ms),
            open: Duration::from_millis(self.breaker_open_ms),
            trials: self.breaker_trials,
        }
    }

    pub fn bulkhead(&self) -> Bulkhead {
        Bulkhead::new(
            self.bulkhead_max,
            Duration::from_millis(self.bulkhead_wait_ms),
        )
    }

    pub fn shedder(&self) -> Shedder {
        Shedder::new(
            self.capacity,
            self.shed_low_percent,
            self.shed_normal_percent,
        )
    }
}

/// The policies of one target.
#[derive(Clone, Debug)]
pub struct TargetRules {
    /// Those of the target, then those of each route that has its own.
    pub lanes: Vec<(Arc<str>, Arc<Settings>)>,
    /// Places in `lanes` by path, with their methods.
    paths: matchit::Router<Vec<(String, usize)>>,
}

impl TargetRules {
    /// Those of a target without routes of its own.
    fn plain(settings: Settings) -> Self {
        Self {
            lanes: vec![("*".into(), Arc::new(settings))],
            paths: matchit::Router::new(),
        }
    }

    /// The place in `lanes` of a call.
    pub fn lane(&self, method: &str, path: &str) -> usize {
        if self.lanes.len() == 1 {
            return 0;
        }
        let Ok(found) = self.paths.at(path) else {
            return 0;
        };
        let mut methods = found.value.iter();
        let of = methods.find(|(candidate, _)| candidate == method || candidate == "*");
        of.map_or(0, |(_, lane)| *lane)
    }

    fn parse(above: &Table, mut table: Table) -> Result<Self, String> {
        let routes = match table.remove("route") {
            None => Table::new(),
            Some(Value::Table(routes)) => routes,
            Some(_) => return Err("route must be a table: route.\"GET /path\"".to_owned()),
        };
        refuse(&table, &OF_THE_HOST, "[mesh]")?;
        let merged = layered(above, &table);
        let mut rules = Self::plain(settings(&merged, &table)?);
        let mut by_path: BTreeMap<String, Vec<(String, usize)>> = BTreeMap::new();
        for (route, own) in routes {
            let lane = rules.lanes.len();
            let parsed = rules.add_route(&merged, &route, own);
            let (method, path) = parsed.map_err(|error| format!("route.\"{route}\": {error}"))?;
            by_path.entry(path).or_default().push((method, lane));
        }
        for (path, mut methods) in by_path {
            // A method by its name goes before any method.
            methods.sort_by(|a, b| b.0.cmp(&a.0));
            let inserted = rules.paths.insert(&path, methods);
            inserted.map_err(|error| format!("route `{path}`: {error}"))?;
        }
        Ok(rules)
    }

    /// Adds the lane of one route; answers its method and path.
    fn add_route(
        &mut self,
        above: &Table,
        route: &str,
        own: Value,
    ) -> Result<(String, String), String> {
        let Value::Table(own) = own else {
            return Err("it must be a table".to_owned());
        };
        let Some((method, path)) = route
            .split_once(' ')
            .filter(|(_, path)| path.starts_with('/'))
        else {
            return Err(
                "it must be a method, or `*`, and a path as in component.toml: \"GET /notes/{id}\""
                    .to_owned(),
            );
        };
        refuse(&own, &OF_THE_HOST, "[mesh]")?;
        refuse(&own, &OF_THE_TARGET, "[mesh.target.<service>]")?;
        let settings = settings(&layered(above, &own), &own)?;
        self.lanes.push((route.into(), Arc::new(settings)));
        Ok((method.to_owned(), path.to_owned()))
    }
}

/// What `[mesh]` says.
#[derive(Clone, Debug)]
pub struct Rules {
    base: Arc<TargetRules>,
    targets: HashMap<ServiceName, Arc<TargetRules>>,
    pub fallback_bytes_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self::of(TargetRules::plain(Settings::default()), HashMap::new())
    }
}

impl Rules {
    fn of(base: TargetRules, targets: HashMap<ServiceName, Arc<TargetRules>>) -> Self {
        let fallback_bytes_max = base.lanes[0].1.fallback_bytes_max;
        Self {
            base: Arc::new(base),
            targets,
            fallback_bytes_max,
        }
    }

    /// Reads `[mesh]`; the error names the table and the key.
    pub fn parse(mesh: &Table) -> Result<Self, String> {
        let mut own = mesh.clone();
        let targets = match own.remove("target") {
            None => Table::new(),
            Some(Value::Table(targets)) => targets,
            Some(_) => {
                return Err("[mesh] target must be a table: [mesh.target.<service>]".to_owned());
            }
        };
        let base = settings(&own, &Table::new()).map_err(|error| format!("[mesh] {error}"))?;
        let mut parsed = HashMap::new();
        for (name, table) in targets {
            let rules = match table {
                Value::Table(table) => TargetRules::parse(&own, table),
                _ => Err("it must be a table".to_owned()),
            };
            let rules = rules.map_err(|error| format!("[mesh.target.{name}] {error}"))?;
            let name =
                ServiceName::parse(&name).map_err(|error| format!("[mesh.target] {error}"))?;
            parsed.insert(name, Arc::new(rules));
        }
        Ok(Self::of(TargetRules::plain(base), parsed))
    }

    /// Those of calls to `target`.
    pub fn of_target(&self, target: &ServiceName) -> Arc<TargetRules> {
        self.targets.get(target).unwrap_or(&self.base).clone()
    }
}

fn refuse(table: &Table, keys: &[&str], belongs: &str) -> Result<(), String> {
    match keys.iter().find(|key| table.contains_key(**key)) {
        Some(key) => Err(format!("{key} can only be set in {belongs}")),
        None => Ok(()),
    }
}

fn layered(above: &Table, own: &Table) -> Table {
    let mut merged = above.clone();
    merged.extend(own.clone());
    merged
}

/// The settings of `merged`, of which `own` was said for just this.
fn settings(merged: &Table, own: &Table) -> Result<Settings, String> {
    let parsed: Settings = merged
        .clone()
        .try_into()
        .map_err(|error: toml::de::Error| error.message().to_owned())?;
    parsed.check()?;
    Ok(Settings {
        has_own_timeout: own.contains_key("timeout_ms"),
        ..parsed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Rules, String> {
        Rules::parse(&text.parse::<Table>().unwrap())
    }

    fn of<'a>(rules: &'a TargetRules, method: &str, path: &str) -> &'a Settings {
        &rules.lanes[rules.lane(method, path)].1
    }

    #[test]
    fn the_narrower_counts() {
        let rules = parse(
            r#"
            timeout_ms = 1000
            [target.exprsn-a]
            attempts_max = 1
            [target.exprsn-a.route."GET /notes/{id}"]
            fallback_ms_max = 60000
            [target.exprsn-a.route."* /notes/{id}"]
            timeout_ms = 50
            "#,
        )
        .unwrap();
        let target = |name| rules.of_target(&ServiceName::parse(name).unwrap());
        let (a, b) = (target("exprsn-a"), target("exprsn-b"));
        let read = of(&a, "GET", "/notes/7");
        assert_eq!(
            (read.timeout_ms, read.attempts_max, read.fallback_ms_max),
            (1_000, 1, 60_000)
        );
        let write = of(&a, "PUT", "/notes/7");
        assert_eq!(
            (
                write.timeout_ms,
                write.has_own_timeout,
                write.fallback_ms_max
            ),
            (50, true, 0)
        );
        let other = of(&a, "GET", "/other");
        assert_eq!(
            (other.timeout_ms, other.attempts_max, other.has_own_timeout),
            (1_000, 1, false)
        );
        assert_eq!(
            (
                of(&b, "GET", "/").timeout_ms,
                of(&b, "GET", "/").attempts_max
            ),
            (1_000, 3)
        );
    }

    #[test]
    fn errors_name_the_table_and_the_key() {
        for (text, expected) in [
            ("timeout = 1", "[mesh] unknown field `timeout`"),
            ("attempts_max = 0", "[mesh] attempts_max is 0"),
            (
                "[target.exprsn-a]\ntime = 1",
                "[mesh.target.exprsn-a] unknown field `time`",
            ),
            ("[target.Bad]", "Bad"),
            (
                "[target.exprsn-a]\nfallback_bytes_max = 1",
                "only be set in [mesh]",
            ),
            (
                "[target.exprsn-a.route.\"GET /\"]\ncapacity = 1",
                "only be set in [mesh.target.<service>]",
            ),
            (
                "[target.exprsn-a.route.\"/x\"]",
                "route.\"/x\": it must be a method",
            ),
            (
                "[target.exprsn-a.route.\"GET /\"]\npriority = \"highest\"",
                "highest",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
