//! `cargo xtask dev`: the platform, and every saved source of a service swapped into it.
//!
//! This process becomes the host, so that signals and the exit code are the host's own; a child of it watches, builds, and
//! has `exprsn dev` swap in what was built. Sources are few and read from memory, so they are looked at again and again.

use crate::build_components::{Finished, Kind, Request, build};
use crate::shell::{About, Result, command, entries, file_name, red, say, target_dir};
use crate::up;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The task that watches, for the child.
pub const WATCH: &str = "dev-watch";

/// How often sources are looked at; a change counts as whole when the next look finds nothing new.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Folders of the repository with sources of services.
const WATCHED: [&str; 3] = ["components", "migrations", "wit"];
/// Folders in them that are none.
const IGNORED: [&str; 3] = ["examples", "node_modules", "target"];

/// Builds everything, starts what watches, and becomes the host.
pub fn dev(root: &Path, arguments: &[String]) -> Result<()> {
    up::prepare(root)?;
    let program = std::env::current_exe().about("finding", Path::new("this program"))?;
    let mut watcher = command(&program);
    watcher.arg(WATCH).args(arguments);
    watcher.spawn().about("starting", &program)?;
    up::become_host(root, arguments)
}

/// Watches until the host, the parent of this process, has gone.
pub fn watch(root: &Path, arguments: &[String]) -> Result<()> {
    let host = parent_id();
    let mut known = Sources::look(root)?;
    while parent_id() == host {
        std::thread::sleep(LOOK_AGAIN_AFTER);
        let mut now = Sources::look(root)?;
        let changed = now.changed_since(&known);
        if changed.is_empty() {
            continue;
        }
        loop {
            std::thread::sleep(LOOK_AGAIN_AFTER);
            let later = Sources::look(root)?;
            let whole = later.changed_since(&now).is_empty();
            now = later;
            if whole {
                break;
            }
        }
        let changed = now.changed_since(&known);
        renew(root, arguments, &changed, now.saved(&changed));
        known = now;
    }
    Ok(())
}

/// Builds what depends on the changed sources and swaps in what came out different. Failures are told: what ran goes on.
fn renew(root: &Path, arguments: &[String], changed: &[PathBuf], saved: SystemTime) {
    let running = running(arguments);
    let affected = Affected::by(root, changed).among(running.as_deref());
    let names = match affected {
        Affected::All => Vec::new(),
        Affected::Some(names) if names.is_empty() => return,
        Affected::Some(names) => names.into_iter().collect(),
    };
    let begun = Instant::now();
    let request = Request {
        kind: Kind::Services,
        names,
        json: false,
    };
    match build(root, &request) {
        Ok(built) => {
            let build_ms = begun.elapsed().as_millis();
            let runs =
                |one: &&Finished| running.as_deref().is_none_or(|list| lists(list, &one.name));
            for one in built.iter().filter(|one| one.changed).filter(runs) {
                swap(root, arguments, &one.file, saved, build_ms);
            }
        }
        Err(failure) => say(&format!(
            "{} {failure}\nwhat ran before goes on running",
            red("build failed:")
        )),
    }
}

/// Has `exprsn dev` swap a component in; it tells the outcome.
fn swap(root: &Path, arguments: &[String], file: &Path, saved: SystemTime, build_ms: u128) {
    let saved_ms = saved.elapsed().unwrap_or_default().as_millis();
    let mut exprsn = command(target_dir(root).join("release/exprsn"));
    exprsn.arg("dev").arg("--built").arg(file);
    exprsn.args([saved_ms.to_string(), build_ms.to_string()]);
    match option(arguments, "--config") {
        Some(config) => exprsn.args(["--config", &config]),
        None => exprsn.arg("--config").arg(root.join("platform.toml")),
    };
    if let Some(data) = option(arguments, "--data") {
        exprsn.args(["--data", &data]);
    }
    if let Err(error) = exprsn.status() {
        say(&format!("{} exprsn dev: {error}", red("cannot start")));
    }
}

/// The value of an option, written either way.
fn option(arguments: &[String], name: &str) -> Option<String> {
    let at = arguments.iter().position(|argument| argument == name);
    let apart = at.and_then(|at| arguments.get(at + 1));
    let joined = || {
        arguments
            .iter()
            .find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
    };
    apart.map(String::as_str).or_else(joined).map(String::from)
}

/// The services that the host was told to run; none where it runs all.
fn running(arguments: &[String]) -> Option<String> {
    let from_env = || std::env::var("AUTO_START_SERVICES").ok();
    option(arguments, "--services")
        .or_else(from_env)
        .filter(|list| !list.trim().is_empty())
}

/// Whether a list of full or short names, as `--services` takes it, has this service.
fn lists(list: &str, name: &str) -> bool {
    let short = name.strip_prefix("exprsn-").unwrap_or(name);
    list.split(',')
        .map(str::trim)
        .any(|listed| listed == name || listed == short)
}

