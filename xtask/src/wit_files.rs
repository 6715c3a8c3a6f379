//! The list of WIT files that the host embeds for `exprsn wit`, and the snapshot of what was published of them.
//!
//! **Invariant:** the snapshot grows; what is in it is taken out by nobody, and changed by additions only.

use crate::build_components::build_host;
use crate::shell::{
    About, Failure, Result, command, entries, file_name, run, say, target_dir, write_if_changed,
};
use std::path::{Path, PathBuf};

/// Folders below `wit/` whose folders are packages.
const FOLDERS: [&str; 2] = ["deps", "extension"];
/// Where the list is.
const LIST: &str = "host/src/wit/files.rs";
/// Where the snapshot is, for the version that all our packages have.
const PUBLISHED: &str = "wit/published/1.0.0";

/// Writes the list where it is not as it should be.
pub fn write_list(root: &Path) -> Result<()> {
    if write_if_changed(&root.join(LIST), list(root)?.as_bytes())? {
        say(&format!("wrote {LIST}"));
    }
    Ok(())
}

/// Says whether the list is not what `write_list` would write.
pub fn stale(root: &Path) -> Result<Option<String>> {
    let held = std::fs::read_to_string(root.join(LIST)).unwrap_or_default();
    Ok((held != list(root)?).then(|| {
        format!("{LIST}: does not list the files below wit/; run `cargo xtask wit-twins`")
    }))
}

fn list(root: &Path) -> Result<String> {
    let mut paths = Vec::new();
    for path in files(root)? {
        let path = path.strip_prefix(root.join("wit")).unwrap_or(&path);
        paths.push(format!("    {:?},\n", path.display().to_string()));
    }
    Ok(format!(
        "//! The files below `wit/` that `exprsn wit` gives away: written by `cargo xtask wit-twins`.\n\nfiles! {{\n{}}}\n",
        paths.concat()
    ))
}

/// Every WIT file of a package, sorted.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in FOLDERS {
        for package in entries(&root.join("wit").join(folder))? {
            files.extend(entries(&package)?);
        }
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "wit"));
    Ok(files)
}

/// The folder of a file, which is that of its package.
fn package(file: &Path) -> String {
    file.parent().map(file_name).unwrap_or_default()
}

/// `cargo xtask wit-publish`: makes the present packages the published ones, if they do all that those did.
pub fn wit_publish(root: &Path) -> Result<()> {
    write_list(root)?;
    let published = root.join(PUBLISHED);
    if published.exists() {
        build_host(root)?;
        let mut check = command(target_dir(root).join("release/exprsn"));
        run(check.args(["wit", "--check"]).arg(&published)).map_err(|_| {
            Failure::new("nothing was published: it would take back what was published before")
        })?;
    }
    // A file may have another name now; what it said is still said, or the check would have failed.
    if published.exists() {
        std::fs::remove_dir_all(&published).about("clearing", &published)?;
    }
    let mut files = files(root)?;
    files.retain(|path| package(path).starts_with("exprsn-"));
    for path in &files {
        let folder = published.join(package(path));
        std::fs::create_dir_all(&folder).about("creating", &folder)?;
        std::fs::copy(path, folder.join(file_name(path))).about("copying", path)?;
    }
    say(&format!(
        "{} files are published in {PUBLISHED}",
        files.len()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_packages_of_both_folders() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let list = list(&root).unwrap();
        for path in [
            "deps/exprsn-sql/sql-sync.wit",
            "extension/wasi-http-0.2/http.wit",
        ] {
            assert!(list.contains(&format!("    \"{path}\",\n")), "{list}");
        }
        assert_eq!(stale(&root).unwrap(), None);
    }
}
