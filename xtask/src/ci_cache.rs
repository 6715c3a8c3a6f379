//! The build folder that CI machines keep between clones, so that wasmtime is compiled once and not for every change.
//!
//! **Invariants:** one run at a time uses it; nothing of ours that another clone built is taken for fresh (cargo compares
//! times, and another commit's binary may be younger than this clone's sources); it does not grow for ever.

use crate::build_components::Kind;
use crate::manifest;
use crate::shell::{About, Result, cache_dir, entries, file_name, say, target_dir};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Beyond this size the folder is thrown away and built afresh.
const BYTES_MAX: u64 = 16_000_000_000;

/// Makes the folder ready for this run; whoever holds the answer has the folder alone.
///
/// Does nothing to a person's own target folder.
pub fn prepare(root: &Path) -> Result<Option<File>> {
    let folder = target_dir(root);
    if folder != cache_dir().join("target") {
        return Ok(None);
    }
    std::fs::create_dir_all(cache_dir()).about("creating", &cache_dir())?;
    let lock_path = cache_dir().join("target.lock");
    let lock = File::create(&lock_path).about("creating", &lock_path)?;
    if lock.try_lock().is_err() {
        say(&format!(
            "waiting for another run that uses {}",
            folder.display()
        ));
        lock.lock().about("locking", &lock_path)?;
    }
    if bytes_below(&folder) > BYTES_MAX {
        say(&format!(
            "{} has grown beyond {} GB: starting afresh",
            folder.display(),
            BYTES_MAX / 1_000_000_000
        ));
        std::fs::remove_dir_all(&folder).about("removing", &folder)?;
    }
    forget_own_packages(&folder, &own_packages(root)?)?;
    Ok(Some(lock))
}

fn own_packages(root: &Path) -> Result<Vec<String>> {
    let mut packages = Vec::new();
    for workspace in [
        root.to_path_buf(),
        Kind::Services.workspace(root),
        Kind::Guests.workspace(root),
    ] {
        for member in entries(&workspace)? {
            let cargo_toml = std::fs::read_to_string(member.join("Cargo.toml")).unwrap_or_default();
            packages.extend(manifest::string(&cargo_toml, "package", "name"));
        }
    }
    Ok(packages)
}

/// Makes cargo build our packages again, while what it knows of all others stays.
fn forget_own_packages(target: &Path, packages: &[String]) -> Result<()> {
    for folder in profile_folders(target)? {
        for fingerprint in entries(&folder.join(".fingerprint"))? {
            let name = file_name(&fingerprint);
            let is_own = |(package, _hash): (&str, &str)| packages.iter().any(|own| own == package);
            if name.rsplit_once('-').is_some_and(is_own) {
                std::fs::remove_dir_all(&fingerprint).about("removing", &fingerprint)?;
            }
        }
        let incremental = folder.join("incremental");
        if incremental.is_dir() {
            std::fs::remove_dir_all(&incremental).about("removing", &incremental)?;
        }
    }
    Ok(())
}

/// Folders of one profile each: `release`, `wasm32-wasip2/release`, the same below `components`, and so on.
fn profile_folders(target: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(target.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if folder.join(".fingerprint").is_dir() {
            found.push(folder);
        } else if depth < 3 {
            let below = entries(&folder)?.into_iter().filter(|path| path.is_dir());
            folders.extend(below.map(|path| (path, depth + 1)));
        }
    }
    Ok(found)
}

fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_packages_are_forgotten_and_no_others() {
        let target = std::env::temp_dir().join(format!("exprsn-ci-cache-{}", std::process::id()));
        let folders = [
            "release/.fingerprint/exprsn-0123456789abcdef",
            "release/.fingerprint/tokio-0123456789abcdef",
            "release/incremental/exprsn-x",
            "components/wasm32-wasip2/release/.fingerprint/exprsn-auth-0123456789abcdef",
        ];
        for folder in folders {
            std::fs::create_dir_all(target.join(folder)).unwrap();
        }
        forget_own_packages(&target, &["exprsn".to_string(), "exprsn-auth".to_string()]).unwrap();
        let left: Vec<bool> = folders
            .iter()
            .map(|folder| target.join(folder).exists())
            .collect();
        assert_eq!(left, [false, true, false, false]);
        std::fs::remove_dir_all(target).unwrap();
    }
}
