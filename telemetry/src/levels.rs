//! Which lines are written: the host's by `tracing`'s directives, each service's by a level of its own, all changed while
//! it runs.

use crate::record::Severity;
use arc_swap::ArcSwap;
use std::{collections::BTreeMap, sync::Arc};
use tracing_subscriber::{
    EnvFilter, filter::LevelFilter, layer::Layer, registry::LookupSpan, reload,
};

/// The target of what services write.
pub const GUEST: &str = "guest";
/// What begins a directive for a service whose name alone would be a module's.
const SERVICE_PREFIX: &str = "service:";

/// A parsed filter.
#[derive(Clone, Debug)]
struct Levels {
    /// As it was written.
    text: String,
    /// What `tracing` filters by.
    directives: String,
    /// Of services without a level of their own.
    guests: LevelFilter,
    services: BTreeMap<String, LevelFilter>,
}

impl Levels {
    /// Parses directives as `RUST_LOG` has them, and `exprsn-timeline=debug` or `service:timeline=debug` for services: names
    /// of modules have no hyphen.
    fn parse(text: &str) -> Result<Self, String> {
        let mut hosts = Vec::new();
        let mut services = BTreeMap::new();
        let mut general = LevelFilter::ERROR;
        let mut guests = None;
        for directive in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            match directive.split_once('=') {
                Some((GUEST, level)) => guests = Some(parse_level(level, directive)?),
                Some((name, level)) if is_service(name) => {
                    let name = name.strip_prefix(SERVICE_PREFIX).unwrap_or(name);
                    services.insert(name.to_owned(), parse_level(level, directive)?);
                }
                _ => {
                    if let Ok(level) = directive.parse() {
                        general = level;
                    }
                    hosts.push(directive);
                }
            }
        }
        let guests = guests.unwrap_or(general);
        // `tracing` lets pass what the most talkative service may write; which one writes is asked before.
        let widest = services.values().copied().chain([guests]).max();
        let directives = format!("{},{GUEST}={}", hosts.join(","), widest.unwrap_or(guests));
        let directives = directives.trim_start_matches(',').to_owned();
        EnvFilter::builder()
            .parse(&directives)
            .map_err(|error| format!("`{text}` is no filter: {error}"))?;
        Ok(Self {
            text: text.to_owned(),
            directives,
            guests,
            services,
        })
    }

    fn of_service(&self, service: &str) -> LevelFilter {
        if self.services.is_empty() {
            return self.guests;
        }
        self.services.get(service).copied().unwrap_or(self.guests)
    }
}

fn is_service(name: &str) -> bool {
    name.starts_with(SERVICE_PREFIX)
        || (name.contains('-') && !name.contains("::") && !name.contains('['))
}

fn parse_level(level: &str, directive: &str) -> Result<LevelFilter, String> {
    let known = "off, error, warn, info, debug, trace";
    let parsed = level.parse();
    parsed.map_err(|_| format!("`{directive}`: there is no level `{level}`; there are: {known}"))
}

/// Tells `tracing` of new directives.
type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// The levels of all logs, to be asked and changed at any time.
pub struct LevelControl {
    levels: ArcSwap<Levels>,
    reload: Reload,
}

impl std::fmt::Debug for LevelControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LevelControl").field(&self.filter()).finish()
    }
}

/// A layer that filters by `text`, and what changes it.
pub fn filtering<S>(text: &str) -> Result<(impl Layer<S> + use<S>, Arc<LevelControl>), String>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let levels = Levels::parse(text)?;
    let (layer, handle) = reload::Layer::new(EnvFilter::new(&levels.directives));
    let reload = move |filter| {
        let reloaded = handle.reload(filter);
        reloaded.map_err(|error| format!("the filter cannot be changed: {error}"))
    };
    let control = LevelControl {
        levels: ArcSwap::from_pointee(levels),
        reload: Box::new(reload),
    };
    Ok((layer, Arc::new(control)))
}

impl LevelControl {
    /// Filters by `text` from now on. The error says what is wrong with it, and nothing has changed.
    pub fn set_filter(&self, text: &str) -> Result<(), String> {
        let levels = Levels::parse(text)?;
        (self.reload)(EnvFilter::new(&levels.directives))?;
        self.levels.store(Arc::new(levels));
        Ok(())
    }

    /// The filter as it was last set.
    pub fn filter(&self) -> String {
        self.levels.load().text.clone()
    }

    /// Whether a service's own line of this severity is written.
    pub fn admits(&self, service: &str, severity: Severity) -> bool {
        let level = match severity {
            Severity::Trace => tracing::Level::TRACE,
            Severity::Debug => tracing::Level::DEBUG,
            Severity::Info => tracing::Level::INFO,
            Severity::Warn => tracing::Level::WARN,
            Severity::Error => tracing::Level::ERROR,
        };
        level <= self.levels.load().of_service(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::Registry;

    #[test]
    fn each_service_has_a_level_of_its_own() {
        let levels =
            Levels::parse("info,exprsn=debug,exprsn-timeline=trace,service:mine=off").unwrap();
        assert_eq!(levels.of_service("exprsn-timeline"), LevelFilter::TRACE);
        assert_eq!(levels.of_service("mine"), LevelFilter::OFF);
        assert_eq!(levels.of_service("exprsn-nexus"), LevelFilter::INFO);
        assert_eq!(levels.directives, "info,exprsn=debug,guest=trace");
    }

    #[test]
    fn the_level_of_all_services_can_be_set_apart() {
        let levels = Levels::parse("warn,guest=debug").unwrap();
        assert_eq!(levels.of_service("exprsn-nexus"), LevelFilter::DEBUG);
        assert_eq!(
            Levels::parse("").unwrap().of_service("a"),
            LevelFilter::ERROR
        );
    }

    #[test]
    fn a_bad_filter_changes_nothing() {
        let (layer, control) = filtering::<Registry>("info").unwrap();
        for bad in ["exprsn-timeline=loud", "info,a=b=c", "exprsn[=debug"] {
            control.set_filter(bad).expect_err(bad);
        }
        assert_eq!(control.filter(), "info");
        control.set_filter("warn,exprsn-a=debug").unwrap();
        assert_eq!(control.filter(), "warn,exprsn-a=debug");
        assert!(control.admits("exprsn-a", Severity::Debug));
        assert!(!control.admits("exprsn-b", Severity::Info));
        drop(layer);
    }
}
