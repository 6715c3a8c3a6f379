//! Rules of the repository that no other tool checks.
//!
//! Function length is clippy's `too_many_lines`; the sets that must be equal are compared by the host's `coverage.rs`.

use crate::embed::check_migration_name;
use crate::shell::{About, Failure, Result, entries};
use std::path::{Path, PathBuf};

/// Fails with the complete list of what breaks a rule.
pub fn tidy(root: &Path) -> Result<()> {
    let mut faults = Vec::new();
    for path in rust_files(root)? {
        let text = std::fs::read_to_string(&path).about("reading", &path)?;
        if !opens_with_module_docs(&text) {
            faults.push(format!(
                "{}: opens with no `//!` that says what the module is",
                path.display()
            ));
        }
    }
    for service in entries(&root.join("migrations"))? {
        for file in entries(&service)? {
            faults.extend(
                check_migration_name(&file)
                    .err()
                    .map(|failure| failure.to_string()),
            );
        }
    }
    faults.extend(crate::wit_twins::stale(root)?);
    faults.extend(crate::wit_files::stale(root)?);
    if faults.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} rules broken:\n  {}",
        faults.len(),
        faults.join("\n  ")
    )))
}

fn opens_with_module_docs(text: &str) -> bool {
    text.trim_start().starts_with("//!")
}

/// Every source file of ours; generated ones lie in target folders only.
fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![
        root.join("host/src"),
        root.join("host/tests/all"),
        root.join("host/benches"),
        root.join("xtask/src"),
    ];
    for workspace in [root.join("components"), root.join("host/tests/guests")] {
        folders.extend(
            entries(&workspace)?
                .into_iter()
                .map(|member| member.join("src")),
        );
    }
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in entries(&folder)? {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repository_has_module_docs_in_xtask() {
        let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = rust_files(xtask.parent().unwrap()).unwrap();
        assert!(files.contains(&xtask.join("src/tidy.rs")), "{files:?}");
        assert!(opens_with_module_docs("\n//! What it is.\nfn x() {}"));
        assert!(!opens_with_module_docs("// a comment\n//! too late"));
    }
}
