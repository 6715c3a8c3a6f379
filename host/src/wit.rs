//! The WIT packages of this host's version, as third parties build against them, and whether they still can.
//!
//! **Invariant:** what `exprsn wit` gives away is what this host links: both come from the folder `wit/`.

pub mod compatibility;

use std::collections::BTreeMap;
use wit_parser::{PackageId, Resolve, SourceMap};

/// Declares [`FILES`] from paths below `wit/`.
macro_rules! files {
    ($($path:literal,)+) => {
        /// Every WIT file that a third party needs, by its path below `wit/`, with its text.
        pub const FILES: &[(&str, &str)] = &[$((
            $path,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/", $path)),
        )),+];
    };
}

mod files;

pub use files::FILES;

/// The namespace of our own packages.
pub const NAMESPACE: &str = "exprsn";

/// WIT files by path, `<folder>/<file>`: one folder is one package.
pub type Sources = BTreeMap<String, String>;

/// The files of this host's version, by package folder and name.
pub fn sources() -> Sources {
    let files = FILES.iter();
    files
        .filter_map(|(path, text)| Some((path.split_once('/')?.1.to_owned(), (*text).to_owned())))
        .collect()
}

/// Parses packages that depend on one another only. The error names file and line.
pub fn resolve(sources: &Sources) -> Result<Resolve, String> {
    let mut folders: BTreeMap<&str, SourceMap> = BTreeMap::new();
    for (path, text) in sources {
        let folder = path.split_once('/').map_or("", |(folder, _)| folder);
        let map = folders.entry(folder).or_default();
        map.push_str(path, text.as_str());
    }
    let mut groups = Vec::new();
    for map in folders.into_values() {
        let group = map
            .parse()
            .map_err(|(map, error)| error.render(&map).to_string())?;
        groups.push(group);
    }
    let mut resolve = Resolve::default();
    let main = groups.pop().ok_or("there is no WIT file")?;
    match resolve.push_groups(main, groups) {
        Ok(_) => Ok(resolve),
        Err(error) => Err(resolve.render_error(&error.into())),
    }
}

/// Our own packages, sorted by name and version.
pub fn packages(resolve: &Resolve) -> Vec<PackageId> {
    let ours = resolve.packages.iter();
    let mut ours: Vec<_> = ours
        .filter(|(_, package)| package.name.namespace == NAMESPACE)
        .map(|(id, package)| (&package.name, id))
        .collect();
    ours.sort();
    ours.into_iter().map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_parses_and_has_a_twin_where_it_is_asynchronous() {
        let resolve = resolve(&sources()).unwrap();
        let names: Vec<_> = packages(&resolve)
            .into_iter()
            .map(|id| resolve.packages[id].name.to_string())
            .collect();
        for expected in ["exprsn:extension@1.0.0", "exprsn:sql@1.0.0"] {
            assert!(names.iter().any(|name| name == expected), "{names:?}");
        }
        let sql = resolve
            .packages
            .iter()
            .find(|(_, package)| package.name.name == "sql");
        let (_, sql) = sql.unwrap();
        assert!(sql.interfaces.contains_key("database-sync"));
    }

    #[test]
    fn what_does_not_parse_is_named() {
        let text = |text: &str| Sources::from([("x/bad.wit".to_owned(), text.to_owned())]);
        let error = resolve(&text("package a:b; interface {")).unwrap_err();
        assert!(error.contains("x/bad.wit:1"), "{error}");
        let error = resolve(&text("package a:b; interface c { use d.{e}; }")).unwrap_err();
        assert!(error.contains("x/bad.wit:1"), "{error}");
    }
}
