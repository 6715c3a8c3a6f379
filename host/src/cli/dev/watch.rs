//! Which sources have changed, and when.

use crate::cli::output::{CliError, Result};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// How long nothing must change before a change counts as whole: editors write several files, and each in steps.
const QUIET: Duration = Duration::from_millis(60);

/// Folders of tools, not of sources.
const IGNORED_FOLDERS: [&str; 4] = ["target", "node_modules", "__pycache__", "dist"];
/// Endings of files that builds and editors write.
const IGNORED_ENDINGS: [&str; 5] = [".wasm", ".tmp", ".swp", ".swx", "~"];

/// Watches a folder of sources. What tools write there is left out.
pub struct Watch {
    folder: PathBuf,
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    changes: mpsc::UnboundedReceiver<(PathBuf, Instant)>,
}

impl Watch {
    /// Begins to watch.
    pub fn begin(folder: &Path) -> Result<Self> {
        let (tell, changes) = mpsc::unbounded_channel();
        let root = folder.to_owned();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let now = Instant::now();
            // An overflow says that something changed, not what.
            let paths = match event {
                Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
                Ok(event) if event.need_rescan() => vec![root.clone()],
                Ok(event) => event.paths,
                Err(_) => vec![root.clone()],
            };
            for path in paths.into_iter().filter(|path| is_source(&root, path)) {
                // Nobody listens any more when the command ends.
                let _ = tell.send((path, now));
            }
        });
        let watcher = watcher.map_err(|error| failed(folder, &error))?;
        let mut watch = Self {
            folder: folder.to_owned(),
            watcher,
            watched: BTreeSet::new(),
            changes,
        };
        watch.follow()?;
        Ok(watch)
    }

    /// Watches the folder, and folders of sources in it that are new. Whole trees of tools' files are never looked at.
    fn follow(&mut self) -> Result {
        let mut found = vec![(self.folder.clone(), RecursiveMode::NonRecursive)];
        let entries = fs::read_dir(&self.folder).map_err(|error| {
            CliError::failed(format!("cannot list `{}`: {error}", self.folder.display()))
        })?;
        let folders = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.is_dir() && is_source(&self.folder, path));
        found.extend(folders.map(|path| (path, RecursiveMode::Recursive)));
        for (path, mode) in found {
            if self.watched.insert(path.clone()) {
                self.watcher
                    .watch(&path, mode)
                    .map_err(|error| failed(&path, &error))?;
            }
        }
        self.watched.retain(|path| path.is_dir());
        Ok(())
    }

    /// Waits for the next change and until it is whole; answers when it began, which is when the developer saved.
    pub async fn changed(&mut self) -> Result<Instant> {
        let gone = || CliError::failed("the watcher of files has ended");
        let (_, saved) = self.changes.recv().await.ok_or_else(gone)?;
        while let Ok(next) = tokio::time::timeout(QUIET, self.changes.recv()).await {
            next.ok_or_else(gone)?;
        }
        self.follow()?;
        Ok(saved)
    }
}

fn failed(path: &Path, error: &notify::Error) -> CliError {
    CliError::failed(format!("cannot watch `{}`: {error}", path.display())).remedy(
        "where the system has no more watches, raise fs.inotify.max_user_watches with sysctl",
    )
}

/// Whether a path below `folder` is a source: no part of it is hidden or a tool's.
fn is_source(folder: &Path, path: &Path) -> bool {
    let Ok(inner) = path.strip_prefix(folder) else {
        return false;
    };
    inner.components().all(|part| {
        let part = part.as_os_str().to_string_lossy();
        !part.starts_with('.')
            && !IGNORED_FOLDERS.contains(&&*part)
            && !IGNORED_ENDINGS.iter().any(|ending| part.ends_with(ending))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_write_is_no_source() {
        let folder = Path::new("/p");
        for source in [
            "src/lib.rs",
            "component.toml",
            "wit/world.wit",
            "Cargo.lock",
            "",
        ] {
            assert!(is_source(folder, &folder.join(source)), "{source}");
        }
        for other in [
            "target/release/a.d",
            "node_modules/a/index.js",
            ".git/index",
            "component.wasm",
            "src/.lib.rs.swp",
            "src/lib.rs~",
            "__pycache__/app.pyc",
        ] {
            assert!(!is_source(folder, &folder.join(other)), "{other}");
        }
        assert!(!is_source(folder, Path::new("/elsewhere")));
    }

    #[tokio::test]
    async fn saving_is_noticed_in_new_folders_too() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let mut watch = Watch::begin(&root).unwrap();
        let before = Instant::now();
        fs::create_dir(root.join("src")).unwrap();
        assert!(watch.changed().await.unwrap() >= before);
        fs::write(root.join("src/lib.rs"), "a").unwrap();
        watch.changed().await.unwrap();
        fs::write(root.join("component.wasm"), "no source").unwrap();
        fs::write(root.join("src/lib.rs"), "b").unwrap();
        watch.changed().await.unwrap();
    }
}