/// Services that depend on changed sources.
#[derive(Debug, PartialEq)]
enum Affected {
    All,
    Some(BTreeSet<String>),
}

impl Affected {
    fn by(root: &Path, changed: &[PathBuf]) -> Self {
        let mut names = BTreeSet::new();
        for path in changed {
            let inner = path.strip_prefix(root).unwrap_or(path);
            let mut parts = inner.iter().map(|part| part.to_string_lossy().into_owned());
            let (top, next, below) = (parts.next(), parts.next(), parts.next().is_some());
            match (top.as_deref(), next) {
                // The SDK and the workspace's own files are part of every service.
                (Some("components"), Some(name)) if name != "sdk" && below => names.insert(name),
                (Some("migrations"), Some(name)) if below => names.insert(name),
                _ => return Self::All,
            };
        }
        Self::Some(names)
    }

    /// Only those that run.
    fn among(self, services: Option<&str>) -> Self {
        match (self, services) {
            (Self::Some(names), Some(list)) => Self::Some(
                names
                    .into_iter()
                    .filter(|name| lists(list, &format!("exprsn-{name}")))
                    .collect(),
            ),
            (affected, _) => affected,
        }
    }
}

/// The sources, each with when it was written and its length.
struct Sources(BTreeMap<PathBuf, (SystemTime, u64)>);

impl Sources {
    fn look(root: &Path) -> Result<Self> {
        let mut found = BTreeMap::new();
        for folder in WATCHED {
            gather(&root.join(folder), &mut found)?;
        }
        Ok(Self(found))
    }

    /// New, different and vanished files.
    fn changed_since(&self, before: &Self) -> Vec<PathBuf> {
        let differs = |path: &&PathBuf| self.0.get(*path) != before.0.get(*path);
        let all: BTreeSet<&PathBuf> = self.0.keys().chain(before.0.keys()).collect();
        all.into_iter().filter(differs).cloned().collect()
    }

    /// When the last of them was written; now, where they have vanished.
    fn saved(&self, changed: &[PathBuf]) -> SystemTime {
        let written = changed.iter().filter_map(|path| Some(self.0.get(path)?.0));
        written.max().unwrap_or_else(SystemTime::now)
    }
}

fn gather(folder: &Path, found: &mut BTreeMap<PathBuf, (SystemTime, u64)>) -> Result<()> {
    for path in entries(folder)? {
        let name = file_name(&path);
        if name.starts_with('.') || name.ends_with('~') || IGNORED.contains(&name.as_str()) {
            continue;
        }
        // A file may vanish while it is looked at.
        let Ok(meta) = std::fs::metadata(&path) else {
            continue;
        };
        if meta.is_dir() {
            gather(&path, found)?;
        } else if let Ok(written) = meta.modified() {
            found.insert(path, (written, meta.len()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affected(paths: &[&str]) -> Affected {
        let root = Path::new("/r");
        let changed: Vec<_> = paths.iter().map(|path| root.join(path)).collect();
        Affected::by(root, &changed)
    }

    fn names(names: &[&str]) -> Affected {
        Affected::Some(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn a_service_depends_on_its_own_folders() {
        let changed = [
            "components/auth/src/lib.rs",
            "migrations/herald/0001_init.sql",
        ];
        assert_eq!(affected(&changed), names(&["auth", "herald"]));
        assert_eq!(affected(&[]), names(&[]));
    }

    #[test]
    fn every_service_depends_on_what_they_share() {
        for shared in [
            "components/sdk/src/lib.rs",
            "wit/world.wit",
            "components/Cargo.toml",
        ] {
            assert_eq!(
                affected(&["components/auth/src/lib.rs", shared]),
                Affected::All,
                "{shared}"
            );
        }
    }

    #[test]
    fn services_that_do_not_run_are_left_alone() {
        let some = || affected(&["components/auth/src/lib.rs", "components/ca/src/lib.rs"]);
        assert_eq!(some().among(Some("ca,exprsn-setup")), names(&["ca"]));
        assert_eq!(some().among(None), names(&["auth", "ca"]));
    }

    #[test]
    fn options_are_found_either_way() {
        let arguments: Vec<_> = ["--data", "d", "--services=ca"].map(String::from).to_vec();
        assert_eq!(option(&arguments, "--data").as_deref(), Some("d"));
        assert_eq!(option(&arguments, "--services").as_deref(), Some("ca"));
        assert_eq!(option(&arguments, "--config"), None);
    }

    #[test]
    fn new_different_and_vanished_files_are_changes() {
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let sources = |files: &[(&str, u64)]| {
            Sources(
                files
                    .iter()
                    .map(|(name, second)| (name.into(), (at(*second), 1)))
                    .collect(),
            )
        };
        let before = sources(&[("a", 1), ("b", 1), ("c", 1)]);
        let now = sources(&[("a", 1), ("b", 2), ("d", 3)]);
        let changed = now.changed_since(&before);
        assert_eq!(changed, ["b", "c", "d"].map(PathBuf::from));
        assert_eq!(now.saved(&changed), at(3));
    }
}
